//! The writes, one function each, inside the transaction the writer opened.
//!
//! Whatever can be refused is refused before the first row of a command is written, so the usual
//! path needs no savepoint. An SQL error after that is the writer's business.

use outpost_types::{ApiKeyStatus, DispatchStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::audit::{AuditDraft, Chain};
use crate::keys::{ApiKeyRecord, KeyTouch, ReplaceKey, change_status, replaced, status_name};
use crate::prepare::{AcceptRow, ClaimRow, JobRow, UpdateRow, count, millis};
use crate::promotions::PromotionRow;
use crate::records::{AttemptRecord, EventHead, PURGE_ROWS_MAX};
use crate::sqlite::fleet::DrainsRow;
use crate::sqlite::outbox::OutboxCommand;
use crate::sqlite::retention::RetentionCommand;
use crate::sqlite::secrets::SecretCommand;
use crate::sqlite::tenants::TenantRow;
use crate::sqlite::{outbox, promotions, rows, usage};
use crate::{DeliveryRecord, SecretRecord, StoreError, WebhookRecord};

/// One write.
#[derive(Debug)]
pub(crate) enum Command {
    Accept(Box<AcceptRow>),
    Update(Box<UpdateRow>),
    EventHead(EventHead),
    InsertKey(Box<(ApiKeyRecord, AuditDraft)>),
    ReplaceKey(Box<(ReplaceKey, AuditDraft)>),
    KeyStatus { id: String, status: ApiKeyStatus, audit: Box<AuditDraft> },
    TouchKeys(Vec<KeyTouch>),
    PurgeIdempotency(Timestamp),
    Secret(Box<SecretCommand>),
    Retention(Box<RetentionCommand>),
    Outbox(Box<OutboxCommand>),
    Promotion(Box<PromotionRow>),
    Tenant(Box<TenantRow>),
    Drains(Box<DrainsRow>),
}

/// What a write answers once it is durable.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Changed(bool),
    Count(u64),
    /// Body of the dispatch the key made before.
    Replayed(String),
    Conflict,
    /// What was removed, if there was anything.
    Secret(Option<Box<SecretRecord>>),
    /// The same of a webhook.
    Webhook(Option<Box<WebhookRecord>>),
    /// What will be delivered again, if there is such a delivery.
    Delivery(Option<Box<DeliveryRecord>>),
}

/// Why a write did not happen.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nothing was written; the transaction goes on.
    Clean(StoreError),
    /// Something may have been written.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Command {
    /// Rough size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Accept(row) => row.job.body.len() + row.audit.bytes(),
            Self::Update(row) => row.job.body.len() + row.audit.bytes(),
            Self::InsertKey(pair) => pair.1.bytes(),
            Self::ReplaceKey(pair) => pair.1.bytes(),
            Self::Tenant(row) => row.bytes(),
            Self::Drains(row) => row.bytes(),
            Self::KeyStatus { audit, .. } => audit.bytes(),
            Self::TouchKeys(touches) => size_of_val(touches.as_slice()),
            Self::Secret(command) => command.bytes(),
            Self::Retention(command) => command.bytes(),
            Self::Outbox(command) => command.bytes(),
            Self::Promotion(row) => row.body.len() + row.audit.bytes(),
            Self::EventHead(_) | Self::PurgeIdempotency(_) => size_of::<Self>(),
        }
    }

    pub(crate) fn apply(&self, db: &Connection, chain: &mut Chain) -> Result<Answer, Refusal> {
        match self {
            Self::Accept(row) => accept(db, chain, row),
            Self::Update(row) => update(db, chain, row),
            Self::EventHead(head) => event_head(db, *head),
            Self::InsertKey(pair) => insert_key(db, chain, &pair.0, &pair.1),
            Self::ReplaceKey(pair) => replace_key(db, chain, &pair.0, &pair.1),
            Self::KeyStatus { id, status, audit } => key_status(db, chain, id, *status, audit),
            Self::TouchKeys(touches) => touch_keys(db, touches),
            Self::PurgeIdempotency(now) => purge_idempotency(db, *now),
            Self::Secret(command) => command.apply(db, chain),
            Self::Retention(command) => command.apply(db, chain),
            Self::Outbox(command) => command.apply(db, chain),
            Self::Promotion(row) => promotions::put(db, chain, row),
            Self::Tenant(row) => row.put(db, chain),
            Self::Drains(row) => row.put(db, chain),
        }
    }
}

