//! What was truly enforced, and how a sandbox ended.

use serde::{Deserialize, Serialize};

use crate::error::SandboxError;

/// How strong the isolation of a sandbox is. A later value is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationLevel {
    /// Namespaces, private root, seccomp; but memory, processes or processor are not all limited by a cgroup.
    Namespaces,
    /// The same, and memory, processes and processor time are limited by cgroups.
    Limits,
}

/// What is enforced for a sandbox on this host, in words a person can check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The level that all of it amounts to.
    pub level: IsolationLevel,
    /// Each thing enforced, for example `cgroup v1 memory` or `landlock abi 7`.
    pub enforced: Vec<String>,
    /// Each thing a stronger host would enforce, with the reason it is missing.
    pub missing: Vec<String>,
}

/// What the operator insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPolicy {
    /// Creating a sandbox below this level is refused.
    pub require: IsolationLevel,
}

impl Default for SandboxPolicy {
    /// Refuses hosts without resource limits: weaker isolation is the operator's explicit choice.
    fn default() -> Self {
        Self { require: IsolationLevel::Limits }
    }
}

impl SandboxPolicy {
    /// Accepts hosts whose cgroups are out of reach, as an ordinary user's often are. Runs report what is missing.
    #[must_use]
    pub fn allow_missing_limits() -> Self {
        Self { require: IsolationLevel::Namespaces }
    }

    /// Says whether `isolation` satisfies this policy.
    ///
    /// # Errors
    /// [`SandboxError::Unenforceable`] listing what is missing and what to do.
    pub fn check(&self, isolation: &Isolation) -> Result<(), SandboxError> {
        if isolation.level >= self.require {
            return Ok(());
        }
        Err(SandboxError::Unenforceable {
            missing: isolation.missing.clone(),
            hint: "Start Outpost as root or under `systemd-run --user --scope -p Delegate=yes`, or allow runs \
                   without resource limits in its configuration"
                .to_owned(),
        })
    }
}

/// How a sandbox ended. Sent only when no process of it lives any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// The payload's exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended the payload (9 if the whole sandbox was killed).
    pub signal: Option<i32>,
    /// A process of the sandbox was killed because the memory limit was reached.
    pub oom_killed: bool,
    /// The sandbox was killed on request.
    pub killed: bool,
    /// The launcher killed it because `wall_seconds` had passed.
    pub wall_limit_hit: bool,
    /// The launcher killed it because its read-write binds held more than `disk_bytes` or `disk_files`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disk_limit_hit: bool,
    /// Highest memory use in bytes, where a memory cgroup counted it.
    pub memory_peak_bytes: Option<u64>,
    /// User and system time of all processes, in microseconds.
    pub cpu_micros: u64,
    /// Microseconds from the start of the payload (or from creation, if nothing was started) to the end.
    pub duration_micros: u64,
    /// How often a new process was refused because of `pids_max`, where counted.
    pub pids_refused: Option<u64>,
}

impl ExitReport {
    /// True if the payload ended by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit_code == Some(0)
    }
}

/// What the launcher found out about its host when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The launcher's process id.
    pub launcher_pid: u32,
    /// False if the launcher runs as root.
    pub rootless: bool,
    /// Owner that read-write binds must have when a spec names no other.
    pub payload_owner: crate::Owner,
    /// What a sandbox without special wishes gets here.
    pub isolation: Isolation,
    /// Overlays work here, found out by making one when the launcher started. False if the launcher is of a version
    /// without them, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlay: bool,
}
