//! What is drained, in SQLite: one row beside the schema's version, since it is about the install as a whole.

use async_trait::async_trait;
use outpost_core::Drains;
use rusqlite::{Connection, OptionalExtension as _};

use crate::audit::{AuditDraft, Chain};
use crate::fleet::{DRAINS, drains_of, text_of};
use crate::sqlite::SqliteStore;
use crate::sqlite::apply::{Answer, Command, Refusal, append_audit};
use crate::{AuditEntry, Fleets, StoreError};

/// What is to be written.
#[derive(Debug)]
pub(crate) struct DrainsRow {
    text: String,
    audit: AuditDraft,
}

impl DrainsRow {
    /// Rough size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.audit.bytes()
    }

    /// Writes it.
    pub(crate) fn put(&self, db: &Connection, chain: &mut Chain) -> Result<Answer, Refusal> {
        db.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
            .execute([DRAINS, &self.text])?;
        append_audit(db, chain, &self.audit)?;
        Ok(Answer::Done)
    }
}

#[async_trait]
impl Fleets for SqliteStore {
    async fn put_drains(&self, drains: Drains, audit: AuditEntry) -> Result<(), StoreError> {
        let row = DrainsRow { text: text_of(&drains)?, audit: AuditDraft::new(&audit)? };
        self.write(Command::Drains(Box::new(row))).await
    }

    async fn drains(&self) -> Result<Drains, StoreError> {
        self.readers.point(|db| {
            let found: Option<String> = db
                .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
                .query_row([DRAINS], |row| row.get(0))
                .optional()?;
            found.as_deref().map_or(Ok(Drains::default()), drains_of)
        })
    }
}
