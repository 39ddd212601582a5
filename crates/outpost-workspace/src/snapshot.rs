//! What setup commands left, kept as a layer for later runs.
//!
//! A snapshot is `snapshots/<key>/{layer/, snapshot.json}`. The layer was written by commands of a repository in a sandbox, so it is
//! walked with bounds and no link is followed. What it adds beside the files of the commit it was made on is noted as a few
//! paths; at another commit it serves only if none of that commit's files lie there. One that changes files of the commit or of
//! `.git` serves that checkout only. Like checkouts, it counts until the next start of the host, unless it was synced for a
//! persistent workspace. Deliberately absent: a look at
//! contents: what a tenant's repository sets up is trusted as far as the repository is.

use std::ffi::CStr;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags, fgetxattr, openat, openat2, statat,
};
use serde::{Deserialize, Serialize};

use crate::inspect::open_regular;

/// Entries and levels of directories of a layer that is kept.
const ENTRIES_MAX: u64 = 1_000_000;
const DEPTH_MAX: usize = 128;
/// Bytes of a snapshot's layer.
pub(crate) const LAYER_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// The file of `.git` that git writes anew whenever it looks at files.
const INDEX: &str = ".git/index";
/// Paths beside the commit's files that are noted; a layer with more serves its own checkout only.
const ROOTS_MAX: usize = 256;
/// Largest `snapshot.json`, bytes.
const FACTS_BYTES_MAX: u64 = 4 * 1024 * 1024;
const VERSION: u32 = 1;
pub(crate) const FACTS: &str = "snapshot.json";
pub(crate) const LAYER: &str = "layer";
const DURABLE: &str = "durable";
/// Marks a directory that hides the one below it (overlayfs.rst of the kernel, with `userxattr`).
const OPAQUE: &str = "user.overlay.opaque";

/// What is known of a snapshot.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Facts {
    version: u32,
    key: String,
    boot: String,
    /// What it adds; none if it serves one checkout only, which its key names.
    pub(crate) adds: Option<Vec<String>>,
}

impl Facts {
    pub(crate) fn new(key: &str, boot: &str, adds: Option<Vec<String>>) -> Self {
        Self { version: VERSION, key: key.to_owned(), boot: boot.to_owned(), adds }
    }

    /// Reads and checks it; none if the snapshot does not count.
    pub(crate) fn read(dir: &Path, key: &str, boot: &str) -> Option<Self> {
        let mut text = Vec::new();
        let file = open_regular(&dir.join(FACTS)).ok()?;
        file.take(FACTS_BYTES_MAX).read_to_end(&mut text).ok()?;
        let facts: Self = serde_json::from_slice(&text).ok()?;
        let lasts = facts.boot == boot || dir.join(DURABLE).is_file();
        (lasts && facts.version == VERSION && facts.key == key && dir.join(LAYER).is_dir())
            .then_some(facts)
    }
}

/// Whether what a layer adds lies beside these files (sorted as git sorts them).
pub(crate) fn lies_beside(adds: &[String], files: &[String]) -> bool {
    adds.iter().all(|root| {
        let parents = root.match_indices('/').map(|(at, _)| &root[..at]);
        !has_below(files, root) && parents.chain([root.as_str()]).all(|path| !has(files, path))
    })
}

fn has(files: &[String], path: &str) -> bool {
    files.binary_search_by(|file| file.as_str().cmp(path)).is_ok()
}

/// Whether any of the files lies in the directory `path`.
fn has_below(files: &[String], path: &str) -> bool {
    let start = format!("{path}/");
    let at = files.partition_point(|file| file.as_str() < start.as_str());
    files.get(at).is_some_and(|file| file.starts_with(&start))
}

/// What a layer is, seen from the files below it.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Survey {
    pub(crate) entries: u64,
    /// All but directories and git's index.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Paths that it adds beside the files.
    pub(crate) adds: Vec<String>,
    /// First few of the files or directories that it changes, covers or hides; `.git` is one.
    pub(crate) changes: Vec<String>,
    /// It could not be walked within bounds.
    pub(crate) too_large: bool,
    /// It has more paths than are noted, or names that cannot be.
    pub(crate) unlisted: bool,
}

impl Survey {
    /// Whether it shows the same files as what is below it.
    pub(crate) fn is_untouched(&self) -> bool {
        let looked_at = |path: &String| path == ".git";
        self.files == 0 && !self.too_large && !self.unlisted && self.changes.iter().all(looked_at)
    }
}

/// Looks through a layer of at most so many bytes. `files` are all files below it.
pub(crate) fn survey(layer: &Path, files: &[String], bytes_max: u64) -> io::Result<Survey> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, layer, flags, Mode::empty())?;
    let mut survey = Survey::default();
    Walk { files, survey: &mut survey, bytes_max }.walk(top.as_fd(), "", 1, false)?;
    survey.too_large |= survey.bytes > bytes_max;
    Ok(survey)
}

struct Walk<'a> {
    files: &'a [String],
    survey: &'a mut Survey,
    bytes_max: u64,
}

