//! The engine: makes transitions of the pure core durable, then executes their effects.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outpost_core::{Dispatch, Event, Limits, RetentionRules, State, effects};
use outpost_gateway::hooks::HookClient;
use outpost_runner::{Resume, ResumeStage, Runner};
use outpost_store::{AuditEntry, Store, StoreError};
use outpost_types::{AttemptId, DispatchId, Failure, FailureCode, KeyId, Timestamp};
use thiserror::Error;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::clock::World;
use crate::effects::lock;
use crate::keys::Access;
use crate::live::{Live, LiveSet};
use crate::retention::Reached;
use crate::secrets::Secrets;
use crate::tasks::{TaskKind, Tasks};
use crate::waiting::Waiting;

/// Longest wait for running attempts to end at shutdown, seconds: the agents' grace and some.
const CLOSE_SECONDS_MAX: u64 = 20;

/// What an engine is made of.
#[derive(Debug)]
pub struct EngineConfig {
    /// Everything kept lives below it.
    pub data_dir: PathBuf,
    /// Most live attempts at once.
    pub limits: Limits,
    /// Dispatches that may wait for a slot; further ones are turned away.
    pub waiting_count_max: usize,
    /// The secrets, on the same store; the runner is given the same.
    pub secrets: Arc<Secrets>,
    /// For how long what is kept.
    pub retention: RetentionRules,
    /// What delivers to webhooks.
    pub hooks: HookClient,
}

/// Why an engine cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store cannot be read.
    #[error("the records cannot be read")]
    Store(#[from] StoreError),
    /// Agents of an earlier server cannot be found.
    #[error("the agents of an earlier server cannot be found: {0}")]
    Runner(String),
    /// A file of the data directory cannot be used.
    #[error("a file of the data directory cannot be used; check its permissions and free space")]
    Io(#[from] std::io::Error),
}

/// The handle: cheap to clone, ends its work at [`Engine::close`].
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) world: Arc<dyn World>,
    pub(crate) tasks: Tasks,
    pub(crate) placer: Notify,
    pub(crate) live: Arc<LiveSet>,
    pub(crate) waiting: Waiting,
    /// Held while the last event of an ended dispatch is appended.
    pub(crate) mending: Mutex<()>,
    pub(crate) access: Arc<Access>,
    pub(crate) promotions: crate::promote::Promotions,
    /// How far retention is; held for one look.
    pub(crate) reached: tokio::sync::Mutex<Reached>,
    /// There is something to deliver to webhooks.
    pub(crate) told: Notify,
}

/// Why an event was not applied.
#[derive(Debug, Error)]
pub(crate) enum ApplyError {
    /// It changes nothing.
    #[error("{0}")]
    Rejected(outpost_core::Rejection),
    /// The store failed; nothing changed.
    #[error("the change could not be recorded")]
    Store(#[source] StoreError),
}

impl Engine {
    /// Opens the engine: reads what is live, cleans up after a crash, starts giving out slots.
    ///
    /// # Errors
    /// [`OpenError`] when the records or the data directory cannot be used.
    pub async fn open(
        config: EngineConfig,
        store: Arc<dyn Store>,
        runner: Arc<dyn Runner>,
        world: Arc<dyn World>,
    ) -> Result<Self, OpenError> {
        std::fs::create_dir_all(config.data_dir.join("dispatches"))?;
        let mut cursor_secret = [0; 32];
        world.fill(&mut cursor_secret);
        let access = Arc::new(Access::new(config.limits.clone(), cursor_secret));
        let engine = Self {
            inner: Arc::new(Inner {
                config,
                store,
                runner,
                world,
                tasks: Tasks::default(),
                placer: Notify::new(),
                live: Arc::default(),
                waiting: Waiting::default(),
                mending: Mutex::default(),
                access,
                promotions: crate::promote::Promotions::default(),
                reached: tokio::sync::Mutex::default(),
                told: Notify::new(),
            }),
        };
        engine.load_access().await?;
        engine.load_drains().await?;
        engine.inner.config.secrets.settle().await;
        engine.recover().await?;
        engine.inner.tasks.spawn(TaskKind::Placer, "all", crate::placer::run(engine.clone()));
        let uses = crate::keys::run(engine.clone());
        engine.inner.tasks.spawn(TaskKind::Reconciler, "key uses", uses);
        let retention = crate::retention::run(engine.clone());
        engine.inner.tasks.spawn(TaskKind::Reconciler, "retention", retention);
        let courier = crate::webhooks::run(engine.clone());
        engine.inner.tasks.spawn(TaskKind::Reconciler, "webhooks", courier);
        let runner = Arc::clone(&engine.inner.runner);
        engine.inner.tasks.spawn(TaskKind::Fleet, "all", async move { runner.tend().await });
        Ok(engine)
    }

