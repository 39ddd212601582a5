//! Connections and their settings; the check of a file before it is served.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::StoreError;
use crate::sqlite::schema;

/// How long a connection waits for a lock before it gives up, milliseconds. Only a checkpoint that
/// empties the log takes one.
const BUSY_TIMEOUT_MILLIS: u64 = 5_000;
/// Page cache of the writer, KiB.
const WRITER_CACHE_KIB: i64 = 65_536;
/// Page cache of a reader, KiB.
const READER_CACHE_KIB: i64 = 8_192;
/// The log file is cut to this when it starts over, bytes: room for the log to start over many times without
/// giving blocks back and asking for them again, which would cost each sync a commit of the file system.
const WAL_KEEP_BYTES: i64 = 128 * 1024 * 1024;
/// Prepared statements a connection keeps.
const STATEMENTS_MAX: usize = 96;
/// Files up to this are checked page by page when opened, bytes; larger ones would delay the start,
/// and get [`quick_look`]; the full check is on demand.
const OPEN_CHECK_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Which file, and how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// Name of the SQLite file layer; `None` is the system's.
    pub(crate) vfs: Option<String>,
    /// Largest size of the file, bytes.
    pub(crate) bytes_max: Option<u64>,
}

impl Place {
    pub(crate) fn connect(&self, access: OpenFlags) -> Result<Connection, StoreError> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = match &self.vfs {
            None => Connection::open_with_flags(&self.path, flags)?,
            Some(vfs) => Connection::open_with_flags_and_vfs(&self.path, flags, vfs.as_str())?,
        };
        harden(&connection)?;
        Ok(connection)
    }
}

/// A connection that may write: the writer's, which writes all rows, and the checkpointer's.
pub(crate) fn writer(place: &Place) -> Result<Connection, StoreError> {
    let connection = place.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Before anything is changed: it may be somebody else's file.
    schema::version(&connection)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::invalid(
            "data directory",
            "its file system cannot hold a write-ahead log; choose a directory on a local disk",
        ));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEEP_BYTES)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    if let Some(bytes_max) = place.bytes_max {
        let page: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = i64::try_from(bytes_max / u64::from(page.max(1))).unwrap_or(i64::MAX);
        let set = format!("PRAGMA max_page_count = {}", pages.clamp(1, 0xffff_fffe));
        connection.query_row(&set, [], |_| Ok(()))?;
    }
    Ok(connection)
}

/// A connection that cannot write.
pub(crate) fn reader(place: &Place) -> Result<Connection, StoreError> {
    let connection = place.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// Moves all of the log into the file and cuts it off, so that nothing of an earlier failed or torn
/// transaction stays behind it. Waits for readers.
pub(crate) fn empty_log(connection: &Connection) -> Result<(), StoreError> {
    let empty = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy: bool = connection.query_row(empty, [], |row| row.get(0))?;
    if busy { Err(StoreError::Busy) } else { Ok(()) }
}

fn harden(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MILLIS))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // The plan follows from the statement alone. Otherwise each new value of a LIMIT plans it anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Refuses a damaged file before anything of it is served.
pub(crate) fn check_on_open(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let bytes = path.metadata().map_err(StoreError::io)?.len();
    if bytes <= OPEN_CHECK_BYTES_MAX { check_fully(connection) } else { quick_look(connection) }
}

/// Reads every page and every index entry: minutes on a large file.
pub(crate) fn check_fully(connection: &Connection) -> Result<(), StoreError> {
    complaints(connection, "PRAGMA integrity_check(1)")?;
    let orphans: Option<String> = connection
        .prepare("PRAGMA foreign_key_check")?
        .query_map([], |row| row.get(0))?
        .next()
        .transpose()?;
    orphans.map_or(Ok(()), |table| {
        Err(StoreError::corrupt(format!("rows of {table} belong to no job")))
    })
}

/// The ends of the tables a start reads anyway.
pub(crate) fn quick_look(connection: &Connection) -> Result<(), StoreError> {
    for probe in [
        "SELECT count(*) FROM meta",
        "SELECT count(*) FROM (SELECT body FROM jobs ORDER BY rowid DESC LIMIT 100)",
        "SELECT count(*) FROM (SELECT hash FROM audit ORDER BY seq DESC LIMIT 100)",
    ] {
        connection.query_row(probe, [], |_| Ok(()))?;
    }
    Ok(())
}

fn complaints(connection: &Connection, check: &str) -> Result<(), StoreError> {
    let answer: String = connection.query_row(check, [], |row| row.get(0))?;
    if answer == "ok" { Ok(()) } else { Err(StoreError::corrupt(answer)) }
}
