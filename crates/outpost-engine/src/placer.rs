//! Gives out slots, and tells dispatches that their time is over. Takes no input: it asks the queue,
//! which is in step with the records, and applies the answer; doing so twice changes nothing. Woken by
//! signal and by timer. It never tries again at once: the next look is the next try.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use outpost_core::{Dispatch, Event, State};
use outpost_types::DispatchId;
use tracing::warn;

use crate::engine::{ApplyError, Engine};

/// Shortest time between two looks that nobody asked for, milliseconds: a change that cannot be made
/// must not be tried without a pause.
const NAP_MILLIS_MIN: u64 = 20;
/// Longest time between two looks, milliseconds, should a signal ever be missed.
const NAP_MILLIS_MAX: u64 = 5_000;
/// Changes that wait for the store at once, so that they share its syncs.
const CONCURRENT_CHANGES_MAX: usize = 128;
/// Most dispatches that are told something in one look; the rest is told in the next.
const TOLD_COUNT_MAX: usize = 1_024;

/// Looks again and again; ends when its task is aborted.
pub(crate) async fn run(engine: Engine) {
    let mut pause_millis = NAP_MILLIS_MIN;
    loop {
        let look = look(&engine).await;
        if look.failed {
            // The store does not write. Asking it more often does not help.
            tokio::time::sleep(Duration::from_millis(pause_millis)).await;
            pause_millis = (pause_millis * 2).min(NAP_MILLIS_MAX);
            continue;
        }
        pause_millis = NAP_MILLIS_MIN;
        let nap = if look.more { Duration::ZERO } else { nap(&engine) };
        tokio::select! {
            () = engine.inner.placer.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Until something changes by time alone.
fn nap(engine: &Engine) -> Duration {
    let now = engine.now();
    let wake_at = engine.inner.waiting.queue().wake_at();
    let millis = wake_at.map_or(u64::MAX, |at| at.millis_since(now));
    Duration::from_millis(millis.clamp(NAP_MILLIS_MIN, NAP_MILLIS_MAX))
}

/// What came of a look.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// There is more to tell.
    more: bool,
    /// A change could not be recorded.
    failed: bool,
}

impl Look {
    fn add(&mut self, change: &Change) {
        self.failed |= matches!(change, Change::Failed);
    }
}

/// Tells whose time is over, places, tells the rest to wait.
async fn look(engine: &Engine) -> Look {
    let mut look = Look::default();
    let waiting = &engine.inner.waiting;
    let due = waiting.queue().due(engine.now(), TOLD_COUNT_MAX);
    look.more |= due.len() == TOLD_COUNT_MAX;
    each(engine, due, &mut look, |record| Some(record.alarm()?.1)).await;
    tell_load(engine);
    let mut refused = BTreeSet::new();
    loop {
        let next = waiting.queue().next(&engine.inner.access.limits(), engine.now());
        let Some(id) = next else { break };
        let placed = change(engine, id, |_| Some(Event::Placed));
        let (made, ()) = tokio::join!(placed, make_files(engine, id));
        look.add(&made);
        match made {
            Change::Made => {}
            // It may wait again, behind the others; nobody is held up by it.
            Change::Refused(Some(record)) if refused.insert(id) => {
                waiting.queue().observe(Some(&record), &record);
            }
            Change::Refused(_) | Change::Failed => break,
        }
    }
    let fresh = waiting.take_fresh(TOLD_COUNT_MAX);
    look.more |= fresh.len() == TOLD_COUNT_MAX;
    each(engine, fresh, &mut look, |record| {
        let reason = waiting.queue().reason(record, &engine.inner.access.limits())?;
        matches!(record.state, State::Pending).then_some(Event::MustWait(reason))
    })
    .await;
    look
}

/// Tells the fleet how busy the host is, before more attempts are started.
fn tell_load(engine: &Engine) {
    let (attempts, waiting) = {
        let queue = engine.inner.waiting.queue();
        (queue.slots().total(), u32::try_from(queue.waiting()).unwrap_or(u32::MAX))
    };
    engine.inner.runner.load(attempts, waiting);
}

async fn each(
    engine: &Engine,
    ids: Vec<DispatchId>,
    look: &mut Look,
    event: impl Fn(&Dispatch) -> Option<Event>,
) {
    let changes = ids.into_iter().map(|id| change(engine, id, &event));
    let mut changes = stream::iter(changes).buffer_unordered(CONCURRENT_CHANGES_MAX);
    while let Some(made) = changes.next().await {
        look.add(&made);
    }
}

/// Makes the files of a dispatch that is about to have an attempt, while its record is on the way to the disk. When
/// they cannot be made, who writes to them first says so.
async fn make_files(engine: &Engine, id: DispatchId) {
    if let Ok(Some(live)) = engine.live(id).await {
        let _ = tokio::task::spawn_blocking(move || live.journal.materialise()).await;
    }
}

/// What became of a change.
enum Change {
    Made,
    /// It means nothing now: the dispatch was cancelled in the same moment, or the clock was set back.
    Refused(Option<Box<Dispatch>>),
    /// The store did not take it.
    Failed,
}

async fn change(
    engine: &Engine,
    id: DispatchId,
    event: impl Fn(&Dispatch) -> Option<Event>,
) -> Change {
    let live = match engine.live(id).await {
        Ok(Some(live)) => live,
        Ok(None) => return Change::Refused(None),
        Err(error) => {
            warn!(?error, %id, "a dispatch that waits cannot be read; looking again");
            return Change::Failed;
        }
    };
    let Some(event) = event(&live.snapshot()) else { return Change::Refused(None) };
    match engine.apply(&live, &event, None).await {
        Ok(_) => Change::Made,
        Err(ApplyError::Rejected(_)) => Change::Refused(Some(Box::new(live.snapshot()))),
        Err(ApplyError::Store(error)) => {
            warn!(?error, %id, "a change could not be recorded; looking again");
            Change::Failed
        }
    }
}
