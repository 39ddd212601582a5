//! Kept files of a dispatch, listed and found without following a link.

use std::path::{Path, PathBuf};

use outpost_types::{ApiError, ArtifactView, DispatchId, Timestamp};

use crate::streams::unreadable;

/// Most kept files that are listed.
const LISTED_COUNT_MAX: usize = 10_000;
/// Deepest directory that is listed.
const DEPTH_MAX: usize = 32;
/// Longest name that is looked for, bytes.
const NAME_BYTES_MAX: usize = 4_096;

/// All kept files with addresses relative to the server; whoever serves them signs them.
pub(crate) fn list(
    kept_dir: &Path,
    id: DispatchId,
    expires_at: Timestamp,
) -> Result<Vec<ArtifactView>, ApiError> {
    let mut names = Vec::new();
    walk(kept_dir, String::new(), 0, &mut names).map_err(|error| unreadable(&error))?;
    names.sort_unstable();
    let view = |(name, size_bytes): (String, u64)| ArtifactView {
        content_type: content_type(&name).to_owned(),
        url: format!("/artifacts/{id}/{name}"),
        name,
        size_bytes,
        expires_at,
        preview: None,
    };
    Ok(names.into_iter().map(view).collect())
}

fn walk(
    dir: &Path,
    prefix: String,
    depth: usize,
    names: &mut Vec<(String, u64)>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if depth == 0 && is_own(&name) {
            continue;
        }
        let kind = entry.file_type()?; // Of the entry itself: links are not followed.
        if names.len() >= LISTED_COUNT_MAX {
            return Ok(());
        }
        if kind.is_file() {
            names.push((format!("{prefix}{name}"), entry.metadata()?.len()));
        } else if kind.is_dir() && depth < DEPTH_MAX {
            walk(&entry.path(), format!("{prefix}{name}/"), depth + 1, names)?;
        }
    }
    Ok(())
}

/// The path of a kept file: every part of the name is an ordinary one and none is a link.
pub(crate) fn find(kept_dir: &Path, name: &str) -> Result<PathBuf, ApiError> {
    if name.len() > NAME_BYTES_MAX || name.contains(['\0', '\\']) || is_own(name) {
        return Err(ApiError::not_found());
    }
    let mut path = kept_dir.to_owned();
    for part in name.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Err(ApiError::not_found());
        }
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_symlink() => {}
            _ => return Err(ApiError::not_found()),
        }
    }
    if path.is_file() { Ok(path) } else { Err(ApiError::not_found()) }
}

/// Whether a kept file is for Outpost itself, such as an agent's session. What agents keep is in directories.
fn is_own(name: &str) -> bool {
    name.starts_with('.')
}

fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "log" | "txt" | "md" => "text/plain; charset=utf-8",
        "patch" | "diff" => "text/x-diff; charset=utf-8",
        "json" => "application/json",
        "jsonl" => "application/jsonl",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir_all(kept.join("artifacts")).unwrap();
        std::fs::write(kept.join("artifacts/a ü.txt"), "x").unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(kept.join(".session.tar"), "s").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), kept.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), kept.join("linkdir")).unwrap();
        assert!(find(&kept, "artifacts/a ü.txt").is_ok());
        for name in [
            ".session.tar",
            "link",
            "linkdir/secret",
            "../secret",
            "/etc/passwd",
            "",
            "artifacts",
            "a//b",
        ] {
            assert!(find(&kept, name).is_err(), "{name}");
        }
        let id = DispatchId::from_parts(1, 1);
        let listed = list(&kept, id, Timestamp::default()).unwrap();
        let names: Vec<_> = listed.iter().map(|view| view.name.as_str()).collect();
        assert_eq!(names, ["artifacts/a ü.txt"]);
    }
}
