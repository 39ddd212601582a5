//! The real store on a recorded disk, and the turns it takes: single writes, groups that share one
//! commit, checkpoints that other writes meet in the middle, and restarts.
//!
//! Two runs of one seed take the same turns: the threads of the store are held where their order
//! would be left to chance. Bounded: waits, writes of a group, turns of a run.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use outpost_store::{Checkpoint, SqliteOptions, SqliteStore, Store, StoreError};

use crate::history::History;
use crate::random::Random;
use crate::vfs::Layer;
use crate::workload::{Author, Write};
use crate::world::World;

/// Longest wait for a condition, seconds.
const WAIT_SECONDS: u64 = 30;
/// Most writes of a group.
const GROUP_MAX: u64 = 7;
/// A checkpoint is held before one of its first so many changes.
const CHECKPOINT_CHANGES: u64 = 40;
/// Names the store gives its threads.
const WRITER: &str = "store-writer";
const CHECKPOINTER: &str = "store-checkpoint";
/// The checkpointer never acts by itself within a run, milliseconds.
const NEVER_MILLIS: u64 = 24 * 3_600 * 1_000;
const INSTALL_ID: u128 = 7;

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// How many turns.
    pub turns: u64,
    /// Only single writes: for looking at every position.
    pub plain: bool,
    /// A mutant: an answer counts as given before it is.
    pub early: bool,
}

/// A store and the disk below it. Fields are dropped in order.
#[derive(Debug)]
pub struct Rig {
    store: Option<Arc<SqliteStore>>,
    options: SqliteOptions,
    _layer: Layer,
    /// The disk.
    pub world: Arc<World>,
}

impl Rig {
    /// Opens the store in `directory`, recorded from its first byte on.
    ///
    /// # Errors
    /// What opening answers.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let world = Arc::new(World::over(directory)?);
        let layer = Layer::register(Arc::clone(&world))?;
        let mut options = SqliteOptions::new(directory, INSTALL_ID);
        options.vfs = Some(layer.name().to_owned());
        options.checkpoint_millis = NEVER_MILLIS;
        let store = Some(Arc::new(SqliteStore::open(&options).context("opening the store")?));
        Ok(Self { store, options, _layer: layer, world })
    }

    /// The open store.
    ///
    /// # Errors
    /// After a restart that failed.
    pub fn store(&self) -> anyhow::Result<&Arc<SqliteStore>> {
        self.store.as_ref().context("the store is closed")
    }

    /// Closes the store.
    ///
    /// # Errors
    /// When somebody still uses it.
    pub fn close(&mut self) -> anyhow::Result<()> {
        if let Some(store) = self.store.take() {
            Arc::into_inner(store).context("the store is still in use")?.close();
        }
        Ok(())
    }

    /// Closes the store and opens it again.
    ///
    /// # Errors
    /// What opening answers.
    pub fn reopen(&mut self) -> anyhow::Result<()> {
        self.close()?;
        self.store = Some(Arc::new(SqliteStore::open(&self.options)?));
        Ok(())
    }

    /// Takes the turns of a script.
    ///
    /// # Errors
    /// When a write that should succeed does not.
    pub async fn run(
        &mut self,
        script: Script,
        author: &mut Author,
        history: &mut History,
        random: &mut Random,
    ) -> anyhow::Result<()> {
        for _ in 0..script.turns {
            let kind = if script.plain { 0 } else { random.below(16) };
            match kind {
                0..=7 => self.single(script, author.next_write(), history).await?,
                8..=11 => {
                    let count = 1 + random.below(GROUP_MAX);
                    self.group(script, author, history, count).await?;
                }
                12..=13 => self.beside(script, author, history, random).await?,
                14 => self.store()?.checkpoint(Checkpoint::Empty).await?,
                _ => self.reopen()?,
            }
        }
        if script.plain {
            self.store()?.checkpoint(Checkpoint::Beside).await?;
            self.single(script, author.next_write(), history).await?;
            self.store()?.checkpoint(Checkpoint::Empty).await?;
            self.single(script, author.next_write(), history).await?;
        }
        if script.plain || random.once_in(4) {
            self.close()?;
        }
        Ok(())
    }

    /// One write after the other.
    ///
    /// # Errors
    /// When it fails for another reason than its content.
    pub async fn single(
        &self,
        script: Script,
        write: Write,
        history: &mut History,
    ) -> anyhow::Result<()> {
        let issued = self.world.position();
        answered(write.issue(self.store()?.as_ref()).await)?;
        let position = if script.early { issued } else { self.world.position() };
        history.happened(vec![write], issued, &[position]).await
    }

    /// Several writes of which all but the first share a commit: the writer is held in the first
    /// while they queue up.
    async fn group(
        &self,
        script: Script,
        author: &mut Author,
        history: &mut History,
        count: u64,
    ) -> anyhow::Result<()> {
        let issued = self.world.position();
        let mut group = vec![author.accept_claimed()];
        self.world.hold(WRITER, 0);
        let mut calls = vec![self.spawn(&group[0])?];
        until("the writer is held", || self.world.holds()).await?;
        for _ in 0..count {
            let write = author.next_write();
            calls.push(self.spawn(&write)?);
            group.push(write);
        }
        let store = Arc::clone(self.store()?);
        let queued = until("the group is queued", || store.metrics().queue_depth >= count).await;
        drop(store);
        self.world.release();
        queued?;
        let mut positions = Vec::new();
        for call in calls {
            let (outcome, position) = call.await?;
            answered(outcome)?;
            positions.push(if script.early { issued } else { position });
        }
        history.happened(group, issued, &positions).await
    }

    fn spawn(
        &self,
        write: &Write,
    ) -> anyhow::Result<tokio::task::JoinHandle<(Result<(), StoreError>, usize)>> {
        let store = Arc::clone(self.store()?);
        let world = Arc::clone(&self.world);
        let write = write.clone();
        Ok(tokio::spawn(async move {
            let outcome = write.issue(store.as_ref()).await;
            (outcome, world.position())
        }))
    }

    /// A checkpoint with writes in the middle of it.
    async fn beside(
        &self,
        script: Script,
        author: &mut Author,
        history: &mut History,
        random: &mut Random,
    ) -> anyhow::Result<()> {
        self.world.hold(CHECKPOINTER, random.below(CHECKPOINT_CHANGES));
        let store = Arc::clone(self.store()?);
        let checkpoint = tokio::spawn(async move { store.checkpoint(Checkpoint::Beside).await });
        let met = until("the checkpoint is held or done", || {
            self.world.holds() || checkpoint.is_finished()
        });
        let mut outcome = met.await;
        if outcome.is_ok() && self.world.holds() {
            for _ in 0..1 + random.below(3) {
                outcome = outcome.and(self.single(script, author.next_write(), history).await);
            }
        }
        self.world.release();
        checkpoint.await??;
        outcome
    }
}

/// A refusal for the content of a write is an answer; anything else is a failure of the run.
fn answered(outcome: Result<(), StoreError>) -> anyhow::Result<()> {
    use StoreError::{Duplicate, Final, Invalid, NotFound, Stale};
    match outcome {
        Ok(()) | Err(Stale { .. } | NotFound | Duplicate | Final { .. } | Invalid { .. }) => Ok(()),
        Err(error) => Err(error).context("a write failed"),
    }
}

/// Waits for a condition that other threads make true.
async fn until(what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(WAIT_SECONDS);
    while !condition() {
        if Instant::now() > deadline {
            bail!("waited {WAIT_SECONDS} s in vain: {what}");
        }
        // The other tasks of this thread run meanwhile, then the other threads.
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
    Ok(())
}
