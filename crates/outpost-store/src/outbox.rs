//! Webhooks, the events they are told of, and how far each delivery is.
//!
//! An event is in the outbox from the transaction of the change it tells of, if a webhook of its tenant wants it;
//! an event has one name and is there once, however often it is told. Bounded: webhooks of a tenant,
//! deliveries that wait for one webhook (what comes beyond is given up at once and can be replayed), text of a
//! problem. Absent: sending, and the wait between tries, which are the engine's.

use async_trait::async_trait;
use outpost_core::{Dispatch, NOTICE_ID_BYTES_MAX, Notice, notices_of_end};
use outpost_types::limits::WEBHOOK_URL_BYTES_MAX;
use outpost_types::{DeliveryState, TenantId, Timestamp, WebhookId, WebhookKind};

use crate::{AuditEntry, Envelope, SecretRecord, StoreError};

/// Most deliveries of one page.
pub const DELIVERIES_ROWS_MAX: u32 = 100;
/// Most deliveries that wait for one webhook.
pub const DELIVERIES_WAITING_MAX: u32 = 10_000;
/// Longest text of why a try failed, bytes.
pub const PROBLEM_BYTES_MAX: usize = 512;
/// Longest event, bytes.
const EVENT_BYTES_MAX: usize = 64 * 1024;
/// What a delivery says that came while too many waited.
pub(crate) const TOO_MANY_WAIT: &str = "too many deliveries waited for this webhook";

/// A webhook. Its secret is among the secrets, with [`crate::SecretOwner::webhook`] as owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRecord {
    /// Its id.
    pub id: WebhookId,
    /// Whose.
    pub tenant: TenantId,
    /// Where to deliver.
    pub url: String,
    /// Of which events it is told, each once, in order; never empty.
    pub events: Vec<WebhookKind>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One event for one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Its number: later ones have greater ones.
    pub id: u64,
    /// For which webhook.
    pub webhook: WebhookId,
    /// Name of the event.
    pub event: String,
    /// Its kind.
    pub kind: WebhookKind,
    /// When it happened.
    pub at: Timestamp,
    /// How far it is.
    pub state: DeliveryState,
    /// Tries since it was made or replayed.
    pub tries: u32,
    /// When it is tried next, if it waits.
    pub due_at: Timestamp,
    /// When it was last tried.
    pub tried_at: Option<Timestamp>,
    /// What the receiver last answered.
    pub status_code: Option<u16>,
    /// Why the last try failed.
    pub problem: Option<String>,
}

/// A delivery that is due, with what is sent and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDelivery {
    /// The delivery.
    pub delivery: DeliveryRecord,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where to.
    pub url: String,
    /// The event as JSON, as it was written down.
    pub body: String,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Of which delivery.
    pub delivery: u64,
    /// How many tries it had before: a delivery that has another number by now stays as it is.
    pub tries_before: u32,
    /// When it was tried.
    pub at: Timestamp,
    /// What was answered.
    pub status_code: Option<u16>,
    /// Why it failed; `None` when it did not.
    pub problem: Option<String>,
    /// When to try again, after a failure; `None` gives up.
    pub again_at: Option<Timestamp>,
}

