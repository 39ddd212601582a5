//! The mirrors on disk: where they are, who may touch them, how they appear and go.
//!
//! A mirror is a bare repository per tenant and source. It appears by one rename and only ever gains objects: checkouts borrow
//! them, so nothing is pruned and refs that vanish upstream lose only their name. Whoever changes a mirror holds its lock, which
//! is a mutex in this process and a file lock between processes. Bounded: the wait for a lock, the number of packs. Deliberately
//! absent: a quota over all mirrors; [`Cache::sweep`] drops the idle ones.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::git::{Git, GitError};
use crate::remove::remove_tree;
use crate::{OpenError, PrepareError};

/// Longest wait for another fetch of the same mirror, seconds: the longest clone of a repository within bounds.
pub(crate) const LOCK_SECONDS_MAX: u64 = 900;
/// Pause between two looks at a file lock that another process holds, milliseconds.
const LOCK_LOOK_MILLIS: u64 = 50;
/// Packs a mirror may gather before they are joined: each costs every lookup of an object.
const PACKS_MAX: usize = 40;
/// Shortest idle time of a mirror before it may go, seconds: twice the longest dispatch, which may borrow from it.
const IDLE_SECONDS_MIN: u64 = 2 * 86_400;
/// File in a mirror whose time says when it was last used.
const USED: &str = "outpost-used";
/// Key of short-lived directories that no lock guards.
pub(crate) const UNLOCKED: &str = "trust";
/// Deepest directory that [`disk_bytes`] looks into, levels; a bare repository with long branch names stays far below.
const DEPTH_MAX: usize = 64;

/// The cache directory of one server.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    serial: AtomicU64,
}

/// The right to change one mirror.
#[derive(Debug)]
pub(crate) struct MirrorLock {
    _file: File,
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

/// A directory below `tmp` that goes when this is dropped, unless it was renamed away.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = remove_tree(&self.0)
        {
            tracing::warn!(%error, "a half made mirror could not be removed; the next start tries again");
        }
    }
}

