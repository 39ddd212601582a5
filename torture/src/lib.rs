//! Torture: real servers and launchers, real sandboxes, real load, and `kill -9` at random moments.
//!
//! A storm keeps clients dispatching quick agents, kills the server, the launcher or both again and
//! again, and starts the next server on the same data directory. It then holds what clients were told
//! against what is there: nothing acknowledged is lost, nothing is started twice, every run comes to
//! its one end, no reader misses or repeats a line, nothing of a run outlives it. A death of the server
//! alone changes no run's outcome.
//!
//! Deliberately absent: power loss (the page cache survives a kill) and anything timed.

pub mod check;
pub mod client;
pub mod host;
pub mod ledger;
pub mod plan;
pub mod rng;
pub mod server;
pub mod storm;

use std::path::PathBuf;

use anyhow::Context as _;

/// Variable that names the program under torture.
pub const BINARY_VARIABLE: &str = "OUTPOST_TORTURE_BINARY";

/// The program under torture: what the variable names, or the `outpost` beside this build.
///
/// # Errors
/// When there is none; it says how to make one.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join("outpost"));
    beside.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("no `outpost` beside {}; run cargo build -p outpost", own.display())
    })
}
