//! Webhooks and the outbox in SQLite.

use async_trait::async_trait;
use outpost_core::Notice;
use outpost_types::limits::WEBHOOKS_COUNT_MAX;
use outpost_types::{DeliveryState, TenantId, Timestamp, WebhookId};
use rusqlite::{Connection, Row, params};

use crate::audit::{AuditDraft, Chain};
use crate::outbox::{
    DELIVERIES_ROWS_MAX, DELIVERIES_WAITING_MAX, DeliveryRecord, DueDelivery, EventRow, Outbox,
    TOO_MANY_WAIT, Tried, WebhookRecord, bounded, check_webhook, event_row, kind_of, kinds_text,
    state_after, too_many_webhooks,
};
use crate::prepare::{count, millis};
use crate::secrets::check_put;
use crate::sqlite::apply::{Answer, Command, Refusal, append_audit};
use crate::sqlite::rows::{instant, many, maybe_instant, number, one};
use crate::sqlite::{SqliteStore, secrets};
use crate::{AuditEntry, Envelope, SecretOwner, SecretRecord, StoreError};

const WEBHOOK: &str = "SELECT webhook_id, tenant_id, url, events, created_at FROM webhooks
    WHERE webhook_id = ?1 AND tenant_id = ?2";
const WEBHOOKS: &str = "SELECT webhook_id, tenant_id, url, events, created_at FROM webhooks
    WHERE tenant_id = ?1 ORDER BY webhook_id LIMIT ?2";

macro_rules! with_delivery {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " d.delivery_id, d.webhook_id, d.event_id, d.kind, d.at, d.state, d.tries, d.due_at,
              d.tried_at, d.status_code, d.problem ",
            $after
        )
    };
}

const DELIVERY: &str =
    with_delivery!("SELECT", "FROM deliveries d WHERE d.delivery_id = ?1 AND d.webhook_id = ?2");
const DELIVERIES: &str = with_delivery!(
    "SELECT",
    "FROM deliveries d WHERE d.webhook_id = ?1 AND d.delivery_id < ?2
     ORDER BY d.delivery_id DESC LIMIT ?3"
);
const DUE: &str = with_delivery!(
    "SELECT",
    ", w.tenant_id, w.url, e.body FROM deliveries d INDEXED BY deliveries_due
     JOIN webhooks w ON w.webhook_id = d.webhook_id JOIN outbox e ON e.event_id = d.event_id
     WHERE d.state = 'waiting' AND d.due_at <= ?1
       AND d.webhook_id NOT IN (SELECT value FROM json_each(?3))
     ORDER BY d.due_at, d.delivery_id LIMIT ?2"
);
const NEXT: &str = "SELECT due_at FROM deliveries INDEXED BY deliveries_due
    WHERE state = 'waiting' ORDER BY due_at LIMIT 1";

/// A write of webhooks and deliveries.
#[derive(Debug)]
pub(crate) enum OutboxCommand {
    Insert { webhook: WebhookRecord, secret: (SecretRecord, Envelope), audit: AuditDraft },
    Delete { tenant: TenantId, id: WebhookId, audit: AuditDraft },
    Tell { event: EventRow, only: Option<WebhookId> },
    Tried(Tried),
    Replay { webhook: WebhookId, delivery: u64, now: Timestamp, audit: AuditDraft },
}

impl OutboxCommand {
    /// Rough size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Insert { audit, .. }
            | Self::Delete { audit, .. }
            | Self::Replay { audit, .. } => audit.bytes(),
            Self::Tell { event, .. } => event.body.len(),
            Self::Tried(_) => size_of::<Self>(),
        }
    }

    pub(crate) fn apply(&self, db: &Connection, chain: &mut Chain) -> Result<Answer, Refusal> {
        match self {
            Self::Insert { webhook, secret, audit } => insert(db, chain, webhook, secret, audit),
            Self::Delete { tenant, id, audit } => delete(db, chain, (tenant, *id), audit),
            Self::Tell { event, only } => Ok(Answer::Count(tell(db, event, *only)?)),
            Self::Tried(tried) => note_try(db, tried),
            Self::Replay { webhook, delivery, now, audit } => {
                replay(db, chain, (*webhook, *delivery), *now, audit)
            }
        }
    }
}

fn insert(
    db: &Connection,
    chain: &mut Chain,
    webhook: &WebhookRecord,
    (secret, envelope): &(SecretRecord, Envelope),
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    let (id, tenant) = (webhook.id.to_string(), webhook.tenant.as_str());
    if db.prepare_cached("SELECT 1 FROM webhooks WHERE webhook_id = ?1")?.exists([&id])? {
        return Err(Refusal::Clean(StoreError::Duplicate));
    }
    let owned: i64 = db
        .prepare_cached("SELECT count(*) FROM webhooks WHERE tenant_id = ?1")?
        .query_row([tenant], |row| row.get(0))?;
    if owned >= count(WEBHOOKS_COUNT_MAX as u64) {
        return Err(Refusal::Clean(too_many_webhooks()));
    }
    // Refuses before it writes; the entry of the audit trail is one for both.
    secrets::put(db, chain, secret, envelope, audit)?;
    db.prepare_cached(
        "INSERT INTO webhooks (webhook_id, tenant_id, url, events, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        id,
        tenant,
        webhook.url,
        kinds_text(&webhook.events),
        millis(webhook.created_at)
    ])?;
    Ok(Answer::Done)
}