/// Webhooks and the outbox.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Stores a webhook together with its sealed secret.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when its id is taken; [`StoreError::Invalid`] for a bound, also when the tenant
    /// has too many.
    async fn insert_webhook(
        &self,
        webhook: WebhookRecord,
        secret: (SecretRecord, Envelope),
        audit: AuditEntry,
    ) -> Result<(), StoreError>;

    /// One webhook of this tenant.
    async fn webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
    ) -> Result<Option<WebhookRecord>, StoreError>;

    /// All webhooks of this tenant, oldest first.
    async fn webhooks(&self, tenant: &TenantId) -> Result<Vec<WebhookRecord>, StoreError>;

    /// Removes a webhook with its secret; `None` (and no audit entry) when there is none. What waits for it is
    /// never due again.
    async fn delete_webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
        audit: AuditEntry,
    ) -> Result<Option<WebhookRecord>, StoreError>;

    /// Writes an event down for every webhook of its tenant that wants it; for `only`, if it is given, whatever
    /// that one wants. Says how many are told. An event that is there already is not told again.
    async fn tell(&self, notice: &Notice, only: Option<WebhookId>) -> Result<u64, StoreError>;

    /// Deliveries that are due at `now`, longest due first; at most `limit` and [`DELIVERIES_ROWS_MAX`]. None of
    /// the webhooks in `except`, whatever waits for those: so what waits for a receiver that takes nothing does not
    /// hide the rest.
    async fn due_deliveries(
        &self,
        now: Timestamp,
        limit: u32,
        except: &[WebhookId],
    ) -> Result<Vec<DueDelivery>, StoreError>;

    /// When the next delivery is due, if any waits.
    async fn next_delivery_at(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Notes what came of a try; `false` when the delivery is another one by now.
    async fn note_try(&self, tried: Tried) -> Result<bool, StoreError>;

    /// Deliveries of a webhook, newest first, with a smaller number than `before`; at most `limit` and
    /// [`DELIVERIES_ROWS_MAX`].
    async fn deliveries(
        &self,
        webhook: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError>;

    /// Queues a delivery of this webhook again, with all its tries; `None` when there is none.
    async fn replay(
        &self,
        webhook: WebhookId,
        delivery: u64,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Option<DeliveryRecord>, StoreError>;
}

/// An event as its row.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) kind: WebhookKind,
    pub(crate) at: Timestamp,
    pub(crate) body: String,
}

pub(crate) fn event_row(notice: &Notice) -> Result<EventRow, StoreError> {
    let body = serde_json::to_string(&notice.event)
        .map_err(|error| StoreError::invalid("event", error.to_string()))?;
    if notice.id.len() > NOTICE_ID_BYTES_MAX || body.len() > EVENT_BYTES_MAX {
        let message = format!(
            "at most {NOTICE_ID_BYTES_MAX} bytes for its name and {EVENT_BYTES_MAX} for itself"
        );
        return Err(StoreError::invalid("event", message));
    }
    Ok(EventRow {
        id: notice.id.clone(),
        tenant: notice.tenant.to_string(),
        kind: notice.event.data.kind(),
        at: notice.event.timestamp,
        body,
    })
}

/// What the end of a dispatch tells; nothing while it goes on.
pub(crate) fn rows_of_end(dispatch: &Dispatch) -> Result<Vec<EventRow>, StoreError> {
    notices_of_end(dispatch).iter().map(event_row).collect()
}

pub(crate) fn check_webhook(webhook: &WebhookRecord) -> Result<(), StoreError> {
    if !(1..=WEBHOOK_URL_BYTES_MAX).contains(&webhook.url.len()) {
        let message = format!("must have 1 to {WEBHOOK_URL_BYTES_MAX} bytes");
        return Err(StoreError::invalid("url", message));
    }
    let ordered = webhook.events.windows(2).all(|pair| pair[0] < pair[1]);
    if webhook.events.is_empty() || !ordered {
        return Err(StoreError::invalid("events", "must name each event once, in order"));
    }
    Ok(())
}

pub(crate) fn too_many_webhooks() -> StoreError {
    let most = outpost_types::limits::WEBHOOKS_COUNT_MAX;
    StoreError::invalid("url", format!("a tenant has at most {most} webhooks; remove one first"))
}

/// A problem within its bound, cut at a whole character.
pub(crate) fn bounded(problem: Option<String>) -> Option<String> {
    problem.map(|mut text| {
        text.truncate(text.floor_char_boundary(PROBLEM_BYTES_MAX));
        text
    })
}

/// Kinds as one text, separated by blanks.
pub(crate) fn kinds_text(kinds: &[WebhookKind]) -> String {
    kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn kind_of(text: &str) -> Result<WebhookKind, StoreError> {
    text.parse().map_err(|()| StoreError::corrupt("the kind of an event"))
}

/// The state after a try.
pub(crate) fn state_after(tried: &Tried) -> DeliveryState {
    match (&tried.problem, tried.again_at) {
        (None, _) => DeliveryState::Delivered,
        (Some(_), Some(_)) => DeliveryState::Waiting,
        (Some(_), None) => DeliveryState::Dead,
    }
}
