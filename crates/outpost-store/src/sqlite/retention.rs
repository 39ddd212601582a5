//! Retention in SQLite.

use async_trait::async_trait;
use outpost_core::Dispatch;
use outpost_types::DispatchId;
use rusqlite::{Connection, Row, params};

use crate::audit::{AuditDraft, Chain};
use crate::prepare::{count, millis};
use crate::records::PURGE_ROWS_MAX;
use crate::retention::{ENDED_ROWS_MAX, Ended, EndedRange, Purge, Retention, check_count};
use crate::sqlite::SqliteStore;
use crate::sqlite::apply::{Answer, Command, Refusal, append_audit};
use crate::sqlite::rows::{self, instant, many, one};
use crate::{AuditEntry, StoreError};

const ENDED: &str = "SELECT dispatch_id, tenant_id, completed_at FROM jobs INDEXED BY jobs_by_end
    WHERE completed_at IS NOT NULL AND (completed_at, dispatch_id) > (?1, ?2) AND completed_at <= ?3
    ORDER BY completed_at, dispatch_id LIMIT ?4";
const LEFTOVERS: &str = "SELECT dispatch_id, tenant_id, ended_at FROM leftovers
    INDEXED BY leftovers_by_end WHERE (ended_at, dispatch_id) > (?1, ?2) AND ended_at <= ?3
    ORDER BY ended_at, dispatch_id LIMIT ?4";
const LEFTOVER: &str =
    "SELECT dispatch_id, tenant_id, ended_at FROM leftovers WHERE dispatch_id = ?1";

/// A write of retention.
#[derive(Debug)]
pub(crate) enum RetentionCommand {
    Forget(Vec<(DispatchId, AuditDraft)>),
    DropLeftovers(Vec<DispatchId>),
    Purge(Purge),
}

impl RetentionCommand {
    /// Rough size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Forget(ended) => ended.iter().map(|(_, audit)| audit.bytes()).sum(),
            Self::DropLeftovers(ids) => size_of_val(ids.as_slice()),
            Self::Purge(_) => size_of::<Self>(),
        }
    }

    pub(crate) fn apply(&self, db: &Connection, chain: &mut Chain) -> Result<Answer, Refusal> {
        match self {
            Self::Forget(ended) => forget(db, chain, ended),
            Self::DropLeftovers(ids) => drop_leftovers(db, ids),
            Self::Purge(what) => purge(db, *what),
        }
    }
}

/// Reads all records before the first is removed, so that one that cannot be read stops nothing halfway.
fn forget(
    db: &Connection,
    chain: &mut Chain,
    ended: &[(DispatchId, AuditDraft)],
) -> Result<Answer, Refusal> {
    let mut due = Vec::with_capacity(ended.len());
    for (id, audit) in ended {
        match rows::one(db, rows::BODY_BY_ID, [id.to_string()], rows::body) {
            Ok(Some(record)) if record.completed_at.is_some() => due.push((record, audit)),
            Ok(_) => {}
            // It stays; whoever reads it hears of the damage.
            Err(StoreError::Corrupt { what }) => tracing::error!(%id, what, "a record cannot go"),
            Err(error) => return Err(Refusal::Clean(error)),
        }
    }
    for (record, audit) in &due {
        forget_one(db, record)?;
        append_audit(db, chain, audit)?;
    }
    Ok(Answer::Count(due.len() as u64))
}

