//! Warm workers: sandboxes that are parked before anybody asks for them.
//!
//! A worker is made for an agent and a tier, holds nothing of any tenant, serves one attempt and ends. The
//! pool decides when one is made and when one is stopped; an attempt claims one or is told why there is
//! none, and then makes its own. Like everything here it is `(state, event, now) -> effects`: the shell
//! carries effects out and tells what came of them, in any order, late or twice.
//!
//! An agent's pool has a target between its bounds. It grows by one with each claim that found too few, when
//! more than [`GROW_MISS_PERCENT`] of the claims of the last [`GROW_WINDOW_MINUTES`] did (of
//! [`GROW_CLAIMS_MIN`] at least), or when [`GROW_WAITING_COUNT`] dispatches wait; it shrinks by one with each
//! worker beyond the minimum that nobody used in its warm time. The targets together stay within the total, so
//! growth of one agent never takes the minimum of another.
//!
//! Bounded: warm workers of an agent and of the host, builds at once, workers whose stop nobody reported,
//! looks per tick, time of a build, waits after failures, texts. Workers that attempts have are as many as there
//! are slots. Absent: records; what an earlier server left is told by [`Event::Recovered`].

mod agent;
mod config;
mod figures;
mod window;
mod worker;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use outpost_types::{AgentId, AttemptId, Tier, Timestamp};

use agent::{AgentPool, Standing, bounded, count};

pub use config::{
    AGE_SECONDS_DEFAULT, AGE_SECONDS_MAX, AGE_SECONDS_MIN, AGENTS_COUNT_MAX, AgentSizes,
    AskedSizes, BUILDS_COUNT_DEFAULT, BUILDS_COUNT_MAX, BadPoolConfig, PoolConfig, Stage,
    WARM_COUNT_DEFAULT, WARM_COUNT_MAX, WARM_SECONDS_DEFAULT, WARM_SECONDS_MAX,
};
pub use figures::AgentFigures;
pub use worker::{
    BUILD_SECONDS_MAX, BadWorkerId, CHECK_SECONDS, Fingerprint, STOP_AGAIN_SECONDS, WorkerId,
};

/// A pool grows when more of its claims than this find too few workers, per cent (the design's figure).
pub const GROW_MISS_PERCENT: u64 = 20;
/// Claims that are looked at for that, minutes.
pub const GROW_WINDOW_MINUTES: u64 = 10;
/// Fewest claims that say anything.
pub const GROW_CLAIMS_MIN: u64 = 3;
/// Pools grow with every claim while so many dispatches wait for a slot (the design's figure).
pub const GROW_WAITING_COUNT: u32 = 10;
/// Wait after the first failure of an agent's workers, milliseconds; it doubles with each further one. One
/// failure alone shall not be felt where a build takes milliseconds (decision 0017).
pub const BACKOFF_MILLIS_FIRST: u64 = 100;
/// Longest such wait, milliseconds.
pub const BACKOFF_MILLIS_MAX: u64 = 300_000;
/// Most workers that one tick asks to look at. Those left over are due at once, in the next.
pub const CHECKS_PER_TICK_MAX: usize = 8;
/// With so many workers whose stop nobody reported, no more are made.
pub const STOPPING_COUNT_MAX: u32 = 64;
/// Longest text of a failure that is kept, bytes; the rest is cut off.
pub const FAILURE_TEXT_BYTES_MAX: usize = 512;

/// What the world tells the pool. Whatever names a worker that is not in the state the event is about
/// changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Parked workers that an earlier server left, and that no attempt was ever promised. Nothing is built
    /// before this; it comes once, after the agents that are ready were told. What cannot go on is stopped.
    Recovered(Vec<Found>),
    /// Workers of the agent can be made, of this. Those made of something else are stopped.
    AgentReady {
        /// Which agent.
        agent: AgentId,
        /// Of what.
        fingerprint: Fingerprint,
    },
    /// Workers of the agent cannot be made; those there are are stopped.
    AgentUnavailable {
        /// Which agent.
        agent: AgentId,
        /// Why, for people.
        reason: String,
    },
    /// A build is done: the worker is parked.
    Started {
        /// Which.
        worker: WorkerId,
    },
    /// A build failed, and nothing of it is left.
    BuildFailed {
        /// Which.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
    },
    /// A worker is gone, whether it was asked to or not, and nothing of it is left.
    WorkerEnded {
        /// Which.
        worker: WorkerId,
        /// How, for people.
        reason: String,
    },
    /// A look found the worker as it should be.
    HealthPassed {
        /// Which.
        worker: WorkerId,
    },
    /// A look found that the worker is no good. Means nothing once an attempt has it.
    HealthFailed {
        /// Which.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
    },
    /// The worker that an attempt got could not be used, and nothing of the attempt ran in it: the attempt
    /// makes its own, and the claim was a miss.
    ClaimFailed {
        /// Which.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
    },
    /// How busy the host is; told whenever it changes, and before the claim of an attempt that was placed.
    Load {
        /// Attempts that hold a slot, with a worker of the pool or their own.
        attempts: u32,
        /// Dispatches that wait for a slot.
        waiting: u32,
    },
    /// No new workers; those that no attempt has are stopped.
    Drain,
    /// The end of [`Drain`](Self::Drain).
    Undrain,
    /// The same for single agents: exactly these have no new workers.
    DrainAgents(BTreeSet<AgentId>),
    /// The time of [`Pool::wake_at`] has come.
    Tick,
}

