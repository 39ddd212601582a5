//! What a store can answer instead of a result. The text says what to do next.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use outpost_types::IdError;
use thiserror::Error;

/// The error of the backend underneath; shared, because one failed commit answers many callers.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why the store did not do it. When a write answers with an error of the first group, nothing of
/// it was written. Only after [`StoreError::Io`] a write may turn out to have happened.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else changed the record first.
    #[error("the record is at generation {found} by now; read it again and decide anew")]
    Stale {
        /// Generation it has.
        found: u64,
    },
    /// No such record, or one of another tenant.
    #[error("there is no such record; check the id")]
    NotFound,
    /// The id (or the hash of a key) is taken.
    #[error("a record with this id exists already; make a new id")]
    Duplicate,
    /// The record reached a state it never leaves.
    #[error("the record is {status} and stays so; make a new one instead")]
    Final {
        /// The state.
        status: &'static str,
    },
    /// A value is beyond its bound or contradicts another.
    #[error("{field}: {message}")]
    Invalid {
        /// What is at fault.
        field: &'static str,
        /// What is expected.
        message: String,
    },

    /// The queue is full; nothing was written.
    #[error("the store has more work than it takes; try again in a second")]
    Busy,
    /// The store was closed, or its writer died.
    #[error("the store is closed; restart the server")]
    Closed,
    /// No space left. Nothing of the batch was written.
    #[error("the disk of the store is full; free space and try again")]
    DiskFull,
    /// The system refused to read, write or sync. A write may have happened all the same: it shows
    /// when the store works again, and an idempotency key makes asking again safe.
    #[error("reading or writing the store failed; check the disk, the store tries again by itself")]
    Io {
        /// What it said.
        #[source]
        source: Cause,
    },
    /// The file is damaged and is not served.
    #[error("the store is damaged ({what}); stop the server and restore the last backup")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// A newer version wrote the file.
    #[error(
        "the store has schema {found}, this version knows up to {known}; install the newer version"
    )]
    SchemaNewer {
        /// Schema of the file.
        found: u32,
        /// Newest schema known here.
        known: u32,
    },
    /// Another process has the directory open.
    #[error("another server uses this data directory (process {}); stop it or choose another directory", pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))]
    AlreadyOpen {
        /// Its process id, when it could be read.
        pid: Option<u32>,
    },
    /// The file is some other program's database.
    #[error("{path} is not a store of Outpost; choose another data directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Others can write the directory, so nothing in it can be trusted.
    #[error("other users can write to {path}; run `chmod 700` on it or choose another directory")]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The backend failed in a way that has no name here.
    #[error("the store failed; look in the server's log and report it")]
    Backend {
        /// What it said.
        #[source]
        source: Cause,
    },
}

impl StoreError {
    /// Whether the same call may succeed in a moment without anybody doing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy)
    }

    pub(crate) fn io(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::DiskFull;
        }
        Self::Io { source: Arc::new(error) }
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// After such an error the rest of the batch is not tried.
    pub(crate) const fn is_fatal(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Corrupt { .. })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::corrupt(error.to_string())
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Io { source: Arc::new(error) },
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..)
                // Statements are constants that fit the tables as they were made.
                | rusqlite::Error::SqlInputError { .. } => Self::corrupt(error.to_string()),
                other => Self::Backend { source: Arc::new(other) },
            },
        }
    }
}

impl From<IdError> for StoreError {
    /// Only for ids read back from the store: ids handed in are typed.
    fn from(error: IdError) -> Self {
        Self::corrupt(format!("an id in a row: {error}"))
    }
}