impl Cache {
    /// Makes the directories and removes what a crash left half made, unless another process is still at it.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let cannot = |source| OpenError::Cache { path: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
        let dir = dir.canonicalize().map_err(cannot)?;
        for name in ["mirrors", "tmp", "locks", "home"] {
            std::fs::create_dir_all(dir.join(name)).map_err(cannot)?;
        }
        let cache = Self { dir, locks: Mutex::default(), serial: AtomicU64::new(0) };
        cache.clear_tmp().map_err(cannot)?;
        Ok(cache)
    }

    /// The name of the mirror of a source: nothing of the tenant or the address can be read from it or steer it.
    pub(crate) fn key(tenant: &str, source: &str) -> String {
        let mut hash = Sha256::new();
        hash.update((tenant.len() as u64).to_le_bytes());
        hash.update(tenant.as_bytes());
        hash.update(source.as_bytes());
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// An empty directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    pub(crate) fn mirror(&self, key: &str) -> PathBuf {
        self.dir.join("mirrors").join(format!("{key}.git"))
    }

    /// A name below `tmp` for making the mirror `key`; the caller holds its lock.
    pub(crate) fn scratch(&self, key: &str) -> Scratch {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        Scratch(self.dir.join("tmp").join(format!("{key}.{}.{serial}", std::process::id())))
    }

    /// Waits for the right to change a mirror.
    pub(crate) async fn lock(&self, key: &str, repo: &str) -> Result<MirrorLock, PrepareError> {
        let busy = || PrepareError::Busy { repo: repo.to_owned() };
        let mutex = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(key).and_then(Weak::upgrade) {
                Some(mutex) => mutex,
                None => {
                    let mutex = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(key.to_owned(), Arc::downgrade(&mutex));
                    mutex
                }
            }
        };
        let limit = Duration::from_secs(LOCK_SECONDS_MAX);
        let start = Instant::now();
        let guard = tokio::time::timeout(limit, mutex.lock_owned()).await.map_err(|_| busy())?;
        let io = |source| PrepareError::Io { what: "locking the repository cache", source };
        let file = File::create(self.lock_path(key)).map_err(io)?;
        while start.elapsed() < limit {
            match file.try_lock() {
                Ok(()) => return Ok(MirrorLock { _file: file, _guard: guard }),
                Err(TryLockError::WouldBlock) => {
                    tokio::time::sleep(Duration::from_millis(LOCK_LOOK_MILLIS)).await
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        Err(busy())
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.dir.join("locks").join(key)
    }

    /// Lets a finished mirror appear. Its files become readable for the agent's user, whom only the sandbox lets in.
    pub(crate) fn publish(&self, scratch: &Scratch, key: &str) -> io::Result<PathBuf> {
        let mut pending = vec![scratch.path().to_owned()];
        while let Some(path) = pending.pop() {
            // A server with a strict umask makes even a shared repository's first directories private.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            for entry in std::fs::read_dir(&path)? {
                let entry = entry?;
                let mode = entry.metadata()?.permissions().mode();
                if entry.file_type()?.is_dir() {
                    pending.push(entry.path());
                } else {
                    std::fs::set_permissions(
                        entry.path(),
                        std::fs::Permissions::from_mode(mode | 0o444),
                    )?;
                }
            }
        }
        File::create(scratch.path().join(USED))?;
        let mirror = self.mirror(key);
        std::fs::rename(scratch.path(), &mirror)?;
        Ok(mirror)
    }

    /// Notes that a mirror is in use now.
    pub(crate) fn touch(mirror: &Path) {
        // A mirror that cannot be marked is swept early at worst, and then fetched again.
        let _ = File::create(mirror.join(USED));
    }

    /// Removes what a killed git leaves in a mirror: its lock files would fail every later fetch. The caller holds the lock.
    pub(crate) fn clear_stale(mirror: &Path) {
        clear_named(&mirror.join("objects/pack"), 1, &|name| {
            name.starts_with("tmp_") || name.starts_with(".tmp-")
        });
        clear_named(mirror, 1, &|name| name.ends_with(".lock"));
        clear_named(&mirror.join("refs"), DEPTH_MAX, &|name| name.ends_with(".lock"));
    }

    /// Joins packs when there are many. Objects never get lost by it, so borrowers go on reading. The caller holds the lock.
    pub(crate) async fn join_packs(git: &Git, mirror: &Path) -> Result<(), GitError> {
        let packs = std::fs::read_dir(mirror.join("objects/pack")).map_or(0, |entries| {
            entries
                .flatten()
                .filter(|entry| entry.path().extension().is_some_and(|end| end == "pack"))
                .count()
        });
        if packs <= PACKS_MAX {
            return Ok(());
        }
        git.run("repack")
            .args(["-d", "-q", "--geometric=2"])
            .git_dir(mirror)
            .seconds(600)
            .output()
            .await
            .map(drop)
    }

    /// See [`crate::Workspaces::sweep_cache`].
    pub(crate) async fn sweep(&self, idle_seconds: u64) -> usize {
        let idle = Duration::from_secs(idle_seconds.max(IDLE_SECONDS_MIN));
        let mut dropped = 0;
        let Ok(entries) = std::fs::read_dir(self.dir.join("mirrors")) else { return 0 };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(key) = name.strip_suffix(".git") else { continue };
            if !is_idle(&entry.path(), idle) {
                continue;
            }
            let Ok(_lock) = self.lock(key, key).await else { continue };
            // Looked at again under the lock: somebody may have come for it meanwhile.
            let scratch = self.scratch(key);
            if is_idle(&entry.path(), idle) && std::fs::rename(entry.path(), scratch.path()).is_ok()
            {
                dropped += 1;
                let _ = tokio::task::spawn_blocking(move || drop(scratch)).await;
            }
        }
        dropped
    }

    fn clear_tmp(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.dir.join("tmp"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let key = name.split('.').next().unwrap_or_default();
            if key == UNLOCKED && is_younger(&entry.path(), Duration::from_secs(LOCK_SECONDS_MAX)) {
                continue;
            }
            let lock = File::create(self.lock_path(key))?;
            if lock.try_lock().is_ok() {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Whether a directory was made that recently; a clock that went back makes it old.
fn is_younger(dir: &Path, age: Duration) -> bool {
    let made = std::fs::symlink_metadata(dir).and_then(|meta| meta.modified());
    made.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|passed| passed < age))
}

/// Whether a mirror was not used for so long.
fn is_idle(mirror: &Path, idle: Duration) -> bool {
    let used = std::fs::metadata(mirror.join(USED)).and_then(|meta| meta.modified());
    used.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age >= idle))
}

/// Removes files by name, down to a depth.
fn clear_named(dir: &Path, depth: usize, stale: &dyn Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 1 {
            clear_named(&entry.path(), depth - 1, stale);
        } else if kind.is_file() && stale(&entry.file_name().to_string_lossy()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Bytes of the files below a directory; what vanishes while it looks counts nothing.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    fn sum(dir: &Path, depth: usize) -> u64 {
        let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
        let mut bytes = 0;
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() && depth > 1 {
                bytes += sum(&entry.path(), depth - 1);
            } else {
                bytes += meta.len();
            }
        }
        bytes
    }
    sum(dir, DEPTH_MAX)
}
