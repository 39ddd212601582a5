//! What a pool tells about itself.

use std::collections::BTreeMap;

use outpost_types::{AgentId, Timestamp};

use super::agent::{AgentPool, Standing, count};
use super::config::AgentSizes;
use super::window::MINUTES_KEPT;
use super::{Miss, Pool};

/// The pool of one agent now. Counts are since the server began.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentFigures {
    /// Whose.
    pub agent: AgentId,
    /// As configured.
    pub sizes: AgentSizes,
    /// How many warm workers there are to be now, between the two bounds of `sizes`.
    pub target: u32,
    /// Workers being made.
    pub starting: u32,
    /// Workers ready to be claimed.
    pub idle: u32,
    /// Workers that an attempt has.
    pub busy: u32,
    /// Workers asked to end.
    pub stopping: u32,
    /// Claims that got a worker.
    pub hits: u64,
    /// Claims that did not, by reason.
    pub misses: BTreeMap<Miss, u64>,
    /// Claims of the last hour.
    pub hour_claims: u64,
    /// Those of them that got no worker.
    pub hour_misses: u64,
    /// Builds begun.
    pub built: u64,
    /// Those of them that failed.
    pub builds_failed: u64,
    /// Workers that went, or were no good, before they were used.
    pub lost: u64,
    /// Why one of them last did; at most [`FAILURE_TEXT_BYTES_MAX`](super::FAILURE_TEXT_BYTES_MAX) of it.
    pub last_failure: Option<String>,
    /// When the next build is tried after one that failed.
    pub backing_off_until: Option<Timestamp>,
    /// Why no workers can be made at all; bounded alike.
    pub unavailable: Option<String>,
}

impl AgentFigures {
    /// Share of the last hour's claims that got no worker, from 0 to 1; `None` without claims.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown to people, never summed")]
    pub fn hour_miss_rate(&self) -> Option<f64> {
        (self.hour_claims > 0).then(|| self.hour_misses as f64 / self.hour_claims as f64)
    }

    fn of(agent: &AgentId, pool: &AgentPool, now: Timestamp) -> Self {
        let hour = pool.window.recent(now, MINUTES_KEPT);
        let unavailable = match &pool.standing {
            Standing::Ready(_) => None,
            Standing::Unavailable(reason) => Some(reason.clone()),
        };
        Self {
            agent: agent.clone(),
            sizes: pool.sizes,
            target: pool.target,
            starting: count(pool.starting.len()),
            idle: count(pool.idle.len()),
            busy: count(pool.busy.len()),
            stopping: count(pool.stopping.len()),
            hits: pool.counts.hits,
            misses: pool.counts.misses.clone(),
            hour_claims: hour.all,
            hour_misses: hour.missed,
            built: pool.counts.built,
            builds_failed: pool.counts.builds_failed,
            lost: pool.counts.lost,
            last_failure: pool.counts.last_failure.clone(),
            backing_off_until: pool.backoff_until,
            unavailable,
        }
    }
}

impl Pool {
    /// What there is of each agent, in the order of their names.
    #[must_use]
    pub fn figures(&self, now: Timestamp) -> Vec<AgentFigures> {
        self.agents.iter().map(|(agent, pool)| AgentFigures::of(agent, pool, now)).collect()
    }
}
