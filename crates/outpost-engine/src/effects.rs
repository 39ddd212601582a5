//! Executes what the core asks for, and announces what changed.

use std::sync::Arc;

use outpost_core::{Dispatch, Effect, State};
use outpost_runner::Command;
use outpost_types::EventData;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{error, warn};

use crate::engine::Engine;
use crate::live::Live;

/// Name of the final record among the kept files.
pub(crate) const RESULT_FILE: &str = "result.json";

impl Engine {
    /// Tells everybody about a change that is durable by now.
    pub(crate) fn announce(&self, live: &Arc<Live>, before: &Dispatch, after: &Dispatch) {
        // The record first: whoever hears of a state by an event finds it when he looks.
        let publish = || drop(live.record.send_replace(after.clone()));
        self.inner.waiting.observe(before, after, publish);
        let (from, to) = (before.network(), after.network());
        if from != to {
            // The word that the runner follows, before anybody hears that it is in force.
            live.network.send_replace(to.clone());
            self.write_event(live, EventData::Network { from, to });
        }
        if status_event(before) != status_event(after) {
            self.write_event(live, status_event(after));
        }
        if after.status().is_terminal() {
            self.inner.told.notify_one();
            live.journal.seal();
            self.inner.live.remove(after.id);
        }
    }

    /// Appends an event. A log that cannot grow (a full disk) does not stop the dispatch.
    pub(crate) fn write_event(&self, live: &Live, data: EventData) {
        if let Err(error) = live.journal.event(self.now(), None, data) {
            error!(%error, dir = %live.journal.dir().display(), "an event could not be kept");
        }
    }

    /// Executes what follows from a record, in order. Nothing here waits: what takes time is a task of
    /// its own.
    pub(crate) fn execute_all(&self, live: &Arc<Live>, effects: Vec<Effect>) {
        for effect in effects {
            self.execute(live, effect);
        }
    }

    fn execute(&self, live: &Arc<Live>, effect: Effect) {
        match effect {
            Effect::Place => self.inner.placer.notify_one(),
            Effect::StartAttempt(attempt) => crate::attempt::start(self, live, attempt, None),
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
