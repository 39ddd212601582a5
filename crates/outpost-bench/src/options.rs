//! What a bench is told.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a bench runs, and with what.
#[derive(Debug, Clone)]
pub struct Place {
    /// Directory below which temporary ones are made: on the disk that is to be measured.
    pub temporary: PathBuf,
    /// The `outpost` program, which is started as the server.
    pub program: PathBuf,
    /// Variables of the environment that the server must not see.
    pub forget: Vec<OsString>,
    /// Version of the program, for the report.
    pub version: &'static str,
}

/// A data set.
#[derive(Debug, Clone)]
pub struct Data {
    /// Where it is kept; a temporary one when absent.
    pub dir: Option<PathBuf>,
    /// Its records.
    pub records: u64,
}

/// For [`crate::accept`] and [`crate::kill`].
#[derive(Debug, Clone, Copy)]
pub struct AcceptOptions {
    /// Clients at once, 1 or more.
    pub clients: u32,
    /// Time of each round.
    pub time: Duration,
    /// Size of the task text, bytes, 1 to 51,200.
    pub task_bytes: u32,
}

/// For [`crate::status`].
#[derive(Debug, Clone)]
pub struct StatusOptions {
    /// Its records.
    pub data: Data,
    /// Clients at once, 1 or more.
    pub clients: u32,
    /// Time of each round.
    pub time: Duration,
}

/// For [`crate::scrub()`].
#[derive(Debug, Clone, Copy)]
pub struct ScrubOptions {
    /// Size of each text, MiB, 1 or more.
    pub mib: u32,
}

/// For [`crate::list`].
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// Its records.
    pub data: Data,
    /// Clients at once, 1 or more.
    pub clients: u32,
    /// Pages of each filter, by each client.
    pub pages: u32,
}

/// For [`crate::restart`].
#[derive(Debug, Clone)]
pub struct RestartOptions {
    /// Its records.
    pub data: Data,
    /// Agents that run, 1 to 1,000.
    pub live: u32,
    /// Restarts, 1 or more.
    pub times: u32,
}

/// For [`crate::fair`].
#[derive(Debug, Clone, Copy)]
pub struct FairOptions {
    /// Slots for agents, 1 or more.
    pub slots: u32,
    /// Dispatches that the flood keeps waiting, 1 or more.
    pub waiting: u32,
    /// Dispatches of the quiet tenant in each half of a round, 1 or more.
    pub dispatches: u32,
}

/// For [`crate::gateway`].
#[derive(Debug, Clone, Copy)]
pub struct GatewayOptions {
    /// Calls of each kind in each round, 1 or more.
    pub calls: u32,
    /// Size of the prompt, bytes, up to 1 MiB.
    pub request_bytes: usize,
}

/// For [`crate::start`].
#[derive(Debug, Clone, Copy)]
pub struct StartOptions {
    /// Starts of each kind in each round, 1 or more.
    pub starts: u32,
}

/// For [`crate::pool`].
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Dispatches of each kind, one after another, 1 or more.
    pub count: u32,
    /// Dispatches of each kind of each real CLI, 1 or more.
    pub cli_count: u32,
    /// Dispatches that come at once, for each of these numbers, 1 to 200.
    pub at_once: Vec<u32>,
    /// Built-in agents to measure; `None` takes all that are installed.
    pub agents: Option<Vec<String>>,
    /// Where their CLIs are installed; nowhere when absent.
    pub agents_dir: Option<PathBuf>,
}

/// For [`crate::workspace`].
#[derive(Debug, Clone, Copy)]
pub struct WorkspaceOptions {
    /// Files of the repository, 1 or more.
    pub files: u32,
    /// Their size in all, bytes, at least one for each.
    pub bytes: u64,
}

/// Where progress is told, line by line.
#[derive(Clone, Copy)]
pub struct Notes<'a>(pub &'a dyn Fn(&str));

impl fmt::Debug for Notes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notes(..)")
    }
}

impl Notes<'_> {
    pub(crate) fn note(&self, text: &str) {
        (self.0)(text);
    }
}

/// A key that is not shown by accident.
#[derive(Clone)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) const fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Makes a directory for its owner only.
pub(crate) fn create_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}
