//! Warm workers of this host: the shell of the core's pool.
//!
//! A worker is a sandbox that is parked: isolated, limited, listening for the gateway's connections, and with
//! the programs of its agent, but without anything of a tenant. An attempt that claims one adds its workspace
//! to it. What is made, claimed and stopped is decided by [`outpost_core::pool`]; here it is carried out, by one
//! task with all work below it. Bounded by the pool. Absent: workers of an earlier server, which are removed at
//! the start because making others takes milliseconds.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use outpost_agents::Installed;
use outpost_core::Drains;
use outpost_core::pool::{
    AgentFigures, AgentSizes, AskedSizes, Claim, Effect, Event, Fingerprint, Miss, Pool,
    PoolConfig, Stage, WorkerId,
};
use outpost_sandbox::{GATEWAY_PORT, ParkedSandbox, SandboxSpec};
use outpost_types::{AgentId, AttemptId, PoolView, Tier, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::local::Parts;
use crate::provision::limits_of;
use crate::shown;

/// How often it is looked whether agents can still run, and are what they were, seconds.
const AGENTS_LOOK_SECONDS: u64 = 10;
/// Longest sleep of the task, seconds, should a signal ever be missed.
const NAP_SECONDS_MAX: u64 = 10;

/// How many warm workers the operator wants.
#[derive(Debug, Clone, Default)]
pub struct WarmSettings {
    /// Whose defaults to take; `None` takes those of each agent.
    pub stage: Option<Stage>,
    /// Most of them in all; `None` is what the minima need, at least the core's default.
    pub total: Option<u32>,
    /// What is set for single agents.
    pub agents: BTreeMap<AgentId, AskedSizes>,
}

/// All warm workers, and what is to be done about them.
#[derive(Debug)]
pub(crate) struct Warm {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    places: BTreeMap<WorkerId, Place>,
    /// Effects that nobody has begun to carry out; as many as the pool's bounds allow.
    todo: Vec<Effect>,
}

/// Where a worker is that no attempt has.
#[derive(Debug)]
enum Place {
    /// Being made.
    Building,
    /// Being made, and to be removed when it is.
    Unwanted,
    Parked(Worker),
}

/// A parked worker.
#[derive(Debug)]
struct Worker {
    sandbox: Box<dyn ParkedSandbox>,
    /// Programs it shows.
    programs: Vec<PathBuf>,
}

/// A worker that an attempt got.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) sandbox: Box<dyn ParkedSandbox>,
    /// Programs it shows.
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) lease: Lease,
}

/// Tells the pool when the attempt's sandbox is gone: when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    warm: Arc<Warm>,
    worker: WorkerId,
}

impl Lease {
    /// The worker could not be used, and nothing of the attempt ran in it.
    pub(crate) fn failed(&self, reason: String) {
        self.warm.tell(&Event::ClaimFailed { worker: self.worker, reason });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let reason = "its attempt is over".to_owned();
        self.warm.tell(&Event::WorkerEnded { worker: self.worker, reason });
    }
}

impl Warm {
    /// A pool for these agents and the sizes they have by default.
    ///
    /// # Errors
    /// One sentence that names the setting and its bounds.
    pub(crate) fn new(
        settings: &WarmSettings,
        agents: impl IntoIterator<Item = (AgentId, Tier)>,
    ) -> Result<Self, String> {
        let sizes = agents.into_iter().map(|(agent, tier)| {
            let asked = settings.agents.get(&agent).copied().unwrap_or_default();
            let sizes = AgentSizes::default_of(&agent, tier, settings.stage).resolve(asked);
            (agent, sizes)
        });
        let mut config = PoolConfig::of(sizes.collect());
        config.warm_max = settings.total.unwrap_or(config.warm_max);
        config.sandboxes_max = outpost_sandbox::SANDBOXES_MAX.try_into().unwrap_or(u32::MAX);
        let epoch = now().as_millis();
        let pool = Pool::new(config, epoch).map_err(|error| error.to_string())?;
        let state = State { pool, places: BTreeMap::new(), todo: Vec::new() };
        Ok(Self { state: Mutex::new(state), wake: Notify::new() })
    }

    /// What there is of each agent.
    pub(crate) fn views(&self) -> BTreeMap<AgentId, PoolView> {
        let figures = self.lock().pool.figures(now());
        figures.into_iter().map(|figures| (figures.agent.clone(), view(figures))).collect()
    }

