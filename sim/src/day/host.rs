//! The host of a simulated day: sandboxes, slots, the server with its pool, and what happens when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use outpost_core::pool::{Effect, Event as PoolEvent, Pool, PoolConfig, WorkerId};
use outpost_core::{Dispatch, Limits, Queue};
use outpost_types::{AgentId, AttemptId, BuiltinAgent, DispatchId, Timestamp};

use super::faults::Fault;
use super::load::{DAY_MILLIS, HOUR_MILLIS, Job, jobs};
use super::{Day, DayOutcome, Figures, check};
use crate::rng::Rng;
use crate::world::Trace;

/// What the wall clock shows at the begin, milliseconds since the Unix epoch.
const EPOCH_MILLIS: u64 = 1_800_000_000_000;
/// Time after the day in which everything comes to rest, milliseconds.
const REST_MILLIS: u64 = 2 * HOUR_MILLIS;
/// Time until a sandbox that was asked to end has, milliseconds.
const END_MILLIS: u64 = 20;
/// Time until a look is answered, milliseconds.
const LOOK_MILLIS: u64 = 5;
/// Builds that fail, parts of a million.
const BUILD_FAILS: u64 = 20_000;
/// Parked workers that die within an hour, parts of a million.
const DIES: u64 = 30_000;
/// Looks that find a worker no good, parts of a million.
const LOOK_FAILS: u64 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Fault(Fault),
    Arrive(usize),
    Built(WorkerId),
    Dies(WorkerId),
    Ended(WorkerId),
    Looked(WorkerId),
    /// The attempt has its worker.
    Ready(DispatchId),
    Done(DispatchId),
    Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    Building,
    Parked,
    Claimed,
    Ending,
}

#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) agent: usize,
    pub(super) stands: Stands,
    /// The server that has to know of it.
    pub(super) server: u64,
    pub(super) made_of: u64,
    pub(super) made_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) ready: bool,
    pub(super) made_of: u64,
    pub(super) builds_work: bool,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) record: Dispatch,
    pub(super) run_millis: u64,
    pub(super) worker: Option<WorkerId>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) day: Day,
    pub(super) config: PoolConfig,
    pub(super) limits: Limits,
    pub(super) pool: Option<Pool>,
    pub(super) queue: Queue,
    pub(super) sandboxes: BTreeMap<WorkerId, Sandbox>,
    pub(super) agents: Vec<Agent>,
    pub(super) drained: bool,
    /// What every worker was ever used for.
    pub(super) used: BTreeMap<WorkerId, AttemptId>,
    pub(super) servers: u64,
    pub(super) back_at: u64,
    pub(super) jobs: Vec<Job>,
    pub(super) live: BTreeMap<DispatchId, Live>,
    pub(super) millis: u64,
    pub(super) rng: Rng,
    events: BinaryHeap<Reverse<(u64, u64, What)>>,
    serial: u64,
    pub(super) tick_at: Option<u64>,
    pub(super) figures: Figures,
    idle_millis: u64,
    pub(super) waits: Vec<u64>,
    pub(super) trace: Trace,
}

impl Host {
    pub(super) fn new(day: Day, keep_trace: bool) -> Self {
        let mut rng = Rng::new(day.seed);
        let agent = |builtin| Agent {
            id: AgentId::from(builtin),
            ready: true,
            made_of: 1,
            builds_work: true,
        };
        let limits = Limits {
            host_attempts_max: day.slots(),
            tenant_attempts_max: None,
            tenant_attempts_max_of: BTreeMap::new(),
            agent_attempts_max_default: day.agent_attempts_max,
            agent_attempts_max: BTreeMap::new(),
        };
        Self {
            day,
            config: day.config(),
            limits,
            pool: None,
            queue: Queue::default(),
            sandboxes: BTreeMap::new(),
            agents: BuiltinAgent::ALL.into_iter().map(agent).collect(),
            drained: false,
            used: BTreeMap::new(),
            servers: 0,
            back_at: 0,
            jobs: jobs(&day.load, &mut rng),
            live: BTreeMap::new(),
            millis: 0,
            rng,
            events: BinaryHeap::new(),
            serial: 0,
            tick_at: None,
            figures: Figures::default(),
            idle_millis: 0,
            waits: Vec::new(),
            trace: Trace::new(keep_trace),
        }
    }

