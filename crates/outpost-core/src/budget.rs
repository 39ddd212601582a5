//! Money: what an attempt has spent, and when it may spend no more.
//!
//! An attempt has a limit, or none; a tenant may have a cap for each UTC day that all its attempts
//! share. Both are judged after each call of a model, and say once that they are used up. A call whose
//! price nobody knows counts as unknown, never as nothing: what is assumed for it is kept apart from what is
//! known, and held against the limit so that an unlisted model is no way around it.
//!
//! Bounded: the names of models without a price. Absent: prices themselves, calls that are still
//! running, and the clock; the day is handed in.

use serde::{Deserialize, Serialize};

/// Most an amount can be when it is given in US dollars.
pub const USD_MAX: f64 = 1_000_000_000.0;
/// Share of a limit at which it is told that it nears its end, per cent.
pub const THRESHOLD_PERCENT: u64 = 80;
/// Most names of models without a price that are kept.
pub const UNPRICED_MODELS_MAX: usize = 8;
/// Longest such name, bytes; the rest is cut off.
pub const UNPRICED_MODEL_BYTES_MAX: usize = 128;

const NANODOLLARS_PER_USD: f64 = 1e9;

/// Money in billionths of a US dollar. Sums saturate at some 18 billion dollars.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanodollars(pub u64);

/// Not an amount of money.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("an amount must be a number from 0 to {USD_MAX} US dollars")]
pub struct BadAmount;

impl Nanodollars {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From US dollars, to the nearest billionth.
    ///
    /// # Errors
    /// [`BadAmount`] when it is negative, over [`USD_MAX`], or no number.
    pub fn from_usd(usd: f64) -> Result<Self, BadAmount> {
        if !(0.0..=USD_MAX).contains(&usd) {
            return Err(BadAmount);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the bounds that were just checked"
        )]
        let nanodollars = (usd * NANODOLLARS_PER_USD).round() as u64;
        Ok(Self(nanodollars))
    }

    /// In US dollars, as exact as a double is.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown to people, never summed")]
    pub fn to_usd(self) -> f64 {
        self.0 as f64 / NANODOLLARS_PER_USD
    }

    /// The sum; saturates.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left of it after `other`; nothing when that is more.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Tokens of one call or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tokens {
    /// Read, neither from a cache nor into one.
    pub input: u64,
    /// Read from a cache.
    pub cached: u64,
    /// Read and written into a cache.
    pub cache_write: u64,
    /// Written, thinking included.
    pub output: u64,
    /// The part of `output` that was thinking, where the provider tells.
    pub thinking: u64,
}

impl Tokens {
    /// The sum; saturates.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            output: self.output.saturating_add(other.output),
            thinking: self.thinking.saturating_add(other.thinking),
        }
    }
}

/// What was spent so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spend {
    /// Tokens of all calls.
    pub tokens: Tokens,
    /// Searches that the provider made of its own, as far as its answers tell.
    #[serde(skip_serializing_if = "is_zero")]
    pub searches: u64,
    /// Cost of the calls whose price is known.
    #[serde(rename = "costNanodollars")]
    pub cost: Nanodollars,
    /// What is assumed for the others, and held against the limit.
    #[serde(rename = "assumedNanodollars")]
    pub assumed: Nanodollars,
    /// Calls that were answered.
    pub calls: u64,
    /// Those of them whose price is unknown.
    pub calls_unpriced: u64,
    /// Models of those, at most [`UNPRICED_MODELS_MAX`] of them.
    pub models_unpriced: Vec<String>,
    /// Calls whose tokens had to be estimated, as their answer did not arrive whole or told nothing.
    pub calls_estimated: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Spend {
    /// What counts against a limit.
    #[must_use]
    pub const fn charged(&self) -> Nanodollars {
        self.cost.plus(self.assumed)
    }

    /// Cost of everything; `None` when the price of some call is unknown. Never zero for unknown.
    #[must_use]
    pub const fn known_cost(&self) -> Option<Nanodollars> {
        if self.calls_unpriced == 0 { Some(self.cost) } else { None }
    }

    fn add(&mut self, call: &EndedCall) {
        self.tokens = self.tokens.plus(call.tokens);
        self.searches = self.searches.saturating_add(call.searches);
        self.calls = self.calls.saturating_add(1);
        self.calls_estimated = self.calls_estimated.saturating_add(u64::from(call.estimated));
        match call.price {
            Price::Known(cost) => self.cost = self.cost.plus(cost),
            Price::Unknown { assumed } => {
                self.assumed = self.assumed.plus(assumed);
                self.calls_unpriced = self.calls_unpriced.saturating_add(1);
                self.note_unpriced(call.model.as_deref().unwrap_or("unnamed"));
            }
        }
    }

    fn note_unpriced(&mut self, model: &str) {
        let model = &model[..model.floor_char_boundary(UNPRICED_MODEL_BYTES_MAX)];
        let known = self.models_unpriced.iter().any(|name| name == model);
        if !known && self.models_unpriced.len() < UNPRICED_MODELS_MAX {
            self.models_unpriced.push(model.to_owned());
        }
    }
}