    /// How busy the host is.
    pub(crate) fn load(&self, attempts: u32, waiting: u32) {
        self.tell(&Event::Load { attempts, waiting });
    }

    /// Lets go of the workers of what is drained, and makes no more of them.
    pub(crate) fn drain(&self, drains: &Drains) {
        self.tell(&Event::DrainAgents(drains.agents.keys().cloned().collect()));
        self.tell(if drains.host.is_some() { &Event::Drain } else { &Event::Undrain });
    }

    /// A worker for an attempt, or why there is none.
    pub(crate) fn claim(
        self: &Arc<Self>,
        attempt: AttemptId,
        agent: &AgentId,
        tier: Tier,
    ) -> Result<Claimed, Miss> {
        let claim = Claim { attempt, agent: agent.clone(), tier };
        let (worker, place) = {
            let mut state = self.lock();
            let (answer, effects) = state.pool.claim(&claim, now());
            state.todo.extend(effects);
            self.wake.notify_one();
            let worker = answer?;
            (worker, state.places.remove(&worker))
        };
        let lease = Lease { warm: Arc::clone(self), worker };
        match place {
            Some(Place::Parked(Worker { sandbox, programs })) => {
                Ok(Claimed { sandbox, programs, lease })
            }
            _ => {
                lease.failed("it was gone when it was wanted".to_owned());
                Err(Miss::Unhealthy)
            }
        }
    }