    pub(super) const fn now(&self) -> Timestamp {
        Timestamp::from_millis(EPOCH_MILLIS + self.millis)
    }

    pub(super) const fn slots(&self) -> u32 {
        self.queue.slots().total()
    }

    pub(super) fn run(mut self) -> DayOutcome {
        let violation = self.live_through().err();
        let violation = violation.map(|what| format!("at {} ms: {what}", self.millis));
        self.waits.sort_unstable();
        let at = |percent| self.waits.get(self.waits.len() * percent / 100).copied().unwrap_or(0);
        let figures = Figures {
            idle_minutes: self.idle_millis / 60_000,
            wait_millis: (at(50), at(99)),
            servers: self.servers,
            ..self.figures
        };
        let (trace_hash, trace) = (self.trace.hash, self.trace.text);
        DayOutcome { violation, trace_hash, trace, figures }
    }

    fn live_through(&mut self) -> Result<(), String> {
        self.fault(Fault::ServerBack)?;
        for index in 0..self.jobs.len() {
            self.at(self.jobs[index].at_millis, What::Arrive(index));
        }
        self.plan_faults();
        self.until(DAY_MILLIS + REST_MILLIS)?;
        check::at_rest(self)?;
        self.fault(Fault::Drain)?;
        self.until(u64::MAX)?;
        check::empty(self)
    }

    pub(super) fn at(&mut self, millis: u64, what: What) {
        self.serial += 1;
        self.events.push(Reverse((millis, self.serial, what)));
    }

    pub(super) fn after(&mut self, millis: u64, what: What) {
        self.at(self.millis + millis, what);
    }

    pub(super) fn chance(&mut self, parts_per_million: u64) -> bool {
        let faults = self.day.faults && self.millis < DAY_MILLIS;
        self.rng.chance(if faults { parts_per_million } else { 0 })
    }