/// A parked worker that an earlier server left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub worker: WorkerId,
    /// For which agent.
    pub agent: AgentId,
    /// In which size.
    pub tier: Tier,
    /// Of what it was made.
    pub fingerprint: Fingerprint,
    /// When it was made.
    pub made_at: Timestamp,
}

/// Something to do outside. Each is idempotent by the worker it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make and park a worker; then [`Event::Started`] or [`Event::BuildFailed`].
    Start {
        /// Which.
        worker: WorkerId,
        /// For which agent.
        agent: AgentId,
        /// In which size.
        tier: Tier,
    },
    /// End a worker, or the making of one, or see that it is gone; then [`Event::WorkerEnded`].
    Stop {
        /// Which.
        worker: WorkerId,
        /// Why.
        why: StopReason,
    },
    /// See whether a worker is as it should be; then [`Event::HealthPassed`] or [`Event::HealthFailed`].
    Check {
        /// Which.
        worker: WorkerId,
    },
}

/// Why a worker is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopReason {
    /// Nobody used it in its warm time, and there are enough without it.
    Surplus,
    /// It is to be replaced because of its age.
    TooOld,
    /// What it was made from has changed.
    Changed,
    /// The pool is drained.
    Draining,
    /// Its agent cannot run any more.
    Unavailable,
    /// Its place is needed for an attempt.
    MadeRoom,
    /// It is no good.
    Unhealthy,
    /// Making it takes too long.
    TooSlow,
    /// An earlier server left it, and this one has no use for it.
    NotAdopted,
}

/// Why a claim got no worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Miss {
    /// The agent has no pool.
    Disabled,
    /// The agent's workers have another size.
    OtherTier,
    /// None is parked, and one is on its way.
    Starting,
    /// All are in use.
    Exhausted,
    /// The pool is drained.
    Draining,
    /// The agent cannot run.
    Unavailable,
    /// The last builds failed, and the next waits.
    BackingOff,
    /// The last one was lost before it was used.
    Unhealthy,
}

impl Miss {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Disabled,
        Self::OtherTier,
        Self::Starting,
        Self::Exhausted,
        Self::Draining,
        Self::Unavailable,
        Self::BackingOff,
        Self::Unhealthy,
    ];

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::OtherTier => "other_tier",
            Self::Starting => "starting",
            Self::Exhausted => "exhausted",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
            Self::BackingOff => "backing_off",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Whether more workers would have served the claim.
    const fn is_short(self) -> bool {
        matches!(self, Self::Starting | Self::Exhausted)
    }
}

/// An attempt that was placed and wants a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which. Asking again gives the worker it has.
    pub attempt: AttemptId,
    /// Its agent.
    pub agent: AgentId,
    /// Its size.
    pub tier: Tier,
}

/// The pool of one host. Deliberately not `Clone`: a copy could give a worker away a second time.
#[derive(Debug, PartialEq, Eq)]
pub struct Pool {
    config: PoolConfig,
    agents: BTreeMap<AgentId, AgentPool>,
    epoch: u64,
    /// Number of the last worker; those of one server have no gaps.
    serial: u64,
    /// Counts claims and builds, for the order of agents.
    turn: u64,
    recovered: bool,
    draining: bool,
    attempts: u32,
    waiting: u32,
}

impl Pool {
    /// A pool that was told of nothing yet. `epoch` is another number for each server, so that ids of two
    /// never meet: a random one, or the instant of the start.
    ///
    /// # Errors
    /// [`BadPoolConfig`] names the setting and its bounds.
    pub fn new(config: PoolConfig, epoch: u64) -> Result<Self, BadPoolConfig> {
        config.check()?;
        let agents = config.agents.iter();
        let agents = agents.map(|(agent, sizes)| (agent.clone(), AgentPool::new(*sizes))).collect();
        Ok(Self {
            config,
            agents,
            epoch,
            serial: 0,
            turn: 0,
            recovered: false,
            draining: false,
            attempts: 0,
            waiting: 0,
        })
    }

