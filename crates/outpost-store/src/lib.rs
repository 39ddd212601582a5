//! The record of everything: dispatches, attempts, API keys, event heads, idempotency keys, sealed
//! secrets, sums of what was used, audit.
//!
//! [`Store`] is the sum of small traits split by noun; [`SqliteStore`] keeps it in one file,
//! [`MemoryStore`] in memory for tests, and [`conformance::suite`] is what every version passes.
//! An answer to a write means it is durable: SQLite answers only after the fsync of its batch.
//!
//! Bounded: the write queue, a batch, a page, an audit detail, the waiting scans (see the constants
//! of each module). Deliberately absent: a clock and randomness (instants and ids are handed in),
//! event and log bodies (files), retention, and any decision about a dispatch, which is
//! `outpost-core`'s.

mod audit;
pub mod conformance;
mod error;
mod fleet;
mod keys;
mod memory;
mod metrics;
mod outbox;
mod prepare;
mod promotions;
mod records;
mod retention;
mod secrets;
mod sqlite;
mod tenants;
mod trail;
mod traits;
mod usage;

pub use audit::{
    AUDIT_DETAIL_BYTES_MAX, AUDIT_ROWS_MAX, AuditEntry, AuditHead, AuditRange, AuditRow, BrokenAt,
};
pub use error::{Cause, StoreError};
pub use fleet::Fleets;
pub use keys::{
    API_KEY_PREFIX_CHARS, ApiKey, ApiKeyRecord, KEY_TOUCHES_MAX, KEYS_ROWS_MAX, KeyHash, KeyTouch,
    NotAKey, ReplaceKey,
};
pub use memory::MemoryStore;
pub use metrics::StoreMetrics;
pub use outbox::{
    DELIVERIES_ROWS_MAX, DELIVERIES_WAITING_MAX, DeliveryRecord, DueDelivery, Outbox,
    PROBLEM_BYTES_MAX, Tried, WebhookRecord,
};
pub use promotions::PROMOTION_ROWS_MAX;
pub use records::{
    AcceptDispatch, Accepted, AttemptRecord, EventHead, IdempotencyClaim, LIST_ROWS_MAX,
    LIVE_ROWS_MAX, ListFilter, ListPage, PURGE_ROWS_MAX,
};
pub use retention::{ENDED_ROWS_MAX, Ended, EndedRange, Purge, Retention};
pub use secrets::{
    Envelope, Reseal, ResealFn, SECRET_ENVELOPE_BYTES_MAX, SECRET_KEY_ID_BYTES, SECRET_KEY_IDS_MAX,
    SECRET_USES_MAX, SECRET_VERSIONS_MAX, SealedSecret, SecretOwner, SecretRecord, SecretUse,
};
pub use sqlite::{
    ACCEPT_QUEUE_MAX, BATCH_BYTES_MAX, BATCH_MAX, Checkpoint, CopiedStore, DATABASE_FILE,
    KeptDispatch, LIST_ENTRIES_MAX, SCAN_QUEUE_MAX, SCHEMA_VERSION, SqliteOptions, SqliteStore,
    WRITE_QUEUE_MAX, snapshot,
};
pub use tenants::{TENANTS_ROWS_MAX, TenantRecord, Tenants};
pub use trail::{AUDIT_SCAN_ROWS_MAX, AuditFilter, AuditPage, AuditPart};
pub use traits::{ApiKeys, Audits, Dispatches, EventHeads, Promotions, Secrets, Store, Usages};
pub use usage::{USAGE_ROWS_MAX, UsageRow, UsageTotal};
