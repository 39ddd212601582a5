//! Gives out slots. Takes no input: it reads what is live, asks the core, and applies the answer;
//! doing so twice changes nothing. Woken by signal and by timer.

use std::time::Duration;

use outpost_core::{Candidate, Decision, Event, Slots, place};
use tracing::warn;

use crate::engine::{ApplyError, Engine};

/// Longest time between two looks, seconds, should a signal ever be missed.
const LOOK_SECONDS_MAX: u64 = 5;

/// Looks again and again; ends when its task is aborted.
pub(crate) async fn run(engine: Engine) {
    loop {
        look(&engine).await;
        tokio::select! {
            () = engine.inner.placer.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(LOOK_SECONDS_MAX)) => {}
        }
    }
}

async fn look(engine: &Engine) {
    let records: Vec<_> = engine.live_all().iter().map(|live| live.snapshot()).collect();
    let candidates: Vec<_> = records.iter().filter_map(Candidate::of).collect();
    if candidates.is_empty() {
        return;
    }
    let slots = Slots::count(&records);
    for decision in place(&candidates, slots, &engine.inner.config.limits, engine.now()) {
        let (id, event) = match decision {
            Decision::Place(id) => (id, Event::Placed),
            Decision::Wait(id, reason) => (id, Event::MustWait(reason)),
        };
        let Some(live) = engine.live_one(id) else { continue };
        match engine.apply(&live, &event, None).await {
            // A rejection is normal: it waits for the same reason as before, or was cancelled.
            Ok(_) | Err(ApplyError::Rejected(_)) => {}
            Err(ApplyError::Store(error)) => {
                warn!(?error, %id, "a placement could not be recorded; looking again");
            }
        }
    }
}