fn accept(db: &Connection, chain: &mut Chain, row: &AcceptRow) -> Result<Answer, Refusal> {
    let job = &row.job;
    if let Some(claim) = &row.claim
        && let Some(answer) = earlier_claim(db, &job.tenant, claim, row.created_at)?
    {
        return Ok(answer);
    }
    let inserted = db
        .prepare_cached(
            "INSERT INTO jobs (dispatch_id, tenant_id, user_id, agent, repo, status, generation,
                 attempt, created_at, started_at, completed_at, body, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (dispatch_id) DO NOTHING",
        )?
        .execute(params![
            job.id,
            job.tenant,
            row.user,
            row.agent,
            row.repo,
            job.status.as_str(),
            job.generation,
            job.attempt,
            row.created_at,
            job.started_at,
            job.completed_at,
            job.body,
            job.checksum,
        ])?;
    if inserted == 0 {
        return Err(Refusal::Clean(StoreError::Duplicate));
    }
    if let Some(claim) = &row.claim {
        db.prepare_cached(
            "INSERT OR REPLACE INTO idempotency
                 (tenant_id, idempotency_key, body_hash, dispatch_id, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            job.tenant,
            claim.key,
            claim.body_hash,
            job.id,
            claim.expires_at
        ])?;
    }
    for tag in &row.tags {
        db.prepare_cached("INSERT INTO tags (tenant_id, tag, dispatch_id) VALUES (?1, ?2, ?3)")?
            .execute(params![job.tenant, tag, job.id])?;
    }
    upsert_attempt(db, job)?;
    append_audit(db, chain, &row.audit)?;
    Ok(Answer::Done)
}

