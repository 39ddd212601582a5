//! Tenants in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use outpost_types::TenantId;

use super::MemoryStore;
use crate::audit::AuditDraft;
use crate::tenants::{check_tenant, may_replace};
use crate::{AuditEntry, StoreError, TENANTS_ROWS_MAX, TenantRecord, Tenants};

/// All tenants.
pub(super) type Kept = BTreeMap<TenantId, TenantRecord>;

#[async_trait]
impl Tenants for MemoryStore {
    async fn put_tenant(
        &self,
        next: TenantRecord,
        expected_generation: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        check_tenant(&next, expected_generation)?;
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| {
            let (found, count) = (state.tenants.get(&next.id), state.tenants.len());
            let next = may_replace(&next, expected_generation, found, count)?;
            state.tenants.insert(next.id.clone(), next);
            state.append(audit)
        })
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        Ok(self.state().tenants.get(id).cloned())
    }

    async fn tenants(
        &self,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantRecord>, StoreError> {
        let limit = limit.min(TENANTS_ROWS_MAX) as usize;
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = state.tenants.range::<TenantId, _>((from, Bound::Unbounded));
        Ok(found.take(limit).map(|(_, tenant)| tenant.clone()).collect())
    }
}
