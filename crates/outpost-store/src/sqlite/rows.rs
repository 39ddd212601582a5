//! Reads: the statements and how their rows become records.

use std::collections::BTreeSet;

use outpost_types::{ApiKeyStatus, DispatchId, DispatchStatus, Scope, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::audit::{AuditRow, Chain};
use crate::keys::{ApiKeyRecord, KeyHash, status_of};
use crate::prepare::count;
use crate::{
    AUDIT_SCAN_ROWS_MAX, AttemptRecord, AuditFilter, AuditPage, AuditRange, EventHead, StoreError,
};

pub(crate) const BODY_BY_ID: &str = "SELECT body, checksum FROM jobs WHERE dispatch_id = ?1";
pub(crate) const BODY_BY_TENANT: &str =
    "SELECT body, checksum FROM jobs WHERE dispatch_id = ?1 AND tenant_id = ?2";
pub(crate) const BODY_BY_ROW: &str = "SELECT body, checksum FROM jobs WHERE rowid = ?1";
pub(crate) const LIVE: &str = "SELECT body, checksum FROM jobs INDEXED BY jobs_live
    WHERE completed_at IS NULL AND dispatch_id > ?1 ORDER BY dispatch_id LIMIT ?2";
pub(crate) const ATTEMPTS: &str = "SELECT dispatch_id, number, epoch, state, created_at,
    started_at, updated_at, ended_at FROM attempts WHERE dispatch_id = ?1 ORDER BY number";
pub(crate) const EVENT_HEAD: &str =
    "SELECT dispatch_id, last_seq, log_bytes FROM events WHERE dispatch_id = ?1";
pub(crate) const AUDIT: &str = "SELECT seq, at, tenant_id, actor, action, subject, detail,
    prev_hash, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
const AUDIT_BACKWARDS: &str = "SELECT seq, at, tenant_id, actor, action, subject, detail,
    prev_hash, hash FROM audit WHERE seq < ?1 ORDER BY seq DESC";
const AUDIT_OF_TENANT: &str = "SELECT seq, at, tenant_id, actor, action, subject, detail,
    prev_hash, hash FROM audit INDEXED BY audit_by_tenant
    WHERE seq < ?1 AND tenant_id = ?2 ORDER BY seq DESC";
pub(crate) const AUDIT_LAST: &str = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
pub(crate) const KEY_BY_HASH: &str = "SELECT api_key_id, tenant_id, key_hash, key_prefix, scopes,
    status, created_at, expires_at, last_used_at, usage_count, checksum, name FROM api_keys
    WHERE key_hash = ?1";
pub(crate) const KEY_BY_ID: &str = "SELECT api_key_id, tenant_id, key_hash, key_prefix, scopes,
    status, created_at, expires_at, last_used_at, usage_count, checksum, name FROM api_keys
    WHERE api_key_id = ?1";
pub(crate) const KEYS: &str = "SELECT api_key_id, tenant_id, key_hash, key_prefix, scopes,
    status, created_at, expires_at, last_used_at, usage_count, checksum, name FROM api_keys
    WHERE api_key_id < ?1 ORDER BY api_key_id DESC LIMIT ?2";
pub(crate) const KEYS_BY_TENANT: &str = "SELECT api_key_id, tenant_id, key_hash, key_prefix,
    scopes, status, created_at, expires_at, last_used_at, usage_count, checksum, name
    FROM api_keys INDEXED BY api_keys_by_tenant
    WHERE api_key_id < ?1 AND tenant_id = ?3 ORDER BY api_key_id DESC LIMIT ?2";

/// Sorts after every ULID.
pub(crate) const ID_MAX: &str = "~";

/// One row or none, by a statement that is kept prepared.
pub(crate) fn one<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

/// All rows; the statement carries the limit.
pub(crate) fn many<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

pub(crate) fn body(row: &Row<'_>) -> Result<outpost_core::Dispatch, StoreError> {
    crate::prepare::parse_body(sound(row)?)
}

/// The record of a dispatch as text, to be kept beyond its row.
pub(crate) fn sound_body(row: &Row<'_>) -> Result<String, StoreError> {
    sound(row).map(str::to_owned)
}

/// The record of a dispatch where SQLite has it (column 0), after a look at its checksum (column 1).
fn sound<'row>(row: &'row Row<'_>) -> Result<&'row str, StoreError> {
    let body = row
        .get_ref(0)?
        .as_str()
        .map_err(|_| StoreError::corrupt("the record of a dispatch: it is no text"))?;
    // None: written by a version that made no checksums.
    match row.get::<_, Option<i64>>(1)? {
        Some(wanted) if wanted != crate::prepare::checksum(&[body.as_bytes()]) => {
            Err(StoreError::corrupt("the record of a dispatch: its checksum is wrong"))
        }
        _ => Ok(body),
    }
}

/// Checksum of a key: everything but its use, which changes all the time.
pub(crate) fn key_sum(key: &ApiKeyRecord) -> i64 {
    let id = key.id.to_string();
    let (scopes, created_at) = (scopes_text(&key.scopes), crate::prepare::millis(key.created_at));
    // No instant is negative.
    let expires_at = key.expires_at.map_or(-1, crate::prepare::millis);
    let (created_at, expires_at) = (created_at.to_be_bytes(), expires_at.to_be_bytes());
    let parts: [&[u8]; 9] = [
        id.as_bytes(),
        key.tenant.as_str().as_bytes(),
        &key.hash.0,
        key.prefix.as_bytes(),
        scopes.as_bytes(),
        crate::keys::status_name(key.status).as_bytes(),
        &created_at,
        &expires_at,
        key.name.as_bytes(),
    ];
    // Rows from before there were names have the sum without one.
    let named = parts.len() - usize::from(key.name.is_empty());
    crate::prepare::checksum(&parts[..named])
}

pub(crate) fn attempt(row: &Row<'_>) -> Result<AttemptRecord, StoreError> {
    Ok(AttemptRecord {
        dispatch: row.get::<_, String>(0)?.parse()?,
        number: row.get(1)?,
        epoch: row.get(2)?,
        state: row
            .get::<_, String>(3)?
            .parse::<DispatchStatus>()
            .map_err(|error| StoreError::corrupt(error.to_string()))?,
        created_at: instant(row, 4)?,
        started_at: maybe_instant(row, 5)?,
        updated_at: instant(row, 6)?,
        ended_at: maybe_instant(row, 7)?,
    })
}

pub(crate) fn event_head(row: &Row<'_>) -> Result<EventHead, StoreError> {
    Ok(EventHead {
        dispatch: row.get::<_, String>(0)?.parse::<DispatchId>()?,
        last_seq: number(row, 1)?,
        log_bytes: number(row, 2)?,
    })
}

pub(crate) fn key(row: &Row<'_>) -> Result<ApiKeyRecord, StoreError> {
    let key = ApiKeyRecord {
        id: row.get::<_, String>(0)?.parse()?,
        tenant: row.get::<_, String>(1)?.parse()?,
        hash: KeyHash(row.get(2)?),
        prefix: row.get(3)?,
        name: row.get(11)?,
        scopes: scopes(&row.get::<_, String>(4)?)?,
        status: key_status(&row.get::<_, String>(5)?)?,
        created_at: instant(row, 6)?,
        expires_at: maybe_instant(row, 7)?,
        last_used_at: maybe_instant(row, 8)?,
        usage_count: number(row, 9)?,
    };
    match row.get::<_, Option<i64>>(10)? {
        Some(wanted) if wanted != key_sum(&key) => {
            Err(StoreError::corrupt("an API key: its checksum is wrong"))
        }
        _ => Ok(key),
    }
}

fn key_status(name: &str) -> Result<ApiKeyStatus, StoreError> {
    status_of(name).ok_or_else(|| StoreError::corrupt("the status of a key"))
}

/// Scopes as one text, separated by blanks.
pub(crate) fn scopes_text(scopes: &BTreeSet<Scope>) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    names.join(" ")
}

