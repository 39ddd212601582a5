//! The list of probes that run inside, and the program that runs one of them.
//!
//! Each tries one attack once and says what came of it, in one line of JSON. Bounded: one probe a process, its input
//! and its answer. Deliberately absent: judgement; the host compares the answer with what must be.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use outpost_sandbox::attack::{self, Call};
use outpost_sandbox::{Limits, Weakness};
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Tries};
use crate::inside;
use crate::verdict::Group;

/// First argument that makes the program a probe; the second is the probe's name.
pub const PROBE_ARGUMENT: &str = "__probe";
/// Third argument without which a probe refuses to run where it is not in a sandbox of ours.
pub(crate) const OUTSIDE_ARGUMENT: &str = "--outside";
/// Longest description of the bait, bytes.
const BAIT_BYTES_MAX: u64 = 64 * 1024;
/// Longest answer of a probe, bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Host name of every sandbox.
const SANDBOX_HOST_NAME: &[u8] = b"outpost";

/// What the host laid out for the attacks to find, and what it allows them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Bait {
    /// A process of the host.
    pub(crate) host_pid: i32,
    /// Port of a TCP listener on the host's loopback.
    pub(crate) tcp_port: u16,
    /// Name of an abstract unix socket that the host listens at.
    pub(crate) abstract_name: String,
    /// Path on the host of a unix socket that everybody may connect to.
    pub(crate) socket_path: String,
    /// Path on the host of the launcher's socket.
    pub(crate) launcher_socket: String,
    /// Path on the host of a file in another run's workspace, which belongs to the payload's user.
    pub(crate) neighbour_file: String,
    /// What is in it.
    pub(crate) secret: String,
    /// The workspace, inside.
    pub(crate) workspace: String,
    /// The same on the host.
    pub(crate) workspace_on_host: String,
    /// A directory bound read-only whose files everybody may write to, inside.
    pub(crate) mirror: String,
    /// A copy of the probe that belongs to root and has the setuid bit, where the host could make one.
    pub(crate) setuid_program: Option<String>,
    /// Names and identities of the host's namespaces.
    pub(crate) namespaces: Vec<(String, String)>,
    /// Names of the variables that the payload was given.
    pub(crate) variables: Vec<String>,
    /// How much a flood tries to get: bytes, files, processes.
    pub(crate) amount: u64,
    /// How long a flood holds what it got before it believes that it may keep it, milliseconds.
    pub(crate) hold_millis: u64,
}

/// A change to the limits of a sandbox.
pub(crate) type Change = fn(&mut Limits);

/// How it is shown that a probe would notice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof {
    /// In a sandbox without these protections the attack succeeds.
    Weakened(&'static [Weakness]),
    /// Without any sandbox, as root, the attack succeeds.
    Outside,
    /// The same, as an ordinary user.
    OutsideAsUser,
    /// In a sandbox whose limits are wide the flood gets what it wants.
    Wide(Change),
    /// It cannot be shown here; why.
    Not(&'static str),
}

/// What a probe does.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// A system call that must not get into the kernel.
    Call(Call),
    /// Code.
    Run(fn(&Bait) -> Attempt),
}

/// One attack from inside.
#[derive(Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) group: Group,
    /// Stable, unique, lower case: `group.what`.
    pub(crate) name: &'static str,
    /// What it tries, for people.
    pub(crate) attack: &'static str,
    pub(crate) act: Act,
    pub(crate) proof: Proof,
    /// Changes to the limits of an agent's sandbox, and the amount a flood tries to get.
    pub(crate) flood: Option<(Change, u64)>,
}

impl Probe {
    pub(crate) const fn new(
        group: Group,
        name: &'static str,
        attack: &'static str,
        run: fn(&Bait) -> Attempt,
        proof: Proof,
    ) -> Self {
        Self { group, name, attack, act: Act::Run(run), proof, flood: None }
    }

    pub(crate) const fn call(
        name: &'static str,
        attack: &'static str,
        call: Call,
        proof: Proof,
    ) -> Self {
        Self { group: Group::Calls, name, attack, act: Act::Call(call), proof, flood: None }
    }

    fn run(&self, bait: &Bait) -> Attempt {
        match self.act {
            Act::Call(call) => Tries::filtered(self.attack, attack::make(call)),
            Act::Run(run) => run(bait),
        }
    }
}

/// All probes, in the order they are run.
pub(crate) fn probes() -> impl Iterator<Item = &'static Probe> {
    inside::ALL.iter().copied().flatten()
}

/// Runs the probe named by the first argument, with the bait's description on standard input, and prints its answer
/// as one line of JSON. Exit code 0 if it could be tried, whatever came of it.
///
/// Outside of a sandbox it does nothing unless told so, since some attacks would succeed there.
pub fn probe_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match answer(arguments) {
        // The standard output may be what was flooded.
        Ok(line) => {
            match writeln!(io::stdout(), "{line}").or_else(|_| writeln!(io::stderr(), "{line}")) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(problem) => {
            let _nowhere_else_to_say_it = writeln!(io::stderr(), "{problem}");
            ExitCode::from(2)
        }
    }
}

fn answer(arguments: impl IntoIterator<Item = OsString>) -> Result<String, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|name| name.to_str()).unwrap_or_default();
    let outside = arguments.get(1).is_some_and(|word| word == OUTSIDE_ARGUMENT);
    if !outside && rustix::system::uname().nodename().to_bytes() != SANDBOX_HOST_NAME {
        return Err("a probe runs inside a sandbox only; use `outpost selftest`".to_owned());
    }
    if let Some(said) = inside::help(&arguments) {
        return said;
    }
    let probe = probes().find(|probe| probe.name == name);
    let probe = probe.ok_or_else(|| format!("there is no probe {name:?}"))?;
    let mut text = Vec::new();
    io::stdin()
        .take(BAIT_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| format!("the bait's description: {error}"))?;
    let bait: Bait = serde_json::from_slice(&text)
        .map_err(|error| format!("the bait's description: {error}"))?;
    serde_json::to_string(&probe.run(&bait)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_their_group() {
        let mut names = BTreeSet::new();
        for probe in probes() {
            assert!(names.insert(probe.name), "{} twice", probe.name);
            assert!(probe.name.starts_with(probe.group.word()), "{}", probe.name);
        }
    }

    #[test]
    fn outside_of_a_sandbox_nothing_is_tried() {
        let error = answer([OsString::from("call.keyctl")]).unwrap_err();
        assert!(error.contains("inside a sandbox only"), "{error}");
        assert!(answer(["call.none", OUTSIDE_ARGUMENT].map(OsString::from)).is_err());
    }
}