    fn until(&mut self, end: u64) -> Result<(), String> {
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, what))) = self.events.pop() else { break };
            let parked = self.parked();
            if at < DAY_MILLIS {
                self.idle_millis += parked * (at - self.millis);
            }
            self.millis = at;
            self.trace.line(at, format_args!("{what:?}"));
            let back = what == What::Fault(Fault::ServerBack);
            if self.pool.is_none() && !back {
                self.at(self.back_at + 1, what);
                continue;
            }
            self.happens(what)?;
            self.place()?;
            self.arm();
            check::counts(self)?;
        }
        Ok(())
    }

    fn parked(&self) -> u64 {
        self.sandboxes.values().filter(|sandbox| sandbox.stands == Stands::Parked).count() as u64
    }

    fn happens(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Fault(fault) => self.fault(fault),
            What::Arrive(index) => self.arrive(index),
            What::Built(worker) => self.built(worker),
            What::Dies(worker) => self.dies(worker),
            What::Ended(worker) => {
                self.sandboxes.remove(&worker);
                self.tell(&PoolEvent::WorkerEnded { worker, reason: "stopped".into() })
            }
            What::Looked(worker) => {
                let bad = self.chance(LOOK_FAILS);
                let failed = || PoolEvent::HealthFailed { worker, reason: "stuck".into() };
                self.tell(&if bad { failed() } else { PoolEvent::HealthPassed { worker } })
            }
            What::Ready(id) => self.ready(id),
            What::Done(id) => self.done(id),
            // A timer that was set anew since, or by a server that is gone.
            What::Tick if self.tick_at != Some(self.millis) => Ok(()),
            What::Tick => {
                self.tick_at = None;
                self.tell(&PoolEvent::Tick)?;
                check::room(self)
            }
        }
    }

    /// Sets the timer, as the pool wishes.
    fn arm(&mut self) {
        let wake_at = self.pool.as_ref().and_then(Pool::wake_at);
        let Some(at) = wake_at.map(|at| at.as_millis().saturating_sub(EPOCH_MILLIS)) else {
            return;
        };
        let at = at.max(self.millis);
        if self.tick_at.is_none_or(|known| at < known) {
            self.tick_at = Some(at);
            self.at(at, What::Tick);
        }
    }

    pub(super) fn tell(&mut self, event: &PoolEvent) -> Result<(), String> {
        let now = self.now();
        let Some(pool) = &mut self.pool else { return Ok(()) };
        let effects = pool.step(event, now);
        self.carry_out(effects)
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            self.trace.line(self.millis, format_args!("  {effect:?}"));
            match effect {
                Effect::Start { worker, ref agent, .. } => {
                    check::effect(&effect, self.sandboxes.get(&worker))?;
                    let of = self.agents.iter().position(|known| known.id == *agent);
                    self.begin(worker, of.ok_or("a worker for nobody")?);
                }
                Effect::Stop { worker, .. } => {
                    check::effect(&effect, self.sandboxes.get(&worker))?;
                    let Some(sandbox) = self.sandboxes.get_mut(&worker) else { continue };
                    if sandbox.stands != Stands::Ending {
                        sandbox.stands = Stands::Ending;
                        self.after(END_MILLIS, What::Ended(worker));
                    }
                }
                Effect::Check { worker } => {
                    check::effect(&effect, self.sandboxes.get(&worker))?;
                    self.after(LOOK_MILLIS, What::Looked(worker));
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, worker: WorkerId, agent: usize) {
        let (least, most) = self.day.fleet.build_millis();
        let millis = self.rng.range(least, most);
        let sandbox = Sandbox {
            agent,
            stands: Stands::Building,
            server: self.servers,
            made_of: self.agents[agent].made_of,
            made_at: self.now(),
        };
        self.sandboxes.insert(worker, sandbox);
        self.figures.built += u64::from(self.millis < DAY_MILLIS);
        let warm = self.sandboxes.values();
        let warm =
            warm.filter(|sandbox| matches!(sandbox.stands, Stands::Building | Stands::Parked));
        let warm = u32::try_from(warm.count()).unwrap_or(u32::MAX);
        self.figures.warm_most = self.figures.warm_most.max(warm);
        self.after(millis, What::Built(worker));
    }

    fn built(&mut self, worker: WorkerId) -> Result<(), String> {
        let fails = self.chance(BUILD_FAILS);
        let (dies, lasts) = (self.chance(DIES), self.rng.range(0, HOUR_MILLIS));
        let Some(sandbox) = self.sandboxes.get_mut(&worker) else { return Ok(()) };
        if sandbox.stands != Stands::Building {
            // It was stopped while it was made. Both ways to tell may come late.
            return self.tell(&PoolEvent::Started { worker });
        }
        if fails || !self.agents[sandbox.agent].builds_work {
            self.sandboxes.remove(&worker);
            return self.tell(&PoolEvent::BuildFailed { worker, reason: "no luck".into() });
        }
        sandbox.stands = Stands::Parked;
        if dies {
            self.after(lasts, What::Dies(worker));
        }
        self.tell(&PoolEvent::Started { worker })
    }

    fn dies(&mut self, worker: WorkerId) -> Result<(), String> {
        if self.sandboxes.get(&worker).is_none_or(|sandbox| sandbox.stands != Stands::Parked) {
            return Ok(());
        }
        self.sandboxes.remove(&worker);
        self.tell(&PoolEvent::WorkerEnded { worker, reason: "killed".into() })
    }
}
