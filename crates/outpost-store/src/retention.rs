//! What goes when its time is over. Which that is decides whoever calls: nothing here knows a rule.
//!
//! Every write is one transaction of bounded size, and doing it twice changes nothing. A dispatch that is not over
//! is never touched, whatever is asked for.

use async_trait::async_trait;
use outpost_types::{DispatchId, TenantId, Timestamp};

use crate::{AuditEntry, StoreError};

/// Most rows of a page of what is over, and most records forgotten at once.
pub const ENDED_ROWS_MAX: u32 = 256;

/// A dispatch that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub id: DispatchId,
    /// Whose.
    pub tenant: TenantId,
    /// When it reached its terminal state.
    pub ended_at: Timestamp,
}

/// Which of those that are over to read, those that ended first at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRange {
    /// After this one, in the order of end and id.
    pub after: Option<(Timestamp, DispatchId)>,
    /// That ended at this instant or before.
    pub until: Timestamp,
    /// At most so many; never more than [`ENDED_ROWS_MAX`].
    pub limit: u32,
}

/// What to remove of a table, at most [`crate::PURGE_ROWS_MAX`] rows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// API keys that expired at this instant or before.
    ExpiredKeys(Timestamp),
    /// Sums of what was used on days before this one; see [`outpost_types::Day::number`].
    UsageBefore(u64),
    /// Deliveries of events that happened at this instant or before, and then the events.
    Deliveries(Timestamp),
}

/// What is over, and its end in the records.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Dispatches whose record is there and that are over.
    async fn ended(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError>;

    /// Removes records of dispatches that are over, with their tags and attempts, each with its audit entry, in
    /// one transaction; at most [`ENDED_ROWS_MAX`]. What of them is still in files is noted in the same
    /// transaction: see [`Retention::leftovers`]. Those that are not over or not there are passed over. Says how
    /// many went.
    async fn forget(&self, ended: Vec<(DispatchId, AuditEntry)>) -> Result<u64, StoreError>;

    /// Dispatches whose record is gone and whose files are not, as far as is known.
    async fn leftovers(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError>;

    /// One of them.
    async fn leftover(&self, id: DispatchId) -> Result<Option<Ended>, StoreError>;

    /// Notes that nothing is left of these, at most [`ENDED_ROWS_MAX`]; says how many were known.
    async fn drop_leftovers(&self, ids: &[DispatchId]) -> Result<u64, StoreError>;

    /// Removes rows whose time is over; says how many went. Zero when there is no more.
    async fn purge(&self, what: Purge) -> Result<u64, StoreError>;
}

/// Most at once, by name.
pub(crate) fn check_count(count: usize) -> Result<(), StoreError> {
    if count > ENDED_ROWS_MAX as usize {
        let message = format!("at most {ENDED_ROWS_MAX} dispatches at once");
        return Err(StoreError::invalid("ended", message));
    }
    Ok(())
}