/// The answer an unexpired use of the same key determines.
fn earlier_claim(
    db: &Connection,
    tenant: &str,
    claim: &ClaimRow,
    now: i64,
) -> Result<Option<Answer>, Refusal> {
    let earlier: Option<([u8; 32], String)> = db
        .prepare_cached(
            "SELECT body_hash, dispatch_id FROM idempotency
             WHERE tenant_id = ?1 AND idempotency_key = ?2 AND expires_at > ?3",
        )?
        .query_row(params![tenant, claim.key, now], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((body_hash, id)) = earlier else {
        return Ok(None);
    };
    if body_hash != claim.body_hash {
        return Ok(Some(Answer::Conflict));
    }
    let body = rows::one(db, rows::BODY_BY_ID, [&id], rows::sound_body).map_err(Refusal::Clean)?;
    match body {
        Some(body) => Ok(Some(Answer::Replayed(body))),
        None => Err(Refusal::Clean(StoreError::corrupt(
            "an idempotency key of a dispatch that is gone",
        ))),
    }
}

/// Two statements, because setting `completed_at` rewrites the index of live dispatches.
const UPDATE_LIVE: &str = "UPDATE jobs
    SET status = ?4, generation = ?5, attempt = ?6, started_at = ?7, body = ?8,
        checksum = ?9
    WHERE dispatch_id = ?1 AND tenant_id = ?2 AND generation = ?3 AND completed_at IS NULL";
const UPDATE_TERMINAL: &str = "UPDATE jobs
    SET status = ?4, generation = ?5, attempt = ?6, started_at = ?7, body = ?8,
        checksum = ?9, completed_at = ?10
    WHERE dispatch_id = ?1 AND tenant_id = ?2 AND generation = ?3
      AND (completed_at IS NULL OR status = ?4)";

fn update(db: &Connection, chain: &mut Chain, row: &UpdateRow) -> Result<Answer, Refusal> {
    let job = &row.job;
    let status = job.status.as_str();
    // A record that is over may still be noted on; it counts, and is told of, when it ends.
    let ends = job.completed_at.is_some() && is_live(db, &job.id)?;
    let changed = match job.completed_at {
        None => db.prepare_cached(UPDATE_LIVE)?.execute(params![
            job.id,
            job.tenant,
            row.expected,
            status,
            job.generation,
            job.attempt,
            job.started_at,
            job.body,
            job.checksum,
        ])?,
        Some(completed_at) => db.prepare_cached(UPDATE_TERMINAL)?.execute(params![
            job.id,
            job.tenant,
            row.expected,
            status,
            job.generation,
            job.attempt,
            job.started_at,
            job.body,
            job.checksum,
            completed_at,
        ])?,
    };
    if changed == 0 {
        return Err(why_unchanged(db, row)?);
    }
    upsert_attempt(db, job)?;
    if ends {
        if let Some(usage) = &row.usage {
            usage::add(db, usage)?;
        }
        for event in &row.events {
            outbox::tell(db, event, None)?;
        }
    }
    append_audit(db, chain, &row.audit)?;
    Ok(Answer::Done)
}

fn is_live(db: &Connection, id: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM jobs WHERE dispatch_id = ?1 AND completed_at IS NULL")?
        .exists([id])
}

fn why_unchanged(db: &Connection, row: &UpdateRow) -> Result<Refusal, Refusal> {
    let found: Option<(u64, String)> = db
        .prepare_cached(
            "SELECT generation, status FROM jobs WHERE dispatch_id = ?1 AND tenant_id = ?2",
        )?
        .query_row(params![row.job.id, row.job.tenant], |found| {
            Ok((found.get::<_, i64>(0)?.cast_unsigned(), found.get(1)?))
        })
        .optional()?;
    Ok(Refusal::Clean(match found {
        None => StoreError::NotFound,
        Some((found, _)) if found != row.expected.cast_unsigned() => StoreError::Stale { found },
        Some((_, status)) => match status.parse::<DispatchStatus>() {
            Ok(status) => StoreError::Final { status: status.as_str() },
            Err(error) => StoreError::corrupt(error.to_string()),
        },
    }))
}

fn upsert_attempt(db: &Connection, job: &JobRow) -> Result<(), Refusal> {
    let Some(AttemptRecord {
        number,
        epoch,
        state,
        created_at,
        started_at,
        updated_at,
        ended_at,
        ..
    }) = job.attempt_row
    else {
        return Ok(());
    };
    db.prepare_cached(
        "INSERT INTO attempts (dispatch_id, number, epoch, state, created_at, started_at,
             updated_at, ended_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (dispatch_id, number) DO UPDATE SET state = excluded.state,
             started_at = excluded.started_at, updated_at = excluded.updated_at,
             ended_at = excluded.ended_at
         WHERE ended_at IS NULL",
    )?
    .execute(params![
        job.id,
        number,
        epoch,
        state.as_str(),
        millis(created_at),
        started_at.map(millis),
        millis(updated_at),
        ended_at.map(millis),
    ])?;
    Ok(())
}

pub(crate) fn append_audit(
    db: &Connection,
    chain: &mut Chain,
    draft: &AuditDraft,
) -> Result<(), Refusal> {
    let next = chain.next(draft);
    db.prepare_cached(
        "INSERT INTO audit (seq, at, tenant_id, actor, action, subject, detail, prev_hash, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        count(next.seq),
        draft.at,
        draft.tenant,
        draft.actor,
        draft.action,
        draft.subject,
        draft.detail,
        chain.hash,
        next.hash,
    ])?;
    *chain = next;
    Ok(())
}

fn event_head(db: &Connection, head: EventHead) -> Result<Answer, Refusal> {
    let id = head.dispatch.to_string();
    let known = db.prepare_cached("SELECT 1 FROM jobs WHERE dispatch_id = ?1")?.exists([&id])?;
    if !known {
        return Err(Refusal::Clean(StoreError::NotFound));
    }
    db.prepare_cached(
        "INSERT INTO events (dispatch_id, last_seq, log_bytes) VALUES (?1, ?2, ?3)
         ON CONFLICT (dispatch_id) DO UPDATE SET
             last_seq = max(last_seq, excluded.last_seq),
             log_bytes = max(log_bytes, excluded.log_bytes)",
    )?
    .execute(params![id, count(head.last_seq), count(head.log_bytes)])?;
    Ok(Answer::Done)
}

