//! Who waits for a slot, who has one, and what time alone will change: the core's queue, in step with
//! the records on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use outpost_core::{Dispatch, Queue, State};
use outpost_types::DispatchId;

use crate::effects::lock;

/// The queue, and those on their way into it.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    state: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    queue: Queue,
    /// Accepted and not yet placed or told to wait.
    fresh: BTreeSet<DispatchId>,
    /// Being written down for the first time, and whether somebody who saw the record changed it before
    /// its writer heard that it is there.
    arriving: BTreeMap<DispatchId, bool>,
}

impl Waiting {
    /// To look, or to ask who is next.
    pub(crate) fn queue(&self) -> QueueGuard<'_> {
        QueueGuard(lock(&self.state))
    }

    /// A new dispatch is about to be written down.
    pub(crate) fn announce_arrival(&self, id: DispatchId) {
        lock(&self.state).arriving.insert(id, false);
    }

    /// It was not written down after all.
    pub(crate) fn turn_back(&self, id: DispatchId) {
        lock(&self.state).arriving.remove(&id);
    }

    /// It is on disk: from now on it wants a slot.
    pub(crate) fn arrive(&self, record: &Dispatch) {
        let mut inner = lock(&self.state);
        let changed = inner.arriving.remove(&record.id).unwrap_or(false);
        if !changed {
            inner.take_in(record);
        }
    }

    /// A record that was on disk before this server.
    pub(crate) fn observe_first(&self, record: &Dispatch) {
        lock(&self.state).take_in(record);
    }

    /// A change of a record. `publish` makes it known, before anybody can look again.
    pub(crate) fn observe(&self, before: &Dispatch, after: &Dispatch, publish: impl FnOnce()) {
        let mut inner = lock(&self.state);
        if let Some(changed) = inner.arriving.get_mut(&after.id) {
            *changed = true;
        }
        inner.queue.observe(Some(before), after);
        publish();
    }

    /// Some that nobody looked at yet.
    pub(crate) fn take_fresh(&self, count_max: usize) -> Vec<DispatchId> {
        let fresh = &mut lock(&self.state).fresh;
        let taken: Vec<_> = fresh.iter().take(count_max).copied().collect();
        fresh.retain(|id| taken.last().is_none_or(|last| id > last));
        taken
    }
}

impl Inner {
    fn take_in(&mut self, record: &Dispatch) {
        self.queue.observe(None, record);
        if matches!(record.state, State::Pending) {
            self.fresh.insert(record.id);
        }
    }
}

/// The queue while nobody else has it.
pub(crate) struct QueueGuard<'a>(MutexGuard<'a, Inner>);

impl std::ops::Deref for QueueGuard<'_> {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.0.queue
    }
}

impl std::ops::DerefMut for QueueGuard<'_> {
    fn deref_mut(&mut self) -> &mut Queue {
        &mut self.0.queue
    }
}

#[cfg(test)]
mod tests {
    use outpost_core::{AgentDefaults, DispatchSpec, Event, step};
    use outpost_types::{DispatchRequest, KeyId, TenantId, Tier, Timestamp};

    use super::*;

    fn record() -> Dispatch {
        let request = DispatchRequest {
            agent: "claude".into(),
            task: "do it".into(),
            ..DispatchRequest::default()
        };
        let agent = "claude".parse().unwrap();
        let defaults = AgentDefaults { agent, model_id: "m".into(), tier: Tier::Fast };
        let spec = DispatchSpec::from_request(request, &defaults).unwrap();
        let (id, key) = (DispatchId::from_parts(1, 1), KeyId::from_parts(1, 1));
        Dispatch::accept(id, TenantId::local(), key, spec, Timestamp::from_millis(1))
    }

    #[test]
    fn who_was_changed_on_the_way_in_does_not_come_back() {
        let (waiting, before) = (Waiting::default(), record());
        waiting.announce_arrival(before.id);
        // It is on disk, and somebody who found it there cancels it before its writer knows.
        let cancel = Event::CancelRequested { reason: None };
        let after = step(&before, &cancel, Timestamp::from_millis(2)).unwrap().next;
        waiting.observe(&before, &after, || ());
        waiting.arrive(&before);
        assert_eq!(waiting.queue().waiting(), 0);
        assert_eq!(waiting.take_fresh(9), []);
        assert_eq!(waiting.queue().wake_at(), None);
    }

    #[test]
    fn an_arrival_waits_and_is_fresh_once() {
        let (waiting, record) = (Waiting::default(), record());
        waiting.announce_arrival(record.id);
        assert_eq!(waiting.queue().waiting(), 0, "it may never be written");
        waiting.arrive(&record);
        assert_eq!(waiting.queue().waiting(), 1);
        assert_eq!(waiting.take_fresh(9), [record.id]);
        assert_eq!(waiting.take_fresh(9), []);
        waiting.announce_arrival(record.id);
        waiting.turn_back(record.id);
        assert!(lock(&waiting.state).arriving.is_empty());
    }
}
