//! What a model costs.
//!
//! A list of prices is built in (`prices.toml`, with the day it was true and the vendors' pages), and an operator
//! adds to it or corrects it. A model that is not in it has no known price, which is said and never
//! taken as nothing. Sums are integers: picodollars a token, rounded up to nanodollars a call.
//!
//! Bounded: entries, names, prices. Absent: what is charged apart from tokens and searches (containers, storage of
//! caches), discounts of contracts and of batches, taxes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, LazyLock};

use outpost_core::{Nanodollars, Price, Tokens};
use serde::Deserialize;

/// Most entries of a table.
pub const PRICE_ENTRIES_MAX: usize = 4096;
/// Highest price, US dollars per million tokens or thousand searches.
pub const PRICE_USD_MAX: f64 = 100_000.0;
/// Longest model name, bytes.
const MODEL_BYTES_MAX: usize = 128;
/// A dollar per million tokens is so many picodollars a token.
const PICODOLLARS_PER_USD_PER_MILLION: f64 = 1e6;
/// A dollar per thousand searches is so many picodollars a search.
const PICODOLLARS_PER_USD_PER_THOUSAND: f64 = 1e9;
const PICODOLLARS_PER_NANODOLLAR: u128 = 1000;
/// Digits of a date at the end of a model's name, as in `-20251101` and `-2025-11-01`.
const DATE_DIGITS: usize = 8;
/// What `service_tier: priority` costs, times the usual: OpenAI's page says 1.75 to 2 by model.
const PRIORITY_FACTOR: u128 = 2;
/// What `speed: fast` costs, times the usual, by Anthropic's page.
const FAST_FACTOR: u128 = 6;

const BUILT_IN: &str = include_str!("prices.toml");

/// Why a list of prices cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// Not TOML, or a field that does not exist or has the wrong type.
    #[error("the prices do not parse, correct this place: {0}")]
    Syntax(String),
    /// More than [`PRICE_ENTRIES_MAX`].
    #[error("there are {0} prices, at most {PRICE_ENTRIES_MAX} are allowed: use patterns with `*`")]
    TooMany(usize),
    /// An entry with a value that cannot be used.
    #[error("the price of `{model}` cannot be used: {problem}")]
    Entry {
        /// The entry's model, or what stands in its place.
        model: String,
        /// What is wrong and what is allowed.
        problem: &'static str,
    },
}

/// Prices of one model, US dollars per million tokens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceEntry {
    /// Exact name, or the beginning of names with `*` after it.
    pub model: String,
    /// Where the price is from, such as the address of the vendor's page.
    #[serde(default)]
    pub source: String,
    /// Read.
    pub input: f64,
    /// Read from a cache; as `input` when absent.
    #[serde(default)]
    pub cached: Option<f64>,
    /// Written into a cache for five minutes; as `input` when absent.
    #[serde(default)]
    pub cache_write: Option<f64>,
    /// Written into a cache for an hour; as `cache_write` when absent.
    #[serde(default)]
    pub cache_write_hour: Option<f64>,
    /// Written, thinking included.
    pub output: f64,
    /// A thousand searches that the provider makes of its own; unknown when absent.
    #[serde(default)]
    pub search: Option<f64>,
    /// Tokens in a request, cached ones included, above which the prices of `long` hold.
    #[serde(default)]
    pub long_above: Option<u64>,
    /// Those prices.
    #[serde(default)]
    pub long: Option<LongPrices>,
}

/// Prices of requests above the threshold, US dollars per million tokens; what is absent follows as in
/// [`PriceEntry`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the same words as in PriceEntry")]
pub struct LongPrices {
    pub input: f64,
    #[serde(default)]
    pub cached: Option<f64>,
    #[serde(default)]
    pub cache_write: Option<f64>,
    #[serde(default)]
    pub cache_write_hour: Option<f64>,
    pub output: f64,
}