    /// Takes note of what happened; what is to be done, in order.
    #[must_use = "effects are to be carried out"]
    pub fn step(&mut self, event: &Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.apply(event, now, &mut effects);
        if *event == Event::Tick {
            self.make_room(now, &mut effects);
        }
        self.settle(now, &mut effects);
        if *event == Event::Tick {
            self.check(now, &mut effects);
        }
        effects
    }

    /// Gives a worker to an attempt, or says why there is none; and what is to be done, in order. A worker is
    /// given once, and to an attempt that asks again the same.
    #[must_use = "a worker that was given is the attempt's, and effects are to be carried out"]
    pub fn claim(
        &mut self,
        claim: &Claim,
        now: Timestamp,
    ) -> (Result<WorkerId, Miss>, Vec<Effect>) {
        let mut effects = Vec::new();
        let targets: u32 = self.agents.values().map(|pool| pool.target).sum();
        let Some(pool) = self.agents.get_mut(&claim.agent) else {
            self.make_room(now, &mut effects);
            return (Err(Miss::Disabled), effects);
        };
        if let Some(worker) = pool.worker_of(claim.attempt) {
            return (Ok(worker), effects);
        }
        self.turn += 1;
        let answer = pool.claim(claim, self.draining || pool.draining);
        pool.note(answer, self.turn, now);
        if targets < self.config.warm_max {
            pool.grow(answer, self.waiting, now);
        }
        if answer.is_err() {
            self.make_room(now, &mut effects);
        }
        self.settle(now, &mut effects);
        (answer, effects)
    }

