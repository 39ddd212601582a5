//! Promotions as rows: one for each dispatch, compared and set by their generation.
//!
//! Bounded: bytes of a record, rows of one answer.

use outpost_core::{Notice, Promotion};

use crate::audit::AuditDraft;
use crate::outbox::{EventRow, event_row};
use crate::prepare::{checksum, count};
use crate::{AuditEntry, StoreError};

/// Most promotions of one answer.
pub const PROMOTION_ROWS_MAX: u32 = 1_000;
/// Largest record as JSON, bytes: texts of a client that need six bytes for each of theirs, and 100 paths.
const PROMOTION_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A promotion as it is written.
#[derive(Debug)]
pub(crate) struct PromotionRow {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) status: &'static str,
    pub(crate) generation: i64,
    /// The generation it builds on; 0 for a new one.
    pub(crate) expected: i64,
    pub(crate) is_over: bool,
    pub(crate) body: String,
    pub(crate) checksum: i64,
    pub(crate) audit: AuditDraft,
    /// What is told with it.
    pub(crate) events: Vec<EventRow>,
}

/// Refuses what no version of the store could keep.
pub(crate) fn promotion_row(
    next: &Promotion,
    expected: u64,
    audit: &AuditEntry,
    told: &[Notice],
) -> Result<PromotionRow, StoreError> {
    if expected.checked_add(1) != Some(next.generation) || i64::try_from(next.generation).is_err() {
        return Err(StoreError::invalid("generation", "must be one more than what was read"));
    }
    let body = serde_json::to_string(next)
        .map_err(|error| StoreError::invalid("promotion", error.to_string()))?;
    if body.len() > PROMOTION_BYTES_MAX {
        let message = format!("has {} bytes; at most {PROMOTION_BYTES_MAX}", body.len());
        return Err(StoreError::invalid("promotion", message));
    }
    let status = next.status();
    Ok(PromotionRow {
        id: next.dispatch.to_string(),
        tenant: next.tenant.as_str().to_owned(),
        status: status.as_str(),
        generation: count(next.generation),
        expected: count(expected),
        is_over: next.is_at_rest(),
        checksum: checksum(&[body.as_bytes()]),
        body,
        audit: AuditDraft::new(audit)?,
        events: told.iter().map(event_row).collect::<Result<_, _>>()?,
    })
}

/// Reads a record back.
pub(crate) fn parse_promotion(body: &str) -> Result<Promotion, StoreError> {
    serde_json::from_str(body)
        .map_err(|error| StoreError::corrupt(format!("the record of a promotion: {error}")))
}
