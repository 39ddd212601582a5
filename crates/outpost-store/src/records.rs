//! What goes into the store and comes out of it, beside the dispatch itself.

use outpost_core::Dispatch;
use outpost_types::{
    AgentId, DispatchId, DispatchStatus, TenantId, Timestamp,
    limits::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX},
};

use crate::AuditEntry;

/// Most dispatches of one page of a list.
pub const LIST_ROWS_MAX: u32 = LIST_LIMIT_MAX;
/// Most rows of one page of live dispatches.
pub const LIVE_ROWS_MAX: u32 = 1_000;
/// Most idempotency keys of one purge.
pub const PURGE_ROWS_MAX: u32 = 1_000;

/// A dispatch to be stored for the first time. Its `created_at` is the "now" of the whole call.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptDispatch {
    /// The new record.
    pub dispatch: Dispatch,
    /// The client's wish not to make it twice.
    pub idempotency: Option<IdempotencyClaim>,
    /// Written in the same transaction; not written when the answer is `Replayed` or `Conflict`.
    pub audit: AuditEntry,
}

/// An `Idempotency-Key` as it came with a request. It belongs to the tenant of the dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyClaim {
    /// The key, 1 to [`outpost_types::limits::IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_hash: [u8; 32],
    /// From when on the key is free again.
    pub expires_at: Timestamp,
}

/// Answer to [`crate::Dispatches::accept`].
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It is stored.
    New,
    /// The key was used before with the same body; this is the dispatch it made then, as it is now.
    Replayed(Box<Dispatch>),
    /// The key was used before with another body. Nothing was written.
    Conflict,
}

/// One try at a dispatch, as the transitions of the dispatch left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Of which dispatch.
    pub dispatch: DispatchId,
    /// 1 for the first.
    pub number: u32,
    /// Epoch of its messages; the number of the attempt.
    pub epoch: u32,
    /// PROVISIONING, RUNNING, COMPLETING, or how it ended. An attempt whose worker could not be made
    /// is FAILED, also when the dispatch went back to its queue.
    pub state: DispatchStatus,
    /// When it was first written down.
    pub created_at: Timestamp,
    /// When the agent's process started.
    pub started_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended; an ended attempt never changes.
    pub ended_at: Option<Timestamp>,
}

/// How far the events and the log of a dispatch are known to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHead {
    /// Of which dispatch.
    pub dispatch: DispatchId,
    /// Sequence number of the last event.
    pub last_seq: u64,
    /// Bytes of the output log.
    pub log_bytes: u64,
}

/// Which dispatches to list, newest first. All conditions hold at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFilter {
    /// Whose.
    pub tenant: TenantId,
    /// In this state.
    pub status: Option<DispatchStatus>,
    /// Of this agent.
    pub agent: Option<AgentId>,
    /// Of this repository, as it was given.
    pub repo: Option<String>,
    /// Of this user.
    pub user: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// Made at or after this instant, by the time in their ids.
    pub since: Option<Timestamp>,
    /// Made before this instant, by the time in their ids.
    pub until: Option<Timestamp>,
    /// Older than this one: [`ListPage::next`] of the page before.
    pub before: Option<DispatchId>,
    /// At most so many; never more than [`LIST_ROWS_MAX`].
    pub limit: u32,
}

impl ListFilter {
    /// The newest dispatches of a tenant.
    #[must_use]
    pub const fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            status: None,
            agent: None,
            repo: None,
            user: None,
            tag: None,
            since: None,
            until: None,
            before: None,
            limit: LIST_LIMIT_DEFAULT,
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListPage {
    /// The newest that match. They may be fewer than were asked for, even none, although older ones
    /// match: then the store had looked at as much as one page may cost.
    pub dispatches: Vec<Dispatch>,
    /// Where the next page goes on: its [`ListFilter::before`]. `None` when nothing older matches.
    pub next: Option<DispatchId>,
}
