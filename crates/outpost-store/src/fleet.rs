//! What the operator asked of this host's fleet.

use async_trait::async_trait;
use outpost_core::Drains;

use crate::{AuditEntry, StoreError};

/// Name of the row that has it.
pub(crate) const DRAINS: &str = "fleet_drains";
/// Longest such row, bytes: every agent there may be with the longest reason.
pub(crate) const DRAINS_BYTES_MAX: usize = 64 * 1024;

/// What is drained, in one piece.
#[async_trait]
pub trait Fleets: Send + Sync {
    /// Writes all of it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it is too long.
    async fn put_drains(&self, drains: Drains, audit: AuditEntry) -> Result<(), StoreError>;

    /// What was written last; nothing when nothing was.
    async fn drains(&self) -> Result<Drains, StoreError>;
}

/// As it is kept.
pub(crate) fn text_of(drains: &Drains) -> Result<String, StoreError> {
    match serde_json::to_string(drains) {
        Ok(text) if text.len() <= DRAINS_BYTES_MAX => Ok(text),
        _ => Err(StoreError::invalid("drains", format!("at most {DRAINS_BYTES_MAX} bytes"))),
    }
}

/// From what was kept.
pub(crate) fn drains_of(text: &str) -> Result<Drains, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::corrupt("what is drained"))
}
