//! Counts what the calls of a session cost, and says when there may be no more.
//!
//! While a limit is in force (the attempt's own, or its tenant's day), a call begins only when something is left,
//! few calls run at once, and a stream is cut when what it has cost so far passes the limit. So an
//! attempt overspends by what [`IN_FLIGHT_MAX`] calls can cost at most, whatever it does.
//!
//! Bounded: calls at once, the wait for one's turn. Absent: reservations for what a call may cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outpost_core::{Budget, BudgetEffect, EndedCall, Nanodollars, Spend, Tokens};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::event::{BudgetScope, GatewayEvent, Reporter};
use super::ledger::TenantShare;
use super::prices::{Measured, PriceTable, Rates};
use super::usage::{ESTIMATE_BYTES_PER_TOKEN, Framing, UsageDialect, UsageReader};

/// Most calls of a model at once while a limit is in force; more wait.
pub const IN_FLIGHT_MAX: usize = 4;
/// How fast a model is taken to write while nobody can see it, tokens: faster than the large ones do. By this an
/// answer that was not read to its end counts as long as the call took.
const ESTIMATE_TOKENS_PER_SECOND: u64 = 200;
/// Longest wait for one's turn, seconds.
const TURN_WAIT_SECONDS_MAX: u64 = 600;
/// Longest line or body of an answer that is read for its count, bytes. With a limit in force it must be
/// more than a provider can be made to send, so that nothing escapes the count; the calls at once are few.
const HELD_BYTES_MAX_LIMITED: usize = 16 * 1024 * 1024;
const HELD_BYTES_MAX_FREE: usize = 2 * 1024 * 1024;

/// What one attempt may spend.
#[derive(Debug, Clone, Default)]
pub struct BudgetGrant {
    /// The attempt's own limit; `None` is none.
    pub limit: Option<Nanodollars>,
    /// What an earlier server saw it spend, for an attempt that is taken up again.
    pub spent: Spend,
    /// The tenant's day, shared with its other attempts.
    pub tenant: Option<TenantShare>,
}

/// Why a call may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing is left.
    Exhausted { scope: BudgetScope, spent: Nanodollars, limit: Nanodollars, assumed: Nanodollars },
    /// Its turn did not come in time.
    Busy,
}

/// A session's count.
#[derive(Debug)]
pub(crate) struct Meter {
    prices: PriceTable,
    budget: Mutex<Budget>,
    limit: Option<Nanodollars>,
    tenant: Option<TenantShare>,
    /// The day on which the end of the tenant's budget was last told.
    tenant_told: Mutex<Option<u64>>,
    turns: Arc<Semaphore>,
    /// What the calls that run have cost so far, nanodollars.
    running: AtomicU64,
    reporter: Arc<Reporter>,
}

impl Meter {
    pub(crate) fn new(
        grant: BudgetGrant,
        prices: PriceTable,
        reporter: Arc<Reporter>,
    ) -> Arc<Self> {
        let (budget, effects) = Budget::new(grant.limit, grant.spent);
        let meter = Self {
            prices,
            budget: Mutex::new(budget),
            limit: grant.limit,
            tenant: grant.tenant,
            tenant_told: Mutex::new(None),
            turns: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            running: AtomicU64::new(0),
            reporter,
        };
        meter.tell(effects);
        Arc::new(meter)
    }

    /// Whether a limit is in force.
    pub(crate) fn limited(&self) -> bool {
        let day_capped = || self.tenant.as_ref().is_some_and(|share| share.seen().cap.is_some());
        self.limit.is_some() || day_capped()
    }

    pub(crate) fn spend(&self) -> Spend {
        self.budget().spend().clone()
    }

    /// Waits until a call may begin; what it returns is held while the call runs.
    pub(crate) async fn turn(&self) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if !self.limited() {
            return Ok(None);
        }
        self.check()?;
        let turn = Arc::clone(&self.turns).acquire_owned();
        let limit = Duration::from_secs(TURN_WAIT_SECONDS_MAX);
        let turn = tokio::time::timeout(limit, turn).await.map_err(|_| Refusal::Busy)?;
        // What ended meanwhile may have used up the rest.
        self.check()?;
        Ok(turn.ok())
    }

    fn check(&self) -> Result<(), Refusal> {
        let budget = self.budget();
        let (spent, assumed) = (budget.spend().charged(), budget.spend().assumed);
        drop(budget);
        if let Some(limit) = self.limit.filter(|limit| spent >= *limit) {
            return Err(Refusal::Exhausted { scope: BudgetScope::Attempt, spent, limit, assumed });
        }
        let Some(share) = &self.tenant else { return Ok(()) };
        let seen = share.seen();
        match seen.exhausted() {
            Some(limit) => {
                // Another attempt may have used it up, so this one has not been told.
                self.tell_tenant(seen.day, seen.spent, limit);
                let (scope, spent) = (BudgetScope::TenantDay, seen.spent);
                Err(Refusal::Exhausted { scope, spent, limit, assumed: Nanodollars::ZERO })
            }
            None => Ok(()),
        }
    }

    /// Whether what the running calls have cost so far is beyond a limit.
    fn passed(&self) -> bool {
        let running = Nanodollars(self.running.load(Ordering::Relaxed));
        let own =
            self.limit.is_some_and(|limit| self.budget().spend().charged().plus(running) > limit);
        own || self.tenant.as_ref().is_some_and(|share| {
            let seen = share.seen();
            seen.cap.is_some_and(|cap| seen.spent.plus(running) > cap)
        })
    }

    fn settle(&self, call: &EndedCall) {
        let effects = {
            let mut budget = self.budget();
            let (next, effects) = std::mem::take(&mut *budget).step(call);
            *budget = next;
            effects
        };
        if let Some(share) = &self.tenant {
            let seen = share.charge(call.price.charged());
            if let Some(cap) = seen.exhausted() {
                self.tell_tenant(seen.day, seen.spent, cap);
            }
        }
        self.tell(effects);
    }

    fn tell(&self, effects: Vec<BudgetEffect>) {
        for effect in effects {
            self.reporter.budget(match effect {
                BudgetEffect::Threshold { spent, limit } => {
                    GatewayEvent::BudgetThreshold { spent, limit }
                }
                BudgetEffect::Exhausted { spent, limit } => {
                    GatewayEvent::BudgetExhausted { spent, limit, scope: BudgetScope::Attempt }
                }
            });
        }
    }

    fn tell_tenant(&self, day: u64, spent: Nanodollars, limit: Nanodollars) {
        let mut told = self.tenant_told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != Some(day) {
            *told = Some(day);
            let scope = BudgetScope::TenantDay;
            self.reporter.budget(GatewayEvent::BudgetExhausted { spent, limit, scope });
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is told of a call when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) tokens: Tokens,
    pub(crate) cost: Option<Nanodollars>,
    pub(crate) estimated: bool,
    pub(crate) model: Option<String>,
}

