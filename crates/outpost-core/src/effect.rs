//! What the machine asks the world to do.

use outpost_types::{AttemptId, Timestamp};

use crate::dispatch::{Dispatch, Stop};

/// A changed record and what follows from it. The record is made durable first.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The record after the event.
    pub next: Dispatch,
    /// What to do, in order, once `next` is durable.
    pub effects: Vec<Effect>,
}

/// Something to do outside. Each is idempotent by the attempt it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look for somebody to place.
    Place,
    /// Look for somebody to place, at that instant.
    PlaceAt(Timestamp),
    /// Start the attempt: workspace, sandbox, agent.
    StartAttempt(AttemptId),
    /// Report [`crate::Event::DeadlinePassed`] at that instant.
    ArmDeadline {
        /// Whose.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
    },
    /// Give up making the worker; nothing of it may stay.
    AbortProvisioning(AttemptId),
    /// SIGTERM, grace, then SIGKILL of everything in the sandbox.
    StopAgent {
        /// Whose.
        attempt: AttemptId,
        /// Why.
        why: Stop,
    },
    /// Collect diff, bundle, artifacts; run the checks.
    Collect(AttemptId),
    /// The attempt is over: its sandbox, workspace and slot are returned.
    Retire(AttemptId),
}