/// Checked prices, cheap to clone.
#[derive(Debug, Clone)]
pub struct PriceTable {
    exact: Arc<BTreeMap<String, Rates>>,
    prefixes: Arc<BTreeMap<String, Rates>>,
    unlisted: Rates,
    valid_as_of: Arc<str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    valid_as_of: String,
    unlisted: Unlisted,
    price: Vec<PriceEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unlisted {
    input: f64,
    output: f64,
    #[serde(default)]
    search: f64,
}

/// Picodollars a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tier {
    input: u64,
    cached: u64,
    cache_write: u64,
    cache_write_hour: u64,
    output: u64,
}

/// Prices of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    base: Tier,
    long: Option<(u64, Tier)>,
    /// Picodollars a search, if it is known.
    search: Option<u64>,
}

/// What a provider said of the way a call was served, as far as it changes the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Service {
    #[default]
    Standard,
    /// OpenAI's `priority`.
    Priority,
    /// Anthropic's `fast`.
    Fast,
}

/// Tokens, with what only a price cares about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Measured {
    pub(crate) tokens: Tokens,
    /// The part of the written cache that is kept for an hour.
    pub(crate) cache_write_hour: u64,
    pub(crate) service: Service,
    /// Searches that the provider made of its own.
    pub(crate) searches: u64,
}

impl PriceTable {
    /// The list that is built in.
    #[must_use]
    pub fn built_in() -> Self {
        static TABLE: LazyLock<PriceTable> = LazyLock::new(|| {
            PriceTable::parse(BUILT_IN).expect("the built-in prices are checked by a test")
        });
        TABLE.clone()
    }

    /// Reads a list in the form of `prices.toml`.
    ///
    /// # Errors
    /// [`PriceError`] names the entry and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let file: File =
            toml::from_str(text).map_err(|error| PriceError::Syntax(error.to_string()))?;
        let Unlisted { input, output, search } = file.unlisted;
        let base = tier("[unlisted]", [input, output], [None, None, None])?;
        let search = Some(picodollars("[unlisted]", search, PICODOLLARS_PER_USD_PER_THOUSAND)?);
        let unlisted = Rates { base, long: None, search };
        let empty = Self {
            exact: Arc::default(),
            prefixes: Arc::default(),
            unlisted,
            valid_as_of: file.valid_as_of.into(),
        };
        empty.with_overrides(&file.price)
    }

    /// The list with these entries added, or put in the place of those with the same `model`.
    ///
    /// # Errors
    /// [`PriceError`] names the entry and what is wrong with it.
    pub fn with_overrides(mut self, entries: &[PriceEntry]) -> Result<Self, PriceError> {
        let total = self.exact.len() + self.prefixes.len() + entries.len();
        if total > PRICE_ENTRIES_MAX {
            return Err(PriceError::TooMany(total));
        }
        for entry in entries {
            let rates = rates(entry)?;
            match entry.model.strip_suffix('*') {
                Some(prefix) => {
                    Arc::make_mut(&mut self.prefixes).insert(prefix.to_owned(), rates);
                }
                None => drop(Arc::make_mut(&mut self.exact).insert(entry.model.clone(), rates)),
            }
        }
        Ok(self)
    }

    /// The day on which the built-in prices were true, `YYYY-MM-DD`.
    #[must_use]
    pub fn valid_as_of(&self) -> &str {
        &self.valid_as_of
    }

    /// Whether the model's price is known.
    #[must_use]
    pub fn knows(&self, model: &str) -> bool {
        self.find(model).is_some()
    }

    /// Prices of a model, by its name as a vendor or a CLI writes it (`deepseek/deepseek-chat`).
    pub(crate) fn find(&self, model: &str) -> Option<Rates> {
        let bare = model.rsplit('/').next().filter(|bare| *bare != model);
        [Some(model), bare].into_iter().flatten().find_map(|name| {
            let undated = without_date(name);
            let exact = self.exact.get(name).or_else(|| self.exact.get(undated?));
            exact.or_else(|| self.longest_prefix(name)).copied()
        })
    }

    fn longest_prefix(&self, name: &str) -> Option<&Rates> {
        // Every prefix of `name` is at most `name` itself; the longest one is nearest to it.
        let before = self.prefixes.range::<str, _>((Bound::Unbounded, Bound::Included(name))).rev();
        before.take(PRICE_ENTRIES_MAX).find(|(prefix, _)| name.starts_with(*prefix)).map(|(_, r)| r)
    }

    /// What a call cost, by the first of `models` whose price is known.
    pub(crate) fn price(&self, models: [Option<&str>; 2], measured: &Measured) -> Price {
        let unknown = |rates: Rates| Price::Unknown { assumed: rates.cost(measured) };
        match self.rates_of(models) {
            None => unknown(self.unlisted),
            // Half of a price is none.
            Some(rates) if measured.searches > 0 && rates.search.is_none() => {
                unknown(Rates { search: self.unlisted.search, ..rates })
            }
            Some(rates) => Price::Known(rates.cost(measured)),
        }
    }

    pub(crate) fn rates_of(&self, models: [Option<&str>; 2]) -> Option<Rates> {
        models.into_iter().flatten().find_map(|model| self.find(model))
    }
}