fn delete(
    db: &Connection,
    chain: &mut Chain,
    (tenant, id): (&TenantId, WebhookId),
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    let found = find(db, tenant, id).map_err(Refusal::Clean)?;
    let Some(webhook) = found else { return Ok(Answer::Webhook(None)) };
    let owner = SecretOwner::webhook(id);
    for delete in
        ["DELETE FROM secret_versions WHERE owner = ?1", "DELETE FROM secrets WHERE owner = ?1"]
    {
        db.prepare_cached(delete)?.execute([owner.as_str()])?;
    }
    db.prepare_cached("DELETE FROM webhooks WHERE webhook_id = ?1")?.execute([id.to_string()])?;
    // What waits for it is bounded; the rest goes with its time.
    db.prepare_cached("DELETE FROM deliveries WHERE webhook_id = ?1 AND state = 'waiting'")?
        .execute([id.to_string()])?;
    append_audit(db, chain, audit)?;
    Ok(Answer::Webhook(Some(Box::new(webhook))))
}

/// Writes an event down for those who want it, if anybody does; says how many.
pub(crate) fn tell(
    db: &Connection,
    event: &EventRow,
    only: Option<WebhookId>,
) -> Result<u64, Refusal> {
    let webhooks =
        many(db, WEBHOOKS, params![event.tenant, count(WEBHOOKS_COUNT_MAX as u64)], webhook);
    let mut webhooks = webhooks.map_err(Refusal::Clean)?;
    webhooks.retain(|webhook| match only {
        Some(only) => webhook.id == only,
        None => webhook.events.contains(&event.kind),
    });
    if webhooks.is_empty() {
        return Ok(0);
    }
    let new = db
        .prepare_cached(
            "INSERT INTO outbox (event_id, tenant_id, kind, at, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            event.id,
            event.tenant,
            event.kind.as_str(),
            millis(event.at),
            event.body
        ])?;
    if new == 0 {
        return Ok(0);
    }
    for webhook in &webhooks {
        deliver(db, event, webhook)?;
    }
    Ok(webhooks.len() as u64)
}

fn deliver(db: &Connection, event: &EventRow, webhook: &WebhookRecord) -> Result<(), Refusal> {
    let id = webhook.id.to_string();
    let waiting: u32 = db
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_waiting
                 WHERE webhook_id = ?1 AND state = 'waiting' LIMIT ?2)",
        )?
        .query_row(params![id, DELIVERIES_WAITING_MAX], |row| row.get(0))?;
    let (state, problem) = if waiting < DELIVERIES_WAITING_MAX {
        (DeliveryState::Waiting, None)
    } else {
        (DeliveryState::Dead, Some(TOO_MANY_WAIT))
    };
    db.prepare_cached(
        "INSERT INTO deliveries (webhook_id, event_id, kind, at, state, tries, due_at, problem)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, ?4, ?6)",
    )?
    .execute(params![
        id,
        event.id,
        event.kind.as_str(),
        millis(event.at),
        state.as_str(),
        problem
    ])?;
    Ok(())
}

fn note_try(db: &Connection, tried: &Tried) -> Result<Answer, Refusal> {
    let changed = db
        .prepare_cached(
            "UPDATE deliveries SET state = ?3, tries = ?2 + 1, due_at = coalesce(?4, due_at),
                 tried_at = ?5, status_code = ?6, problem = ?7
             WHERE delivery_id = ?1 AND tries = ?2 AND state = 'waiting'",
        )?
        .execute(params![
            count(tried.delivery),
            tried.tries_before,
            state_after(tried).as_str(),
            tried.again_at.map(millis),
            millis(tried.at),
            tried.status_code,
            tried.problem,
        ])?;
    Ok(Answer::Changed(changed > 0))
}

fn replay(
    db: &Connection,
    chain: &mut Chain,
    (webhook, delivery): (WebhookId, u64),
    now: Timestamp,
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    let key = params![count(delivery), webhook.to_string()];
    let known = db
        .prepare_cached(
            "UPDATE deliveries SET state = 'waiting', tries = 0, due_at = ?3
             WHERE delivery_id = ?1 AND webhook_id = ?2",
        )?
        .execute(params![count(delivery), webhook.to_string(), millis(now)])?;
    if known == 0 {
        return Ok(Answer::Delivery(None));
    }
    append_audit(db, chain, audit)?;
    let found = one(db, DELIVERY, key, read_delivery).map_err(Refusal::Clean)?;
    Ok(Answer::Delivery(found.map(Box::new)))
}

