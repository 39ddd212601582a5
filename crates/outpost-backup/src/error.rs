//! Why there is no backup, or no restore. Nothing was left behind in either case.

use std::io;
use std::path::PathBuf;

use outpost_store::StoreError;
use thiserror::Error;

/// Why it was not done.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The target of a backup is there.
    #[error("{0} exists already; name a directory that does not")]
    Exists(PathBuf),
    /// The target of a restore is in use.
    #[error("{0} is not empty; a restore needs a directory that is empty or not there")]
    NotEmpty(PathBuf),
    /// There are no records to back up.
    #[error("{0} has no records; name the data directory with --data-dir")]
    NoRecords(PathBuf),
    /// The records cannot be copied or read.
    #[error("the records cannot be copied")]
    Store(#[from] StoreError),
    /// A newer version made the backup.
    #[error(
        "the backup was made by a newer version ({version}); install that version to restore it"
    )]
    Newer {
        /// The version that made it.
        version: String,
    },
    /// It is no backup, or not as it was made.
    #[error("{path} of the backup is damaged: {what}; use another backup")]
    Damaged {
        /// Which file, within the backup.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key of the backup would replace another one.
    #[error("{0} is there with another key; move it away, or restore a backup without keys")]
    OtherKey(PathBuf),
    /// The backup has keys and nobody said where the key of the secrets belongs.
    #[error(
        "the backup has the key of the secrets and there is no place for it; set --secrets-key-file"
    )]
    NoPlaceForKey,
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl BackupError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }

    pub(crate) fn damaged(path: impl Into<String>, what: &'static str) -> Self {
        Self::Damaged { path: path.into(), what }
    }
}