    /// Reads what is live, removes what no live attempt owns, and takes the rest up again.
    async fn recover(&self) -> Result<(), OpenError> {
        let (boot, rebooted) = self.boot()?;
        let records = self.inner.store.live().await?;
        let held: Vec<_> = records.iter().filter(|record| record.holds_slot()).collect();
        let attempts = held.iter().filter_map(|record| record.attempt_id()).collect();
        self.inner.runner.sweep(&attempts).await.map_err(OpenError::Runner)?;
        for record in &records {
            self.inner.waiting.observe_first(record);
        }
        for record in held {
            if let Some(attempt) = record.attempt_id() {
                let live = self.inner.live.insert(record.clone(), self.journal_of_live(record)?);
                if rebooted && matches!(record.state, State::Provisioning { .. }) {
                    self.lose_unknown(&live, attempt).await;
                } else {
                    self.take_up(&live, record, attempt)?;
                }
            }
        }
        // Only now: a server that dies before must find out about the reboot once more.
        Ok(self.note_boot(&boot)?)
    }

    /// The machine was started anew while an attempt was being started: nobody can say whether its
    /// agent ran, so it is not tried again.
    async fn lose_unknown(&self, live: &Arc<Live>, attempt: AttemptId) {
        let message = "The machine was restarted while the agent was being started.";
        let failure = Failure::new(FailureCode::LostWorker, message)
            .with_hint("Dispatch it again; nothing of this attempt runs any more.");
        let event = Event::ProvisionFailed { attempt, failure, retry: false };
        self.apply_surely(live, event).await;
    }

    /// Goes on with an attempt of an earlier server.
    fn take_up(
        &self,
        live: &Arc<Live>,
        record: &Dispatch,
        attempt: AttemptId,
    ) -> Result<(), OpenError> {
        info!(%attempt, status = %record.status(), "taking up an attempt of an earlier server");
        let stage = match &record.state {
            State::Running { .. } => ResumeStage::Started,
            State::Completing { .. } => ResumeStage::Ended(record.facts.exit_code),
            _ => ResumeStage::Placed,
        };
        let told = live.journal.told()?;
        crate::attempt::start(self, live, attempt, Some(Resume { stage, told }));
        self.execute_all(live, effects(None, record));
        Ok(())
    }

    /// The machine's boot, and whether it is another one than the last server's on this directory.
    fn boot(&self) -> std::io::Result<(String, bool)> {
        let now = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let then = std::fs::read_to_string(self.boot_file()).ok();
        let rebooted = then.is_some_and(|then| then != now);
        Ok((now, rebooted))
    }

    /// Notes the machine's boot, whole or not at all: half a note would look like another boot.
    fn note_boot(&self, boot: &str) -> std::io::Result<()> {
        let path = self.boot_file();
        if std::fs::read_to_string(&path).is_ok_and(|noted| noted == boot) {
            return Ok(());
        }
        let partial = path.with_extension("partial");
        std::fs::write(&partial, boot)?;
        std::fs::rename(partial, path)
    }

    fn boot_file(&self) -> PathBuf {
        self.inner.config.data_dir.join("boot-id")
    }

    /// Ends this server, but no agent: the next server on this data directory takes them up.
    pub async fn leave(&self) {
        // First: a recorder whose runner left must know that nothing was lost.
        self.inner.tasks.begin_closing();
        for live in self.inner.live.all() {
            *lock(&live.commands) = None;
        }
        self.inner.tasks.close(Duration::from_secs(CLOSE_SECONDS_MAX)).await;
        self.write_key_uses().await;
    }

