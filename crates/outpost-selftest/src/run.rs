//! Runs all probes and judges them; and shows, for the tests, that each would notice.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use outpost_sandbox::{
    ExitReport, IsolationLevel, ParkedSandbox, Sandbox as _, SandboxError, SandboxPolicy,
    SandboxSpec,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use crate::attempt::Attempt;
use crate::host;
use crate::probe::{ANSWER_BYTES_MAX, OUTSIDE_ARGUMENT, PROBE_ARGUMENT, Probe, Proof, probes};
use crate::stage::{Place, Stage};
use crate::verdict::{Group, Report, Standing, Verdict};

/// How long one probe may take, seconds. Most take milliseconds; a flood waits for a watched limit.
const PROBE_SECONDS_MAX: u64 = 100;
/// Most bytes read from one stream of a probe: a pipe can hold no more.
const STREAM_BYTES_MAX: u64 = 2 << 20;
/// Nobody, on every Linux system.
const ORDINARY_ID: u32 = 65_534;

/// What the self-test runs with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that becomes the launcher; normally `/proc/self/exe`.
    pub launcher_program: PathBuf,
    /// Its arguments before socket and idle time; normally [`outpost_sandbox::LAUNCHER_ARGUMENT`].
    pub launcher_arguments: Vec<String>,
    /// The program that runs a probe when its first argument is [`PROBE_ARGUMENT`]; normally `/proc/self/exe`. It is
    /// shown read-only inside.
    pub probe_program: PathBuf,
    /// The isolation that the operator insists on.
    pub policy: SandboxPolicy,
}

/// Why no verdict could be reached.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// No sandbox could be made.
    #[error("no sandbox can be made here: {0}")]
    Sandbox(#[from] SandboxError),
    /// Something on the host's side failed.
    #[error(
        "the self-test could not be set up; check the free space and rights of the temporary directory"
    )]
    Io(#[from] io::Error),
    /// A probe did not say what came of it.
    #[error(
        "the probe {name} gave no answer ({what}); run it again, and report it if that happens twice"
    )]
    NoAnswer {
        /// Its name.
        name: String,
        /// How it ended and what it said.
        what: String,
    },
    /// The part that is not a sandbox's failed.
    #[error("the probe {name} could not be set up: {what}")]
    Host {
        /// Its name.
        name: &'static str,
        /// What went wrong.
        what: String,
    },
}

/// Runs every probe in a sandbox made like an agent's; `on_verdict` hears each verdict as it is reached.
///
/// # Errors
/// See [`SelftestError`]; then there is no verdict, and nothing may be concluded.
pub async fn run(
    options: &Options,
    mut on_verdict: impl FnMut(&Verdict),
) -> Result<Report, SelftestError> {
    let stage = Stage::build(options).await?;
    let limits = stage.sandbox.host().await?.isolation.level >= IsolationLevel::Limits;
    let mut verdicts: Vec<Verdict> = Vec::new();
    let mut add = |verdict: Verdict| {
        on_verdict(&verdict);
        verdicts.push(verdict);
    };
    for probe in probes() {
        add(verdict_of(&stage, probe, limits).await?);
    }
    for probe in host::PROBES {
        let attempt = (probe.run)(&stage, host::Mode::Real).await?;
        add(judge(probe.group, probe.name, probe.attack, &attempt, false));
    }
    let isolation = inside_isolation(&stage).await?;
    let rootless = !stage.root;
    host::leftovers(stage).await?.into_iter().for_each(&mut add);
    Ok(Report { verdicts, enforced: isolation.enforced, missing: isolation.missing, rootless })
}

async fn inside_isolation(stage: &Stage) -> Result<outpost_sandbox::Isolation, SelftestError> {
    let place = stage.place()?;
    let parked = stage.sandbox.create(stage.agent_spec(&place)).await?;
    let isolation = parked.isolation().clone();
    parked.discard().await?;
    Ok(isolation)
}