fn find(
    db: &Connection,
    tenant: &TenantId,
    id: WebhookId,
) -> Result<Option<WebhookRecord>, StoreError> {
    one(db, WEBHOOK, [id.to_string().as_str(), tenant.as_str()], webhook)
}

fn webhook(row: &Row<'_>) -> Result<WebhookRecord, StoreError> {
    let events: String = row.get(3)?;
    Ok(WebhookRecord {
        id: row.get::<_, String>(0)?.parse()?,
        tenant: row.get::<_, String>(1)?.parse()?,
        url: row.get(2)?,
        events: events.split_ascii_whitespace().map(kind_of).collect::<Result<_, _>>()?,
        created_at: instant(row, 4)?,
    })
}

fn read_delivery(row: &Row<'_>) -> Result<DeliveryRecord, StoreError> {
    let state: String = row.get(5)?;
    Ok(DeliveryRecord {
        id: number(row, 0)?,
        webhook: row.get::<_, String>(1)?.parse()?,
        event: row.get(2)?,
        kind: kind_of(&row.get::<_, String>(3)?)?,
        at: instant(row, 4)?,
        state: state.parse().map_err(|()| StoreError::corrupt("the state of a delivery"))?,
        tries: row.get(6)?,
        due_at: instant(row, 7)?,
        tried_at: maybe_instant(row, 8)?,
        status_code: row.get(9)?,
        problem: row.get(10)?,
    })
}

fn read_due(row: &Row<'_>) -> Result<DueDelivery, StoreError> {
    Ok(DueDelivery {
        delivery: read_delivery(row)?,
        tenant: row.get::<_, String>(11)?.parse()?,
        url: row.get(12)?,
        body: row.get(13)?,
    })
}

impl SqliteStore {
    async fn outbox(&self, command: OutboxCommand) -> Result<Answer, StoreError> {
        self.writer.submit(Command::Outbox(Box::new(command))).await
    }
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn insert_webhook(
        &self,
        webhook: WebhookRecord,
        secret: (SecretRecord, Envelope),
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        check_webhook(&webhook)?;
        check_put(&secret.0, &secret.1)?;
        let audit = AuditDraft::new(&audit)?;
        self.outbox(OutboxCommand::Insert { webhook, secret, audit }).await.map(|_| ())
    }

    async fn webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
    ) -> Result<Option<WebhookRecord>, StoreError> {
        self.readers.point(|db| find(db, tenant, id))
    }

    async fn webhooks(&self, tenant: &TenantId) -> Result<Vec<WebhookRecord>, StoreError> {
        let most = count(WEBHOOKS_COUNT_MAX as u64);
        self.readers.point(|db| many(db, WEBHOOKS, params![tenant.as_str(), most], webhook))
    }

    async fn delete_webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
        audit: AuditEntry,
    ) -> Result<Option<WebhookRecord>, StoreError> {
        let (tenant, audit) = (tenant.clone(), AuditDraft::new(&audit)?);
        match self.outbox(OutboxCommand::Delete { tenant, id, audit }).await? {
            Answer::Webhook(found) => Ok(found.map(|webhook| *webhook)),
            _ => Ok(None),
        }
    }

    async fn tell(&self, notice: &Notice, only: Option<WebhookId>) -> Result<u64, StoreError> {
        match self.outbox(OutboxCommand::Tell { event: event_row(notice)?, only }).await? {
            Answer::Count(told) => Ok(told),
            _ => Ok(0),
        }
    }

    async fn due_deliveries(
        &self,
        now: Timestamp,
        limit: u32,
        except: &[WebhookId],
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let limit = limit.min(DELIVERIES_ROWS_MAX);
        let except: Vec<String> = except.iter().map(WebhookId::to_string).collect();
        let except = serde_json::Value::from(except).to_string();
        let read =
            move |db: &Connection| many(db, DUE, params![millis(now), limit, except], read_due);
        self.readers.scan(read).await
    }

    async fn next_delivery_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.readers.point(|db| one(db, NEXT, [], |row| instant(row, 0)))
    }

    async fn note_try(&self, tried: Tried) -> Result<bool, StoreError> {
        let tried = Tried { problem: bounded(tried.problem), ..tried };
        Ok(matches!(self.outbox(OutboxCommand::Tried(tried)).await?, Answer::Changed(true)))
    }

    async fn deliveries(
        &self,
        webhook: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let before = before.map_or(i64::MAX, count);
        let limit = limit.min(DELIVERIES_ROWS_MAX);
        let read = move |db: &Connection| {
            many(db, DELIVERIES, params![webhook.to_string(), before, limit], read_delivery)
        };
        self.readers.scan(read).await
    }

    async fn replay(
        &self,
        webhook: WebhookId,
        delivery: u64,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Option<DeliveryRecord>, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        match self.outbox(OutboxCommand::Replay { webhook, delivery, now, audit }).await? {
            Answer::Delivery(found) => Ok(found.map(|delivery| *delivery)),
            _ => Ok(None),
        }
    }
}
