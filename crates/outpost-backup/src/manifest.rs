//! What says what a backup has: a list with one line for each file, and a manifest with the hash of the list.

use std::path::{Component, Path};

use outpost_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::BackupError;

/// Layout of a backup that this version writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Name of the list.
pub const LIST_FILE: &str = "files.jsonl";
/// Largest manifest, bytes.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 * 1024;
/// Longest line of the list, bytes.
pub(crate) const LINE_BYTES_MAX: usize = 32 * 1024;

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Layout; see [`FORMAT`].
    pub format: u32,
    /// Version of Outpost that made it.
    pub version: String,
    /// Schema of the records.
    pub schema: u32,
    /// When it was begun: everything that was acknowledged before is in it.
    pub created_at: Timestamp,
    /// Whether the keys are in it.
    pub includes_keys: bool,
    /// Files in the list.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// SHA-256 of the list, hexadecimal.
    pub list_sha256: String,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Line {
    /// Path within the backup.
    pub(crate) path: String,
    /// Size, bytes.
    pub(crate) bytes: u64,
    /// SHA-256, hexadecimal.
    pub(crate) sha256: String,
}

impl Manifest {
    pub(crate) fn read(dir: &Path) -> Result<Self, BackupError> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = std::fs::metadata(&path).map_err(BackupError::io(&path))?.len();
        if bytes > MANIFEST_BYTES_MAX {
            return Err(BackupError::damaged(MANIFEST_FILE, "it is too large"));
        }
        let text = std::fs::read(&path).map_err(BackupError::io(&path))?;
        // A later layout may have other fields: the number first.
        let value: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|_| BackupError::damaged(MANIFEST_FILE, "it is no JSON"))?;
        let format = value["format"].as_u64().unwrap_or(0);
        if format > u64::from(FORMAT) {
            let version = value["version"].as_str().unwrap_or("unknown").to_owned();
            return Err(BackupError::Newer { version });
        }
        let manifest: Self = serde_json::from_value(value)
            .map_err(|_| BackupError::damaged(MANIFEST_FILE, "it is no manifest"))?;
        if manifest.format == 0 {
            return Err(BackupError::damaged(MANIFEST_FILE, "it has no format"));
        }
        Ok(manifest)
    }
}

/// Whether a path of the list stays within the directory it is put into.
pub(crate) fn is_plain(path: &str) -> bool {
    let parts = Path::new(path).components();
    !path.is_empty()
        && !path.contains('\0')
        && parts.clone().all(|part| matches!(part, Component::Normal(_)))
        // What is normalised away (a doubled or trailing slash) is nothing that was written here.
        && parts.collect::<std::path::PathBuf>().as_os_str() == path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_nowhere_else() {
        for good in ["a", "dispatches/01J/artifacts/ü x.txt", "..a"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a\0b"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