async fn verdict_of(stage: &Stage, probe: &Probe, limits: bool) -> Result<Verdict, SelftestError> {
    let impossible = match probe.name {
        "privilege.setuid-program" if !stage.root => Some("only root can make such a program"),
        _ => None,
    };
    if let Some(why) = impossible {
        let attempt = Attempt::blocked(why);
        let mut verdict = judge(probe.group, probe.name, probe.attack, &attempt, false);
        verdict.standing = Standing::Untried;
        return Ok(verdict);
    }
    let place = stage.place()?;
    let mut spec = stage.agent_spec(&place);
    if let Some((narrow, _)) = probe.flood {
        narrow(&mut spec.limits);
    }
    let attempt = inside(stage, probe, &place, spec, true).await?;
    std::fs::remove_dir_all(&place.dir).or_else(|_| reclaim(&place))?;
    // Memory is bounded by a cgroup or not at all; a host without one says so in every run.
    let unlimited = !limits && probe.name == "flood.memory";
    Ok(judge(probe.group, probe.name, probe.attack, &attempt, unlimited))
}

/// Removes what cannot be listed.
fn reclaim(place: &Place) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["workspace/hidden", "workspace/hidden/deep"] {
        let open = std::fs::Permissions::from_mode(0o700);
        let _not_there = std::fs::set_permissions(place.dir.join(name), open);
    }
    std::fs::remove_dir_all(&place.dir)
}

pub(crate) fn judge(
    group: Group,
    name: &str,
    attack: &str,
    attempt: &Attempt,
    missing: bool,
) -> Verdict {
    let standing = match attempt.succeeded {
        false => Standing::Held,
        true if missing => Standing::Missing,
        true => Standing::Broken,
    };
    Verdict {
        group,
        name: name.to_owned(),
        attack: attack.to_owned(),
        standing,
        errno: attempt.errno,
        detail: attempt.detail.clone(),
    }
}

/// Runs one probe in one sandbox.
async fn inside(
    stage: &Stage,
    probe: &Probe,
    place: &Place,
    spec: SandboxSpec,
    limited: bool,
) -> Result<Attempt, SelftestError> {
    let parked = stage.sandbox.create(spec).await?;
    probe_in(stage, probe, place, parked, limited).await
}

/// Runs one probe in a sandbox that is parked.
pub(crate) async fn probe_in(
    stage: &Stage,
    probe: &Probe,
    place: &Place,
    parked: Box<dyn ParkedSandbox>,
    limited: bool,
) -> Result<Attempt, SelftestError> {
    let bait = stage.bait(place, probe, limited)?;
    let mut running = parked.start(stage.payload(probe, &bait)?).await?;
    let (stdout, stderr) = (running.take_stdout(), running.take_stderr());
    let ended = tokio::time::timeout(Duration::from_secs(PROBE_SECONDS_MAX), running.wait()).await;
    let report = match ended {
        Ok(report) => report?,
        Err(_) => {
            running.kill().await?;
            running.wait().await?
        }
    };
    let said = (read(stdout).await?, read(stderr).await?);
    running.release().await?;
    answer(probe, &said.0, &said.1, &report)
}

/// What is left in a pipe whose writers are gone.
pub(crate) async fn read(stream: Option<pipe::Receiver>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(STREAM_BYTES_MAX).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The probe's own words, or what its end says: who was killed for wanting too much was stopped.
fn answer(
    probe: &Probe,
    stdout: &[u8],
    stderr: &[u8],
    report: &ExitReport,
) -> Result<Attempt, SelftestError> {
    let lines = [stdout, stderr].into_iter().flat_map(|text| text.split(|byte| *byte == b'\n'));
    let said = lines
        .filter(|line| line.starts_with(b"{") && line.len() <= ANSWER_BYTES_MAX)
        .find_map(|line| serde_json::from_slice::<Attempt>(line).ok());
    if let (Some(attempt), true) = (said, report.success()) {
        return Ok(attempt);
    }
    if probe.flood.is_some() && report.oom_killed {
        return Ok(Attempt::blocked("killed at the memory limit"));
    }
    if probe.flood.is_some() && report.signal == Some(libc::SIGXFSZ) {
        return Ok(Attempt::blocked("ended by SIGXFSZ at the disk limit"));
    }
    let words = String::from_utf8_lossy(&stderr[..stderr.len().min(500)]).trim().to_owned();
    let what = format!("exit code {:?}, signal {:?}: {words}", report.exit_code, report.signal);
    Err(SelftestError::NoAnswer { name: probe.name.to_owned(), what })
}

/// How the proof of one probe came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The probe.
    pub name: &'static str,
    /// How it was weakened.
    pub how: String,
    /// What the attack came to there: it must succeed. `None` if it could not be tried.
    pub attempt: Option<Attempt>,
}

