//! The agents that are tortured, and what each must come to when nobody disturbs it.
//!
//! All are shell scripts that need a fraction of a second. Each prints a start marker with a number
//! nobody else has before it does anything, and leaves the same number in the repository: a second
//! start would be seen in the log, in the diff, or in both.

use std::fmt::Write as _;

use crate::rng::Rng;

/// First word of the line that every agent prints first.
pub const START_WORD: &str = "start";
/// Where in the repository an agent leaves its start marker.
pub const START_FILE: &str = "starts.txt";
/// Lines that a counter prints to each of its streams.
pub const COUNTER_LINES: u64 = 60;
/// Name and content of the artifact that is left by [`Kind::Artifact`].
pub const ARTIFACT: (&str, &str) = ("report.txt", "the whole report\n");
/// Exit code of [`Kind::Failing`].
pub const FAILING_CODE: i32 = 7;

/// What an agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Changes a file and ends.
    Quick,
    /// Ends with [`FAILING_CODE`].
    Failing,
    /// Prints numbered lines to both streams, slowly enough to be interrupted.
    Counter,
    /// Ignores SIGTERM and never ends; whoever dispatches it cancels it.
    Stubborn,
    /// Leaves a daemon in a session of its own.
    Daemon,
    /// Leaves files that are hard to remove.
    Litter,
    /// Leaves an artifact.
    Artifact,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Quick,
        Self::Failing,
        Self::Counter,
        Self::Stubborn,
        Self::Daemon,
        Self::Litter,
        Self::Artifact,
    ];

    /// Name of the agent.
    #[must_use]
    pub const fn agent(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Failing => "failing",
            Self::Counter => "counter",
            Self::Stubborn => "stubborn",
            Self::Daemon => "daemon",
            Self::Litter => "litter",
            Self::Artifact => "artifact",
        }
    }

    /// A random one. Stubborn ones are rare: each holds a slot for the whole grace of its stop.
    pub const fn choose(rng: &mut Rng) -> Self {
        match rng.below(32) {
            0 => Self::Stubborn,
            1..=4 => Self::Failing,
            5..=14 => Self::Counter,
            15..=18 => Self::Daemon,
            19..=22 => Self::Litter,
            23..=26 => Self::Artifact,
            _ => Self::Quick,
        }
    }

    /// What it does after its start marker.
    fn script(self) -> String {
        match self {
            Self::Quick => "echo quick > quick.txt".to_owned(),
            Self::Failing => format!("echo failing > failing.txt; exit {FAILING_CODE}"),
            Self::Counter => format!(
                "i=1; while [ $i -le {COUNTER_LINES} ]; do \
                 echo line $i; echo side $i >&2; i=$((i+1)); sleep 0.01; done"
            ),
            Self::Stubborn => "trap '' TERM; while :; do sleep 0.2; done".to_owned(),
            Self::Daemon => "(setsid sh -c 'while :; do sleep 0.2; done' \
                             </dev/null >/dev/null 2>&1 &); echo left > daemon.txt"
                .to_owned(),
            Self::Litter => "mkdir -p a/b/c; echo x > a/b/c/x; ln -s /etc/passwd a/link; \
                             ln -s .. a/b/up; mkdir a/locked; echo y > a/locked/y; \
                             chmod 000 a/locked; touch .hidden; mkfifo a/pipe"
                .to_owned(),
            Self::Artifact => {
                let (name, content) = ARTIFACT;
                format!("printf '%s\\n' '{}' > ../artifacts/{name}", content.trim_end())
            }
        }
    }
}

/// The configuration that declares all agents.
#[must_use]
pub fn config(concurrency: u32) -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        let script = format!(
            "id=$(cat /proc/sys/kernel/random/uuid); echo {START_WORD} $id; \
             echo {START_WORD} $id >> {START_FILE}; {}",
            kind.script()
        );
        let command = serde_json::json!(["/bin/sh", "-c", script]);
        // A JSON array of strings is one of TOML, too.
        let _ = writeln!(
            text,
            "[[agents]]\nname = \"{}\"\ncommand = {command}\nstdin_prompt = true\n\
             tier = \"fast\"\nconcurrency_max = {concurrency}\n",
            kind.agent()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_declared_and_chosen() {
        let text = config(8);
        let mut rng = Rng::new(1, 1);
        let chosen: std::collections::BTreeSet<Kind> =
            (0..2_000).map(|_| Kind::choose(&mut rng)).collect();
        for kind in Kind::ALL {
            assert!(text.contains(&format!("name = \"{}\"", kind.agent())), "{text}");
            assert!(chosen.contains(&kind), "{kind:?}");
        }
    }
}
