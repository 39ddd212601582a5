//! The writer: one thread, the only read-write connection, group commit.
//!
//! It takes the first waiting command and drains what else waits (never waiting for more), runs
//! them in one transaction, commits (an fsync of the log), and only then answers. So under load
//! many answers share one fsync, and alone a write pays for exactly one.
//!
//! A failed commit acknowledges nothing. After one the disk failed or refused, the log may hold
//! pages of it that no later fsync will report as lost. So nothing is appended before the writer has
//! a new connection, has moved the committed part of the log into the file, and has cut the log off:
//! it tries that with the next write and once in a while. Damage is final: nothing more is taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::StoreError;
use crate::audit::Chain;
use crate::metrics::Counters;
use crate::sqlite::apply::{Answer, Command, Refusal};
use crate::sqlite::connect::{self, Place};
use crate::sqlite::rows;

/// Most writes that wait, commands. More are turned away with [`StoreError::Busy`].
pub const WRITE_QUEUE_MAX: usize = 2_048;
/// New dispatches are turned away from here on, commands: the rest of the queue is for the progress
/// of those already accepted.
pub const ACCEPT_QUEUE_MAX: usize = 1_536;
/// Most writes of one transaction, commands.
pub const BATCH_MAX: usize = 512;
/// A batch takes no more commands once it has this many bytes.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How often a writer that met an error tries to go on when nobody asks, milliseconds.
const RECOVER_MILLIS: u64 = 1_000;

type Reply = oneshot::Sender<Result<Answer, StoreError>>;

struct Waiting {
    command: Command,
    reply: Reply,
}

/// The way to the thread. Dropping it lets the thread finish what waits, and waits for that.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<SyncSender<Waiting>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl Writer {
    pub(crate) fn start(
        connection: Connection,
        place: Place,
        unsettled: Option<StoreError>,
        counters: Arc<Counters>,
    ) -> Result<Self, StoreError> {
        let chain = rows::chain(&connection)?;
        let (queue, waiting) = sync_channel(WRITE_QUEUE_MAX);
        let mut machine =
            Machine { connection, place, chain, counters: Arc::clone(&counters), failure: None };
        if let Some(error) = unsettled {
            machine.fail(error);
        }
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || machine.run(&waiting))
            .map_err(StoreError::io)?;
        Ok(Self { queue: Some(queue), thread: Some(thread), counters })
    }

    /// Queues a command and waits until it is durable or refused.
    pub(crate) async fn submit(&self, command: Command) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Waiting { command, reply })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    fn enqueue(&self, waiting: Waiting) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        let depth = self.counters.queue_depth.fetch_add(1, Ordering::Relaxed);
        let accept = matches!(waiting.command, Command::Accept(_));
        let refused = if accept && depth >= ACCEPT_QUEUE_MAX as u64 {
            Some(StoreError::Busy)
        } else {
            match queue.try_send(waiting) {
                Ok(()) => None,
                Err(TrySendError::Full(_)) => Some(StoreError::Busy),
                Err(TrySendError::Disconnected(_)) => {
                    // Only a panic ends the thread while this end of the queue lives.
                    self.counters.failed.store(true, Ordering::Relaxed);
                    Some(StoreError::Closed)
                }
            }
        };
        let Some(error) = refused else {
            return Ok(());
        };
        self.counters.queue_depth.fetch_sub(1, Ordering::Relaxed);
        if error.is_transient() {
            self.counters.busy.fetch_add(1, Ordering::Relaxed);
        }
        Err(error)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

struct Machine {
    connection: Connection,
    place: Place,
    chain: Chain,
    counters: Arc<Counters>,
    failure: Option<StoreError>,
}

/// Whether a failing command is undone by itself or together with its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Undo {
    Batch,
    Command,
}

impl Machine {
    fn run(mut self, waiting: &Receiver<Waiting>) {
        let mut batch: Vec<Waiting> = Vec::with_capacity(BATCH_MAX);
        while let Ok(first) = self.next(waiting) {
            let mut bytes = first.command.bytes();
            batch.push(first);
            while batch.len() < BATCH_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(next) = waiting.try_recv()
            {
                bytes += next.command.bytes();
                batch.push(next);
            }
            let depth = &self.counters.queue_depth;
            depth.fetch_sub(batch.len() as u64, Ordering::Relaxed);
            self.serve(&mut batch);
            if self.failure.is_none() && self.counters.finish_log.swap(false, Ordering::Relaxed) {
                self.finish_log();
            }
        }
    }

