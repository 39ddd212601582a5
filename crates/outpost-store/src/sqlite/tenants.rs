//! Tenants in SQLite.

use async_trait::async_trait;
use outpost_types::{TenantId, TenantQuotas};
use rusqlite::{Connection, Row, params};

use crate::audit::{AuditDraft, Chain};
use crate::prepare::{count, millis};
use crate::sqlite::SqliteStore;
use crate::sqlite::apply::{Answer, Command, Refusal, append_audit};
use crate::sqlite::rows::{instant, many, number, one};
use crate::tenants::{check_tenant, may_replace, tenant_sum};
use crate::{AuditEntry, StoreError, TENANTS_ROWS_MAX, TenantRecord, Tenants};

const ONE: &str = "SELECT tenant_id, name, status, generation, requests_per_minute,
    concurrent_dispatches, created_at, checksum FROM tenants WHERE tenant_id = ?1";
const AFTER: &str = "SELECT tenant_id, name, status, generation, requests_per_minute,
    concurrent_dispatches, created_at, checksum FROM tenants
    WHERE tenant_id > ?1 ORDER BY tenant_id LIMIT ?2";

/// A tenant to be written.
#[derive(Debug)]
pub(crate) struct TenantRow {
    next: TenantRecord,
    expected: u64,
    audit: AuditDraft,
}

impl TenantRow {
    /// Rough size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.next.name.len() + self.audit.bytes()
    }

    /// Writes it if the one on record is still where it was read.
    pub(crate) fn put(&self, db: &Connection, chain: &mut Chain) -> Result<Answer, Refusal> {
        let found = one(db, ONE, [self.next.id.as_str()], read).map_err(Refusal::Clean)?;
        let known: i64 =
            db.prepare_cached("SELECT count(*) FROM tenants")?.query_row([], |row| row.get(0))?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let next = may_replace(&self.next, self.expected, found.as_ref(), known)
            .map_err(Refusal::Clean)?;
        db.prepare_cached(
            "INSERT OR REPLACE INTO tenants (tenant_id, name, status, generation,
                 requests_per_minute, concurrent_dispatches, created_at, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            next.id.as_str(),
            next.name,
            next.status.as_str(),
            count(next.generation),
            next.quotas.requests_per_minute,
            next.quotas.concurrent_dispatches,
            millis(next.created_at),
            tenant_sum(&next),
        ])?;
        append_audit(db, chain, &self.audit)?;
        Ok(Answer::Done)
    }
}

fn read(row: &Row<'_>) -> Result<TenantRecord, StoreError> {
    let status: String = row.get(2)?;
    let tenant = TenantRecord {
        id: row.get::<_, String>(0)?.parse()?,
        name: row.get(1)?,
        status: status.parse().map_err(|()| StoreError::corrupt("the status of a tenant"))?,
        generation: number(row, 3)?,
        quotas: TenantQuotas {
            requests_per_minute: row.get(4)?,
            concurrent_dispatches: row.get(5)?,
        },
        created_at: instant(row, 6)?,
    };
    if row.get::<_, i64>(7)? != tenant_sum(&tenant) {
        return Err(StoreError::corrupt("a tenant: its checksum is wrong"));
    }
    Ok(tenant)
}

#[async_trait]
impl Tenants for SqliteStore {
    async fn put_tenant(
        &self,
        next: TenantRecord,
        expected_generation: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        check_tenant(&next, expected_generation)?;
        let audit = AuditDraft::new(&audit)?;
        let row = TenantRow { next, expected: expected_generation, audit };
        self.write(Command::Tenant(Box::new(row))).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRecord>, StoreError> {
        self.readers.point(|db| one(db, ONE, [id.as_str()], read))
    }

    async fn tenants(
        &self,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantRecord>, StoreError> {
        let after = after.map_or_else(String::new, ToString::to_string);
        let limit = limit.min(TENANTS_ROWS_MAX);
        let work = move |db: &Connection| many(db, AFTER, params![after, limit], read);
        self.readers.scan(work).await
    }
}
