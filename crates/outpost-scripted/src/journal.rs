//! What the scripted provider was asked, for tests and for the curious.
//!
//! Bounded: the newest entries are kept. Absent: bodies, and keys of any kind.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use crate::script::Dialect;

/// Most entries kept.
const JOURNAL_ENTRIES_MAX: usize = 10_000;
/// Longest part of the task's text that is kept, characters.
pub(crate) const TASK_CHARS_MAX: usize = 200;

/// What was wrong or right with the key of a request; the key itself is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySeen {
    /// The key the provider was started with.
    Ok,
    /// Another one.
    Wrong,
    /// None at all.
    Missing,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalEntry {
    /// HTTP method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Whether the key was right.
    pub key: KeySeen,
    /// Which API, if it was a call of a model.
    pub dialect: Option<Dialect>,
    /// Requested model.
    pub model: Option<String>,
    /// Beginning of the task's text.
    pub task: Option<String>,
    /// Name of the rule that matched.
    pub rule: Option<String>,
    /// Which turn of the rule was answered, from 0.
    pub step: Option<usize>,
    /// Whether it was a title, a classification or the like beside the agent's work.
    pub aside: bool,
    /// HTTP status of the answer; 0 while nothing has been answered because of a `hang`.
    pub status: u16,
}

/// Entries so far.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Mutex<VecDeque<JournalEntry>>,
    added: Notify,
}

impl Journal {
    pub(crate) fn add(&self, entry: JournalEntry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= JOURNAL_ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(entry);
        drop(entries);
        self.added.notify_waiters();
    }

    pub(crate) fn snapshot(&self) -> Vec<JournalEntry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().cloned().collect()
    }

    /// Waits until `enough` holds; `None` when it does not within `limit`.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        enough: impl Fn(&[JournalEntry]) -> bool,
    ) -> Option<Vec<JournalEntry>> {
        let wait = async {
            loop {
                let added = self.added.notified();
                tokio::pin!(added);
                // Registered before looking, so nothing is missed in between.
                added.as_mut().enable();
                let entries = self.snapshot();
                if enough(&entries) {
                    return entries;
                }
                added.await;
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }
}