    /// Moves the rest of the log, which the checkpointer says is little: with the next batch it starts over,
    /// unless a reader still needs it. Nothing depends on it; the checkpointer asks again.
    fn finish_log(&self) {
        let moved = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = moved {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the log could not start over"
            );
        }
    }

    /// The next command; meanwhile tries to get over an error.
    fn next(&mut self, waiting: &Receiver<Waiting>) -> Result<Waiting, RecvTimeoutError> {
        loop {
            if self.failure.is_none() {
                return waiting.recv().map_err(|_| RecvTimeoutError::Disconnected);
            }
            match waiting.recv_timeout(Duration::from_millis(RECOVER_MILLIS)) {
                Err(RecvTimeoutError::Timeout) => drop(self.recover()),
                outcome => return outcome,
            }
        }
    }

    /// Does nothing unless an earlier batch failed.
    fn recover(&mut self) -> Result<(), StoreError> {
        match &self.failure {
            None => return Ok(()),
            Some(error @ StoreError::Corrupt { .. }) => return Err(error.clone()),
            Some(_) => {}
        }
        let connection = connect::writer(&self.place)?;
        connect::empty_log(&connection)?;
        connect::quick_look(&connection)?;
        self.chain = rows::chain(&connection)?;
        self.connection = connection;
        self.failure = None;
        self.counters.failed.store(false, Ordering::Relaxed);
        tracing::info!("the store writes again");
        Ok(())
    }

    fn fail(&mut self, error: StoreError) {
        let full = matches!(error, StoreError::DiskFull);
        self.counters.failed.store(!full, Ordering::Relaxed);
        self.failure = Some(error);
    }

    fn serve(&mut self, batch: &mut Vec<Waiting>) {
        let outcome = match self.recover() {
            Ok(()) => self.commit(batch),
            Err(error) => {
                if matches!(error, StoreError::Corrupt { .. }) {
                    self.fail(error.clone());
                }
                Err(error)
            }
        };
        match outcome {
            Ok(answers) => {
                for (waiting, answer) in batch.drain(..).zip(answers) {
                    // Nobody may be left to hear it; the write stands all the same.
                    let _unheard = waiting.reply.send(answer);
                }
            }
            Err(error) => {
                self.counters.failed_commits.fetch_add(1, Ordering::Relaxed);
                for waiting in batch.drain(..) {
                    let _unheard = waiting.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Answers for every member once all of them are durable, or one error for all.
    fn commit(&mut self, batch: &[Waiting]) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let before = (self.chain, self.connection.total_changes());
        let mut outcome = self.transact(batch, Undo::Batch);
        if let Err(error) = &outcome
            && matches!(error, StoreError::Backend { .. })
        {
            // One member is at fault: again, with a savepoint each, to find it and spare the rest.
            self.abandon(before.0);
            outcome = self.transact(batch, Undo::Command);
        }
        match outcome {
            Ok(answers) => {
                let rows = self.connection.total_changes().saturating_sub(before.1);
                self.counters.committed(batch.len(), rows);
                Ok(answers)
            }
            Err(error) => {
                self.abandon(before.0);
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    members = batch.len(),
                    "a batch of the store failed; nothing of it was acknowledged"
                );
                if error.is_fatal() || matches!(error, StoreError::DiskFull) {
                    self.fail(error.clone());
                }
                Err(error)
            }
        }
    }

    fn transact(
        &mut self,
        batch: &[Waiting],
        undo: Undo,
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        self.execute("BEGIN IMMEDIATE")?;
        let mut answers = Vec::with_capacity(batch.len());
        for waiting in batch {
            answers.push(match undo {
                Undo::Batch => self.apply(&waiting.command),
                Undo::Command => self.apply_alone(&waiting.command),
            }?);
        }
        self.execute("COMMIT")?;
        Ok(answers)
    }

    /// The outer error undoes the batch.
    fn apply(&mut self, command: &Command) -> Result<Result<Answer, StoreError>, StoreError> {
        match command.apply(&self.connection, &mut self.chain) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Refusal::Clean(error)) if error.is_fatal() => Err(error),
            Err(Refusal::Clean(error)) => Ok(Err(error)),
            Err(Refusal::Sql(error)) => Err(error.into()),
        }
    }

    fn apply_alone(&mut self, command: &Command) -> Result<Result<Answer, StoreError>, StoreError> {
        self.execute("SAVEPOINT command")?;
        let before = self.chain;
        let outcome = self.apply(command);
        // Some errors make SQLite drop the whole transaction; then there is nothing left to spare.
        if let Err(error) = outcome {
            if self.connection.is_autocommit() || !matches!(error, StoreError::Backend { .. }) {
                return Err(error);
            }
            self.execute("ROLLBACK TO command")?;
            self.execute("RELEASE command")?;
            self.chain = before;
            return Ok(Err(error));
        }
        self.execute("RELEASE command")?;
        outcome
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn abandon(&mut self, chain: Chain) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            tracing::error!(error = &error as &dyn std::error::Error, "rollback failed");
        }
        self.chain = chain;
    }
}

