//! Copies of the file: made while a server writes it, and read afterwards.
//!
//! `VACUUM INTO` reads in one transaction, so a copy is of one moment, however much is written meanwhile; the log grows
//! for as long as that takes. The online backup of SQLite starts over whenever another process writes, and would
//! not end under load. The lock of the directory is not taken: it tells servers apart, and this is none.

use std::path::Path;

use outpost_types::DispatchId;
use rusqlite::{Connection, OpenFlags, Row, params};

use crate::StoreError;
use crate::sqlite::connect::{self, Place};
use crate::sqlite::files::{DATABASE_FILE, prepare_copy};
use crate::sqlite::rows::many;
use crate::sqlite::schema;

/// Most dispatches of one page.
const KEPT_ROWS_MAX: u32 = 1_000;
const KEPT: &str = "SELECT dispatch_id, completed_at IS NULL FROM jobs WHERE dispatch_id > ?1
    UNION ALL SELECT dispatch_id, 0 FROM leftovers WHERE dispatch_id > ?1
    ORDER BY dispatch_id LIMIT ?2";

/// Copies the store of a data directory as it is now into a new file. Blocks, for as long as writing all of it takes.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::SchemaNewer`] and [`StoreError::Corrupt`] for what is there;
/// [`StoreError::Invalid`] when the schema is an older one, which a server has to bring up to date first;
/// [`StoreError::Io`], [`StoreError::DiskFull`].
pub fn snapshot(directory: &Path, into: &Path) -> Result<(), StoreError> {
    let directory = directory.canonicalize().map_err(StoreError::io)?;
    let connection = read_only(&directory.join(DATABASE_FILE))?;
    let found = schema::version(&connection)?;
    if found != schema::SCHEMA_VERSION {
        let message = "start this version's server once, so that the records have its schema";
        return Err(StoreError::invalid("schema", message));
    }
    prepare_copy(into)?;
    let name = into.to_str().ok_or_else(|| {
        StoreError::invalid("path", "must be UTF-8, because SQLite takes no other one")
    })?;
    connection.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

/// A dispatch of a copy whose files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptDispatch {
    /// Which.
    pub id: DispatchId,
    /// It had not ended.
    pub is_live: bool,
}

/// A copy, read only.
#[derive(Debug)]
pub struct CopiedStore {
    connection: Connection,
    schema: u32,
}

impl CopiedStore {
    /// Opens a copy.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] and [`StoreError::SchemaNewer`] for files that are no copies for this version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.canonicalize().map_err(StoreError::io)?;
        let connection = read_only(&path)?;
        let schema = schema::version(&connection)?;
        if schema == 0 {
            return Err(StoreError::corrupt("a copy without records"));
        }
        Ok(Self { connection, schema })
    }

    /// Its schema.
    #[must_use]
    pub const fn schema(&self) -> u32 {
        self.schema
    }

    /// Checks every page, index entry and foreign key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first finding.
    pub fn check(&self) -> Result<(), StoreError> {
        connect::check_fully(&self.connection)
    }

    /// Dispatches whose files are kept, with or without a record, with an id greater than `after`; at most `limit`
    /// and 1,000.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub fn dispatches(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<KeptDispatch>, StoreError> {
        let after = after.map_or_else(String::new, |id| id.to_string());
        many(&self.connection, KEPT, params![after, limit.min(KEPT_ROWS_MAX)], read)
    }
}

fn read(row: &Row<'_>) -> Result<KeptDispatch, StoreError> {
    Ok(KeptDispatch { id: row.get::<_, String>(0)?.parse()?, is_live: row.get(1)? })
}

/// A connection that changes nothing in the file it is on. `query_only` would refuse to copy, too.
fn read_only(path: &Path) -> Result<Connection, StoreError> {
    let place = Place { path: path.to_owned(), vfs: None, bytes_max: None };
    place.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
}
