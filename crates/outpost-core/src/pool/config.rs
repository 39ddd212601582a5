//! How many warm workers an agent is to have, and what the pool of a host may hold in all.

use std::collections::BTreeMap;

use outpost_types::{AgentId, BuiltinAgent, Tier};
use thiserror::Error;

/// Warm workers of all agents together when nothing else is said.
pub const WARM_COUNT_DEFAULT: u32 = 10;
/// Most warm workers of all agents together, whatever is configured.
pub const WARM_COUNT_MAX: u32 = 50;
/// Builds at once on a host when nothing else is said: enough where a sandbox is made in milliseconds, too
/// few for fleets that need half a minute (decision 0017).
pub const BUILDS_COUNT_DEFAULT: u32 = 2;
/// Most builds at once that can be configured.
pub const BUILDS_COUNT_MAX: u32 = 32;
/// Most agents with a pool.
pub const AGENTS_COUNT_MAX: usize = 64;
/// How long a worker beyond the minimum stays without being used, seconds.
pub const WARM_SECONDS_DEFAULT: u64 = 300;
/// Longest such time, seconds.
pub const WARM_SECONDS_MAX: u64 = 86_400;
/// Age at which an unused worker is replaced, seconds: what it was made from may have changed since.
pub const AGE_SECONDS_DEFAULT: u64 = 3_600;
/// Shortest and longest such age, seconds.
pub const AGE_SECONDS_MIN: u64 = 60;
/// See [`AGE_SECONDS_MIN`].
pub const AGE_SECONDS_MAX: u64 = 604_800;

/// What the installation is for. Named by the operator, it sizes the pools of all agents that have no sizes
/// of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// One warm worker for each agent, always.
    Dev,
    /// 2 to 5.
    Staging,
    /// 5 to 10.
    Prod,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dev, Self::Staging, Self::Prod];

    /// As in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }

    /// Fewest and most warm workers of one agent.
    const fn sizes(self) -> (u32, u32) {
        match self {
            Self::Dev => (1, 1),
            Self::Staging => (2, 5),
            Self::Prod => (5, 10),
        }
    }
}

/// Sizes as the operator wrote them down; what is `None` is decided by [`AgentSizes::resolve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AskedSizes {
    /// Fewest warm workers.
    pub min: Option<u32>,
    /// Most warm workers; 0 is no pool.
    pub max: Option<u32>,
    /// How long an unused worker beyond the minimum stays, seconds.
    pub warm_seconds: Option<u64>,
}

/// The pool of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentSizes {
    /// Size of its workers. A dispatch of another size never gets one.
    pub tier: Tier,
    /// Fewest warm workers; those that are used are replaced.
    pub min: u32,
    /// Most warm workers; 0 is no pool.
    pub max: u32,
    /// How long an unused worker beyond the minimum stays, seconds.
    pub warm_seconds: u64,
}

impl AgentSizes {
    /// What holds where the operator says nothing about the agent: the sizes of the stage if one is named,
    /// else for the built-in agents those of the design (2 to 5 for claude and codex, 1 to 3 for the
    /// others), else one worker.
    #[must_use]
    pub fn default_of(agent: &AgentId, tier: Tier, stage: Option<Stage>) -> Self {
        let (min, max) = match (stage, agent.builtin()) {
            (Some(stage), _) => stage.sizes(),
            (None, Some(BuiltinAgent::Claude | BuiltinAgent::Codex)) => (2, 5),
            (None, Some(_)) => (1, 3),
            (None, None) => Stage::Dev.sizes(),
        };
        Self { tier, min, max, warm_seconds: WARM_SECONDS_DEFAULT }
    }

    /// These with what was asked for. A bound that was not gives way to one that was.
    #[must_use]
    pub fn resolve(self, asked: AskedSizes) -> Self {
        let min = asked.min.unwrap_or_else(|| asked.max.map_or(self.min, |max| max.min(self.min)));
        Self {
            tier: self.tier,
            min,
            max: asked.max.unwrap_or_else(|| self.max.max(min)),
            warm_seconds: asked.warm_seconds.unwrap_or(self.warm_seconds),
        }
    }
}

