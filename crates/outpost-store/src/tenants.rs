//! Tenants: who may use the server, and how much. Compared and set by their generation.
//!
//! Bounded: how many there are, the length of a name, rows of one answer.

use async_trait::async_trait;
use outpost_types::limits::{
    NAME_BYTES_MAX, QUOTA_DISPATCHES_MAX, QUOTA_REQUESTS_MAX, TENANTS_COUNT_MAX,
};
use outpost_types::{TenantId, TenantQuotas, TenantStatus, Timestamp};

use crate::prepare::{checksum, millis};
use crate::{AuditEntry, StoreError};

/// Most tenants of one answer.
pub const TENANTS_ROWS_MAX: u32 = 1_000;

/// A tenant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its id.
    pub id: TenantId,
    /// What people call it.
    pub name: String,
    /// Whether its keys are let in.
    pub status: TenantStatus,
    /// What it may use.
    pub quotas: TenantQuotas,
    /// 1 for a new one, one more with each change.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Tenants. That a tenant has keys or dispatches does not depend on its record.
#[async_trait]
pub trait Tenants: Send + Sync {
    /// Writes a tenant if the one on record is still at `expected_generation`; 0 means that there is none.
    /// `next.generation` must be one more. When it was made never changes.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when somebody else was first, [`StoreError::Invalid`] for a bound, also when there
    /// are too many.
    async fn put_tenant(
        &self,
        next: TenantRecord,
        expected_generation: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError>;

    /// The tenant with this id.
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError>;

    /// Tenants by id, greater than `after`; at most `limit` and [`TENANTS_ROWS_MAX`].
    async fn tenants(
        &self,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantRecord>, StoreError>;
}

/// Refuses what no version of the store could keep.
pub(crate) fn check_tenant(next: &TenantRecord, expected: u64) -> Result<(), StoreError> {
    if expected.checked_add(1) != Some(next.generation) || i64::try_from(next.generation).is_err() {
        return Err(StoreError::invalid("generation", "must be one more than what was read"));
    }
    if next.name.len() > NAME_BYTES_MAX {
        return Err(StoreError::invalid("tenant.name", format!("at most {NAME_BYTES_MAX} bytes")));
    }
    let fits = |quota: Option<u32>, max: u32| quota.is_none_or(|it| (1..=max).contains(&it));
    if !fits(next.quotas.requests_per_minute, QUOTA_REQUESTS_MAX)
        || !fits(next.quotas.concurrent_dispatches, QUOTA_DISPATCHES_MAX)
    {
        let message = format!(
            "1 to {QUOTA_REQUESTS_MAX} requests and 1 to {QUOTA_DISPATCHES_MAX} dispatches"
        );
        return Err(StoreError::invalid("tenant.quotas", message));
    }
    Ok(())
}

/// Whether `next` may be written where `found` is on record, beside `count` tenants in all; the record with
/// what never changes of it.
pub(crate) fn may_replace(
    next: &TenantRecord,
    expected: u64,
    found: Option<&TenantRecord>,
    count: usize,
) -> Result<TenantRecord, StoreError> {
    let generation = found.map_or(0, |found| found.generation);
    if generation != expected {
        return Err(StoreError::Stale { found: generation });
    }
    if found.is_none() && count >= TENANTS_COUNT_MAX {
        let message = format!("there are {TENANTS_COUNT_MAX} already, which is the most");
        return Err(StoreError::invalid("tenant", message));
    }
    let created_at = found.map_or(next.created_at, |found| found.created_at);
    Ok(TenantRecord { created_at, ..next.clone() })
}

/// Checksum of a row: everything of it.
pub(crate) fn tenant_sum(tenant: &TenantRecord) -> i64 {
    let quota = |it: Option<u32>| it.unwrap_or(0).to_be_bytes();
    checksum(&[
        tenant.id.as_str().as_bytes(),
        tenant.name.as_bytes(),
        tenant.status.as_str().as_bytes(),
        &tenant.generation.to_be_bytes(),
        &quota(tenant.quotas.requests_per_minute),
        &quota(tenant.quotas.concurrent_dispatches),
        &millis(tenant.created_at).to_be_bytes(),
    ])
}
