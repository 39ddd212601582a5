//! The store as its users see it: one small trait per noun.
//!
//! Every write is atomic and durable when it answers `Ok`, together with its audit entry. A write
//! whose caller stopped waiting may still happen.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use outpost_core::{Dispatch, Notice, Promotion};
use outpost_types::{ApiKeyStatus, DispatchId, KeyId, SecretName, TenantId, Timestamp};

use crate::fleet::Fleets;
use crate::outbox::Outbox;
use crate::retention::Retention;
use crate::tenants::Tenants;
use crate::{
    AcceptDispatch, Accepted, ApiKeyRecord, AttemptRecord, AuditEntry, AuditFilter, AuditHead,
    AuditPage, AuditPart, AuditRange, AuditRow, BrokenAt, Envelope, EventHead, KeyHash, KeyTouch,
    LIVE_ROWS_MAX, ListFilter, ListPage, ReplaceKey, Reseal, SECRET_KEY_ID_BYTES, SealedSecret,
    SecretOwner, SecretRecord, SecretUse, StoreError, StoreMetrics, UsageRow,
};

/// Dispatches, their attempts, and the idempotency keys that made them.
#[async_trait]
pub trait Dispatches: Send + Sync {
    /// Stores a new dispatch, its idempotency key, its tags and its audit entry in one transaction.
    ///
    /// A key that is not expired at the dispatch's `created_at` answers for the dispatch it made:
    /// [`Accepted::Replayed`] for the same body, [`Accepted::Conflict`] for another.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when the id is taken, [`StoreError::Busy`] when the queue is full.
    async fn accept(&self, accept: AcceptDispatch) -> Result<Accepted, StoreError>;

    /// Replaces a record if it is still at `expected_generation`, and writes down its current
    /// attempt. `next.generation` must be one more. Owner and `spec` never change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when somebody else was first, [`StoreError::NotFound`],
    /// [`StoreError::Final`] when a terminal record would get another state.
    async fn update(
        &self,
        next: &Dispatch,
        expected_generation: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError>;

    /// One dispatch, whoever owns it.
    async fn get(&self, id: DispatchId) -> Result<Option<Dispatch>, StoreError>;

    /// One dispatch of this tenant; another tenant's is as good as none.
    async fn get_for_tenant(
        &self,
        tenant: &TenantId,
        id: DispatchId,
    ) -> Result<Option<Dispatch>, StoreError>;

    /// The newest dispatches that match, at most [`crate::LIST_ROWS_MAX`], and where the next page
    /// goes on. What one page costs is bounded, so it may hold fewer although there are more.
    async fn list(&self, filter: &ListFilter) -> Result<ListPage, StoreError>;

    /// Non-terminal dispatches of all tenants, oldest first, with an id greater than `after`; at
    /// most `limit` and [`LIVE_ROWS_MAX`].
    async fn live_page(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<Dispatch>, StoreError>;

    /// All non-terminal dispatches, oldest first: what recovery starts from. As large as the queue
    /// of work is; [`Dispatches::live_page`] reads it in pieces.
    async fn live(&self) -> Result<Vec<Dispatch>, StoreError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|dispatch: &Dispatch| dispatch.id);
            let page = self.live_page(after, LIVE_ROWS_MAX).await?;
            let last = page.len() < LIVE_ROWS_MAX as usize;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    /// The attempts of a dispatch, first to last.
    async fn attempts(&self, id: DispatchId) -> Result<Vec<AttemptRecord>, StoreError>;

    /// Forgets idempotency keys expired at `now`, at most [`crate::PURGE_ROWS_MAX`]; says how many.
    async fn purge_idempotency(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// API keys. The store never sees a key, only its hash.
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Stores a new key.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when its id or hash is taken.
    async fn insert_key(&self, key: ApiKeyRecord, audit: AuditEntry) -> Result<(), StoreError>;

    /// The key with this hash, in whatever state; see [`ApiKeyRecord::works_at`].
    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<ApiKeyRecord>, StoreError>;

    /// The key with this id.
    async fn key(&self, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError>;

    /// Keys of one tenant or of all, newest first, older than `before`; at most `limit` and
    /// [`crate::KEYS_ROWS_MAX`].
    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRecord>, StoreError>;

    /// Stores a new key and ends an old one, both or none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such key of the same tenant, [`StoreError::Final`] when it does
    /// not work any more, [`StoreError::Duplicate`] when id or hash of the new one are taken.
    async fn replace_key(&self, replace: ReplaceKey) -> Result<(), StoreError>;

    /// Changes the state of a key; `false` (and no audit entry) when it was in it already.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and [`StoreError::Final`]: no key becomes active again.
    async fn set_key_status(
        &self,
        id: KeyId,
        status: ApiKeyStatus,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;

    /// Adds up uses of keys, at most [`crate::KEY_TOUCHES_MAX`] of them; unknown keys are passed
    /// over. Not audited.
    async fn touch_keys(&self, touches: &[KeyTouch]) -> Result<(), StoreError>;
}

/// How far the events of each dispatch are written.
#[async_trait]
pub trait EventHeads: Send + Sync {
    /// Notes the head. It never moves back: each number keeps the greater of old and new.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such dispatch.
    async fn set_event_head(&self, head: EventHead) -> Result<(), StoreError>;

    /// The head of a dispatch, if one was noted.
    async fn event_head(&self, id: DispatchId) -> Result<Option<EventHead>, StoreError>;
}

/// The audit trail. Rows are written only by the changes they tell of.
#[async_trait]
pub trait Audits: Send + Sync {
    /// Rows of the trail, oldest first.
    async fn audit(&self, range: AuditRange) -> Result<Vec<AuditRow>, StoreError>;

    /// Rows that match, newest first. What one page costs is bounded ([`crate::AUDIT_SCAN_ROWS_MAX`]), so it may
    /// hold fewer although there are more.
    async fn audit_page(&self, filter: AuditFilter) -> Result<AuditPage, StoreError>;

    /// Checks the hashes of the rows after `after`, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no row `after`.
    async fn verify_audit_part(&self, after: u64, limit: u32) -> Result<AuditPart, StoreError> {
        crate::trail::verify_part(self, after, limit).await
    }

    /// Reads the whole trail and checks every hash. The inner error names the first bad row.
    async fn verify_audit(&self) -> Result<Result<AuditHead, BrokenAt>, StoreError>;
}

/// Secrets. The store sees sealed bytes only.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Stores the next version of a secret, or the first. Use counts are kept as they are. Versions
    /// beyond [`crate::SECRET_VERSIONS_MAX`] are removed.
    ///
    /// # Errors
    /// [`StoreError::Stale`] with the version there is (0 for none) when `record` is not its next;
    /// [`StoreError::Invalid`] for a bound, also when the owner has too many.
    async fn put_secret(
        &self,
        record: SecretRecord,
        envelope: Envelope,
        audit: AuditEntry,
    ) -> Result<(), StoreError>;

    /// One secret of this owner.
    async fn secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
    ) -> Result<Option<SecretRecord>, StoreError>;

    /// All secrets of this owner, by name.
    async fn secrets(&self, owner: &SecretOwner) -> Result<Vec<SecretRecord>, StoreError>;

    /// A secret with the sealed value of one version, or of the current one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the record and its newest version disagree.
    async fn sealed_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        version: Option<u64>,
    ) -> Result<Option<(SecretRecord, SealedSecret)>, StoreError>;

    /// Removes a secret with all its versions; `None` (and no audit entry) when there is none.
    async fn delete_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        audit: AuditEntry,
    ) -> Result<Option<SecretRecord>, StoreError>;

