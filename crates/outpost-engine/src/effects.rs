//! Executes what the core asks for, and announces what changed.

use std::sync::Arc;
use std::time::Duration;

use outpost_core::{Dispatch, Effect, Event, State};
use outpost_runner::Command;
use outpost_types::{AttemptId, EventData, Timestamp};
use tokio::sync::mpsc::error::TrySendError;
use tracing::{error, warn};

use crate::engine::{Engine, Live};
use crate::tasks::TaskKind;

/// Name of the final record among the kept files.
pub(crate) const RESULT_FILE: &str = "result.json";

impl Engine {
    /// Tells everybody about a change that is durable by now.
    pub(crate) fn announce(&self, live: &Arc<Live>, before: &Dispatch, after: &Dispatch) {
        self.lock_queue().observe(Some(before), after);
        // The record first: whoever hears of a state by an event finds it when he looks.
        live.record.send_replace(after.clone());
        if status_event(before) != status_event(after) {
            self.write_event(live, status_event(after));
        }
        if after.status().is_terminal() {
            live.journal.seal();
            self.lock_live().remove(&after.id);
        }
    }

    /// Appends an event. A log that cannot grow (a full disk) does not stop the dispatch.
    pub(crate) fn write_event(&self, live: &Live, data: EventData) {
        if let Err(error) = live.journal.event(self.now(), None, data) {
            error!(%error, dir = %live.journal.dir().display(), "an event could not be kept");
        }
    }

    /// Executes one effect. Nothing here waits: what takes time is a task of its own.
    pub(crate) fn execute(&self, live: &Arc<Live>, effect: Effect) {
        match effect {
            Effect::Place => self.inner.placer.notify_one(),
            Effect::PlaceAt(at) => {
                let engine = self.clone();
                let id = live.record.borrow().id;
                self.inner.tasks.spawn(TaskKind::Timer, id, async move {
                    engine.sleep_until(at).await;
                    engine.inner.placer.notify_one();
                });
            }
            Effect::StartAttempt(attempt) => crate::attempt::start(self, live, attempt, None),
            Effect::ArmDeadline { attempt, at } => {
                let deadline = deadline(self.clone(), Arc::clone(live), attempt, at);
                self.inner.tasks.spawn(TaskKind::Timer, attempt, deadline);
            }
            Effect::AbortProvisioning(_) => self.command(live, Command::Abort),
            Effect::StopAgent { .. } => self.command(live, Command::Stop),
            Effect::Collect(_) => self.command(live, Command::Collect),
            Effect::Retire(_) => *lock(&live.commands) = None,
        }
    }

    /// Tells the runner of a dispatch's attempt something.
    pub(crate) fn command(&self, live: &Live, command: Command) {
        let Some(sender) = lock(&live.commands).clone() else { return };
        match sender.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => {} // It ended in the same moment.
            Err(TrySendError::Full(command)) => warn!(?command, "a runner does not listen"),
        }
    }

    async fn sleep_until(&self, at: Timestamp) {
        // The wall clock may jump while we sleep, so the rest is looked at again every minute.
        const NAP_MILLIS_MAX: u64 = 60_000;
        loop {
            let rest = at.millis_since(self.now());
            if rest == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(rest.min(NAP_MILLIS_MAX))).await;
        }
    }

    /// Writes the final record beside the other kept files.
    pub(crate) fn write_result(live: &Live, after: &Dispatch) {
        let path = live.journal.dir().join(RESULT_FILE);
        let written = serde_json::to_vec_pretty(&after.view())
            .map_err(std::io::Error::other)
            .and_then(|json| std::fs::write(&path, json));
        if let Err(error) = written {
            error!(%error, path = %path.display(), "the result file could not be kept");
        }
    }
}

/// Reports the deadline of an attempt, unless it stops running before.
async fn deadline(engine: Engine, live: Arc<Live>, attempt: AttemptId, at: Timestamp) {
    let mut record = live.record.subscribe();
    let is_due = |record: &Dispatch| matches!(record.state, State::Running { stop: None, .. });
    // Again, if the clock was set back between the sleep and the look.
    while is_due(&live.snapshot()) {
        let not_due = async {
            // The answer borrows the record, which must not be held: only that it came is of use.
            drop(record.wait_for(|record| !is_due(record)).await);
        };
        tokio::select! {
            () = engine.sleep_until(at) => {}
            () = not_due => return,
        }
        engine.apply_surely(&live, Event::DeadlinePassed { attempt }).await;
    }
}

/// The event that tells of the state of a record.
pub(crate) fn status_event(record: &Dispatch) -> EventData {
    let reason = match &record.state {
        State::Queued { reason, .. } => Some(reason.message().to_owned()),
        State::Provisioning { stop: Some(_) } | State::Running { stop: Some(_), .. } => {
            Some("stopping".to_owned())
        }
        _ => None,
    };
    EventData::Status { status: record.status(), reason, failure: record.failure().cloned() }
}

pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every holder assigns or clones one value: a panic leaves it whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
