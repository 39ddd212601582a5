//! Secrets in SQLite: their statements, and the writes inside the transaction of the writer.

use async_trait::async_trait;
use outpost_types::limits::SECRETS_COUNT_MAX;
use outpost_types::{SecretName, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::audit::{AuditDraft, Chain};
use crate::prepare::{checksum, count, millis};
use crate::secrets::{check_put, check_uses, kind_of, may_follow};
use crate::sqlite::SqliteStore;
use crate::sqlite::apply::{Answer, Command, Refusal, append_audit};
use crate::sqlite::rows::{instant, many, maybe_instant, number, one};
use crate::{
    AuditEntry, Envelope, Reseal, SECRET_KEY_ID_BYTES, SECRET_KEY_IDS_MAX, SECRET_VERSIONS_MAX,
    SealedSecret, SecretOwner, SecretRecord, SecretUse, Secrets, StoreError,
};

/// Values sealed anew between two looks at the table, rows.
const RESEAL_ROWS: u32 = 64;

const RECORD: &str = "SELECT owner, name, kind, version, created_at, updated_at, last_used_at,
    use_count, checksum FROM secrets WHERE owner = ?1 AND name = ?2";
const RECORDS: &str = "SELECT owner, name, kind, version, created_at, updated_at, last_used_at,
    use_count, checksum FROM secrets WHERE owner = ?1 ORDER BY name LIMIT ?2";
const NEWEST: &str = "SELECT max(version) FROM secret_versions WHERE owner = ?1 AND name = ?2";
const SEALED: &str = "SELECT v.owner, v.name, v.version, v.kind, s.created_at, v.key_id, v.envelope
    FROM secret_versions v JOIN secrets s ON s.owner = v.owner AND s.name = v.name
    WHERE v.owner = ?1 AND v.name = ?2 AND v.version = ?3";
const SEALED_AFTER: &str = "SELECT v.owner, v.name, v.version, v.kind, s.created_at, v.key_id,
    v.envelope FROM secret_versions v JOIN secrets s ON s.owner = v.owner AND s.name = v.name
    WHERE (v.owner, v.name, v.version) > (?1, ?2, ?3)
    ORDER BY v.owner, v.name, v.version LIMIT ?4";
const KEY_IDS: &str = "SELECT DISTINCT key_id FROM secret_versions ORDER BY key_id LIMIT ?1";

/// A write of secrets.
#[derive(Debug)]
pub(crate) enum SecretCommand {
    Put { record: SecretRecord, envelope: Envelope, audit: AuditDraft },
    Delete { owner: SecretOwner, name: SecretName, audit: AuditDraft },
    Use(Vec<(SecretUse, AuditDraft)>),
    Reseal { reseal: Reseal, audit: AuditDraft },
}

impl SecretCommand {
    /// Rough size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { envelope, audit, .. } => envelope.bytes.len() + audit.bytes(),
            Self::Delete { audit, .. } | Self::Reseal { audit, .. } => audit.bytes(),
            Self::Use(uses) => uses.iter().map(|(_, audit)| audit.bytes()).sum(),
        }
    }

    pub(crate) fn apply(&self, db: &Connection, chain: &mut Chain) -> Result<Answer, Refusal> {
        match self {
            Self::Put { record, envelope, audit } => put(db, chain, record, envelope, audit),
            Self::Delete { owner, name, audit } => delete(db, chain, owner, name, audit),
            Self::Use(uses) => note_uses(db, chain, uses),
            Self::Reseal { reseal, audit } => reseal_all(db, chain, reseal, audit),
        }
    }
}

pub(crate) fn put(
    db: &Connection,
    chain: &mut Chain,
    record: &SecretRecord,
    envelope: &Envelope,
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    let (owner, name) = (record.owner.as_str(), record.name.as_str());
    let found = one(db, RECORD, [owner, name], read_record).map_err(Refusal::Clean)?;
    let owned: i64 = db
        .prepare_cached("SELECT count(*) FROM secrets WHERE owner = ?1")?
        .query_row([owner], |row| row.get(0))?;
    let owned = usize::try_from(owned).unwrap_or(usize::MAX);
    may_follow(record, found.as_ref(), owned).map_err(Refusal::Clean)?;
    let version = count(record.version);
    db.prepare_cached(
        "INSERT INTO secrets (owner, name, kind, version, created_at, updated_at, last_used_at,
             use_count, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (owner, name) DO UPDATE SET kind = excluded.kind,
             version = excluded.version, updated_at = excluded.updated_at,
             checksum = excluded.checksum",
    )?
    .execute(params![
        owner,
        name,
        record.kind.as_str(),
        version,
        millis(record.created_at),
        millis(record.updated_at),
        record.last_used_at.map(millis),
        count(record.use_count),
        record_sum(record),
    ])?;
    db.prepare_cached(
        "INSERT INTO secret_versions (owner, name, version, kind, key_id, envelope)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        owner,
        name,
        version,
        record.kind.as_str(),
        envelope.key_id,
        envelope.bytes
    ])?;
    db.prepare_cached(
        "DELETE FROM secret_versions WHERE owner = ?1 AND name = ?2 AND version <= ?3",
    )?
    .execute(params![owner, name, version.saturating_sub(count(SECRET_VERSIONS_MAX))])?;
    append_audit(db, chain, audit)?;
    Ok(Answer::Done)
}