    /// Counts uses, each with its audit entry, all in one transaction; at most
    /// [`crate::SECRET_USES_MAX`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when one of the versions is gone; then nothing was written.
    async fn note_secret_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError>;

    /// The short names of the keys that values are sealed with, at most
    /// [`crate::SECRET_KEY_IDS_MAX`].
    async fn secret_key_ids(&self) -> Result<Vec<[u8; SECRET_KEY_ID_BYTES]>, StoreError>;

    /// Seals every version of every secret anew, in one transaction; says how many were written.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] with what `reseal` says about the first it cannot open; then nothing
    /// was written.
    async fn reseal_secrets(&self, reseal: Reseal, audit: AuditEntry) -> Result<u64, StoreError>;
}

/// What was used. Written by the changes that end dispatches.
#[async_trait]
pub trait Usages: Send + Sync {
    /// Sums of a tenant, or of all, of these days (see [`outpost_types::Day::number`]): newest day first, then by
    /// tenant, agent and model; at most [`crate::USAGE_ROWS_MAX`].
    async fn usage(
        &self,
        tenant: Option<&TenantId>,
        days: RangeInclusive<u64>,
    ) -> Result<Vec<UsageRow>, StoreError>;
}

/// Promotions: one for each dispatch.
#[async_trait]
pub trait Promotions: Send + Sync {
    /// Writes a promotion if the one on record is still at `expected_generation`; 0 means that there is
    /// none. `next.generation` must be one more. Webhooks are told with it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when somebody else was first, [`StoreError::NotFound`] when the one on record is
    /// another tenant's.
    async fn put_promotion(
        &self,
        next: &Promotion,
        expected_generation: u64,
        audit: AuditEntry,
        told: &[Notice],
    ) -> Result<(), StoreError>;

    /// The promotion of a dispatch, whoever owns it.
    async fn promotion(&self, dispatch: DispatchId) -> Result<Option<Promotion>, StoreError>;

    /// Those that are not at rest, by the id of their dispatch, greater than `after`; at most `limit` and
    /// [`crate::PROMOTION_ROWS_MAX`].
    async fn open_promotions(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<Promotion>, StoreError>;
}

/// Everything the control plane keeps.
pub trait Store:
    Dispatches
    + ApiKeys
    + EventHeads
    + Audits
    + Tenants
    + Fleets
    + Secrets
    + Usages
    + Promotions
    + Retention
    + Outbox
    + Debug
{
    /// Counters since it was opened; cheap.
    fn metrics(&self) -> StoreMetrics;
}