fn insert_key(
    db: &Connection,
    chain: &mut Chain,
    key: &ApiKeyRecord,
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    new_key(db, key)?;
    append_audit(db, chain, audit)?;
    Ok(Answer::Done)
}

fn replace_key(
    db: &Connection,
    chain: &mut Chain,
    replace: &ReplaceKey,
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    let id = replace.old.to_string();
    let old = rows::one(db, rows::KEY_BY_ID, [&id], rows::key).map_err(Refusal::Clean)?;
    let old = old.ok_or(Refusal::Clean(StoreError::NotFound))?;
    let old = replaced(&old, replace).map_err(Refusal::Clean)?;
    new_key(db, &replace.next)?;
    db.prepare_cached(
        "UPDATE api_keys SET status = ?2, expires_at = ?3, checksum = ?4 WHERE api_key_id = ?1",
    )?
    .execute(params![
        id,
        status_name(old.status),
        old.expires_at.map(millis),
        rows::key_sum(&old)
    ])?;
    append_audit(db, chain, audit)?;
    Ok(Answer::Done)
}

fn new_key(db: &Connection, key: &ApiKeyRecord) -> Result<(), Refusal> {
    let inserted = db
        .prepare_cached(
            "INSERT INTO api_keys (api_key_id, tenant_id, key_hash, key_prefix, scopes, status,
                 created_at, expires_at, last_used_at, usage_count, checksum, name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            key.id.to_string(),
            key.tenant.as_str(),
            key.hash.0,
            key.prefix,
            rows::scopes_text(&key.scopes),
            status_name(key.status),
            millis(key.created_at),
            key.expires_at.map(millis),
            key.last_used_at.map(millis),
            count(key.usage_count),
            rows::key_sum(key),
            key.name,
        ])?;
    if inserted == 0 {
        return Err(Refusal::Clean(StoreError::Duplicate));
    }
    Ok(())
}

fn key_status(
    db: &Connection,
    chain: &mut Chain,
    id: &str,
    to: ApiKeyStatus,
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    let key = rows::one(db, rows::KEY_BY_ID, [id], rows::key).map_err(Refusal::Clean)?;
    let mut key = key.ok_or(Refusal::Clean(StoreError::NotFound))?;
    if !change_status(key.status, to).map_err(Refusal::Clean)? {
        return Ok(Answer::Changed(false));
    }
    key.status = to;
    db.prepare_cached("UPDATE api_keys SET status = ?2, checksum = ?3 WHERE api_key_id = ?1")?
        .execute(params![id, status_name(to), rows::key_sum(&key)])?;
    append_audit(db, chain, audit)?;
    Ok(Answer::Changed(true))
}

fn touch_keys(db: &Connection, touches: &[KeyTouch]) -> Result<Answer, Refusal> {
    for touch in touches {
        // The sum stops at the largest number SQLite counts to instead of failing.
        db.prepare_cached(
            "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, ?2), ?2),
                 usage_count = CASE WHEN usage_count > 9223372036854775807 - ?3
                     THEN 9223372036854775807 ELSE usage_count + ?3 END
             WHERE api_key_id = ?1",
        )?
        .execute(params![
            touch.id.to_string(),
            millis(touch.last_used),
            count(touch.count)
        ])?;
    }
    Ok(Answer::Done)
}

fn purge_idempotency(db: &Connection, now: Timestamp) -> Result<Answer, Refusal> {
    let removed = db
        .prepare_cached(
            "DELETE FROM idempotency WHERE (tenant_id, idempotency_key) IN (
                 SELECT tenant_id, idempotency_key FROM idempotency
                 WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?
        .execute(params![millis(now), PURGE_ROWS_MAX])?;
    Ok(Answer::Count(removed as u64))
}
