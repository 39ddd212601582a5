//! Facts about a checkout that the user should know: size, submodules, files kept elsewhere, uncommitted work.
//!
//! Bounded: files and bytes of the tree (which stops the checkout that runs beside it), and how many files are looked into.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::git::GitError;
use crate::gitdir::GitDir;
use crate::remote::note;
use crate::start::Base;
use crate::{Inner, Note, PrepareError, TRACKED_FILES_MAX};

/// Longest listing of a tree, bytes; some millions of files.
const LISTING_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Names of tracked files that are listed, bytes of all together.
const NAMES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A pointer of Git LFS is a text of about 130 bytes (its specification allows 1024).
const POINTER_BYTES: std::ops::RangeInclusive<u64> = 60..=1024;
const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";
/// Files looked into for being such pointers.
const POINTERS_LOOKED_MAX: usize = 5_000;
/// Attribute files read, and how much of each, bytes.
const ATTRIBUTES_MAX: usize = 200;
const ATTRIBUTES_BYTES_MAX: u64 = 256 * 1024;
/// Names shown in one note.
const NAMES_SHOWN_MAX: usize = 5;
/// Largest index of a local source that is looked at, bytes.
const INDEX_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What the base commit's tree has.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<String>,
    /// Bytes of each.
    pub(crate) sizes: Vec<u64>,
    names_bytes: usize,
    submodules: Vec<String>,
    attributes: Vec<String>,
    small: Vec<String>,
    pub(crate) bytes: u64,
}

/// Lists the base commit's tree; refuses one whose files are larger than a repository may be.
pub(crate) async fn tree(inner: &Inner, base: &Base, shown: &str) -> Result<Tree, PrepareError> {
    let limit_bytes = inner.config.repo_bytes_max;
    let too_large = || PrepareError::TooLarge { repo: shown.to_owned(), limit_bytes };
    let listing = inner
        .git
        .run("ls-tree")
        .args(["-r", "-l", "-z", &base.commit])
        .git_dir(&base.mirror)
        .output_bytes_max(LISTING_BYTES_MAX)
        .output()
        .await
        .map_err(|error| match error {
            GitError::TooMuchOutput { .. } => too_large(),
            other => PrepareError::from(other),
        })?;
    let tree = Tree::parse(&listing);
    if tree.bytes > limit_bytes { Err(too_large()) } else { Ok(tree) }
}

impl Tree {
    /// Reads entries of `<mode> <type> <id> <size>\t<name>`.
    pub(crate) fn parse(listing: &[u8]) -> Self {
        let mut tree = Self::default();
        for entry in listing.split(|byte| *byte == 0) {
            let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
            let Ok(name) = std::str::from_utf8(&entry[tab + 1..]) else { continue };
            let head = String::from_utf8_lossy(&entry[..tab]);
            let mut fields = head.split_ascii_whitespace();
            let mode = fields.next().unwrap_or_default();
            let size: u64 = fields.nth(2).and_then(|size| size.parse().ok()).unwrap_or(0);
            tree.bytes = tree.bytes.saturating_add(size);
            if mode == "160000" {
                tree.submodules.push(name.to_owned());
                continue;
            }
            tree.names_bytes += name.len();
            if tree.files.len() < TRACKED_FILES_MAX && tree.names_bytes <= NAMES_BYTES_MAX {
                tree.files.push(name.to_owned());
                tree.sizes.push(size);
            }
            if name.rsplit('/').next() == Some(".gitattributes")
                && tree.attributes.len() < ATTRIBUTES_MAX
            {
                tree.attributes.push(name.to_owned());
            } else if POINTER_BYTES.contains(&size)
                && mode != "120000"
                && tree.small.len() < POINTERS_LOOKED_MAX
            {
                tree.small.push(name.to_owned());
            }
        }
        tree
    }
}

