//! Counters of a store: a cheap snapshot for `/metrics` and tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a store did since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreMetrics {
    /// Transactions made durable. With group commit, fewer than `commands`.
    pub commits: u64,
    /// Writes answered after their commit, refused ones included.
    pub commands: u64,
    /// Rows inserted, updated or deleted by committed transactions.
    pub rows: u64,
    /// Most writes that shared one commit.
    pub batch_size_max: u64,
    /// Writes waiting now.
    pub queue_depth: u64,
    /// Writes turned away because the queue was full.
    pub busy: u64,
    /// Transactions that failed; none of their members was acknowledged.
    pub failed_commits: u64,
    /// Checkpoints run.
    pub checkpoints: u64,
    /// Size of the write-ahead log in use, bytes, when last looked at.
    pub wal_bytes: u64,
    /// The writer met an error and refuses writes; after a passing one it goes on by itself.
    pub failed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) batch_size_max: AtomicU64,
    pub(crate) queue_depth: AtomicU64,
    pub(crate) busy: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    pub(crate) failed: AtomicBool,
    /// The checkpointer asks the writer to move what little is left of the log.
    pub(crate) finish_log: AtomicBool,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> StoreMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreMetrics {
            commits: read(&self.commits),
            commands: read(&self.commands),
            rows: read(&self.rows),
            batch_size_max: read(&self.batch_size_max),
            queue_depth: read(&self.queue_depth),
            busy: read(&self.busy),
            failed_commits: read(&self.failed_commits),
            checkpoints: read(&self.checkpoints),
            wal_bytes: read(&self.wal_bytes),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn committed(&self, commands: usize, rows: u64) {
        let commands = commands as u64;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(commands, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.batch_size_max.fetch_max(commands, Ordering::Relaxed);
    }
}