#[cfg(test)]
mod tests {
    use outpost_types::{DispatchId, Timestamp};

    use super::*;
    use crate::sqlite::schema;

    fn machine() -> Machine {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection, 1).unwrap();
        let place = Place { path: "none".into(), vfs: None, bytes_max: None };
        Machine { chain: Chain::START, connection, place, counters: Arc::default(), failure: None }
    }

    fn waiting(command: Command) -> Waiting {
        let (reply, _) = oneshot::channel();
        Waiting { command, reply }
    }

    fn accept(serial: u64) -> Command {
        let accept = crate::conformance::sample::accept(serial);
        Command::Accept(Box::new(crate::prepare::accept_row(&accept).unwrap()))
    }

    #[test]
    fn a_member_at_fault_does_not_fail_the_others() {
        let mut machine = machine();
        let mut bad = crate::prepare::accept_row(&crate::conformance::sample::accept(2)).unwrap();
        // Breaks a CHECK on the attempts after the job's row was written.
        let attempt = crate::AttemptRecord {
            dispatch: DispatchId::from_parts(2, 0),
            number: 0,
            epoch: 0,
            state: outpost_types::DispatchStatus::Running,
            created_at: Timestamp::from_millis(1),
            started_at: None,
            updated_at: Timestamp::from_millis(1),
            ended_at: None,
        };
        bad.job.attempt_row = Some(attempt);
        let batch =
            [waiting(accept(1)), waiting(Command::Accept(Box::new(bad))), waiting(accept(3))];
        let answers = machine.commit(&batch).unwrap();
        assert!(answers[0].is_ok() && answers[2].is_ok());
        assert!(matches!(answers[1], Err(StoreError::Backend { .. })));
        let count = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            machine.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("jobs"), count("audit")), (2, 2));
        assert_eq!(rows::chain(&machine.connection).unwrap(), machine.chain);
        assert!(machine.failure.is_none());
    }

    #[test]
    fn a_failed_commit_acknowledges_nothing_and_breaks_no_chain() {
        let mut machine = machine();
        machine.commit(&[waiting(accept(1))]).unwrap();
        let chain = machine.chain;
        // A deferred foreign key is checked by COMMIT itself.
        machine
            .connection
            .execute_batch(
                "CREATE TABLE mine (id TEXT REFERENCES jobs DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER late AFTER INSERT ON audit
                 BEGIN INSERT INTO mine VALUES ('nobody'); END;
                 PRAGMA foreign_keys = ON;",
            )
            .unwrap();
        machine.commit(&[waiting(accept(2)), waiting(accept(3))]).unwrap_err();
        assert_eq!(machine.chain, chain);
        assert!(machine.connection.is_autocommit());
        machine.connection.execute_batch("DROP TRIGGER late").unwrap();
        machine.commit(&[waiting(accept(2))]).unwrap();
        let rows = rows::audit_rows(&machine.connection, crate::AuditRange { after: 0, limit: 9 });
        assert_eq!(rows.unwrap().len(), 2);
    }

    #[test]
    fn after_damage_nothing_more_is_taken() {
        let mut machine = machine();
        let claimed = || {
            let mut accept = crate::conformance::sample::accept(1);
            accept.idempotency = Some(crate::conformance::sample::claim("k", "b", 99));
            let row = crate::prepare::accept_row(&accept).unwrap();
            waiting(Command::Accept(Box::new(row)))
        };
        machine.commit(&[claimed()]).unwrap();
        machine.connection.execute_batch("DELETE FROM jobs").unwrap();
        let error = machine.commit(&[waiting(accept(2)), claimed()]).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(machine.counters.snapshot().failed);

        let (reply, answer) = oneshot::channel();
        let command = accept(3);
        machine.serve(&mut vec![Waiting { command, reply }]);
        let answer = answer.blocking_recv().unwrap();
        assert!(matches!(answer, Err(StoreError::Corrupt { .. })), "{answer:?}");
        let jobs: i64 = machine
            .connection
            .query_row("SELECT count(*) FROM jobs", [], |row| row.get(0))
            .unwrap();
        assert_eq!(jobs, 0);
    }
}
