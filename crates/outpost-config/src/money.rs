//! What the operator decides about money: prices of models and what a tenant may spend in a day.

use std::time::Duration;

use outpost_core::Nanodollars;
use outpost_gateway::gateway::{PriceEntry, PriceTable, RATE_LIMIT_WAIT_SECONDS_MAX, TenantLedger};
use outpost_runner::Money;
use serde::Deserialize;

use super::ModelSource;
use crate::error::ConfigError;

/// With the scripted provider nothing costs anything, unless the operator says so for a rehearsal.
const FREE: &str = "valid_as_of = \"\"\nunlisted = { input = 0, output = 0, search = 0 }\n\
                    [[price]]\nmodel = \"*\"\ninput = 0\noutput = 0\nsearch = 0\n";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetFile {
    tenant_day_usd: Option<f64>,
    rate_limit_wait_seconds: Option<u64>,
}

/// Checks what the file says.
pub(crate) fn money(
    budget: &BudgetFile,
    prices: &[PriceEntry],
    model: ModelSource,
) -> Result<Money, ConfigError> {
    let wrong = |what: &str, error: String| ConfigError::usage(format!("{what}: {error}"));
    let listed = match model {
        ModelSource::Real => PriceTable::built_in(),
        ModelSource::Scripted => {
            PriceTable::parse(FREE).map_err(|error| wrong("prices", error.to_string()))?
        }
    };
    let wait = budget.rate_limit_wait_seconds.unwrap_or(RATE_LIMIT_WAIT_SECONDS_MAX);
    if wait > RATE_LIMIT_WAIT_SECONDS_MAX {
        let bound = format!("it must be 0 to {RATE_LIMIT_WAIT_SECONDS_MAX}");
        return Err(wrong("budget.rate_limit_wait_seconds", bound));
    }
    let tenant_day = budget.tenant_day_usd.map(Nanodollars::from_usd).transpose();
    Ok(Money {
        prices: listed
            .with_overrides(prices)
            .map_err(|error| wrong("prices", error.to_string()))?,
        ledger: TenantLedger::default(),
        tenant_day_max: tenant_day
            .map_err(|error| wrong("budget.tenant_day_usd", error.to_string()))?,
        rate_limit_wait: Duration::from_secs(wait),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(model: &str) -> PriceEntry {
        toml::from_str(&format!("model = \"{model}\"\ninput = 1\noutput = 2")).unwrap()
    }

    #[test]
    fn a_rehearsal_is_free_unless_the_operator_names_a_price() {
        let none = BudgetFile::default();
        let free = money(&none, &[], ModelSource::Scripted).unwrap();
        assert!(free.prices.knows("whatever") && free.tenant_day_max.is_none());
        let real = money(&none, &[entry("mine")], ModelSource::Real).unwrap();
        assert!(real.prices.knows("mine") && !real.prices.knows("whatever"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |budget: BudgetFile, prices: &[PriceEntry]| {
            money(&budget, prices, ModelSource::Real).unwrap_err().to_string()
        };
        let budget = BudgetFile { tenant_day_usd: Some(-1.0), ..BudgetFile::default() };
        assert!(refused(budget, &[]).contains("budget.tenant_day_usd"));
        let budget = BudgetFile { rate_limit_wait_seconds: Some(901), ..BudgetFile::default() };
        assert!(refused(budget, &[]).contains("rate_limit_wait_seconds"));
        let negative = PriceEntry { input: -1.0, ..entry("m") };
        assert!(refused(BudgetFile::default(), &[negative]).contains("prices"));
    }
}