    /// Ends everything: live attempts are cancelled, what their agents changed is collected. What
    /// only waits for a slot goes on waiting on disk.
    pub async fn close(&self) {
        let reason = Some("the server was stopped".to_owned());
        for live in
            self.inner.live.all().into_iter().filter(|live| live.record.borrow().holds_slot())
        {
            let event = Event::CancelRequested { reason: reason.clone() };
            if let Err(error) = self.apply(&live, &event, None).await {
                info!(%error, "an attempt ends by itself while the server stops");
            }
        }
        self.inner.tasks.close(Duration::from_secs(CLOSE_SECONDS_MAX)).await;
        self.write_key_uses().await;
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.world.now()
    }

    /// Where kept files of a dispatch are.
    pub(crate) fn kept_dir(&self, id: DispatchId) -> PathBuf {
        self.inner.config.data_dir.join("dispatches").join(id.to_string())
    }

    /// A new time-ordered id.
    pub(crate) fn random_u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.inner.world.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }

    /// Applies an event that must not get lost: a store that cannot write now is asked again until
    /// it can, with bounded backoff. Late and repeated events change nothing. `false` when the store
    /// will never take it: the next server has to find out.
    pub(crate) async fn apply_surely(&self, live: &Arc<Live>, event: Event) -> bool {
        const BACKOFF_MILLIS_MAX: u64 = 5_000;
        let mut backoff_millis = 50;
        loop {
            match self.apply(live, &event, None).await {
                Ok(_) => return true,
                Err(ApplyError::Rejected(rejection)) => {
                    info!(?event, %rejection, "event changes nothing");
                    return true;
                }
                Err(ApplyError::Store(StoreError::Stale { .. })) => {}
                Err(ApplyError::Store(error)) if may_pass(&error) => {
                    error!(?error, "cannot record a change; trying again");
                }
                Err(ApplyError::Store(error)) => {
                    error!(?error, ?event, "cannot record a change, and trying again is no use");
                    return false;
                }
            }
            tokio::time::sleep(Duration::from_millis(backoff_millis)).await;
            backoff_millis = (backoff_millis * 2).min(BACKOFF_MILLIS_MAX);
        }
    }

    /// Writes a change down. A store that fails may have written it all the same: then it counts.
    async fn write_down(
        &self,
        after: &Dispatch,
        expected: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        let Err(error) = self.inner.store.update(after, expected, audit).await else {
            return Ok(());
        };
        // Nobody else writes to this directory, so the generation tells whose write it was.
        match self.inner.store.get(after.id).await {
            Ok(Some(found))
                if found.generation == after.generation && found.state == after.state =>
            {
                warn!(?error, id = %after.id, "a change was recorded although the store failed");
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Takes up a record that a write of ours reached without our hearing of it, and does what it
    /// asks for.
    async fn reread(&self, live: &Arc<Live>) {
        let guard = live.writing.lock().await;
        let known = live.snapshot();
        let Ok(Some(record)) = self.inner.store.get(known.id).await else { return };
        if record.generation <= known.generation {
            return;
        }
        self.announce(live, &known, &record);
        drop(guard);
        self.execute_all(live, effects(Some(&known), &record));
    }

    /// Applies an event: decide, make durable, announce, execute. `actor` is the key that asked for
    /// it; `None` is the engine itself.
    pub(crate) async fn apply(
        &self,
        live: &Arc<Live>,
        event: &Event,
        actor: Option<KeyId>,
    ) -> Result<Dispatch, ApplyError> {
        let guard = live.writing.lock().await;
        let before = live.snapshot();
        let now = self.now();
        let transition = outpost_core::step(&before, event, now).map_err(ApplyError::Rejected)?;
        let after = transition.next;
        let audit = crate::audit::of_transition(&before, &after, actor, now);
        if after.status().is_terminal()
            && let Err(error) = live.journal.sync()
        {
            warn!(%error, id = %after.id, "the log of a dispatch may not be durable");
        }
        if let Err(error) = self.write_down(&after, before.generation, audit).await {
            drop(guard);
            if matches!(error, StoreError::Stale { .. }) {
                self.reread(live).await;
            }
            return Err(ApplyError::Store(error));
        }
        if after.status().is_terminal() {
            Self::write_result(live, &after);
        }
        self.announce(live, &before, &after);
        drop(guard);
        self.execute_all(live, transition.effects);
        Ok(after)
    }
}

/// Whether a failing store may work again without a restart.
const fn may_pass(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Busy
            | StoreError::DiskFull
            | StoreError::Io { .. }
            | StoreError::Backend { .. }
    )
}