impl Rates {
    pub(crate) fn cost(&self, measured: &Measured) -> Nanodollars {
        let tokens = measured.tokens;
        let read = tokens.input.saturating_add(tokens.cached).saturating_add(tokens.cache_write);
        let tier = match &self.long {
            Some((above, tier)) if read > *above => tier,
            _ => &self.base,
        };
        let hour = measured.cache_write_hour.min(tokens.cache_write);
        let parts = [
            (tokens.input, tier.input),
            (tokens.cached, tier.cached),
            (tokens.cache_write - hour, tier.cache_write),
            (hour, tier.cache_write_hour),
            (tokens.output, tier.output),
        ];
        let picodollars: u128 =
            parts.iter().map(|(n, rate)| u128::from(*n) * u128::from(*rate)).sum();
        let factor = match measured.service {
            Service::Standard => 1,
            Service::Priority => PRIORITY_FACTOR,
            Service::Fast => FAST_FACTOR,
        };
        let searches = u128::from(measured.searches) * u128::from(self.search.unwrap_or(0));
        let nanodollars = (picodollars * factor + searches).div_ceil(PICODOLLARS_PER_NANODOLLAR);
        Nanodollars(u64::try_from(nanodollars).unwrap_or(u64::MAX))
    }
}

fn rates(entry: &PriceEntry) -> Result<Rates, PriceError> {
    let name = entry.model.strip_suffix('*').unwrap_or(&entry.model);
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'*';
    if entry.model.is_empty() || name.len() > MODEL_BYTES_MAX || !name.bytes().all(plain) {
        let problem = "use a model's name of 1 to 128 visible ASCII characters, its beginning and a `*`, or \
            `*` for all others";
        return Err(PriceError::Entry { model: entry.model.escape_debug().to_string(), problem });
    }
    let base = tier(
        &entry.model,
        [entry.input, entry.output],
        [entry.cached, entry.cache_write, entry.cache_write_hour],
    )?;
    let long = match (entry.long_above, &entry.long) {
        (Some(above), Some(long)) => Some((
            above,
            tier(
                &entry.model,
                [long.input, long.output],
                [long.cached, long.cache_write, long.cache_write_hour],
            )?,
        )),
        (None, None) => None,
        _ => {
            let problem = "`long_above` and `long` go together";
            return Err(PriceError::Entry { model: entry.model.clone(), problem });
        }
    };
    let per_search = |usd| picodollars(&entry.model, usd, PICODOLLARS_PER_USD_PER_THOUSAND);
    Ok(Rates { base, long, search: entry.search.map(per_search).transpose()? })
}

