//! Gives out slots. Takes no input: it asks the queue, which is in step with the records, and applies
//! the answer; doing so twice changes nothing. Woken by signal and by timer.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use outpost_core::{Event, State};
use outpost_types::DispatchId;
use tracing::warn;

use crate::engine::{ApplyError, Engine};

/// Shortest time between two looks that nobody asked for, milliseconds: a change that cannot be made
/// must not be tried without a pause.
const NAP_MILLIS_MIN: u64 = 20;
/// Longest time between two looks, seconds, should a signal ever be missed.
const LOOK_SECONDS_MAX: u64 = 5;
/// Changes that wait for the store at once, so that they share its syncs.
const CONCURRENT_CHANGES_MAX: usize = 128;
/// Most dispatches that are told to wait in one look; the rest is told in the next.
const TOLD_COUNT_MAX: usize = 1_024;

/// Looks again and again; ends when its task is aborted.
pub(crate) async fn run(engine: Engine) {
    loop {
        let more = look(&engine).await;
        let nap = if more { Duration::ZERO } else { nap(&engine) };
        tokio::select! {
            () = engine.inner.placer.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Until something changes by time alone.
fn nap(engine: &Engine) -> Duration {
    let now = engine.now();
    let wake_at = engine.lock_queue().wake_at();
    let millis = wake_at.map_or(u64::MAX, |at| at.millis_since(now));
    Duration::from_millis(millis.clamp(NAP_MILLIS_MIN, LOOK_SECONDS_MAX * 1000))
}

/// Places, expires, tells the rest to wait; `true` when there is more to tell.
async fn look(engine: &Engine) -> bool {
    let expired = engine.lock_queue().expired(engine.now());
    each(engine, expired, |_| Some(Event::Expired)).await;
    let mut refused = BTreeSet::new();
    loop {
        let next = engine.lock_queue().next(&engine.inner.config.limits, engine.now());
        let Some(id) = next else { break };
        match change(engine, id, &Event::Placed).await {
            Change::Made => {}
            // It may wait again, behind the others; nobody is held up by it.
            Change::Refused if refused.insert(id) => engine.requeue(id),
            Change::Refused | Change::Failed => break,
        }
    }
    let fresh = engine.take_fresh(TOLD_COUNT_MAX);
    let more = fresh.len() == TOLD_COUNT_MAX;
    each(engine, fresh, |id| {
        let record = engine.live_one(id)?.snapshot();
        let waits = matches!(record.state, State::Pending);
        let reason = engine.lock_queue().reason(&record, &engine.inner.config.limits);
        reason.filter(|_| waits).map(Event::MustWait)
    })
    .await;
    more
}

async fn each(engine: &Engine, ids: Vec<DispatchId>, event: impl Fn(DispatchId) -> Option<Event>) {
    let changes = ids.into_iter().filter_map(|id| Some((id, event(id)?)));
    stream::iter(changes)
        .for_each_concurrent(CONCURRENT_CHANGES_MAX, async |(id, event)| {
            change(engine, id, &event).await;
        })
        .await;
}

/// What became of a change.
enum Change {
    Made,
    /// It means nothing now: the dispatch was cancelled in the same moment, or the clock was set back.
    Refused,
    /// The store did not take it.
    Failed,
}

async fn change(engine: &Engine, id: DispatchId, event: &Event) -> Change {
    let Some(live) = engine.live_one(id) else { return Change::Refused };
    match engine.apply(&live, event, None).await {
        Ok(_) => Change::Made,
        Err(ApplyError::Rejected(_)) => Change::Refused,
        Err(ApplyError::Store(error)) => {
            warn!(?error, %id, "a placement could not be recorded; looking again");
            Change::Failed
        }
    }
}
