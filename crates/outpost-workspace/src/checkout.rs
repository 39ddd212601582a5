//! The files of a commit, made once and then shared by all who start from it.
//!
//! A checkout is `checkouts/<key>/{tree/, facts.json}`: `tree` is a repository whose objects are borrowed from the mirror, owned
//! by the agent's user, and never written again; an overlay puts a layer for each run above it. `facts.json` is written last, and
//! is looked at before a checkout is given out. Its files lie in the page cache only: after another start of the host it is
//! made anew. Bounded: facts, the lists in them, and how many are kept in memory. Deliberately
//! absent: a look at all of its files when it is taken, which would cost what it saves.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Entry, Kind, digest};
use crate::inspect::{self, Tree, open_regular};
use crate::start::Base;
use crate::{Inner, Note, PrepareError, index, prepare};

/// Version of what a checkout is; another one is another key.
const VERSION: u32 = 1;
const FACTS: &str = "facts.json";
const TREE: &str = "tree";
/// Largest `facts.json`, bytes: the names of a tree within bounds, as JSON in the worst case.
const FACTS_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Facts that are kept in memory, checkouts.
const FACTS_KEPT_MAX: usize = 16;
/// How far before the index the files' time is, seconds; git compares whole ones.
const BEFORE_SECONDS: u64 = 2;

/// What is known of a checkout.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Facts {
    version: u32,
    key: String,
    boot: String,
    /// Bytes and time of the index, seconds: git writes nothing else last.
    index: (u64, i64),
    pub(crate) notes: Vec<Note>,
    /// Tracked files, and the size of each in bytes.
    pub(crate) files: Vec<String>,
    pub(crate) sizes: Vec<u64>,
}

/// One that may be used.
#[derive(Debug)]
pub(crate) struct Checkout {
    pub(crate) key: String,
    pub(crate) tree: PathBuf,
    pub(crate) facts: Arc<Facts>,
}

/// What the cache has of one.
#[derive(Debug)]
pub(crate) enum Found {
    Here(Checkout),
    Missing,
    /// There was one, and it is out of the way.
    Damaged,
}

/// Inode and time of a file of facts.
type FileId = (u64, i64, i64);

/// Facts of checkouts that were read lately.
#[derive(Debug, Default)]
pub(crate) struct Known {
    latest: Mutex<VecDeque<(FileId, Arc<Facts>)>>,
}

/// What one is made of. `branch` is the source's, if it is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) shown: &'a str,
    pub(crate) commit: &'a str,
    pub(crate) branch: Option<&'a str>,
    pub(crate) owner: Option<(u32, u32)>,
}

impl Want<'_> {
    /// The place of the cache is part of it, as its mirrors are named in the checkout.
    pub(crate) fn key(&self, cache: &Cache) -> String {
        let owner = self.owner.map(|(uid, gid)| format!("{uid}:{gid}")).unwrap_or_default();
        let place = cache.dir.to_string_lossy();
        let version = format!("checkout {VERSION}");
        let branch = self.branch.map(|name| format!("={name}")).unwrap_or_default();
        let parts =
            [&version, &*place, self.tenant, self.shown, self.commit, branch.as_str(), &owner];
        digest(parts.map(str::as_bytes))
    }
}

fn entry(key: &str) -> Entry {
    Entry { kind: Kind::Checkout, key: key.to_owned() }
}

fn io(source: io::Error) -> PrepareError {
    PrepareError::Io { what: "making the checkout", source }
}

/// Takes a checkout for `holder`, which exists. Asks and starts nobody.
pub(crate) async fn take(
    inner: &Inner,
    key: &str,
    mirror: &Path,
    holder: &Path,
    shown: &str,
) -> Result<Found, PrepareError> {
    if !inner.cache.path(&entry(key)).is_dir() {
        return Ok(Found::Missing);
    }
    let _lock = inner.cache.lock(key, shown).await?;
    take_locked(inner, key, mirror, holder).map_err(io)
}

fn take_locked(inner: &Inner, key: &str, mirror: &Path, holder: &Path) -> io::Result<Found> {
    let (cache, entry) = (&inner.cache, entry(key));
    let dir = cache.path(&entry);
    cache.leases.hold(key, holder)?;
    let found = match look(inner, key, &dir, mirror) {
        Ok(facts) => {
            Cache::touch(&dir);
            Cache::touch(mirror);
            return Ok(Found::Here(Checkout { key: key.to_owned(), tree: dir.join(TREE), facts }));
        }
        Err(Flaw::Missing) => Found::Missing,
        Err(Flaw::Damaged) => Found::Damaged,
    };
    cache.leases.release(key, holder);
    if dir.exists() {
        cache.set_aside(&entry)?;
    }
    Ok(found)
}

enum Flaw {
    /// It is not there, or may be incomplete for a reason that is no fault.
    Missing,
    Damaged,
}

/// Checks what can be checked in no time.
fn look(inner: &Inner, key: &str, dir: &Path, mirror: &Path) -> Result<Arc<Facts>, Flaw> {
    if !dir.is_dir() {
        return Err(Flaw::Missing);
    }
    let facts = inner.known.read(&dir.join(FACTS)).map_err(|_| Flaw::Damaged)?;
    let index = std::fs::symlink_metadata(dir.join(TREE).join(".git/index"));
    let index = index.map_err(|_| Flaw::Damaged)?;
    let whole = facts.version == VERSION
        && facts.key == key
        && facts.files.len() == facts.sizes.len()
        && facts.index == (index.len(), index.mtime())
        && mirror.join("HEAD").is_file();
    if !whole {
        return Err(Flaw::Damaged);
    }
    if facts.boot != inner.cache.boot {
        return Err(Flaw::Missing);
    }
    Ok(facts)
}