fn scopes(text: &str) -> Result<BTreeSet<Scope>, StoreError> {
    let scope = |name: &str| name.parse().map_err(|()| StoreError::corrupt("a scope of a key"));
    text.split_ascii_whitespace().map(scope).collect()
}

pub(crate) fn audit_rows(db: &Connection, range: AuditRange) -> Result<Vec<AuditRow>, StoreError> {
    many(db, AUDIT, params![count(range.after), range.limit], audit_row)
}

/// Rows are looked at one by one until there are enough, or the bound is reached.
pub(crate) fn audit_page(db: &Connection, filter: &AuditFilter) -> Result<AuditPage, StoreError> {
    let before = filter.before.map_or(i64::MAX, count);
    let mut statement = db.prepare_cached(match filter.tenant {
        Some(_) => AUDIT_OF_TENANT,
        None => AUDIT_BACKWARDS,
    })?;
    let mut rows = match &filter.tenant {
        Some(tenant) => statement.query(params![before, tenant.as_str()])?,
        None => statement.query(params![before])?,
    };
    let mut page = AuditPage { rows: Vec::new(), next: None };
    let mut last = None;
    for looked_at in 0.. {
        let Some(row) = rows.next()? else { break };
        if page.rows.len() == filter.limit as usize || looked_at == AUDIT_SCAN_ROWS_MAX {
            page.next = last;
            break;
        }
        last = Some(number(row, 0)?);
        if filter.wants(instant(row, 1)?, row.get_ref(4)?.as_str().unwrap_or_default()) {
            page.rows.push(audit_row(row)?);
        }
    }
    Ok(page)
}

fn audit_row(row: &Row<'_>) -> Result<AuditRow, StoreError> {
    let actor: Option<String> = row.get(3)?;
    Ok(AuditRow {
        seq: number(row, 0)?,
        at: instant(row, 1)?,
        tenant: row.get::<_, String>(2)?.parse()?,
        actor: actor.map(|id| id.parse()).transpose()?,
        action: row.get(4)?,
        subject: row.get(5)?,
        detail: row.get(6)?,
        prev_hash: row.get(7)?,
        hash: row.get(8)?,
    })
}

/// Where the trail ends; what the next row is chained to.
pub(crate) fn chain(db: &Connection) -> Result<Chain, StoreError> {
    let last = db
        .prepare_cached(AUDIT_LAST)?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
        .optional()?;
    Ok(last.map_or(Chain::START, |(seq, hash)| Chain { seq: seq.cast_unsigned(), hash }))
}

pub(crate) fn number(row: &Row<'_>, column: usize) -> Result<u64, StoreError> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| StoreError::corrupt("a negative number"))
}

pub(crate) fn instant(row: &Row<'_>, column: usize) -> Result<Timestamp, StoreError> {
    number(row, column).map(Timestamp::from_millis)
}

pub(crate) fn maybe_instant(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, StoreError> {
    let value: Option<i64> = row.get(column)?;
    value.map(|_| instant(row, column)).transpose()
}
