//! What the machine asks the world to do.

use outpost_types::AttemptId;

use crate::dispatch::{Dispatch, State, Stop};

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
    /// Start the attempt: workspace, sandbox, agent.
    StartAttempt(AttemptId),
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

/// What follows from a record that is on disk, in order: everything it asks for that the last one that
/// was known did not. With `None` (a new dispatch, a new server) that is all of it, so recovery is no
/// code of its own; only a start is never asked for then, because an earlier server did, and the attempt
/// is taken up instead.
#[must_use]
pub fn effects(before: Option<&Dispatch>, after: &Dispatch) -> Vec<Effect> {
    let (was, is) = (before.and_then(held), held(after));
    let mut effects = Vec::new();
    if let Some(over) = was.filter(|_| is != was) {
        effects.extend([Effect::Retire(over), Effect::Place]);
    }
    if before.is_none() && after.waits() {
        effects.push(Effect::Place);
    }
    if let Some(attempt) = is {
        let begins = before.is_some() && is != was;
        effects.extend(begins.then_some(Effect::StartAttempt(attempt)));
        let asked = before.filter(|_| is == was).and_then(|before| asks(before, attempt));
        effects.extend(asks(after, attempt).filter(|effect| asked.as_ref() != Some(effect)));
    }
    effects
}

/// The attempt that holds a slot.
fn held(record: &Dispatch) -> Option<AttemptId> {
    record.attempt_id().filter(|_| record.holds_slot())
}

/// What the state of a live attempt asks for by itself, whichever event led to it.
fn asks(record: &Dispatch, attempt: AttemptId) -> Option<Effect> {
    match &record.state {
        State::Provisioning { stop: Some(_) } => Some(Effect::AbortProvisioning(attempt)),
        State::Running { stop: Some(why), .. } => {
            Some(Effect::StopAgent { attempt, why: why.clone() })
        }
        State::Completing { .. } => Some(Effect::Collect(attempt)),
        _ => None,
    }
}
