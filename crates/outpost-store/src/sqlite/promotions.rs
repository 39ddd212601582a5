//! Promotions in SQLite.

use async_trait::async_trait;
use outpost_core::{Notice, Promotion};
use outpost_types::DispatchId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::audit::Chain;
use crate::prepare::checksum;
use crate::promotions::{PROMOTION_ROWS_MAX, PromotionRow, parse_promotion, promotion_row};
use crate::sqlite::SqliteStore;
use crate::sqlite::apply::{Answer, Command, Refusal, append_audit};
use crate::sqlite::{outbox, rows};
use crate::{AuditEntry, Promotions, StoreError};

const ONE: &str = "SELECT body, checksum FROM promotions WHERE dispatch_id = ?1";
const OPEN: &str = "SELECT body, checksum FROM promotions INDEXED BY promotions_open
    WHERE is_over = 0 AND dispatch_id > ?1 ORDER BY dispatch_id LIMIT ?2";

/// Writes a promotion if it is still where `expected` says.
pub(crate) fn put(
    db: &Connection,
    chain: &mut Chain,
    row: &PromotionRow,
) -> Result<Answer, Refusal> {
    let found: Option<(i64, String)> = db
        .prepare_cached("SELECT generation, tenant_id FROM promotions WHERE dispatch_id = ?1")?
        .query_row([&row.id], |found| Ok((found.get(0)?, found.get(1)?)))
        .optional()?;
    let (generation, tenant) = found.unwrap_or_else(|| (0, row.tenant.clone()));
    if tenant != row.tenant {
        return Err(Refusal::Clean(StoreError::NotFound));
    }
    if generation != row.expected {
        return Err(Refusal::Clean(StoreError::Stale { found: generation.cast_unsigned() }));
    }
    db.prepare_cached(
        "INSERT OR REPLACE INTO promotions
             (dispatch_id, tenant_id, status, generation, is_over, body, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        row.id,
        row.tenant,
        row.status,
        row.generation,
        row.is_over,
        row.body,
        row.checksum
    ])?;
    for event in &row.events {
        outbox::tell(db, event, None)?;
    }
    append_audit(db, chain, &row.audit)?;
    Ok(Answer::Done)
}

fn read(row: &Row<'_>) -> Result<Promotion, StoreError> {
    let body: String = row.get(0)?;
    if row.get::<_, i64>(1)? != checksum(&[body.as_bytes()]) {
        return Err(StoreError::corrupt("the record of a promotion: its checksum is wrong"));
    }
    parse_promotion(&body)
}

#[async_trait]
impl Promotions for SqliteStore {
    async fn put_promotion(
        &self,
        next: &Promotion,
        expected_generation: u64,
        audit: AuditEntry,
        told: &[Notice],
    ) -> Result<(), StoreError> {
        let row = promotion_row(next, expected_generation, &audit, told)?;
        self.write(Command::Promotion(Box::new(row))).await
    }

    async fn promotion(&self, dispatch: DispatchId) -> Result<Option<Promotion>, StoreError> {
        let id = dispatch.to_string();
        let found = self.readers.point(|db| rows::one(db, ONE, [&id], read))?;
        match found {
            Some(found) if found.dispatch != dispatch => {
                Err(StoreError::corrupt("a promotion under the name of another"))
            }
            found => Ok(found),
        }
    }

    async fn open_promotions(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<Promotion>, StoreError> {
        let after = after.map_or_else(String::new, |id| id.to_string());
        let limit = limit.min(PROMOTION_ROWS_MAX);
        let work = move |db: &Connection| rows::many(db, OPEN, params![after, limit], read);
        self.readers.scan(work).await
    }
}
