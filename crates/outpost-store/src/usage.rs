//! What was used, summed up by tenant, day, agent and model.
//!
//! A dispatch counts on the day (UTC) it ends, in the transaction that ends it, once. Bounded: rows of one
//! answer. Absent: what still runs; money other than the gateway's count.

use outpost_core::{Dispatch, Nanodollars, Tokens};
use outpost_types::{Day, TenantId};

use crate::prepare::count;

/// Most rows of one answer.
pub const USAGE_ROWS_MAX: u32 = 10_000;

/// A sum, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Whose.
    pub tenant: TenantId,
    /// Days since 1970 in UTC; see [`Day::number`].
    pub day: u64,
    /// Agent.
    pub agent: String,
    /// Model that was asked for.
    pub model_id: String,
    /// What was used.
    pub total: UsageTotal,
}

/// What some dispatches used together. Sums saturate at 2^63 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageTotal {
    /// Dispatches that ended, of those that were ever started.
    pub dispatches: u64,
    /// Time their agents ran, milliseconds.
    pub agent_millis: u64,
    /// Tokens.
    pub tokens: Tokens,
    /// Searches that providers made of their own.
    pub searches: u64,
    /// Cost of the calls with a known price.
    pub cost: Nanodollars,
    /// What is assumed for the others.
    pub assumed: Nanodollars,
    /// Calls of a model.
    pub calls: u64,
    /// Those without a known price.
    pub calls_unpriced: u64,
    /// Those whose tokens are an estimate.
    pub calls_estimated: u64,
}

impl UsageTotal {
    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let add = |a: u64, b: u64| count(a.saturating_add(b)).cast_unsigned();
        let (a, b) = (self.tokens, other.tokens);
        Self {
            dispatches: add(self.dispatches, other.dispatches),
            agent_millis: add(self.agent_millis, other.agent_millis),
            tokens: Tokens {
                input: add(a.input, b.input),
                cached: add(a.cached, b.cached),
                cache_write: add(a.cache_write, b.cache_write),
                output: add(a.output, b.output),
                thinking: add(a.thinking, b.thinking),
            },
            searches: add(self.searches, other.searches),
            cost: Nanodollars(add(self.cost.0, other.cost.0)),
            assumed: Nanodollars(add(self.assumed.0, other.assumed.0)),
            calls: add(self.calls, other.calls),
            calls_unpriced: add(self.calls_unpriced, other.calls_unpriced),
            calls_estimated: add(self.calls_estimated, other.calls_estimated),
        }
    }
}

/// What a dispatch that ended adds; `None` for one that did not, or of which nothing was started.
pub(crate) fn used_by(dispatch: &Dispatch) -> Option<UsageRow> {
    let ended = dispatch.completed_at?;
    dispatch.started_at?;
    let spend = dispatch.facts.spend.clone().unwrap_or_default();
    let total = UsageTotal {
        dispatches: 1,
        agent_millis: dispatch.agent_millis(),
        tokens: spend.tokens,
        searches: spend.searches,
        cost: spend.cost,
        assumed: spend.assumed,
        calls: spend.calls,
        calls_unpriced: spend.calls_unpriced,
        calls_estimated: spend.calls_estimated,
    };
    Some(UsageRow {
        tenant: dispatch.tenant.clone(),
        day: Day::of(ended).number(),
        agent: dispatch.spec.agent.to_string(),
        model_id: dispatch.spec.model_id.clone(),
        // Within what a column holds.
        total: UsageTotal::default().plus(total),
    })
}