fn delete(
    db: &Connection,
    chain: &mut Chain,
    owner: &SecretOwner,
    name: &SecretName,
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    let key = [owner.as_str(), name.as_str()];
    let Some(record) = one(db, RECORD, key, read_record).map_err(Refusal::Clean)? else {
        return Ok(Answer::Secret(None));
    };
    for delete in [
        "DELETE FROM secret_versions WHERE owner = ?1 AND name = ?2",
        "DELETE FROM secrets WHERE owner = ?1 AND name = ?2",
    ] {
        db.prepare_cached(delete)?.execute(key)?;
    }
    append_audit(db, chain, audit)?;
    Ok(Answer::Secret(Some(Box::new(record))))
}

fn note_uses(
    db: &Connection,
    chain: &mut Chain,
    uses: &[(SecretUse, AuditDraft)],
) -> Result<Answer, Refusal> {
    for (used, _) in uses {
        let known = db
            .prepare_cached(
                "SELECT 1 FROM secret_versions WHERE owner = ?1 AND name = ?2 AND version = ?3",
            )?
            .exists(params![used.owner.as_str(), used.name.as_str(), count(used.version)])?;
        if !known {
            return Err(Refusal::Clean(StoreError::NotFound));
        }
    }
    for (used, audit) in uses {
        db.prepare_cached(
            "UPDATE secrets SET last_used_at = max(coalesce(last_used_at, ?3), ?3),
                 use_count = min(use_count, 9223372036854775806) + 1
             WHERE owner = ?1 AND name = ?2",
        )?
        .execute(params![used.owner.as_str(), used.name.as_str(), audit.at])?;
        append_audit(db, chain, audit)?;
    }
    Ok(Answer::Done)
}

