//! What the tenants have spent today, shared by all attempts of this process.
//!
//! A ledger knows for each tenant its cap and what was spent in the current UTC day; the decision is
//! [`DayBudget`]'s. Bounded: tenants. Absent: records; who keeps them hands in what was spent before
//! ([`TenantLedger::seed`]) and reads what is spent now.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use outpost_core::{DayBudget, Nanodollars};
use outpost_types::{Day, TenantId, Timestamp};

/// Most tenants in a ledger; those that have not spent today make room.
pub const LEDGER_TENANTS_MAX: usize = 65_536;

/// No room for another tenant.
#[derive(Debug, thiserror::Error)]
#[error(
    "{LEDGER_TENANTS_MAX} tenants have spent today, which is the most a server counts: add a server"
)]
pub struct LedgerFull;

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// All tenants. Clones share it.
#[derive(Clone)]
pub struct TenantLedger {
    days: Arc<Mutex<HashMap<TenantId, Arc<Mutex<DayBudget>>>>>,
    clock: Clock,
}

/// One tenant's part of a ledger.
#[derive(Clone)]
pub struct TenantShare {
    day: Arc<Mutex<DayBudget>>,
    clock: Clock,
}

impl Default for TenantLedger {
    fn default() -> Self {
        Self::with_clock(|| SystemTime::now().into())
    }
}

impl TenantLedger {
    /// An empty ledger by another clock than the system's.
    #[must_use]
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { days: Arc::default(), clock: Arc::new(clock) }
    }

    /// The tenant's part, with this cap for each UTC day from now on; `None` is no cap.
    ///
    /// # Errors
    /// [`LedgerFull`] when there is no room.
    pub fn share(
        &self,
        tenant: &TenantId,
        cap: Option<Nanodollars>,
    ) -> Result<TenantShare, LedgerFull> {
        let day = self.entry(tenant)?;
        let mut budget = day.lock().unwrap_or_else(PoisonError::into_inner);
        *budget = budget.with_cap(cap);
        drop(budget);
        Ok(TenantShare { day, clock: Arc::clone(&self.clock) })
    }

    /// Adds what the records say was spent on a day (days since 1970 in UTC) before this process began.
    ///
    /// # Errors
    /// [`LedgerFull`] when there is no room.
    pub fn seed(&self, tenant: &TenantId, day: u64, spent: Nanodollars) -> Result<(), LedgerFull> {
        let entry = self.entry(tenant)?;
        let mut budget = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if day >= budget.day() {
            *budget = budget.charge(day, spent);
        }
        Ok(())
    }

    /// Today (days since 1970 in UTC) and what the tenant has spent on it.
    #[must_use]
    pub fn spent_today(&self, tenant: &TenantId) -> (u64, Nanodollars) {
        let today = Day::of((self.clock)()).number();
        let days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = days
            .get(tenant)
            .map(|day| day.lock().unwrap_or_else(PoisonError::into_inner).spent(today));
        (today, spent.unwrap_or_default())
    }

    fn entry(&self, tenant: &TenantId) -> Result<Arc<Mutex<DayBudget>>, LedgerFull> {
        let today = Day::of((self.clock)()).number();
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(day) = days.get(tenant) {
            return Ok(Arc::clone(day));
        }
        if days.len() >= LEDGER_TENANTS_MAX {
            days.retain(|_, day| {
                let budget = day.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::strong_count(day) > 1 || budget.spent(today) > Nanodollars::ZERO
            });
        }
        if days.len() >= LEDGER_TENANTS_MAX {
            return Err(LedgerFull);
        }
        let day = Arc::new(Mutex::new(DayBudget::new(None, today, Nanodollars::ZERO)));
        days.insert(tenant.clone(), Arc::clone(&day));
        Ok(day)
    }
}

/// A tenant's day at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DaySeen {
    pub(crate) day: u64,
    pub(crate) spent: Nanodollars,
    pub(crate) cap: Option<Nanodollars>,
}

impl DaySeen {
    pub(crate) fn exhausted(&self) -> Option<Nanodollars> {
        self.cap.filter(|cap| self.spent >= *cap)
    }
}

impl TenantShare {
    pub(crate) fn seen(&self) -> DaySeen {
        self.charge(Nanodollars::ZERO)
    }

    pub(crate) fn charge(&self, cost: Nanodollars) -> DaySeen {
        let today = Day::of((self.clock)()).number();
        let mut budget = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        *budget = budget.charge(today, cost);
        DaySeen { day: budget.day(), spent: budget.spent(today), cap: budget.cap() }
    }
}

impl fmt::Debug for TenantLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantLedger").finish_non_exhaustive()
    }
}

impl fmt::Debug for TenantShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantShare").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MILLIS_PER_DAY: u64 = 86_400_000;

    #[test]
    fn attempts_of_a_tenant_share_its_day_and_the_next_one_begins_anew() {
        let now = Arc::new(AtomicU64::new(MILLIS_PER_DAY * 20_000));
        let clock = Arc::clone(&now);
        let ledger =
            TenantLedger::with_clock(move || Timestamp::from_millis(clock.load(Ordering::Relaxed)));
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        ledger.seed(&a, 20_000, Nanodollars(5)).unwrap();
        ledger.seed(&a, 19_999, Nanodollars(1000)).unwrap();
        let cap = Some(Nanodollars(10));
        let shares = [ledger.share(&a, cap).unwrap(), ledger.share(&a, cap).unwrap()];
        assert_eq!(shares[0].charge(Nanodollars(3)).exhausted(), None);
        assert_eq!(shares[1].charge(Nanodollars(2)).exhausted(), cap);
        assert_eq!(ledger.spent_today(&a), (20_000, Nanodollars(10)));
        assert_eq!(ledger.spent_today(&b), (20_000, Nanodollars::ZERO));
        now.fetch_add(MILLIS_PER_DAY, Ordering::Relaxed);
        assert_eq!(shares[0].seen(), DaySeen { day: 20_001, spent: Nanodollars::ZERO, cap });
        assert_eq!(ledger.spent_today(&a), (20_001, Nanodollars::ZERO));
    }
}