/// An amount in US dollars, checked and scaled.
fn picodollars(model: &str, usd: f64, scale: f64) -> Result<u64, PriceError> {
    if !(0.0..=PRICE_USD_MAX).contains(&usd) {
        let problem = "a price is a number from 0 to 100000 US dollars per million tokens or thousand searches";
        return Err(PriceError::Entry { model: model.to_owned(), problem });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the bounds that were just checked"
    )]
    let picodollars = (usd * scale).round() as u64;
    Ok(picodollars)
}

fn tier(
    model: &str,
    [input, output]: [f64; 2],
    [cached, write, hour]: [Option<f64>; 3],
) -> Result<Tier, PriceError> {
    let rate = |usd: f64| picodollars(model, usd, PICODOLLARS_PER_USD_PER_MILLION);
    let cache_write = rate(write.unwrap_or(input))?;
    Ok(Tier {
        input: rate(input)?,
        cached: rate(cached.unwrap_or(input))?,
        cache_write,
        cache_write_hour: hour.map_or(Ok(cache_write), rate)?,
        output: rate(output)?,
    })
}

/// The name without a date at its end, if it has one.
fn without_date(name: &str) -> Option<&str> {
    let compact = name.len().checked_sub(DATE_DIGITS + 1)?;
    let end = &name.as_bytes()[compact..];
    if end[0] == b'-' && end[1..].iter().all(u8::is_ascii_digit) {
        return name.get(..compact);
    }
    let dashed = name.len().checked_sub(DATE_DIGITS + 3)?;
    let end = &name.as_bytes()[dashed..];
    let fits = end.iter().enumerate().all(|(at, byte)| match at {
        0 | 5 | 8 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if fits { name.get(..dashed) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(input: u64, cached: u64, write: u64, output: u64) -> Measured {
        let tokens = Tokens { input, cached, cache_write: write, output, thinking: 0 };
        Measured { tokens, ..Measured::default() }
    }

    fn cost(model: &str, measured: &Measured) -> Option<u64> {
        PriceTable::built_in().find(model).map(|rates| rates.cost(measured).0)
    }

    #[test]
    fn the_models_that_agents_use_by_default_are_listed() {
        for model in [
            "claude-opus-4-5-20251101",
            "gpt-5.2-codex",
            "gemini-3-pro-preview",
            "deepseek/deepseek-coder",
            "grok-4.1",
        ] {
            assert!(PriceTable::built_in().knows(model), "{model}");
        }
        let file: File = toml::from_str(BUILT_IN).unwrap();
        assert!(file.price.iter().all(|entry| entry.source.starts_with("https://")));
        assert_eq!(PriceTable::built_in().valid_as_of().len(), 10);
    }

    #[test]
    fn dates_and_prefixes_find_their_base_and_nothing_else_does() {
        let one = measured(1_000_000, 0, 0, 0);
        assert_eq!(cost("claude-opus-4-5-20251101", &one), Some(5_000_000_000));
        assert_eq!(cost("claude-opus-4-20250514", &one), Some(15_000_000_000));
        assert_eq!(cost("gpt-5.2-2025-12-11", &one), Some(1_750_000_000));
        assert_eq!(cost("gpt-5.2-pro-2025-12-11", &one), Some(21_000_000_000));
        assert_eq!(cost("gpt-4o-2024-05-13", &one), Some(5_000_000_000));
        assert_eq!(cost("gpt-4o-2024-08-06", &one), Some(2_500_000_000));
        for unknown in ["gpt-5.2-ultra", "gpt-5.20", "claude-opus-5", "", "-20251101", "é-20251101"]
        {
            assert_eq!(cost(unknown, &one), None, "{unknown}");
        }
        let price = PriceTable::built_in().price([Some("new"), None], &one);
        assert_eq!(price, Price::Unknown { assumed: Nanodollars(30_000_000_000) });
        let price = PriceTable::built_in().price([Some("new"), Some("gpt-5.2")], &one);
        assert_eq!(price.known(), Some(Nanodollars(1_750_000_000)));
    }

    #[test]
    fn every_kind_of_token_has_its_price() {
        let mut all = measured(1000, 2000, 3000, 4000);
        assert_eq!(
            cost("claude-opus-4-5", &all),
            Some(5_000_000 + 1_000_000 + 18_750_000 + 100_000_000)
        );
        all.cache_write_hour = 1000;
        assert_eq!(
            cost("claude-opus-4-5", &all),
            Some(5_000_000 + 1_000_000 + 22_500_000 + 100_000_000)
        );
        all.service = Service::Fast;
        assert_eq!(cost("claude-opus-4-5", &all), Some(128_500_000 * 6));
        // Rounded up, and the long prices begin above the threshold only.
        assert_eq!(cost("gemini-2.5-flash-lite", &measured(0, 1, 0, 0)), Some(10));
        assert_eq!(cost("gemini-2.5-pro", &measured(150_000, 50_000, 0, 0)), Some(193_750_000));
        assert_eq!(cost("gemini-2.5-pro", &measured(150_001, 50_000, 0, 0)), Some(387_502_500));
        let most = measured(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(cost("o1-pro", &most), Some(u64::MAX));
    }

    #[test]
    fn searches_of_the_provider_have_a_price_or_the_call_has_none() {
        let searched = Measured { searches: 3, ..measured(1000, 0, 0, 0) };
        assert_eq!(cost("claude-opus-4-5", &searched), Some(5_000_000 + 30_000_000));
        assert_eq!(cost("gemini-3-pro-preview", &searched), Some(2_000_000 + 42_000_000));
        let price = |model, measured| PriceTable::built_in().price([Some(model), None], measured);
        let grok = measured(1000, 0, 0, 0);
        let known = price("grok-code-fast-1", &grok).known().unwrap();
        let assumed = Nanodollars(known.0 + 105_000_000);
        assert_eq!(price("grok-code-fast-1", &searched), Price::Unknown { assumed });
    }

    #[test]
    fn an_operator_adds_and_corrects() {
        let entry = |model: &str, input: f64| PriceEntry {
            model: model.into(),
            source: String::new(),
            input,
            cached: None,
            cache_write: None,
            cache_write_hour: None,
            output: 1.0,
            search: None,
            long_above: None,
            long: None,
        };
        let table = PriceTable::built_in();
        let own = [entry("gpt-5.2", 9.0), entry("own/*", 1.0), entry("own/m-*", 2.0)];
        let table = table.with_overrides(&own).unwrap();
        let cost = |model| table.find(model).map(|rates| rates.cost(&measured(1000, 0, 0, 0)).0);
        assert_eq!((cost("gpt-5.2"), cost("gpt-5.2-codex")), (Some(9_000_000), Some(1_750_000)));
        assert_eq!((cost("own/x"), cost("own/m-1")), (Some(1_000_000), Some(2_000_000)));
        for bad in [
            entry("", 1.0),
            entry("**", 1.0),
            entry("a*b", 1.0),
            entry("a b", 1.0),
            entry("m", -1.0),
            entry("m", f64::NAN),
        ] {
            assert!(
                PriceTable::built_in().with_overrides(std::slice::from_ref(&bad)).is_err(),
                "{bad:?}"
            );
        }
        let all = PriceTable::built_in().with_overrides(&[entry("*", 3.0)]).unwrap();
        assert!(
            all.knows("anything") && all.find("gpt-5.2") == PriceTable::built_in().find("gpt-5.2")
        );
        let half = PriceEntry { long_above: Some(1), ..entry("m", 1.0) };
        assert!(PriceTable::built_in().with_overrides(&[half]).is_err());
    }
}