    fn tell(&self, event: &Event) {
        let mut state = self.lock();
        let effects = state.pool.step(event, now());
        let idle = effects.is_empty();
        state.todo.extend(effects);
        drop(state);
        if !idle {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a worker that was made where it can be claimed; gives it back when nobody wants it any more.
    fn park(&self, id: WorkerId, worker: Worker) -> Option<Worker> {
        let mut state = self.lock();
        match state.places.remove(&id) {
            Some(Place::Building) => {
                state.places.insert(id, Place::Parked(worker));
                None
            }
            _ => Some(worker),
        }
    }

    /// Takes a worker away that is to be stopped; `Err` when it is still being made, and told so.
    fn take(&self, id: WorkerId) -> Result<Option<Worker>, ()> {
        let mut state = self.lock();
        match state.places.remove(&id) {
            Some(Place::Building) => {
                state.places.insert(id, Place::Unwanted);
                Err(())
            }
            // Asked for again, half a minute later: whoever made it came to grief, or cleans up after itself.
            Some(Place::Unwanted) | None => Ok(None),
            Some(Place::Parked(worker)) => Ok(Some(worker)),
        }
    }

    /// Whether it waits; one that ends is taken away at once.
    fn is_parked(&self, id: WorkerId) -> bool {
        matches!(self.lock().places.get(&id), Some(Place::Parked(_)))
    }
}

impl Parts {
    /// Carries out what the pool wants, for as long as it is polled. When it is dropped, what was being made is
    /// removed; what is parked stays until the pool is dropped.
    pub(crate) async fn keep_warm(self: &Arc<Self>) {
        let mut work = JoinSet::new();
        self.look_at_agents();
        self.warm.tell(&Event::Recovered(Vec::new()));
        let mut look_at = tokio::time::Instant::now() + Duration::from_secs(AGENTS_LOOK_SECONDS);
        loop {
            let todo = std::mem::take(&mut self.warm.lock().todo);
            for effect in todo {
                self.begin(&mut work, effect);
            }
            tokio::select! {
                () = self.warm.wake.notified() => {}
                // A panic of one piece of work is the end of that worker; the pool stops waiting for it.
                Some(ended) = work.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "work on a warm worker failed");
                    }
                }
                () = tokio::time::sleep(self.nap()) => self.warm.tell(&Event::Tick),
            }
            if tokio::time::Instant::now() >= look_at {
                self.look_at_agents();
                look_at += Duration::from_secs(AGENTS_LOOK_SECONDS);
            }
        }
    }

    /// Until the pool has something to do by time alone.
    fn nap(&self) -> Duration {
        let wake_at = self.warm.lock().pool.wake_at();
        let millis = wake_at.map_or(u64::MAX, |at| at.millis_since(now()));
        // At least a moment: what is due may take more than one tick.
        Duration::from_millis(millis.clamp(1, NAP_SECONDS_MAX * 1_000))
    }

    fn begin(self: &Arc<Self>, work: &mut JoinSet<()>, effect: Effect) {
        let parts = Arc::clone(self);
        match effect {
            Effect::Start { worker, agent, tier } => {
                self.warm.lock().places.insert(worker, Place::Building);
                work.spawn(async move {
                    // What an attempt is waiting for goes first.
                    parts.starting.quiet().await;
                    parts.make(worker, &agent, tier).await;
                });
            }
            Effect::Stop { worker, why } => {
                debug!(%worker, ?why, "a warm worker is stopped");
                work.spawn(async move { parts.stop(worker).await });
            }
            Effect::Check { worker } => {
                self.warm.tell(&if self.warm.is_parked(worker) {
                    Event::HealthPassed { worker }
                } else {
                    Event::HealthFailed { worker, reason: "it is gone".to_owned() }
                });
            }
        }
    }

    async fn make(&self, worker: WorkerId, agent: &AgentId, tier: Tier) {
        let (gone, unwanted) = match self.build(worker, agent, tier).await {
            Ok(made) => (made.sandbox.gone(), self.warm.park(worker, made)),
            Err(reason) => {
                self.warm.lock().places.remove(&worker);
                self.warm.tell(&Event::BuildFailed { worker, reason });
                return;
            }
        };
        if let Some(unwanted) = unwanted {
            return self.discard(worker, unwanted).await;
        }
        self.warm.tell(&Event::Started { worker });
        gone.await;
        // Whoever stopped it, or has it, told so already or will: hearing it twice changes nothing.
        self.warm.lock().places.remove(&worker);
        self.warm.tell(&Event::WorkerEnded { worker, reason: "it ended by itself".to_owned() });
    }

    async fn build(&self, id: WorkerId, agent: &AgentId, tier: Tier) -> Result<Worker, String> {
        let agent = self.registry.get(agent).ok_or("it is not declared")?;
        let installed = Installed::load(&self.config.agents_dir, agent.as_ref());
        let programs = installed.map_err(|unavailable| unavailable.reason)?.ro_paths;
        let mut spec = SandboxSpec::new(format!("warm-{id}"));
        spec.limits = limits_of(tier, 0);
        // It waits for as long as the pool wants; the attempt that claims it sets the limit.
        spec.limits.wall_seconds = None;
        spec.listener_port = Some(GATEWAY_PORT);
        spec.binds = shown::programs(&programs).map_err(|error| error.to_string())?;
        let sandbox = self.sandbox.create(spec).await.map_err(|error| error.to_string())?;
        Ok(Worker { sandbox, programs })
    }

    async fn stop(&self, id: WorkerId) {
        match self.warm.take(id) {
            // Who makes it sees that it is unwanted.
            Err(()) => {}
            Ok(Some(worker)) => self.discard(id, worker).await,
            Ok(None) => {
                let reason = "it is gone".to_owned();
                self.warm.tell(&Event::WorkerEnded { worker: id, reason });
            }
        }
    }

    async fn discard(&self, id: WorkerId, worker: Worker) {
        if let Err(error) = worker.sandbox.discard().await {
            // Then it went with its launcher.
            debug!(%error, worker = %id, "a warm worker could not be removed");
        }
        self.warm.tell(&Event::WorkerEnded { worker: id, reason: "it was stopped".to_owned() });
    }

    /// Tells the pool which agents can run, and of what their workers are made.
    fn look_at_agents(&self) {
        for agent in self.registry.iter() {
            let id = agent.profile().id.clone();
            self.warm.tell(&match Installed::load(&self.config.agents_dir, agent.as_ref()) {
                Ok(installed) => {
                    let mut hasher = DefaultHasher::new();
                    (&installed.version, &installed.ro_paths).hash(&mut hasher);
                    Event::AgentReady { agent: id, fingerprint: Fingerprint(hasher.finish()) }
                }
                Err(unavailable) => {
                    Event::AgentUnavailable { agent: id, reason: unavailable.reason }
                }
            });
        }
    }
}

fn view(figures: AgentFigures) -> PoolView {
    let misses = figures.misses.iter().map(|(miss, count)| (miss.as_str().to_owned(), *count));
    PoolView {
        min: figures.sizes.min,
        max: figures.sizes.max,
        target: figures.target,
        starting: figures.starting,
        idle: figures.idle,
        busy: figures.busy,
        stopping: figures.stopping,
        hits: figures.hits,
        misses: misses.collect(),
        hour_miss_rate: figures.hour_miss_rate(),
        built: figures.built,
        builds_failed: figures.builds_failed,
        lost: figures.lost,
        last_failure: figures.last_failure,
    }
}

/// The wall clock.
fn now() -> Timestamp {
    SystemTime::now().into()
}
