//! A simulated day of the warm pools: the real pool and the real placement of `outpost-core` under a day's
//! load, with workers that die, builds that fail, agents that come, go and change, and servers that restart.
//!
//! A seed decides everything; the same seed is the same day. After every event the pool is held against a
//! recount of the sandboxes there are, and each claim against what its worker was used for before. Bounded: a day
//! of dispatches and two hours to come to rest. Absent: everything about a dispatch but its slot and its worker.

mod attempts;
mod check;
mod faults;
mod host;
mod load;
pub mod table;

use std::collections::BTreeMap;

use outpost_core::pool::{AgentSizes, Miss, PoolConfig, Stage};
use outpost_types::{AgentId, BuiltinAgent, Tier};

use host::Host;

/// How many dispatches a day has. The three of the requirements follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// In all.
    pub dispatches: u64,
    /// Of those, so many come within one second, three times a day; as many slots the host has.
    pub peak: u64,
    /// Mean time an agent runs, seconds.
    pub run_seconds: u64,
}

/// Days and peaks of the requirements: conservative, expected, peak.
pub const LOADS: [Load; 3] = [
    Load { dispatches: 2_000, peak: 50, run_seconds: 120 },
    Load { dispatches: 5_000, peak: 100, run_seconds: 90 },
    Load { dispatches: 10_000, peak: 200, run_seconds: 60 },
];

/// Where workers come from, which is how long making one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fleet {
    /// Sandboxes of this host: 6 to 10 ms.
    Local,
    /// Containers that somebody else starts: 25 to 45 s, the cold start of the requirements.
    Container,
}

impl Fleet {
    /// For a person.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Container => "container",
        }
    }

    const fn build_millis(self) -> (u64, u64) {
        match self {
            Self::Local => (6, 10),
            Self::Container => (25_000, 45_000),
        }
    }
}

/// One day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Decides every chance.
    pub seed: u64,
    /// What there is to do.
    pub load: Load,
    /// Where workers come from.
    pub fleet: Fleet,
    /// Whose sizes the pools have; `None` is those of the design.
    pub stage: Option<Stage>,
    /// Most builds at once.
    pub builds_max: u32,
    /// Most warm workers in all; `None` is what follows from the sizes.
    pub warm_max: Option<u32>,
    /// Most attempts of an agent at once.
    pub agent_attempts_max: u32,
    /// Sandboxes the host has room for beyond its slots.
    pub room: u32,
    /// Whether anything goes wrong.
    pub faults: bool,
}

impl Day {
    /// A day with faults, room for all workers, and slots up to the peak for each agent.
    #[must_use]
    pub const fn new(seed: u64, load: Load, fleet: Fleet, stage: Option<Stage>) -> Self {
        Self {
            seed,
            load,
            fleet,
            stage,
            builds_max: outpost_core::pool::BUILDS_COUNT_DEFAULT,
            warm_max: None,
            agent_attempts_max: u32::MAX,
            room: outpost_core::pool::WARM_COUNT_MAX,
            faults: true,
        }
    }

    fn slots(&self) -> u32 {
        u32::try_from(self.load.peak).unwrap_or(u32::MAX)
    }

    fn config(&self) -> PoolConfig {
        let sizes = BuiltinAgent::ALL.into_iter().map(|builtin| {
            let agent = AgentId::from(builtin);
            let sizes = AgentSizes::default_of(&agent, tier_of(builtin), self.stage);
            (agent, sizes)
        });
        let usual = PoolConfig::of(sizes.collect());
        PoolConfig {
            warm_max: self.warm_max.unwrap_or(usual.warm_max),
            builds_max: self.builds_max,
            sandboxes_max: self.slots().saturating_add(self.room),
            ..usual
        }
    }
}

/// The tiers of the design.
const fn tier_of(agent: BuiltinAgent) -> Tier {
    match agent {
        BuiltinAgent::Claude => Tier::Flagship,
        BuiltinAgent::Codex | BuiltinAgent::Gemini => Tier::Balanced,
        BuiltinAgent::Aider | BuiltinAgent::Grok => Tier::Fast,
    }
}

/// What the 24 hours came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Claims that got a worker.
    pub hits: u64,
    /// Claims that did not, by reason.
    pub misses: BTreeMap<Miss, u64>,
    /// Builds begun for the pool.
    pub built: u64,
    /// Sum of the time that workers were parked, minutes.
    pub idle_minutes: u64,
    /// Most workers that were warm at once.
    pub warm_most: u32,
    /// Placed to a worker there is: median and 99th percentile, milliseconds.
    pub wait_millis: (u64, u64),
    /// Servers there were.
    pub servers: u64,
}

impl Figures {
    /// All claims.
    #[must_use]
    pub fn claims(&self) -> u64 {
        self.hits + self.misses.values().sum::<u64>()
    }

    /// Claims that got a worker, per mille.
    #[must_use]
    pub fn hits_per_mille(&self) -> u64 {
        self.hits * 1_000 / self.claims().max(1)
    }
}

/// What became of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayOutcome {
    /// The first thing that must never be.
    pub violation: Option<String>,
    /// Of everything that happened.
    pub trace_hash: u64,
    /// What happened, if it was to be kept.
    pub trace: String,
    /// What it came to.
    pub figures: Figures,
}

/// Lives through a day.
#[must_use]
pub fn simulate(day: &Day, keep_trace: bool) -> DayOutcome {
    Host::new(*day, keep_trace).run()
}
