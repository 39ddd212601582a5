//! Room in the cache: what goes, and when.
//!
//! What nobody uses goes, the longest unused first, when all entries together are beyond their bound. A checkout has a lease on
//! its mirror, so a mirror goes after its checkouts. Bounded: the passes. Deliberately absent: anything that waits. An entry that
//! somebody is busy with stays; the next look will meet it.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use crate::cache::{Cache, Entry};
use crate::remove::remove_tree;

/// Shortest idle time of an entry before [`Cache::sweep`] takes it, seconds: it should serve the next day, too.
const IDLE_SECONDS_MIN: u64 = 2 * 86_400;
/// Looks at all entries in one go: a checkout that goes may free its mirror.
const PASSES_MAX: usize = 3;

impl Cache {
    /// Whether the entries together take more than they may.
    pub(crate) fn is_over(&self) -> bool {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)) > self.bytes_max
    }

    /// Drops what is longest unused until the rest is within the bound, or in use. Returns how many were dropped.
    pub(crate) async fn evict(&self) -> usize {
        let _one = self.evicting.lock().await;
        self.clear_aside();
        let mut dropped = 0;
        for _ in 0..PASSES_MAX {
            let before = dropped;
            for (used, entry) in self.by_use() {
                if !self.is_over() {
                    return dropped;
                }
                dropped += usize::from(self.drop_entry(&entry, used).await);
            }
            if dropped == before {
                break;
            }
        }
        if self.is_over() {
            tracing::warn!(
                "all of the repository cache is in use, and it is larger than its bound"
            );
        }
        dropped
    }

    /// See [`crate::Workspaces::sweep_cache`].
    pub(crate) async fn sweep(&self, idle_seconds: u64) -> usize {
        let _one = self.evicting.lock().await;
        self.clear_aside();
        let idle = Duration::from_secs(idle_seconds.max(IDLE_SECONDS_MIN));
        let mut dropped = 0;
        for _ in 0..PASSES_MAX {
            let before = dropped;
            for (used, entry) in self.by_use() {
                if SystemTime::now().duration_since(used).is_ok_and(|age| age >= idle) {
                    dropped += usize::from(self.drop_entry(&entry, used).await);
                }
            }
            if dropped == before {
                break;
            }
        }
        dropped
    }

    /// All entries, the longest unused first.
    fn by_use(&self) -> Vec<(SystemTime, Entry)> {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<_> =
            sizes.keys().map(|entry| (Self::used(&self.path(entry)), entry.clone())).collect();
        entries.sort_by_key(|(used, _)| *used);
        entries
    }

    /// Drops an entry that nobody has used since and nobody uses now.
    async fn drop_entry(&self, entry: &Entry, used: SystemTime) -> bool {
        let path = self.path(entry);
        let Some(_lock) = self.try_lock(&entry.key) else { return false };
        if self.leases.is_held(&entry.key) || Self::used(&path) > used {
            return false;
        }
        let scratch = self.scratch(&entry.key);
        let gone = std::fs::rename(&path, scratch.path());
        if gone.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound) {
            return false;
        }
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).remove(entry);
        let _ = tokio::task::spawn_blocking(move || drop(scratch)).await;
        gone.is_ok()
    }

    /// Removes what was damaged and is used no more.
    fn clear_aside(&self) {
        let Ok(entries) = std::fs::read_dir(self.dir.join("aside")) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let key = name.split('.').next().unwrap_or_default();
            if !self.leases.is_held(key)
                && let Err(error) = remove_tree(&entry.path())
            {
                tracing::warn!(%error, "a damaged part of the repository cache could not be removed");
            }
        }
    }
}