fn forget_one(db: &Connection, record: &Dispatch) -> Result<(), Refusal> {
    let (id, tenant) = (record.id.to_string(), record.tenant.as_str());
    db.prepare_cached(
        "INSERT OR REPLACE INTO leftovers (dispatch_id, tenant_id, ended_at) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![id, tenant, record.completed_at.map(millis)])?;
    let remove_tag = "DELETE FROM tags WHERE tenant_id = ?1 AND tag = ?2 AND dispatch_id = ?3";
    for tag in &record.spec.tags {
        db.prepare_cached(remove_tag)?.execute([tenant, tag.as_str(), id.as_str()])?;
    }
    // Its attempts and events go with it.
    db.prepare_cached("DELETE FROM jobs WHERE dispatch_id = ?1 AND completed_at IS NOT NULL")?
        .execute([&id])?;
    Ok(())
}

fn drop_leftovers(db: &Connection, ids: &[DispatchId]) -> Result<Answer, Refusal> {
    let mut remove = db.prepare_cached("DELETE FROM leftovers WHERE dispatch_id = ?1")?;
    let mut gone = 0;
    for id in ids {
        gone += remove.execute([id.to_string()])? as u64;
    }
    Ok(Answer::Count(gone))
}

fn purge(db: &Connection, what: Purge) -> Result<Answer, Refusal> {
    let (statement, until) = match what {
        Purge::ExpiredKeys(until) => (
            "DELETE FROM api_keys WHERE api_key_id IN (
                 SELECT api_key_id FROM api_keys WHERE expires_at <= ?1 LIMIT ?2)",
            millis(until),
        ),
        Purge::UsageBefore(day) => (
            "DELETE FROM usage WHERE (tenant_id, day, agent, model_id) IN (
                 SELECT tenant_id, day, agent, model_id FROM usage WHERE day < ?1 LIMIT ?2)",
            count(day),
        ),
        Purge::Deliveries(until) => (
            "DELETE FROM deliveries WHERE delivery_id IN (
                 SELECT delivery_id FROM deliveries WHERE at <= ?1 LIMIT ?2)",
            millis(until),
        ),
    };
    let mut gone = db.prepare_cached(statement)?.execute(params![until, PURGE_ROWS_MAX])?;
    if gone == 0 && matches!(what, Purge::Deliveries(_)) {
        let events = "DELETE FROM outbox WHERE event_id IN (
            SELECT event_id FROM outbox WHERE at <= ?1 LIMIT ?2)";
        gone = db.prepare_cached(events)?.execute(params![until, PURGE_ROWS_MAX])?;
    }
    Ok(Answer::Count(gone as u64))
}

fn read(row: &Row<'_>) -> Result<Ended, StoreError> {
    Ok(Ended {
        id: row.get::<_, String>(0)?.parse()?,
        tenant: row.get::<_, String>(1)?.parse()?,
        ended_at: instant(row, 2)?,
    })
}

impl SqliteStore {
    async fn page(&self, sql: &'static str, range: EndedRange) -> Result<Vec<Ended>, StoreError> {
        let (at, id) =
            range.after.map_or((-1, String::new()), |(at, id)| (millis(at), id.to_string()));
        let limit = range.limit.min(ENDED_ROWS_MAX);
        let until = millis(range.until);
        let read = move |db: &Connection| many(db, sql, params![at, id, until, limit], read);
        self.readers.scan(read).await
    }

    async fn retention(&self, command: RetentionCommand) -> Result<u64, StoreError> {
        match self.writer.submit(Command::Retention(Box::new(command))).await? {
            Answer::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }
}

#[async_trait]
impl Retention for SqliteStore {
    async fn ended(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError> {
        self.page(ENDED, range).await
    }

    async fn forget(&self, ended: Vec<(DispatchId, AuditEntry)>) -> Result<u64, StoreError> {
        check_count(ended.len())?;
        let draft = |(id, audit): (DispatchId, AuditEntry)| Ok((id, AuditDraft::new(&audit)?));
        let ended = ended.into_iter().map(draft).collect::<Result<Vec<_>, StoreError>>()?;
        self.retention(RetentionCommand::Forget(ended)).await
    }

    async fn leftovers(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError> {
        self.page(LEFTOVERS, range).await
    }

    async fn leftover(&self, id: DispatchId) -> Result<Option<Ended>, StoreError> {
        let id = id.to_string();
        self.readers.point(|db| one(db, LEFTOVER, [&id], read))
    }

    async fn drop_leftovers(&self, ids: &[DispatchId]) -> Result<u64, StoreError> {
        check_count(ids.len())?;
        self.retention(RetentionCommand::DropLeftovers(ids.to_vec())).await
    }

    async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        self.retention(RetentionCommand::Purge(what)).await
    }
}