/// What a call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// By the list.
    Known(Nanodollars),
    /// The model is not listed.
    Unknown {
        /// What is held against the limit for it.
        assumed: Nanodollars,
    },
}

impl Price {
    /// What counts against a limit.
    #[must_use]
    pub const fn charged(self) -> Nanodollars {
        match self {
            Self::Known(cost) | Self::Unknown { assumed: cost } => cost,
        }
    }

    /// `None` when it is unknown.
    #[must_use]
    pub const fn known(self) -> Option<Nanodollars> {
        match self {
            Self::Known(cost) => Some(cost),
            Self::Unknown { .. } => None,
        }
    }
}

/// A call of a model that was answered and has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedCall {
    /// Its tokens.
    pub tokens: Tokens,
    /// Searches that the provider made of its own.
    pub searches: u64,
    /// What it cost.
    pub price: Price,
    /// Its model, if anybody named one.
    pub model: Option<String>,
    /// Whether its tokens are an estimate.
    pub estimated: bool,
}

/// What is to be told. Amounts are those at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetEffect {
    /// [`THRESHOLD_PERCENT`] of the limit are spent.
    Threshold {
        /// What was spent.
        spent: Nanodollars,
        /// Of what.
        limit: Nanodollars,
    },
    /// Nothing is left.
    Exhausted {
        /// What was spent; a call that was running can have gone beyond the limit.
        spent: Nanodollars,
        /// Of what.
        limit: Nanodollars,
    },
}

/// What one attempt may spend, and has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Budget {
    limit: Option<Nanodollars>,
    spend: Spend,
    threshold_told: bool,
    exhausted_told: bool,
}

impl Budget {
    /// A budget, with what an earlier server saw the attempt spend. What was used up before is told again, since
    /// somebody has to act on it; a passed threshold is not.
    #[must_use]
    pub fn new(limit: Option<Nanodollars>, spend: Spend) -> (Self, Vec<BudgetEffect>) {
        let mut budget = Self { limit, spend, threshold_told: false, exhausted_told: false };
        budget.threshold_told = budget.past_threshold();
        let effects = budget.effects();
        (budget, effects)
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> Option<Nanodollars> {
        self.limit
    }

    /// What was spent.
    #[must_use]
    pub const fn spend(&self) -> &Spend {
        &self.spend
    }

    /// What is left; `None` without a limit.
    #[must_use]
    pub fn left(&self) -> Option<Nanodollars> {
        self.limit.map(|limit| limit.minus(self.spend.charged()))
    }

    /// The budget after a call, and what is to be told because of it.
    #[must_use]
    pub fn step(mut self, call: &EndedCall) -> (Self, Vec<BudgetEffect>) {
        self.spend.add(call);
        let effects = self.effects();
        (self, effects)
    }

    fn past_threshold(&self) -> bool {
        let spent = u128::from(self.spend.charged().0) * 100;
        let percent = u128::from(THRESHOLD_PERCENT);
        self.limit.is_some_and(|limit| spent >= u128::from(limit.0) * percent)
    }

    fn effects(&mut self) -> Vec<BudgetEffect> {
        let (Some(limit), spent) = (self.limit, self.spend.charged()) else { return Vec::new() };
        let mut effects = Vec::new();
        if !self.threshold_told && self.past_threshold() {
            self.threshold_told = true;
            effects.push(BudgetEffect::Threshold { spent, limit });
        }
        if !self.exhausted_told && spent >= limit {
            self.exhausted_told = true;
            effects.push(BudgetEffect::Exhausted { spent, limit });
        }
        effects
    }
}

/// What all attempts of a tenant may spend in one UTC day, and have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DayBudget {
    cap: Option<Nanodollars>,
    day: u64,
    spent: Nanodollars,
}

impl DayBudget {
    /// Nothing spent on `day` (days since 1970 in UTC) but what is handed in.
    #[must_use]
    pub const fn new(cap: Option<Nanodollars>, day: u64, spent: Nanodollars) -> Self {
        Self { cap, day, spent }
    }

    /// The cap.
    #[must_use]
    pub const fn cap(&self) -> Option<Nanodollars> {
        self.cap
    }

    /// With another cap from now on.
    #[must_use]
    pub const fn with_cap(self, cap: Option<Nanodollars>) -> Self {
        Self { cap, ..self }
    }

    /// The day it is about.
    #[must_use]
    pub const fn day(&self) -> u64 {
        self.day
    }

    /// What was spent on `today`. A day never begins twice: a clock that went back stays on the later one.
    #[must_use]
    pub const fn spent(&self, today: u64) -> Nanodollars {
        if today > self.day { Nanodollars::ZERO } else { self.spent }
    }

    /// What is left of `today`; `None` without a cap.
    #[must_use]
    pub fn left(&self, today: u64) -> Option<Nanodollars> {
        self.cap.map(|cap| cap.minus(self.spent(today)))
    }

    /// After `cost` more on `today`.
    #[must_use]
    pub fn charge(self, today: u64, cost: Nanodollars) -> Self {
        let spent = self.spent(today).plus(cost);
        Self { day: self.day.max(today), spent, ..self }
    }
}
