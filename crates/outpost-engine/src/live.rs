//! Dispatches that somebody works with right now: an attempt, a request, a reader.
//!
//! What only waits is on disk and has two small entries in the queue, however many there are; it is
//! read when it is wanted and let go of again. So [`LiveSet`] holds nobody alive: whoever works with a
//! dispatch does, and as long as one does, everybody gets the same [`Live`]. Bounded by slots, requests
//! and readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use outpost_core::Dispatch;
use outpost_runner::Command;
use outpost_store::StoreError;
use outpost_types::{DispatchId, Network};
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::effects::lock;
use crate::engine::Engine;
use crate::journal::Journal;

/// A dispatch that is not terminal, or was not a moment ago.
#[derive(Debug)]
pub(crate) struct Live {
    /// Held while a transition is made durable: transitions of one dispatch are one after another.
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// The record as it is on disk.
    pub(crate) record: watch::Sender<Dispatch>,
    /// What its sandbox may reach by that record.
    pub(crate) network: watch::Sender<Network>,
    pub(crate) journal: Journal,
    pub(crate) commands: Mutex<Option<mpsc::Sender<Command>>>,
    set: Arc<LiveSet>,
}

impl Live {
    /// The record as it is on disk.
    pub(crate) fn snapshot(&self) -> Dispatch {
        self.record.borrow().clone()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let id = self.record.borrow().id;
        let mut members = lock(&self.set.members);
        // Another one may have taken the place meanwhile.
        if members.get(&id).is_some_and(|member| member.strong_count() == 0) {
            members.remove(&id);
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct LiveSet {
    members: Mutex<BTreeMap<DispatchId, Weak<Live>>>,
    /// Held from the look whether one is there until it is: nobody can be changed meanwhile, so what
    /// is read from the store then is the newest.
    loading: tokio::sync::Mutex<()>,
}

impl LiveSet {
    /// The one that is worked with, if it is.
    pub(crate) fn get(&self, id: DispatchId) -> Option<Arc<Live>> {
        lock(&self.members).get(&id).and_then(Weak::upgrade)
    }

    /// All that are worked with.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        lock(&self.members).values().filter_map(Weak::upgrade).collect()
    }

    /// Takes in a record as it is on disk.
    pub(crate) fn insert(self: &Arc<Self>, record: Dispatch, journal: Journal) -> Arc<Live> {
        let id = record.id;
        let live = Arc::new(Live {
            writing: tokio::sync::Mutex::new(()),
            network: watch::Sender::new(record.network()),
            record: watch::Sender::new(record),
            journal,
            commands: Mutex::new(None),
            set: Arc::clone(self),
        });
        lock(&self.members).insert(id, Arc::downgrade(&live));
        live
    }

    /// It is terminal.
    pub(crate) fn remove(&self, id: DispatchId) {
        lock(&self.members).remove(&id);
    }
}

impl Engine {
    /// A dispatch to work with; `None` when it has ended or never was.
    pub(crate) async fn live(&self, id: DispatchId) -> Result<Option<Arc<Live>>, StoreError> {
        let set = &self.inner.live;
        if let Some(live) = set.get(id) {
            return Ok(Some(live));
        }
        let _alone = set.loading.lock().await;
        if let Some(live) = set.get(id) {
            return Ok(Some(live));
        }
        let record = self.inner.store.get(id).await?;
        let Some(record) = record.filter(|record| !record.status().is_terminal()) else {
            return Ok(None);
        };
        let journal = self.journal_of_live(&record).map_err(|error| {
            error!(%error, %id, "the logs of a dispatch cannot be opened");
            StoreError::Io { source: Arc::new(error) }
        })?;
        Ok(Some(set.insert(record, journal)))
    }
}