/// The notes that need the files; called before anybody else can reach them.
pub(crate) fn notes(tree: &Tree, repo_dir: &Path) -> Vec<Note> {
    let mut notes = Vec::new();
    if !tree.submodules.is_empty() {
        let message = format!(
            "Submodules are left empty: {}. Work that needs their files may fail.",
            names(&tree.submodules)
        );
        notes.push(note("submodules", message));
    }
    let uses_lfs = tree.attributes.iter().any(|name| {
        start_of(&repo_dir.join(name), ATTRIBUTES_BYTES_MAX)
            .is_some_and(|text| String::from_utf8_lossy(&text).contains("filter=lfs"))
    });
    if uses_lfs {
        let pointers: Vec<String> = tree
            .small
            .iter()
            .filter(|name| {
                start_of(&repo_dir.join(name), POINTER_START.len() as u64)
                    .is_some_and(|text| text == POINTER_START)
            })
            .cloned()
            .collect();
        if !pointers.is_empty() {
            let message = format!(
                "Files kept in Git LFS are small pointer files here: {}. Their content is not fetched.",
                names(&pointers)
            );
            notes.push(note("lfs_pointers", message));
        }
    }
    notes
}

/// The first few of many names.
pub(crate) fn names(all: &[String]) -> String {
    let shown: Vec<String> = all
        .iter()
        .take(NAMES_SHOWN_MAX)
        .map(|name| name.chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect())
        .collect();
    let more = all.len().saturating_sub(NAMES_SHOWN_MAX);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// The start of a regular file.
fn start_of(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let file = open_regular(path).ok()?;
    let mut text = Vec::new();
    file.take(bytes_max).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Opens a regular file; not a link, and without waiting for the other end of a pipe.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::other("not a regular file"))
    }
}

/// What a local source has not committed, in words. `scratch` must not exist.
pub(crate) async fn uncommitted_note(
    inner: &Inner,
    source: &Path,
    scratch: &Path,
    mirror: &Path,
    commit: &str,
) -> Option<Note> {
    if !source.join(".git/index").is_file() {
        return None;
    }
    match uncommitted(inner, source, scratch, mirror, commit).await {
        Ok(0) => None,
        Ok(count) => {
            let message = format!(
                "{count} uncommitted files in {} are not part of the work. Commit them to include them.",
                source.display()
            );
            Some(note("uncommitted_changes", message))
        }
        Err(error) => {
            tracing::debug!(%error, "uncommitted changes of a local source could not be counted");
            None
        }
    }
}

/// Counts uncommitted files of a local source without running git in it: its own settings could name programs. A repository of
/// ours looks at its files with a copy of its index. `scratch` must not exist.
async fn uncommitted(
    inner: &Inner,
    source: &Path,
    scratch: &Path,
    mirror: &Path,
    commit: &str,
) -> Result<usize, PrepareError> {
    let io = |source| PrepareError::Io { what: "looking at the local repository", source };
    let objects = mirror.join("objects");
    let git_dir =
        GitDir { commit, head: None, refs: &[], borrows: &[&objects], shallow: None, settings: "" };
    git_dir.write(scratch, false).map_err(io)?;
    let index = open_regular(&source.join(".git/index")).map_err(io)?;
    let mut copy = File::create(scratch.join("index")).map_err(io)?;
    std::io::copy(&mut index.take(INDEX_BYTES_MAX), &mut copy).map_err(io)?;
    let excludes = source.join(".git/info/exclude");
    let result = inner
        .git
        .run("status")
        .args([
            "--porcelain",
            "-z",
            "--no-renames",
            "--untracked-files=normal",
            "--ignore-submodules=all",
        ])
        .git_dir(scratch)
        .env("GIT_WORK_TREE", source)
        .dir(source)
        .setting("core.excludesFile", &excludes.to_string_lossy())
        .seconds(20)
        .output()
        .await;
    let _ = std::fs::remove_dir_all(scratch);
    Ok(result?.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).count())
}
