//! Attacks that need the host's part in them: what it binds, what it collects, what it reads, what stays behind.
//!
//! Where the host is attacked by what a sandbox made, the attack must succeed against a host that trusts it; that is
//! the proof. Bounded: tries, sandboxes, sizes read.

mod layers;
mod leftovers;
mod output;
mod races;
mod results;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use outpost_sandbox::{ExitReport, GATEWAY_PORT, Payload, Sandbox as _, SandboxSpec};

pub(crate) use leftovers::{leftovers, remains};

use crate::attempt::Attempt;
use crate::run::{SelftestError, read};
use crate::stage::{PROBE_INSIDE, Stage};
use crate::verdict::Group;

/// How long a payload of this module may take, seconds.
const PAYLOAD_SECONDS_MAX: u64 = 60;
/// How long the gateway's listener waits for the probe, seconds.
const ACCEPT_SECONDS_MAX: u64 = 20;

/// Against the real thing, or where it must succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Real,
    Proof,
}

type Run = for<'a> fn(&'a Stage, Mode) -> Running<'a>;
type Running<'a> = Pin<Box<dyn Future<Output = Result<Attempt, SelftestError>> + 'a>>;

/// One attack of this kind.
pub(crate) struct HostProbe {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) attack: &'static str,
    /// What is weak where it must succeed.
    pub(crate) proof: &'static str,
    pub(crate) run: Run,
}

/// All of them, in the order they are run.
pub(crate) const PROBES: &[HostProbe] = &[
    HostProbe {
        group: Group::Network,
        name: "network.gateway",
        attack: "find the gateway's own listener shut",
        proof: "without a listener",
        run: |stage, mode| Box::pin(gateway(stage, mode)),
    },
    HostProbe {
        group: Group::Mounts,
        name: "mount.lower",
        attack: "change a layer below an overlay, or take the overlay away",
        proof: "with the layer itself bound",
        run: |stage, mode| Box::pin(layers::lower(stage, mode)),
    },
    HostProbe {
        group: Group::Mounts,
        name: "mount.late",
        attack: "mount, write and become more in a sandbox that got its workspace by a claim",
        proof: "with binds that are writable",
        run: |stage, mode| Box::pin(layers::late(stage, mode)),
    },
    HostProbe {
        group: Group::Races,
        name: "race.layer",
        attack: "have a link taken for a layer of an overlay",
        proof: "with a launcher that follows links",
        run: |stage, mode| Box::pin(layers::linked(stage, mode)),
    },
    HostProbe {
        group: Group::Races,
        name: "race.bind",
        attack: "swap a directory for a link to another run's while it is being bound",
        proof: "with a launcher that follows links",
        run: |stage, mode| Box::pin(races::bind(stage, mode)),
    },
    HostProbe {
        group: Group::Races,
        name: "race.place",
        attack: "have a bind placed through a planted link",
        proof: "by a host that follows links itself",
        run: |stage, mode| Box::pin(races::place(stage, mode)),
    },
    HostProbe {
        group: Group::Results,
        name: "result.git",
        attack: "run a program on the host by hooks, filters, fsmonitor, textconv of the repository",
        proof: "by running git in it as it is",
        run: |stage, mode| Box::pin(results::git(stage, mode)),
    },
    HostProbe {
        group: Group::Results,
        name: "result.artifacts",
        attack: "have a host file, a pipe or gigabytes of nothing kept as an artifact",
        proof: "by reading artifacts as they are",
        run: |stage, mode| Box::pin(results::artifacts(stage, mode)),
    },
    HostProbe {
        group: Group::Results,
        name: "result.patch",
        attack: "write beside the repository, or into .git, by a patch",
        proof: "by git apply --unsafe-paths, and by hand",
        run: |stage, mode| Box::pin(results::patch(stage, mode)),
    },
    HostProbe {
        group: Group::Output,
        name: "output.forged",
        attack: "forge an event of the platform by printing one",
        proof: "by believing what is printed",
        run: |_, mode| Box::pin(async move { Ok(output::forged(mode)) }),
    },
    HostProbe {
        group: Group::Output,
        name: "output.control",
        attack: "get terminal controls into a message",
        proof: "by taking lines as they are",
        run: |_, mode| Box::pin(async move { Ok(output::control(mode)) }),
    },
];

/// What a payload left.
struct Ended {
    report: ExitReport,
    stdout: String,
    stderr: String,
}

impl Stage {
    /// Runs a payload to its end.
    async fn payload_to_end(
        &self,
        spec: SandboxSpec,
        payload: Payload,
    ) -> Result<Ended, SelftestError> {
        let mut running = self.sandbox.create(spec).await?.start(payload).await?;
        let (stdout, stderr) = (running.take_stdout(), running.take_stderr());
        let limit = Duration::from_secs(PAYLOAD_SECONDS_MAX);
        if tokio::time::timeout(limit, running.wait()).await.is_err() {
            running.kill().await?;
        }
        let report = running.wait().await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(read(stdout).await?), text(read(stderr).await?));
        running.release().await?;
        Ok(Ended { report, stdout, stderr })
    }

    fn helper(words: &[&str]) -> Payload {
        Payload::new([PROBE_INSIDE, crate::probe::PROBE_ARGUMENT].iter().chain(words).copied())
    }
}

async fn gateway(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    let place = stage.place()?;
    let mut spec = stage.agent_spec(&place);
    if mode == Mode::Proof {
        spec.listener_port = None;
    }
    let mut parked = stage.sandbox.create(spec).await?;
    let listener = parked.take_listener();
    let running = parked.start(Stage::helper(&["connect", &GATEWAY_PORT.to_string()])).await?;
    let reached = match listener {
        Some(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let limit = Duration::from_secs(ACCEPT_SECONDS_MAX);
            tokio::time::timeout(limit, listener.accept()).await.is_ok_and(|it| it.is_ok())
        }
        None => running.wait().await?.success(),
    };
    running.release().await?;
    Ok(Attempt::found((!reached).then(|| "nobody came".to_owned()), "the listener was reached"))
}
