//! Taking up an attempt that an earlier server began.

use std::io;
use std::path::Path;

use outpost_core::{PreparedFacts, ResultFacts, Spend};
use outpost_gateway::gateway::Handle;
use outpost_sandbox::{Reattached, RunningSandbox};
use outpost_types::{Failure, FailureCode, SecretName};
use outpost_workspace::Prepared;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::local::Parts;
use crate::provision::{Session, open_gateway, route_of};
use crate::runner::Assignment;
use crate::watch::Ended;

/// Name of the file in the attempt's directory.
pub(crate) const SAVED_FILE: &str = "attempt.json";

/// What is needed to take up an attempt. The handle in it is worth nothing outside the attempt.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) prepared: Prepared,
    pub(crate) facts: PreparedFacts,
    pub(crate) handle: String,
    /// Names and versions of the secrets it was given, to mask them.
    #[serde(default)]
    pub(crate) exposed: Vec<(SecretName, u64)>,
    pub(crate) litter: Vec<String>,
    /// Process id of the launcher that made the sandbox: another one has no idea of it.
    pub(crate) launcher_pid: u32,
    /// How the agent ended, once it did.
    pub(crate) ended: Option<Ended>,
    /// What came of it, once that is kept. Only its record is missing then.
    #[serde(default)]
    pub(crate) results: Option<ResultFacts>,
}

impl Saved {
    /// Writes it into the attempt's directory, whole or not at all.
    pub(crate) fn write(&self, attempt_dir: &Path) -> io::Result<()> {
        let partial = attempt_dir.join("attempt.json.partial");
        std::fs::write(&partial, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        std::fs::rename(partial, attempt_dir.join(SAVED_FILE))
    }

    /// The same where a failure changes nothing but what a later server can know.
    pub(crate) fn keep(&self, attempt_dir: &Path) {
        if let Err(error) = self.write(attempt_dir) {
            warn!(%error, "how far an attempt came could not be saved for a later server");
        }
    }

    /// Reads it; `None` when it was never written, or not by this version.
    pub(crate) fn read(attempt_dir: &Path) -> Option<Self> {
        let text = std::fs::read(attempt_dir.join(SAVED_FILE)).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| warn!(%error, "what an earlier server saved cannot be read"))
            .ok()
    }
}

/// The agent of an earlier server, if its sandbox was found: still running, or ended and not yet
/// released.
pub(crate) async fn claim(
    parts: &Parts,
    assignment: &Assignment,
) -> Option<Box<dyn RunningSandbox>> {
    match parts.take_found(&assignment.attempt.to_string())? {
        // It never started anything. Its name is free when it is gone.
        Reattached::Parked(parked) => {
            if let Err(error) = parked.discard().await {
                warn!(%error, "a sandbox of an earlier server could not be removed");
            }
            None
        }
        Reattached::Running(running) => Some(running),
    }
}

/// Opens the gateway of a running agent again, with the handle it has.
pub(crate) async fn reopen_gateway(
    parts: &Parts,
    assignment: &Assignment,
    saved: &Saved,
    running: &mut dyn RunningSandbox,
    spent: Spend,
) -> Option<Session> {
    let spec = &assignment.spec;
    let agent = parts.registry.get(&spec.agent)?;
    let handle = Handle::parse(&saved.handle).ok()?;
    route_of(parts, assignment, agent.as_ref())
        .await
        .and_then(|route| {
            open_gateway(parts, assignment, running.take_listener(), handle, route, spent)
        })
        .unwrap_or_else(|error| {
            // Without its models the agent ends by itself; its own error says more than ours.
            warn!(%error, attempt = %assignment.attempt, "the gateway of an agent cannot be reopened");
            None
        })
}

/// The failure of an attempt whose sandbox is gone.
pub(crate) fn lost() -> Failure {
    Failure::new(FailureCode::LostWorker, "The agent's sandbox vanished while it worked.")
        .with_hint("What it had changed is kept where it could be found. Dispatch the task again.")
}
