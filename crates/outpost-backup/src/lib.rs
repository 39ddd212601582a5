//! Backup of a data directory while a server runs on it, and its restore.
//!
//! A backup is a directory: a copy of the records as of one moment, the kept files of the dispatches in it, a list
//! of all files with sizes and hashes, and a manifest that seals the list. It appears under its name when it is
//! whole and on disk, or not at all; so does what a restore makes. Keys are in it only when asked for.
//!
//! Bounded: a line of the list, a manifest, a file name, the depth of directories; nothing is held in memory but one
//! page of dispatches. Absent: mirrors and checkouts of repositories, persistent workspaces, installed agents and what
//! live attempts have on disk; encryption, which is for whoever stores the directory.

mod copy;
mod create;
mod error;
mod manifest;
mod restore;

use std::path::PathBuf;

pub use create::{BackupRequest, backup};
pub use error::BackupError;
pub use manifest::{FORMAT, LIST_FILE, MANIFEST_FILE, Manifest};
pub use restore::{RestoreRequest, restore};

/// Name of the copy of the records.
pub const DATABASE_NAME: &str = "outpost.db";
/// Directory of kept files, as below a data directory.
pub const DISPATCHES_DIR: &str = "dispatches";
/// Name of the admin key, in a backup with keys.
pub const ADMIN_KEY_NAME: &str = "keys/admin.key";
/// Name of the key of the secrets, in a backup with keys.
pub const SECRETS_KEY_NAME: &str = "keys/secrets.key";
/// Small files of a data directory that belong to the records and hold no key.
const SMALL_FILES: [&str; 2] = ["config.toml", "admin.key.sha256"];

/// The two files with keys, wherever they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// The admin key.
    pub admin: Option<PathBuf>,
    /// The key of the secrets.
    pub secrets: Option<PathBuf>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}