impl Walk<'_> {
    /// `beside` says that nothing below can meet a file of the commit.
    fn walk(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &str,
        depth: usize,
        beside: bool,
    ) -> io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.survey.entries += 1;
            if self.survey.entries > ENTRIES_MAX || self.survey.bytes > self.bytes_max {
                self.survey.too_large = true;
                return Ok(());
            }
            let stat = statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
            self.survey.bytes += u64::try_from(stat.st_size).unwrap_or(0);
            let full = match name.to_str() {
                Ok(name) if path.is_empty() => name.to_owned(),
                Ok(name) => format!("{path}/{name}"),
                Err(_) => {
                    self.survey.unlisted = true;
                    String::new()
                }
            };
            if kind != FileType::Directory && full != INDEX {
                self.survey.files += 1;
            }
            let beside = beside || self.place(&full, kind);
            if kind == FileType::Directory {
                self.enter(dir, name, &full, depth, beside)?;
            }
            if self.survey.too_large {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Notes what an entry is to the files; whether it lies beside them, with all below it.
    fn place(&mut self, path: &str, kind: FileType) -> bool {
        let over_directory = has_below(self.files, path);
        if path == ".git" || has(self.files, path) {
            self.change(path);
        } else if over_directory {
            if kind != FileType::Directory {
                self.change(path);
            }
        } else {
            if kind == FileType::CharacterDevice {
                // Hides something that is not below: nothing an overlay writes.
                self.change(path);
            }
            if self.survey.adds.len() < ROOTS_MAX {
                self.survey.adds.push(path.to_owned());
            } else {
                self.survey.unlisted = true;
            }
            return true;
        }
        false
    }

    fn change(&mut self, path: &str) {
        const SHOWN_MAX: usize = 16;
        if self.survey.changes.len() < SHOWN_MAX {
            self.survey.changes.push(path.to_owned());
        }
    }

    fn enter(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &str,
        depth: usize,
        beside: bool,
    ) -> io::Result<()> {
        if depth >= DEPTH_MAX {
            self.survey.too_large = true;
            return Ok(());
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let below = openat2(dir, name, flags, Mode::empty(), resolve)?;
        if !beside && fgetxattr(&below, OPAQUE, &mut [0_u8; 16]).is_ok() {
            self.change(path);
        }
        self.walk(below.as_fd(), path, depth + 1, beside)
    }
}

/// Makes sure that a snapshot survives a power cut.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    let durable = dir.join(DURABLE);
    if durable.is_file() {
        return Ok(());
    }
    rustix::fs::syncfs(std::fs::File::open(dir)?)?;
    std::fs::File::create(durable)?.sync_all()
}

/// The directory of a snapshot's files.
pub(crate) fn layer(dir: &Path) -> PathBuf {
    dir.join(LAYER)
}

#[cfg(test)]
mod tests {
    use super::{lies_beside, survey};

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_a_layer_adds_and_changes() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path();
        let tracked = files(&["README.md", "src/a.rs", "src/b/c.rs", "web/package.json"]);
        assert_eq!(survey(layer, &tracked, u64::MAX).unwrap().entries, 0);
        for name in ["node_modules/x/y", "web/node_modules/z", "src-gen/a.rs"] {
            let path = layer.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1234").unwrap();
        }
        std::os::unix::fs::symlink("/etc", layer.join("node_modules/etc")).unwrap();
        let mut seen = survey(layer, &tracked, u64::MAX).unwrap();
        seen.adds.sort();
        assert_eq!(seen.adds, ["node_modules", "src-gen", "web/node_modules"]);
        assert!(seen.changes.is_empty() && !seen.too_large && !seen.unlisted && seen.entries == 9);
        assert!(
            seen.files == 4
                && !seen.is_untouched()
                && survey(layer, &tracked, 3).unwrap().too_large
        );
        for (name, changed) in [
            ("README.md", true),
            ("src/b", true),
            ("src/b/c.rs", true),
            (".git/index", true),
            ("src/new", false),
        ] {
            let path = layer.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            assert_eq!(
                !survey(layer, &tracked, u64::MAX).unwrap().changes.is_empty(),
                changed,
                "{name}"
            );
            std::fs::remove_file(path).unwrap();
            let _ = std::fs::remove_dir(layer.join("src/b"));
            let _ = std::fs::remove_dir(layer.join(".git"));
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(layer.join("src"), "user.overlay.opaque", b"y", flags).unwrap();
        assert_eq!(survey(layer, &tracked, u64::MAX).unwrap().changes, ["src"]);
    }

    #[test]
    fn a_layer_where_only_git_looked_is_untouched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".git")).unwrap();
        std::fs::create_dir_all(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join(".git/index"), "x").unwrap();
        let tracked = files(&["src/a"]);
        assert!(survey(dir.path(), &tracked, u64::MAX).unwrap().is_untouched());
        std::fs::write(dir.path().join(".git/HEAD"), "x").unwrap();
        assert!(!survey(dir.path(), &tracked, u64::MAX).unwrap().is_untouched());
    }

    #[test]
    fn a_layer_that_is_too_deep_or_oddly_named_is_told() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/".repeat(200))).unwrap();
        assert!(survey(dir.path(), &[], u64::MAX).unwrap().too_large);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        assert!(survey(dir.path(), &[], u64::MAX).unwrap().unlisted);
    }

    #[test]
    fn another_commits_files_may_lie_where_a_layer_adds() {
        let adds = files(&["node_modules", "web/dist"]);
        assert!(lies_beside(&adds, &files(&["node_modules.txt", "web/a", "web/distance"])));
        for tracked in ["node_modules", "node_modules/x", "web", "web/dist/x"] {
            assert!(!lies_beside(&adds, &files(&[tracked])), "{tracked}");
        }
        assert!(lies_beside(&[], &[]));
    }
}
