//! The TypeScript SDK of MCP, whose client an end-to-end test drives.

use std::time::Duration;

use super::agents::missing_npm_here;
use super::counts::Counts;
use super::{Bench, Outcome};

/// The SDK from its registry.
const INSTALL_SECONDS_MAX: u64 = 300;
/// The version that was tried last; see docs/mcp.md.
const SDK: &str = "@modelcontextprotocol/sdk@1.32.2";
/// Where it is, below the cache.
pub(super) const FOLDER: &str = "mcp";

/// Installs it into the project's cache; nothing of it is run for that.
pub(super) fn install(bench: &Bench) -> Outcome {
    if let Some(reason) = missing_npm_here() {
        return Outcome::Skipped(reason);
    }
    let folder = bench.cache.join(FOLDER);
    if let Err(error) = bench.make_cache().and_then(|()| std::fs::create_dir_all(&folder)) {
        return Outcome::Failed(format!("making the cache folder: {error}"));
    }
    let quiet = ["install", "--no-audit", "--no-fund", "--ignore-scripts", SDK, "--prefix"];
    let mut command = bench.command("npm", &quiet);
    command.arg(&folder);
    match bench.run(command, Duration::from_secs(INSTALL_SECONDS_MAX), &mut Counts::default()) {
        // A machine may have no way to the registry; whether that is acceptable is CI's question.
        Outcome::Failed(reason) => Outcome::Skipped(format!("could not be installed: {reason}")),
        outcome => outcome,
    }
}
