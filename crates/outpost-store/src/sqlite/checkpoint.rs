//! The checkpointer: moves the write-ahead log into the file beside the writer, so that no write
//! pays for it.
//!
//! It works when nobody writes or when the log has grown, and cuts the log off when it has grown
//! far (which makes writers wait for a moment).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::StoreError;
use crate::metrics::Counters;
use crate::sqlite::connect;

/// How often it looks, milliseconds.
const LOOK_MILLIS: u64 = 200;
/// It works beside the writer when so much waits, bytes.
const PASSIVE_BYTES: u64 = 32 * 1024 * 1024;
/// It stops the writer and empties the log when it is so large, bytes.
const TRUNCATE_BYTES: u64 = 512 * 1024 * 1024;
/// How long it may hold the writer up while it waits for readers, milliseconds.
const TRUNCATE_WAIT_MILLIS: u64 = 1_000;

/// Stops its thread when dropped.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(crate) fn start(path: &Path, counters: Arc<Counters>) -> Result<Self, StoreError> {
        let connection = connect::writer(path, None)?;
        connection.busy_timeout(Duration::from_millis(TRUNCATE_WAIT_MILLIS))?;
        let page_bytes: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let mut work = Work {
            connection,
            page_bytes: page_bytes.into(),
            counters,
            seen_commits: 0,
            done: false,
        };
        let (stop, stopped) = channel();
        let wait = Duration::from_millis(LOOK_MILLIS);
        let run = move || {
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = work.look() {
                    tracing::error!(error = &error as &dyn std::error::Error, "checkpoint failed");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(run)
            .map_err(StoreError::io)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's checkpointer panicked");
        }
    }
}

struct Work {
    connection: Connection,
    page_bytes: u64,
    counters: Arc<Counters>,
    seen_commits: u64,
    done: bool,
}

impl Work {
    fn look(&mut self) -> Result<(), StoreError> {
        let commits = self.counters.commits.load(Ordering::Relaxed);
        let idle = commits == self.seen_commits;
        self.seen_commits = commits;
        if idle && self.done {
            return Ok(());
        }
        let (log_bytes, backlog_bytes) = self.checkpoint("NOOP")?;
        self.done = backlog_bytes == 0;
        self.counters.wal_bytes.store(log_bytes, Ordering::Relaxed);
        let mode = if log_bytes > TRUNCATE_BYTES {
            "TRUNCATE"
        } else if backlog_bytes > PASSIVE_BYTES || (idle && backlog_bytes > 0) {
            "PASSIVE"
        } else {
            return Ok(());
        };
        let (log_bytes, backlog_bytes) = self.checkpoint(mode)?;
        self.done = backlog_bytes == 0;
        self.counters.wal_bytes.store(log_bytes, Ordering::Relaxed);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Size of the log and of the part of it not yet in the file, bytes. `NOOP` only looks.
    fn checkpoint(&self, mode: &str) -> Result<(u64, u64), StoreError> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let (log, moved): (i64, i64) =
            self.connection.query_row(&sql, [], |row| Ok((row.get(1)?, row.get(2)?)))?;
        let bytes = |pages: i64| u64::try_from(pages).unwrap_or(0) * self.page_bytes;
        Ok((bytes(log), bytes(log.saturating_sub(moved))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn an_idle_log_is_moved_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = crate::sqlite::files::prepare_database(directory.path()).unwrap();
        let mut writer = connect::writer(&path, None).unwrap();
        schema::migrate(&mut writer, 1).unwrap();
        let mut work = Work {
            connection: connect::writer(&path, None).unwrap(),
            page_bytes: 4096,
            counters: Arc::default(),
            seen_commits: 0,
            done: false,
        };
        let (log, backlog) = work.checkpoint("NOOP").unwrap();
        assert!(log > 0 && backlog == log, "{log} {backlog}");
        // Busy: a commit since the last look. Then idle: everything is moved. Then nothing to do.
        work.counters.committed(1, 1);
        work.look().unwrap();
        assert_eq!(work.counters.snapshot().checkpoints, 0);
        work.look().unwrap();
        work.look().unwrap();
        assert_eq!(work.counters.snapshot().checkpoints, 1);
        assert_eq!(work.checkpoint("NOOP").unwrap().1, 0);
    }
}
