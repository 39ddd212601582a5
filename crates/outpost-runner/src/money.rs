//! What attempts may spend, and what a live one has, kept for a later server.
//!
//! The gateway counts and refuses; here is where its limits come from and where its count goes. Bounded by
//! the ledger's own bounds. Absent: the sums of what has ended, which are the store's.

use std::io;
use std::path::Path;
use std::time::Duration;

use outpost_core::{Nanodollars, Spend};
use outpost_gateway::gateway::{
    BudgetGrant, GatewayGrant, LedgerFull, PriceTable, RATE_LIMIT_WAIT_SECONDS_MAX, TenantLedger,
};
use outpost_types::TenantId;
use tracing::warn;

/// Name of the file in the attempt's directory.
const SPEND_FILE: &str = "spend.json";

/// What model calls cost, and who may spend how much.
#[derive(Debug, Clone)]
pub struct Money {
    /// The price list.
    pub prices: PriceTable,
    /// What all attempts of a tenant spend in a day, counted together.
    pub ledger: TenantLedger,
    /// Most of it; `None` is no limit.
    pub tenant_day_max: Option<Nanodollars>,
    /// Longest time a call is held because its provider serves nobody.
    pub rate_limit_wait: Duration,
}

impl Default for Money {
    fn default() -> Self {
        Self {
            prices: PriceTable::built_in(),
            ledger: TenantLedger::default(),
            tenant_day_max: None,
            rate_limit_wait: Duration::from_secs(RATE_LIMIT_WAIT_SECONDS_MAX),
        }
    }
}

impl Money {
    /// The grant with everything about money: `limit` for this attempt, of which `spent` is gone.
    ///
    /// # Errors
    /// [`LedgerFull`]: without a count there is no cap, so nothing is started.
    pub(crate) fn grant(
        &self,
        grant: GatewayGrant,
        tenant: &TenantId,
        limit: Option<Nanodollars>,
        spent: Spend,
    ) -> Result<GatewayGrant, LedgerFull> {
        let tenant = Some(self.ledger.share(tenant, self.tenant_day_max)?);
        Ok(grant
            .with_budget(BudgetGrant { limit, spent, tenant })
            .with_prices(self.prices.clone())
            .with_rate_limit_wait(self.rate_limit_wait))
    }

    /// Counts what an attempt spent under an earlier server to its tenant's day. That of the attempts that
    /// ended is in the records.
    pub(crate) fn recall(&self, tenant: &TenantId, spent: &Spend) {
        let (today, _) = self.ledger.spent_today(tenant);
        if let Err(error) = self.ledger.seed(tenant, today, spent.charged()) {
            warn!(%error, "what an attempt spent before is not counted to its tenant's day");
        }
    }
}

/// Writes down what a live attempt has spent, whole or not at all. Not synced: when the host dies, so does the
/// attempt.
pub(crate) fn note_spend(attempt_dir: &Path, spend: &Spend) -> io::Result<()> {
    let partial = attempt_dir.join("spend.json.partial");
    std::fs::write(&partial, serde_json::to_vec(spend).map_err(io::Error::other)?)?;
    std::fs::rename(partial, attempt_dir.join(SPEND_FILE))
}

/// What an attempt had spent when an earlier server last wrote it down; nothing when it never did.
pub(crate) fn noted_spend(attempt_dir: &Path) -> Spend {
    let text = match std::fs::read(attempt_dir.join(SPEND_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Spend::default(),
        Err(error) => {
            warn!(%error, "what an attempt spent before cannot be read");
            return Spend::default();
        }
    };
    serde_json::from_slice(&text)
        .inspect_err(|error| warn!(%error, "what an attempt spent before cannot be read"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(noted_spend(dir.path()), Spend::default());
        let spend = Spend { cost: Nanodollars(7), calls: 2, ..Spend::default() };
        note_spend(dir.path(), &spend).unwrap();
        assert_eq!(noted_spend(dir.path()), spend);
        std::fs::write(dir.path().join(SPEND_FILE), "torn").unwrap();
        assert_eq!(noted_spend(dir.path()), Spend::default());
    }

    #[test]
    fn an_attempt_taken_up_again_counts_to_its_tenants_day() {
        let money = Money::default();
        let tenant: TenantId = "t".parse().unwrap();
        let spent = Spend { cost: Nanodollars(7), assumed: Nanodollars(2), ..Spend::default() };
        money.recall(&tenant, &spent);
        assert_eq!(money.ledger.spent_today(&tenant).1, Nanodollars(9));
    }
}