/// One call that is charged.
#[derive(Debug)]
pub(crate) struct CallMeter {
    meter: Arc<Meter>,
    dialect: UsageDialect,
    limited: bool,
    reader: Option<UsageReader>,
    /// What this call adds to the meter's `running`, nanodollars.
    running: u64,
    /// Prices by the model that is known so far.
    rates: Option<(Option<String>, Option<Rates>)>,
    turn: Option<OwnedSemaphorePermit>,
}

impl CallMeter {
    pub(crate) fn new(meter: &Arc<Meter>, dialect: UsageDialect) -> Self {
        let (meter, limited) = (Arc::clone(meter), meter.limited());
        Self { meter, dialect, limited, reader: None, running: 0, rates: None, turn: None }
    }

    /// The call's turn has come.
    pub(crate) fn begin(&mut self, turn: Option<OwnedSemaphorePermit>) {
        self.turn = turn;
    }

    /// The call waits for something else than its answer; others may go.
    pub(crate) fn pause(&mut self) {
        self.turn = None;
    }

    /// An answer that is charged begins.
    pub(crate) fn answer(&mut self, events: bool) {
        let framing = if events { Framing::Events } else { Framing::Json };
        let held = if self.limited { HELD_BYTES_MAX_LIMITED } else { HELD_BYTES_MAX_FREE };
        self.reader = Some(UsageReader::new(self.dialect, framing, held));
    }

    /// Looks at bytes of the answer; false when it must not go on. `requested` is the request's model.
    pub(crate) fn saw(&mut self, piece: &[u8], requested: impl FnOnce() -> Option<String>) -> bool {
        let Some(reader) = &mut self.reader else { return true };
        reader.push(piece);
        if !self.limited {
            return true;
        }
        let (measured, model) = (reader.so_far(), reader.model());
        if self.rates.as_ref().is_none_or(|(known, _)| known.as_deref() != model) {
            let rates = self.meter.prices.rates_of([model, requested().as_deref()]);
            self.rates = Some((model.map(str::to_owned), rates));
        }
        let rates = self.rates.as_ref().and_then(|(_, rates)| *rates);
        let cost = rates.map_or_else(|| self.assumed(&measured), |rates| rates.cost(&measured));
        self.runs_at(cost.0);
        !self.meter.passed()
    }

    fn assumed(&self, measured: &Measured) -> Nanodollars {
        self.meter.prices.price([None, None], measured).charged()
    }

    fn runs_at(&mut self, running: u64) {
        let meter = &self.meter.running;
        if running >= self.running {
            meter.fetch_add(running - self.running, Ordering::Relaxed);
        } else {
            meter.fetch_sub(self.running - running, Ordering::Relaxed);
        }
        self.running = running;
    }

    /// The call has ended. Without an answer, `sent` says whether the provider got the whole request and may
    /// charge for it.
    pub(crate) fn settle(
        mut self,
        whole: bool,
        requested: Option<String>,
        request_bytes: u64,
        sent: bool,
        elapsed: Duration,
    ) -> Option<Settled> {
        let (mut measured, estimated, model) = match self.reader.take() {
            Some(reader) => {
                let taken = reader.finish(whole, request_bytes);
                (taken.measured, taken.estimated, taken.model)
            }
            None if sent => {
                let input = request_bytes.div_ceil(ESTIMATE_BYTES_PER_TOKEN);
                let tokens = Tokens { input, ..Tokens::default() };
                (Measured { tokens, ..Measured::default() }, true, None)
            }
            None => return None,
        };
        if estimated && !whole {
            // What was written after the last byte that arrived, or was never shown, is charged all the same.
            let written = elapsed.as_secs().saturating_mul(ESTIMATE_TOKENS_PER_SECOND);
            measured.tokens.output = measured.tokens.output.max(written);
        }
        let price = self.meter.prices.price([model.as_deref(), requested.as_deref()], &measured);
        let model = model.or(requested);
        let (tokens, searches) = (measured.tokens, measured.searches);
        let call = EndedCall { tokens, searches, price, model: model.clone(), estimated };
        self.meter.settle(&call);
        Some(Settled { tokens, cost: price.known(), estimated, model })
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        // After it was settled, so that no call slips in between that counts neither.
        self.runs_at(0);
    }
}