    /// When [`Event::Tick`] is due, if nothing happens before; already past when one tick was not enough.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let renews = self.spare_builds() > 0;
        let renewal = |pool: &AgentPool| pool.renewal_at(self.age_millis()).map(|(at, _)| at);
        let renewals = self.agents.values().filter(|_| renews).filter_map(renewal);
        self.agents.values().filter_map(AgentPool::wake_at).chain(renewals).min()
    }

    /// Whether it is drained and no worker is left but those that attempts have.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.warm() == 0 && self.stopping() == 0
    }

    fn apply(&mut self, event: &Event, now: Timestamp, effects: &mut Vec<Effect>) {
        match event {
            Event::Recovered(found) => self.recover(found, now, effects),
            Event::AgentReady { agent, fingerprint } => {
                let standing = Standing::Ready(*fingerprint);
                self.set_standing(agent, standing, StopReason::Changed, now, effects);
            }
            Event::AgentUnavailable { agent, reason } => {
                let standing = Standing::Unavailable(bounded(reason));
                self.set_standing(agent, standing, StopReason::Unavailable, now, effects);
            }
            Event::Load { attempts, waiting } => {
                (self.attempts, self.waiting) = (*attempts, *waiting);
            }
            Event::Drain => self.draining = true,
            Event::Undrain => self.draining = false,
            Event::DrainAgents(drained) => {
                for (agent, pool) in &mut self.agents {
                    pool.draining = drained.contains(agent);
                }
            }
            Event::Tick => {}
            Event::Started { worker }
            | Event::BuildFailed { worker, .. }
            | Event::WorkerEnded { worker, .. }
            | Event::HealthPassed { worker }
            | Event::HealthFailed { worker, .. }
            | Event::ClaimFailed { worker, .. } => {
                let pool = self.agents.values_mut().find(|pool| pool.knows(*worker));
                if let Some(pool) = pool {
                    pool.apply(*worker, event, now, effects);
                }
            }
        }
    }

    fn set_standing(
        &mut self,
        agent: &AgentId,
        standing: Standing,
        why: StopReason,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(pool) = self.agents.get_mut(agent) else { return };
        if pool.set_standing(standing) {
            pool.stop_warm(why, now, effects);
        }
    }

    fn recover(&mut self, found: &[Found], now: Timestamp, effects: &mut Vec<Effect>) {
        let first = !std::mem::replace(&mut self.recovered, true);
        for found in found {
            if self.agents.values().any(|pool| pool.knows(found.worker)) {
                continue;
            }
            let fresh = now.millis_since(found.made_at) < self.age_millis();
            // One of this server that it does not know was used or stopped already.
            let may_go_on = first && fresh && !self.draining && found.worker.epoch() != self.epoch;
            let targets: u32 = self.agents.values().map(|pool| pool.target).sum();
            let pool = self.agents.get_mut(&found.agent).filter(|pool| {
                let fits = pool.warm() < pool.target || targets < self.config.warm_max;
                may_go_on && fits && pool.accepts(found.tier, found.fingerprint)
            });
            match pool {
                Some(pool) => pool.adopt(found.worker, found.made_at, now),
                None => {
                    effects.push(Effect::Stop { worker: found.worker, why: StopReason::NotAdopted })
                }
            }
        }
    }

    /// Asks for a look at idle workers that nobody has looked at for a while, the longest first.
    fn check(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let idle = self.agents.values_mut().flat_map(|pool| &mut pool.idle);
        let mut due: Vec<_> = idle.filter(|(_, idle)| idle.check_at <= now).collect();
        due.sort_unstable_by_key(|(worker, idle)| (idle.check_at, **worker));
        for (worker, idle) in due.into_iter().take(CHECKS_PER_TICK_MAX) {
            idle.check_at = now.plus_millis(CHECK_SECONDS * 1_000);
            effects.push(Effect::Check { worker: *worker });
        }
    }

    /// Warm workers give way to attempts: those of the agent with most beyond its minimum first, then of the
    /// one whose last claim is longest ago; an idle one that waits longest before one that is being made.
    fn make_room(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while self.attempts().saturating_add(self.warm()) > self.config.sandboxes_max {
            let rank =
                |pool: &AgentPool| (pool.idle.is_empty(), -pool.surplus(), pool.claimed_turn);
            let holders = self.agents.values_mut().filter(|pool| pool.warm() > 0);
            let Some(pool) = holders.min_by_key(|pool| rank(pool)) else { return };
            let idle = pool.idle.iter().map(|(worker, idle)| (idle.since, *worker)).min();
            let youngest = || pool.starting.last_key_value().map(|(worker, _)| *worker);
            let worker = idle.map(|(_, worker)| worker).or_else(youngest);
            pool.stop(worker.expect("it has one"), StopReason::MadeRoom, now, effects);
        }
    }

    fn settle(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for pool in self.agents.values_mut() {
            if self.draining || pool.draining {
                pool.stop_warm(StopReason::Draining, now, effects);
            }
            pool.settle(now, effects);
        }
        let (age_millis, mut spare) = (self.age_millis(), self.spare_builds());
        for pool in self.agents.values_mut() {
            let renewed = spare > 0 && pool.renew(age_millis, now, effects);
            spare -= u32::from(renewed);
        }
        self.build(now, effects);
        self.assert_bounded();
    }

    /// Begins builds: for the agent that lacks the largest part of its minimum, then of its target; between
    /// equals for the one whose last build is longest ago.
    fn build(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while self.may_build() {
            let wanting = self.agents.iter_mut().filter(|(_, pool)| pool.wants_worker());
            let rank = |pool: &AgentPool| (Reverse(pool.shortage()), pool.built_turn);
            let Some((agent, pool)) = wanting.min_by_key(|(_, pool)| rank(pool)) else { return };
            self.turn += 1;
            self.serial += 1;
            let worker = WorkerId::new(self.epoch, self.serial);
            pool.build(worker, self.turn, now);
            effects.push(Effect::Start { worker, agent: agent.clone(), tier: pool.sizes.tier });
        }
    }

    fn may_build(&self) -> bool {
        let sandboxes = self.attempts().saturating_add(self.warm() + self.stopping());
        self.recovered
            && !self.draining
            && self.builds() < self.config.builds_max
            && self.stopping() < STOPPING_COUNT_MAX
            && sandboxes < self.config.sandboxes_max
    }

    /// Builds that could begin now beside those that are wanted anyway: so many old workers may be replaced.
    fn spare_builds(&self) -> u32 {
        let missing =
            |pool: &AgentPool| if pool.wants_worker() { pool.target - pool.warm() } else { 0 };
        let wanted: u32 = self.agents.values().map(missing).sum();
        self.config.builds_max.saturating_sub(self.builds() + wanted)
    }

    fn sum(&self, of: impl Fn(&AgentPool) -> usize) -> u32 {
        count(self.agents.values().map(of).sum())
    }

    fn builds(&self) -> u32 {
        self.sum(|pool| pool.starting.len())
    }

    fn warm(&self) -> u32 {
        self.agents.values().map(AgentPool::warm).sum()
    }

    fn stopping(&self) -> u32 {
        self.sum(|pool| pool.stopping.len())
    }

    /// Live attempts. Workers that ended count until the shell tells their slot is free.
    fn attempts(&self) -> u32 {
        self.attempts.max(self.sum(|pool| pool.busy.len()))
    }

    const fn age_millis(&self) -> u64 {
        self.config.age_seconds * 1_000
    }

    /// The bounds no step may break, checked in release builds too: a pool without bounds takes the host down
    /// with it.
    fn assert_bounded(&self) {
        for pool in self.agents.values() {
            let AgentSizes { min, max, .. } = pool.sizes;
            assert!(min <= pool.target && pool.target <= max, "a target is within its bounds");
            assert!(pool.warm() <= pool.target, "no worker beyond the target");
        }
        let targets: u32 = self.agents.values().map(|pool| pool.target).sum();
        assert!(targets <= self.config.warm_max, "targets are within the total");
        assert!(self.builds() <= self.config.builds_max, "builds at once are bounded");
        assert!(!self.draining || self.warm() == 0, "a drained pool has nothing warm");
    }
}
