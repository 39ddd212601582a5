//! Gives out the model server's slots and watches deadlines: asks the core's queue, applies the answer,
//! waits for a wish or for the time.

use std::rc::Rc;

use outpost_core::{Event, Limits, State};
use outpost_types::DispatchId;

use crate::plan::Mutant;
use crate::sched::first;
use crate::server::{ApplyError, Server};

/// Shortest and longest time between two looks, milliseconds.
const NAP_MILLIS: (u64, u64) = (20, 5_000);
/// Most dispatches that are told something in one look.
const TOLD_COUNT_MAX: usize = 1_024;

/// What became of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Made,
    Rejected,
    Failed,
}

/// Looks again and again.
pub(crate) async fn run(server: &Rc<Server>) {
    let nobody_limits = Limits {
        host_attempts_max: u32::MAX,
        tenant_attempts_max: None,
        tenant_attempts_max_of: std::collections::BTreeMap::new(),
        agent_attempts_max_default: u32::MAX,
        agent_attempts_max: std::collections::BTreeMap::new(),
    };
    let own_limits = server.world.plan.limits.clone();
    let limits = if server.world.has(Mutant::NoLimits) { nobody_limits } else { own_limits };
    loop {
        look(server, &limits).await;
        let nap = server.world.sleep_millis(nap_millis(server));
        let wanted = server.placer_changed.until(|| server.take_wish().then_some(()));
        first(wanted, nap).await;
    }
}

fn nap_millis(server: &Server) -> u64 {
    let wake_at = server.queue.borrow().wake_at();
    let millis = wake_at.map_or(u64::MAX, |at| at.millis_since(server.world.now()));
    millis.clamp(NAP_MILLIS.0, NAP_MILLIS.1)
}

async fn look(server: &Rc<Server>, limits: &Limits) {
    let due = server.queue.borrow().due(server.world.now(), TOLD_COUNT_MAX);
    for id in due {
        let alarm = server.live_one(id).and_then(|live| live.snapshot().alarm());
        let Some((_, event)) = alarm.filter(|_| !server.unheard.borrow().contains(&id)) else {
            continue;
        };
        server.world.point("alarm").await;
        let made = change(server, id, &event).await;
        if made == Change::Rejected && server.world.has(Mutant::EarlyDeadlineDropped) {
            server.unheard.borrow_mut().insert(id);
        }
    }
    loop {
        let next = server.queue.borrow_mut().next(limits, server.world.now());
        let Some(id) = next else { break };
        match change(server, id, &Event::Placed).await {
            Change::Made => {}
            Change::Rejected if !server.world.has(Mutant::RejectedHeadBlocks) => {
                hold_back(server, id);
            }
            Change::Rejected | Change::Failed => break,
        }
    }
    let fresh: Vec<_> = server.fresh.borrow().iter().take(TOLD_COUNT_MAX).copied().collect();
    for id in fresh {
        server.fresh.borrow_mut().remove(&id);
        let Some(live) = server.live_one(id) else { continue };
        let record = live.snapshot();
        let reason = server.queue.borrow().reason(&record, limits);
        if let (Some(reason), State::Pending) = (reason, &record.state) {
            change(server, id, &Event::MustWait(reason)).await;
        }
    }
}

/// The clock was set back since the queue thought that its time had come: it waits again, and does
/// not keep others from their slots.
fn hold_back(server: &Server, id: DispatchId) {
    let Some(live) = server.live_one(id) else { return };
    let record = live.snapshot();
    server.observe(Some(&record), &record);
}

async fn change(server: &Rc<Server>, id: DispatchId, event: &Event) -> Change {
    let Some(live) = server.live_one(id) else { return Change::Failed };
    match server.apply(&live, event).await {
        Ok(_) => Change::Made,
        Err(ApplyError::Rejected(_)) => Change::Rejected,
        Err(ApplyError::Disk(_)) => Change::Failed,
    }
}
