//! The checkpointer: moves the write-ahead log into the file beside the writer, so that no write
//! pays for it.
//!
//! It works when nobody writes or when the log has grown. Where writing never stops it would never
//! reach the end of the log: once little is missing it asks the writer to move that itself between two
//! batches, and the log starts over with the next one. Nobody waits for a lock then, and what is
//! overwritten syncs faster than what is appended. Only a log that has grown far, because readers held
//! it, is cut off at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::StoreError;
use crate::metrics::Counters;
use crate::sqlite::connect::{self, Place};

/// How often it looks, milliseconds.
pub(crate) const LOOK_MILLIS: u64 = 200;
/// It works beside the writer when so much waits, bytes.
const PASSIVE_BYTES: u64 = 32 * 1024 * 1024;
/// The log starts over from this size on, bytes, if no more of it than the second number is not yet in
/// the file: a hundredth of a second for which the writer is busy with it.
const RESTART_BYTES: u64 = 64 * 1024 * 1024;
const RESTART_BACKLOG_BYTES: u64 = 2 * 1024 * 1024;
/// Most times it works beside the writer in a row to come so close.
const PASSES_MAX: u32 = 4;
/// It stops the writer and empties the log when it is so large, bytes.
const TRUNCATE_BYTES: u64 = 512 * 1024 * 1024;
/// How long it may hold the writer up while it waits for readers, milliseconds.
const TRUNCATE_WAIT_MILLIS: u64 = 1_000;
/// Wishes that wait; more are turned away.
const WISHES_MAX: usize = 16;

/// How to move the log into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// Beside the writer and the readers; what they hold back stays in the log.
    Beside,
    /// All of it, and the log is cut off: the writer waits, readers are waited for.
    Empty,
}

#[derive(Debug)]
struct Wish {
    kind: Checkpoint,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// Stops its thread when dropped.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    wishes: Option<SyncSender<Wish>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(crate) fn start(
        place: &Place,
        look: Duration,
        counters: Arc<Counters>,
    ) -> Result<Self, StoreError> {
        let connection = connect::writer(place)?;
        connection.busy_timeout(Duration::from_millis(TRUNCATE_WAIT_MILLIS))?;
        let page_bytes: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let mut work = Work {
            connection,
            page_bytes: page_bytes.into(),
            counters,
            seen_commits: 0,
            done: false,
            failing: false,
        };
        let (wishes, asked) = sync_channel::<Wish>(WISHES_MAX);
        let run = move || {
            loop {
                match asked.recv_timeout(look) {
                    Ok(wish) => {
                        // Nobody may be left to hear it.
                        let _unheard = wish.reply.send(work.fulfil(wish.kind));
                    }
                    Err(RecvTimeoutError::Timeout) => work.look_and_tell(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(run)
            .map_err(StoreError::io)?;
        Ok(Self { wishes: Some(wishes), thread: Some(thread) })
    }

    /// Moves the log now, and waits for it.
    pub(crate) async fn run(&self, kind: Checkpoint) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let wishes = self.wishes.as_ref().ok_or(StoreError::Closed)?;
        wishes.try_send(Wish { kind, reply }).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.wishes.take());
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
    failing: bool,
}

impl Work {
    /// A failed checkpoint is tried again with the next look; it is told once.
    fn look_and_tell(&mut self) {
        match self.look() {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(error = &error as &dyn std::error::Error, "checkpoint failed");
            }
            outcome => self.failing = outcome.is_err(),
        }
    }

    fn fulfil(&mut self, kind: Checkpoint) -> Result<(), StoreError> {
        let (log_bytes, backlog_bytes) = match kind {
            Checkpoint::Beside => self.checkpoint("PASSIVE")?,
            Checkpoint::Empty => {
                connect::empty_log(&self.connection)?;
                (0, 0)
            }
        };
        self.done = backlog_bytes == 0;
        self.counters.wal_bytes.store(log_bytes, Ordering::Relaxed);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

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
        self.checkpoint(mode)?;
        // What a pass answers was true when it began; since then more was written.
        let (mut log_bytes, mut backlog_bytes) = self.checkpoint("NOOP")?;
        for _ in 1..PASSES_MAX {
            if log_bytes < RESTART_BYTES || backlog_bytes <= RESTART_BACKLOG_BYTES {
                break;
            }
            self.checkpoint("PASSIVE")?;
            (log_bytes, backlog_bytes) = self.checkpoint("NOOP")?;
        }
        let near_the_end = log_bytes >= RESTART_BYTES && backlog_bytes <= RESTART_BACKLOG_BYTES;
        self.counters.finish_log.store(near_the_end, Ordering::Relaxed);
        self.done = backlog_bytes == 0;
        self.counters.wal_bytes.store(log_bytes, Ordering::Relaxed);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Size of the log and of the part of it not yet in the file, bytes, when it began. `NOOP` only looks.
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

    /// A store's file, a connection that writes to it, and the work on its log.
    fn work() -> (tempfile::TempDir, Connection, Work) {
        let directory = tempfile::tempdir().unwrap();
        let path = crate::sqlite::files::prepare_database(directory.path()).unwrap();
        let place = Place { path, vfs: None, bytes_max: None };
        let mut writer = connect::writer(&place).unwrap();
        schema::migrate(&mut writer, 1).unwrap();
        let work = Work {
            connection: connect::writer(&place).unwrap(),
            page_bytes: 4096,
            counters: Arc::default(),
            seen_commits: 0,
            done: false,
            failing: false,
        };
        (directory, writer, work)
    }

    #[test]
    fn an_idle_log_is_moved_and_left_alone() {
        let (_directory, _writer, mut work) = work();
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

    #[test]
    fn a_long_log_whose_end_is_near_is_left_to_the_writer() {
        let (_directory, writer, mut work) = work();
        writer.execute_batch("CREATE TABLE blobs (body BLOB)").unwrap();
        let write = |bytes: u64| {
            let bytes = i64::try_from(bytes).unwrap();
            writer.execute("INSERT INTO blobs VALUES (zeroblob(?1))", [bytes]).unwrap();
        };
        let asked = |work: &mut Work| {
            work.counters.committed(1, 1);
            work.look().unwrap();
            work.counters.finish_log.load(Ordering::Relaxed)
        };
        write(PASSIVE_BYTES + 1);
        assert!(!asked(&mut work), "the log is not long yet");
        write(RESTART_BYTES + 1);
        assert!(asked(&mut work));
        // Nobody reads, and all of the log is in the file: the next write starts it over.
        write(1);
        let (log_bytes, _) = work.checkpoint("NOOP").unwrap();
        assert!(log_bytes < PASSIVE_BYTES, "{log_bytes}");
    }
}