impl Known {
    fn read(&self, path: &Path) -> io::Result<Arc<Facts>> {
        let file = open_regular(path)?;
        let meta = file.metadata()?;
        let id: FileId = (meta.ino(), meta.mtime(), meta.mtime_nsec());
        let latest = || self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, facts)) = latest().iter().find(|(known, _)| *known == id) {
            return Ok(Arc::clone(facts));
        }
        if meta.len() > FACTS_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut text = Vec::new();
        file.take(FACTS_BYTES_MAX).read_to_end(&mut text)?;
        let facts: Arc<Facts> = Arc::new(serde_json::from_slice(&text)?);
        let mut latest = latest();
        latest.push_front((id, Arc::clone(&facts)));
        latest.truncate(FACTS_KEPT_MAX);
        Ok(facts)
    }
}

/// Makes a checkout, unless somebody else just did, and takes it for `holder`.
pub(crate) async fn make(
    inner: &Inner,
    want: &Want<'_>,
    base: &Base,
    holder: &Path,
) -> Result<Checkout, PrepareError> {
    let (cache, key) = (&inner.cache, want.key(&inner.cache));
    let _lock = cache.lock(&key, want.shown).await?;
    if let Found::Here(checkout) = take_locked(inner, &key, &base.mirror, holder).map_err(io)? {
        return Ok(checkout);
    }
    let scratch = cache.scratch(&key);
    let tree_dir = scratch.path().join(TREE);
    // The overlay is mounted with the rights of the agent's user.
    prepare::make_dir(scratch.path()).and_then(|()| prepare::make_dir(&tree_dir)).map_err(io)?;
    prepare::write_git_dir(&tree_dir, base).map_err(io)?;
    let (tree, ()) = tokio::try_join!(
        inspect::tree(inner, base, want.shown),
        prepare::check_out(inner, &tree_dir, base)
    )?;
    let (tree, notes, bytes) = settle(&tree_dir, tree, want).await?;
    rewrite_index(inner, &tree_dir, want.owner).await?;
    let index = std::fs::metadata(tree_dir.join(".git/index")).map_err(io)?;
    let facts = Facts {
        version: VERSION,
        key: key.clone(),
        boot: cache.boot.clone(),
        index: (index.len(), index.mtime()),
        notes,
        files: tree.files,
        sizes: tree.sizes,
    };
    let text = serde_json::to_vec(&facts).map_err(|error| io(error.into()))?;
    std::fs::write(scratch.path().join(FACTS), &text).map_err(io)?;
    cache.publish_whole(&scratch, &entry(&key), bytes + text.len() as u64).map_err(io)?;
    let mirror_key = Cache::key_of_mirror(&base.mirror);
    cache.leases.hold(&mirror_key, &cache.path(&entry(&key))).map_err(io)?;
    match take_locked(inner, &key, &base.mirror, holder).map_err(io)? {
        Found::Here(checkout) => Ok(checkout),
        _ => Err(io(io::Error::other("the checkout vanished while it was made"))),
    }
}

/// Everything that needs all files: notes, owner, times, size.
async fn settle(
    tree_dir: &Path,
    tree: Tree,
    want: &Want<'_>,
) -> Result<(Tree, Vec<Note>, u64), PrepareError> {
    let (dir, owner, id_bytes) = (tree_dir.to_owned(), want.owner, want.commit.len() / 2);
    let work = move || {
        let notes = inspect::notes(&tree, &dir);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let path = dir.join(".git/index");
        let mut index = std::fs::read(&path)?;
        let seconds = u32::try_from(now.as_secs().saturating_sub(BEFORE_SECONDS)).ok();
        let seconds = seconds.filter(|seconds| index::set_times(&mut index, *seconds, id_bytes));
        std::fs::write(&path, index)?;
        let bytes = settle_files(&dir, owner, seconds)?;
        Ok((tree, notes, bytes))
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|result| result).map_err(io)
}

/// Gives all files their owner, and the tracked ones one time; their bytes. `dir` is a checkout that nobody else has.
fn settle_files(dir: &Path, owner: Option<(u32, u32)>, seconds: Option<u32>) -> io::Result<u64> {
    let own = |path: &Path| match owner {
        Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
        None => Ok(()),
    };
    let times = seconds.map(|seconds| {
        let time = Timespec { tv_sec: i64::from(seconds), tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    });
    let git_dir = dir.join(".git");
    let mut bytes = 0;
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        own(&path)?;
        for entry in std::fs::read_dir(&path)? {
            let (path, meta) = {
                let entry = entry?;
                (entry.path(), entry.metadata()?)
            };
            bytes += meta.len();
            if meta.is_dir() {
                pending.push(path);
                continue;
            }
            own(&path)?;
            if let Some(times) = times.as_ref().filter(|_| !path.starts_with(&git_dir)) {
                utimensat(CWD, &path, times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    Ok(bytes)
}

/// Lets git write the index anew, with its checksum.
async fn rewrite_index(
    inner: &Inner,
    tree_dir: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), PrepareError> {
    let git_dir = tree_dir.join(".git");
    inner
        .git
        .run("update-index")
        .arg("--force-write-index")
        .git_dir(&git_dir)
        .env("GIT_WORK_TREE", tree_dir)
        .dir(tree_dir)
        .output()
        .await?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::lchown(git_dir.join("index"), Some(uid), Some(gid)).map_err(io)?;
    }
    Ok(())
}

/// The files of the checkout in a directory of the cache.
pub(crate) fn tree(dir: &Path) -> PathBuf {
    dir.join(TREE)
}

/// The facts of the checkout whose files are at `tree`.
pub(crate) fn files_of(inner: &Inner, tree: &Path) -> io::Result<Arc<Facts>> {
    inner.known.read(&tree.with_file_name(FACTS))
}