/// The pool of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Of each agent that has a pool; at most [`AGENTS_COUNT_MAX`].
    pub agents: BTreeMap<AgentId, AgentSizes>,
    /// Most warm workers of all agents, those that are being built included; at most [`WARM_COUNT_MAX`]. A
    /// worker that was claimed does not count any more: its attempt holds a slot.
    pub warm_max: u32,
    /// Most builds at once; 1 to [`BUILDS_COUNT_MAX`].
    pub builds_max: u32,
    /// Age at which an unused worker is replaced, seconds.
    pub age_seconds: u64,
    /// Most sandboxes at once on the host: live attempts, warm workers, and those that are being stopped.
    /// Warm workers give way to attempts; `u32::MAX` where they cost next to nothing.
    pub sandboxes_max: u32,
}

impl PoolConfig {
    /// That of these agents with everything else by default: [`WARM_COUNT_DEFAULT`] in all, or what the
    /// minima add up to if that is more.
    #[must_use]
    pub fn of(agents: BTreeMap<AgentId, AgentSizes>) -> Self {
        let minima = sum(&agents, |sizes| sizes.min);
        let warm_max = minima.clamp(WARM_COUNT_DEFAULT, WARM_COUNT_MAX);
        Self {
            agents,
            warm_max,
            builds_max: BUILDS_COUNT_DEFAULT,
            age_seconds: AGE_SECONDS_DEFAULT,
            sandboxes_max: u32::MAX,
        }
    }

    /// Whether a pool can be run by it.
    ///
    /// # Errors
    /// [`BadPoolConfig`] names the setting and its bounds.
    pub fn check(&self) -> Result<(), BadPoolConfig> {
        if self.agents.len() > AGENTS_COUNT_MAX {
            return Err(BadPoolConfig::Agents(self.agents.len()));
        }
        if self.warm_max > WARM_COUNT_MAX {
            return Err(BadPoolConfig::Total(self.warm_max));
        }
        if !(1..=BUILDS_COUNT_MAX).contains(&self.builds_max) {
            return Err(BadPoolConfig::Builds(self.builds_max));
        }
        if !(AGE_SECONDS_MIN..=AGE_SECONDS_MAX).contains(&self.age_seconds) {
            return Err(BadPoolConfig::Age(self.age_seconds));
        }
        for (agent, sizes) in &self.agents {
            if sizes.min > sizes.max || sizes.max > WARM_COUNT_MAX {
                let (agent, AgentSizes { min, max, .. }) = (agent.clone(), *sizes);
                return Err(BadPoolConfig::Sizes { agent, min, max });
            }
            if !(1..=WARM_SECONDS_MAX).contains(&sizes.warm_seconds) {
                let (agent, seconds) = (agent.clone(), sizes.warm_seconds);
                return Err(BadPoolConfig::Warm { agent, seconds });
            }
        }
        let minima = sum(&self.agents, |sizes| sizes.min);
        if minima > self.warm_max {
            return Err(BadPoolConfig::Minima { minima, total: self.warm_max });
        }
        Ok(())
    }
}

fn sum(agents: &BTreeMap<AgentId, AgentSizes>, of: impl Fn(&AgentSizes) -> u32) -> u32 {
    agents.values().map(of).fold(0, u32::saturating_add)
}

/// Why a pool cannot be run by its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadPoolConfig {
    /// Too many agents.
    #[error("{0} agents have a pool; give at most {AGENTS_COUNT_MAX} of them one")]
    Agents(usize),
    /// Too many workers in all.
    #[error("a pool of {0} warm workers in all is too large; set at most {WARM_COUNT_MAX}")]
    Total(u32),
    /// Too few or too many builds.
    #[error("{0} builds at once cannot be; set 1 to {BUILDS_COUNT_MAX}")]
    Builds(u32),
    /// An age out of bounds.
    #[error("workers cannot be replaced at {0} s; set {AGE_SECONDS_MIN} to {AGE_SECONDS_MAX}")]
    Age(u64),
    /// Sizes of an agent that contradict each other.
    #[error("the pool of {agent} is {min} to {max}; set min <= max <= {WARM_COUNT_MAX}")]
    Sizes {
        /// Whose.
        agent: AgentId,
        /// As configured.
        min: u32,
        /// As configured.
        max: u32,
    },
    /// A warm time out of bounds.
    #[error("workers of {agent} cannot stay {seconds} s; set 1 to {WARM_SECONDS_MAX}")]
    Warm {
        /// Whose.
        agent: AgentId,
        /// As configured.
        seconds: u64,
    },
    /// The minima do not fit.
    #[error(
        "the agents' minima add up to {minima} warm workers, more than the {total} there may be; \
         lower a minimum or raise the total (at most {WARM_COUNT_MAX})"
    )]
    Minima {
        /// Their sum.
        minima: u32,
        /// What there may be.
        total: u32,
    },
}