impl fmt::Display for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match &self.attempt {
            Some(attempt) if attempt.succeeded => "proven  ",
            Some(_) => "UNPROVEN",
            None => "no proof",
        };
        let detail = self.attempt.as_ref().map_or("", |attempt| attempt.detail.as_str());
        write!(f, "{word} {:28} {}: {detail}", self.name, self.how)
    }
}

/// Runs every probe where it must succeed. Only for tests: the launcher of `options` must be one that makes weakened
/// sandboxes, which the product's is not.
///
/// # Errors
/// See [`SelftestError`].
#[doc(hidden)]
pub async fn prove(options: &Options) -> Result<Vec<Proved>, SelftestError> {
    let stage = Stage::build(options).await?;
    let mut all = Vec::new();
    for probe in probes() {
        let (how, attempt) = proof(&stage, probe).await?;
        all.push(Proved { name: probe.name, how, attempt });
    }
    for probe in host::PROBES {
        let attempt = (probe.run)(&stage, host::Mode::Proof).await?;
        all.push(Proved { name: probe.name, how: probe.proof.to_owned(), attempt: Some(attempt) });
    }
    let place = stage.place()?;
    let parked = stage.sandbox.create(stage.agent_spec(&place)).await?;
    let attempt = Some(host::remains(stage.dir.path(), &stage.launcher_socket));
    all.push(Proved {
        name: "leftover.system",
        how: "while a sandbox is there".to_owned(),
        attempt,
    });
    parked.discard().await?;
    stage.sandbox.shut_down().await?;
    Ok(all)
}

async fn proof(stage: &Stage, probe: &Probe) -> Result<(String, Option<Attempt>), SelftestError> {
    let place = stage.place()?;
    let mut spec = stage.agent_spec(&place);
    if let Some((narrow, _)) = probe.flood {
        narrow(&mut spec.limits);
    }
    let how = match probe.proof {
        Proof::Weakened(off) => {
            spec.weakened = off.iter().copied().collect();
            format!("without {off:?}")
        }
        Proof::Wide(widen) => {
            widen(&mut spec.limits);
            "with a wide limit".to_owned()
        }
        Proof::Not(why) => return Ok((why.to_owned(), None)),
        Proof::Outside | Proof::OutsideAsUser if !stage.root => {
            return Ok(("only root has what is attacked".to_owned(), None));
        }
        Proof::Outside => {
            return Ok((
                "without a sandbox".to_owned(),
                Some(outside(stage, probe, &place, None)?),
            ));
        }
        Proof::OutsideAsUser => {
            let attempt = outside(stage, probe, &place, Some(ORDINARY_ID))?;
            return Ok(("without a sandbox, as an ordinary user".to_owned(), Some(attempt)));
        }
    };
    match inside(stage, probe, &place, spec, false).await {
        // It succeeded in nothing: one that cannot answer proves nothing.
        Err(SelftestError::NoAnswer { what, .. }) => Ok((how, Some(Attempt::blocked(what)))),
        other => Ok((how, Some(other?))),
    }
}

fn outside(
    stage: &Stage,
    probe: &Probe,
    place: &Place,
    user: Option<u32>,
) -> Result<Attempt, SelftestError> {
    use std::os::unix::process::CommandExt as _;
    let bait = serde_json::to_vec(&stage.bait_outside(place, probe)?).map_err(io::Error::other)?;
    let mut command = Command::new(&stage.program);
    command.args([PROBE_ARGUMENT, probe.name, OUTSIDE_ARGUMENT]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user).current_dir("/");
    } else {
        command.current_dir(&place.workspace);
    }
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&bait)?;
    }
    let output = child.wait_with_output()?;
    let code = output.status.code();
    let report = ExitReport { exit_code: code, ..ExitReport::default() };
    answer(probe, &output.stdout, &output.stderr, &report)
}
