//! Promotions in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use outpost_core::{Notice, Promotion};
use outpost_types::DispatchId;

use super::MemoryStore;
use crate::promotions::{PROMOTION_ROWS_MAX, PromotionRow, parse_promotion, promotion_row};
use crate::{AuditEntry, Promotions, StoreError};

/// All promotions, as they would be on disk.
pub(super) type Kept = BTreeMap<DispatchId, KeptPromotion>;

#[derive(Debug)]
pub(super) struct KeptPromotion {
    tenant: String,
    generation: i64,
    is_over: bool,
    body: String,
}

#[async_trait]
impl Promotions for MemoryStore {
    async fn put_promotion(
        &self,
        next: &Promotion,
        expected_generation: u64,
        audit: AuditEntry,
        told: &[Notice],
    ) -> Result<(), StoreError> {
        let row = promotion_row(next, expected_generation, &audit, told)?;
        self.write(|state| {
            let found = state.promotions.get(&next.dispatch);
            if found.is_some_and(|found| found.tenant != row.tenant) {
                return Err(StoreError::NotFound);
            }
            let generation = found.map_or(0, |found| found.generation);
            if generation != row.expected {
                return Err(StoreError::Stale { found: generation.cast_unsigned() });
            }
            let PromotionRow { tenant, generation, is_over, body, audit, events, .. } = row;
            let kept = KeptPromotion { tenant, generation, is_over, body };
            state.promotions.insert(next.dispatch, kept);
            state.append(audit)?;
            for event in events {
                state.outbox.tell(event, None);
            }
            Ok(())
        })
    }

    async fn promotion(&self, dispatch: DispatchId) -> Result<Option<Promotion>, StoreError> {
        let state = self.state();
        let found = state.promotions.get(&dispatch);
        found.map(|found| parse_promotion(&found.body)).transpose()
    }

    async fn open_promotions(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<Promotion>, StoreError> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let open = state.promotions.range((from, Bound::Unbounded));
        open.filter(|(_, kept)| !kept.is_over)
            .take(limit.min(PROMOTION_ROWS_MAX) as usize)
            .map(|(_, kept)| parse_promotion(&kept.body))
            .collect()
    }
}