/// Opens every value before the first is written, so that one that cannot be opened refuses all.
fn reseal_all(
    db: &Connection,
    chain: &mut Chain,
    reseal: &Reseal,
    audit: &AuditDraft,
) -> Result<Answer, Refusal> {
    each_sealed(db, |sealed| reseal.of(sealed).map(drop).map_err(Refusal::Clean))?;
    let mut written = 0;
    each_sealed(db, |sealed| {
        let anew = reseal.of(sealed).map_err(|error| {
            Refusal::Sql(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
        })?;
        let Some(envelope) = anew else { return Ok(()) };
        db.prepare_cached(
            "UPDATE secret_versions SET key_id = ?4, envelope = ?5
             WHERE owner = ?1 AND name = ?2 AND version = ?3",
        )?
        .execute(params![
            sealed.owner.as_str(),
            sealed.name.as_str(),
            count(sealed.version),
            envelope.key_id,
            envelope.bytes,
        ])?;
        written += 1;
        Ok(())
    })?;
    append_audit(db, chain, audit)?;
    Ok(Answer::Count(written))
}

fn each_sealed(
    db: &Connection,
    mut visit: impl FnMut(&SealedSecret) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut after = (String::new(), String::new(), 0);
    loop {
        let params = params![after.0, after.1, count(after.2), RESEAL_ROWS];
        let page = many(db, SEALED_AFTER, params, read_sealed).map_err(Refusal::Clean)?;
        for sealed in &page {
            visit(sealed)?;
        }
        let Some(last) = page.last() else { return Ok(()) };
        after = (last.owner.as_str().to_owned(), last.name.to_string(), last.version);
    }
}

fn read_record(row: &Row<'_>) -> Result<SecretRecord, StoreError> {
    let record = SecretRecord {
        owner: SecretOwner::parse(&row.get::<_, String>(0)?)?,
        name: read_name(row, 1)?,
        kind: kind_of(&row.get::<_, String>(2)?)?,
        version: number(row, 3)?,
        created_at: instant(row, 4)?,
        updated_at: instant(row, 5)?,
        last_used_at: maybe_instant(row, 6)?,
        use_count: number(row, 7)?,
    };
    if row.get::<_, i64>(8)? == record_sum(&record) {
        Ok(record)
    } else {
        Err(StoreError::corrupt("a secret: its checksum is wrong"))
    }
}

fn read_sealed(row: &Row<'_>) -> Result<SealedSecret, StoreError> {
    Ok(SealedSecret {
        owner: SecretOwner::parse(&row.get::<_, String>(0)?)?,
        name: read_name(row, 1)?,
        version: number(row, 2)?,
        kind: kind_of(&row.get::<_, String>(3)?)?,
        created_at: instant(row, 4)?,
        envelope: Envelope {
            key_id: row.get::<_, [u8; SECRET_KEY_ID_BYTES]>(5)?,
            bytes: row.get(6)?,
        },
    })
}

fn read_name(row: &Row<'_>, column: usize) -> Result<SecretName, StoreError> {
    let name = row.get::<_, String>(column)?;
    name.parse().map_err(|_| StoreError::corrupt("the name of a secret"))
}

/// Checksum of a record: everything but its use, which changes all the time.
fn record_sum(record: &SecretRecord) -> i64 {
    let number = |at: Timestamp| millis(at).to_be_bytes();
    checksum(&[
        record.owner.as_str().as_bytes(),
        record.name.as_str().as_bytes(),
        record.kind.as_str().as_bytes(),
        &record.version.to_be_bytes(),
        &number(record.created_at),
        &number(record.updated_at),
    ])
}

fn sealed(
    db: &Connection,
    owner: &SecretOwner,
    name: &SecretName,
    version: Option<u64>,
) -> Result<Option<(SecretRecord, SealedSecret)>, StoreError> {
    // One read transaction, so that record and value are of the same moment.
    let tx = db.unchecked_transaction()?;
    let key = [owner.as_str(), name.as_str()];
    let Some(record) = one(&tx, RECORD, key, read_record)? else { return Ok(None) };
    let newest = one(&tx, NEWEST, key, |row| number(row, 0))?;
    if newest != Some(record.version) {
        return Err(StoreError::corrupt("a secret and its newest version disagree"));
    }
    let version = count(version.unwrap_or(record.version));
    let found = one(&tx, SEALED, params![key[0], key[1], version], read_sealed)?;
    Ok(found.map(|sealed| (record, sealed)))
}

#[async_trait]
impl Secrets for SqliteStore {
    async fn put_secret(
        &self,
        record: SecretRecord,
        envelope: Envelope,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        check_put(&record, &envelope)?;
        let audit = AuditDraft::new(&audit)?;
        self.write(Command::Secret(Box::new(SecretCommand::Put { record, envelope, audit }))).await
    }

    async fn secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
    ) -> Result<Option<SecretRecord>, StoreError> {
        self.readers.point(|db| one(db, RECORD, [owner.as_str(), name.as_str()], read_record))
    }

    async fn secrets(&self, owner: &SecretOwner) -> Result<Vec<SecretRecord>, StoreError> {
        let owner = owner.clone();
        let read = move |db: &Connection| {
            many(db, RECORDS, params![owner.as_str(), count(SECRETS_COUNT_MAX as u64)], read_record)
        };
        self.readers.scan(read).await
    }

    async fn sealed_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        version: Option<u64>,
    ) -> Result<Option<(SecretRecord, SealedSecret)>, StoreError> {
        self.readers.point(|db| sealed(db, owner, name, version))
    }

    async fn delete_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        audit: AuditEntry,
    ) -> Result<Option<SecretRecord>, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        let (owner, name) = (owner.clone(), name.clone());
        let command = SecretCommand::Delete { owner, name, audit };
        match self.writer.submit(Command::Secret(Box::new(command))).await? {
            Answer::Secret(record) => Ok(record.map(|record| *record)),
            _ => Ok(None),
        }
    }

    async fn note_secret_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        check_uses(&uses)?;
        let with_draft = |used: SecretUse| AuditDraft::new(&used.audit).map(|audit| (used, audit));
        let uses = uses.into_iter().map(with_draft).collect::<Result<_, _>>()?;
        self.write(Command::Secret(Box::new(SecretCommand::Use(uses)))).await
    }

    async fn secret_key_ids(&self) -> Result<Vec<[u8; SECRET_KEY_ID_BYTES]>, StoreError> {
        let read = |db: &Connection| many(db, KEY_IDS, [SECRET_KEY_IDS_MAX], |row| Ok(row.get(0)?));
        self.readers.scan(read).await
    }

    async fn reseal_secrets(&self, reseal: Reseal, audit: AuditEntry) -> Result<u64, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        let command = SecretCommand::Reseal { reseal, audit };
        match self.writer.submit(Command::Secret(Box::new(command))).await? {
            Answer::Count(written) => Ok(written),
            _ => Ok(0),
        }
    }
}
