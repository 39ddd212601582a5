//! What was used, summed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::limits::USAGE_DAYS_MAX;

const DAY_MILLIS: u64 = 86_400_000;
/// `YYYY-MM-DD`.
const DAY_BYTES: usize = 10;

/// A day in UTC, as `YYYY-MM-DD`; not before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(u64);

/// A text that is no day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("It must be a day like 2026-01-31.")]
pub struct NotADay;

impl Day {
    /// So many days after 1970-01-01.
    #[must_use]
    pub const fn from_number(days: u64) -> Self {
        Self(days)
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The day of an instant.
    #[must_use]
    pub const fn of(at: Timestamp) -> Self {
        Self(at.as_millis() / DAY_MILLIS)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = Timestamp::from_millis(self.0.saturating_mul(DAY_MILLIS)).to_string();
        f.pad(begin.get(..DAY_BYTES).unwrap_or(&begin))
    }
}

impl FromStr for Day {
    type Err = NotADay;
    fn from_str(text: &str) -> Result<Self, NotADay> {
        let begin = format!("{text}T00:00:00Z").parse().map_err(|_| NotADay)?;
        let day = Self::of(begin);
        // Other ways to write it, and what is before 1970, do not come back as they were.
        if day.to_string() == text { Ok(day) } else { Err(NotADay) }
    }
}

impl TryFrom<String> for Day {
    type Error = NotADay;
    fn try_from(text: String) -> Result<Self, NotADay> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

/// By what sums are told apart.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum UsageGroup {
    /// Whose dispatches.
    Tenant,
    /// The day (UTC) they ended.
    Day,
    /// Their agent.
    Agent,
    /// The model they asked for.
    Model,
}

impl UsageGroup {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tenant, Self::Day, Self::Agent, Self::Model];

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Day => "day",
            Self::Agent => "agent",
            Self::Model => "model",
        }
    }
}

impl FromStr for UsageGroup {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|group| group.as_str() == text).ok_or(())
    }
}

/// Query of `GET /usage`. Texts, because they arrive as query parameters; the engine parses them and names the
/// one that is wrong.
#[derive(
    Debug,
    Clone,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    utoipa::IntoParams,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// First day (UTC), `YYYY-MM-DD`; 29 days before `to` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Last day (UTC), `YYYY-MM-DD`; today when absent. At most 366 days from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// By what sums are told apart, with commas between: `tenant`, `day`, `agent`, `model`; `day` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// Only of this tenant. The operator sees all of them, others their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Answer to `GET /usage`: dispatches count on the day they end; what still runs is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageReport {
    /// First day.
    #[schema(value_type = String, format = Date)]
    pub from: Day,
    /// Last day.
    #[schema(value_type = String, format = Date)]
    pub to: Day,
    /// By what the sums are told apart.
    pub group_by: Vec<UsageGroup>,
    /// The sums: newest day first, then by tenant, agent and model.
    pub rows: Vec<UsageLine>,
    /// The sum of all of them.
    pub total: UsageSum,
}

/// A sum, and what it is about: what it is not told apart by is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageLine {
    /// Whose dispatches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The day (UTC) they ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub day: Option<Day>,
    /// Their agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model they asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// What they used together.
    #[serde(flatten)]
    pub sum: UsageSum,
}

/// What some dispatches used together, by the gateway's count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageSum {
    /// Dispatches that ended, of those that were started.
    pub dispatches: u64,
    /// Time their agents ran, milliseconds: of each from the start of its process until it had ended, or until it was
    /// found that it is lost. Waiting for a slot, preparing, collecting and checks are not in it.
    pub agent_millis: u64,
    /// The same in minutes.
    #[serde(default)]
    pub agent_minutes: f64,
    /// Tokens read, without those from a cache or written to one.
    pub input_tokens: u64,
    /// Tokens read from a cache.
    pub cached_input_tokens: u64,
    /// Tokens written to a cache.
    pub cache_write_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Those of them that were thinking, where the provider says so.
    pub thinking_tokens: u64,
    /// Searches that providers made of their own for them; where they have a price it is in the cost.
    #[serde(default)]
    pub searches: u64,
    /// Cost of the calls with a known price, US dollars; absent when there is none. Never zero for unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Calls of a model.
    pub calls: u64,
    /// Those of them without a known price: the cost is without them.
    pub unpriced_calls: u64,
    /// Those whose tokens had to be estimated.
    pub estimated_calls: u64,
}

/// So many milliseconds in minutes.
#[must_use]
pub fn minutes(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64() / 60.0
}

/// Whether a report can span these days.
#[must_use]
pub const fn fits_a_report(from: Day, to: Day) -> bool {
    from.0 <= to.0 && to.0 - from.0 < USAGE_DAYS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_not_rounded() {
        for (millis, expected) in [(0, 0.0), (600, 0.01), (90_000, 1.5), (754_000, 754.0 / 60.0)] {
            assert!((minutes(millis) - expected).abs() < 1e-12, "{millis}");
        }
    }

    #[test]
    fn days_are_read_and_written() {
        for (text, number) in [("1970-01-01", 0), ("1970-01-02", 1), ("2026-11-25", 20_782)] {
            let day: Day = text.parse().unwrap();
            assert_eq!((day.number(), day.to_string().as_str()), (number, text));
        }
        for bad in
            ["", "2026-1-1", "2026-02-30", "1969-12-31", "20260101", "2026-01-01T", "+002026-01-01"]
        {
            assert_eq!(bad.parse::<Day>(), Err(NotADay), "{bad}");
        }
        let (first, last) = (Day::from_number(1), Day::from_number(366));
        assert!(fits_a_report(first, last) && !fits_a_report(Day::from_number(0), last));
        assert!(!fits_a_report(last, first));
    }
}
