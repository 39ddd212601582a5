//! The cache on disk: where its entries are, who may touch them, how they appear and go.
//!
//! A mirror is a bare repository per tenant and source. It appears by one rename and only ever gains objects: checkouts borrow
//! them, so nothing is pruned and refs that vanish upstream lose only their name. Checkouts and snapshots appear by one rename,
//! too, and are never written again. Whoever changes an entry holds its lock, which is a mutex in this process and a file lock
//! between processes; whoever uses one has a lease ([`Leases`]). Bounded: the wait for a lock, the number of packs, the bytes of
//! all entries together (see `evict`). Deliberately absent: what the entries mean.

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
use crate::lease::Leases;
use crate::remove::remove_tree;
use crate::{OpenError, PrepareError};

/// Longest wait for another fetch of the same mirror, seconds: the longest clone of a repository within bounds.
pub(crate) const LOCK_SECONDS_MAX: u64 = 900;
/// Pause between two looks at a file lock that another process holds, milliseconds.
const LOCK_LOOK_MILLIS: u64 = 50;
/// Packs a mirror may gather before they are joined: each costs every lookup of an object.
const PACKS_MAX: usize = 40;
/// File in an entry whose time says when it was last used; in entries that never change it holds their bytes.
const USED: &str = "outpost-used";
/// Where the kernel tells which start of the host this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Key of short-lived directories that no lock guards.
pub(crate) const UNLOCKED: &str = "trust";
/// Deepest directory that [`disk_bytes`] looks into, levels; a bare repository with long branch names stays far below.
const DEPTH_MAX: usize = 64;

/// What the cache keeps.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    /// A bare repository of a tenant's source.
    Mirror,
    /// The files of one commit.
    Checkout,
    /// What setup commands left.
    Snapshot,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Mirror, Self::Checkout, Self::Snapshot];

    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Mirror => "mirrors",
            Self::Checkout => "checkouts",
            Self::Snapshot => "snapshots",
        }
    }
}

/// One thing of the cache. Its key is a hash, which no other kind has.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) key: String,
}

/// The cache directory of one server.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) dir: PathBuf,
    /// Bytes of each entry, as counted when it was made or the cache was opened.
    pub(crate) sizes: Mutex<HashMap<Entry, u64>>,
    /// Bound on all of them together, bytes.
    pub(crate) bytes_max: u64,
    pub(crate) leases: Leases,
    /// Which start of the host this is: what was written before another one may be incomplete.
    pub(crate) boot: String,
    /// Held by the one who makes room.
    pub(crate) evicting: tokio::sync::Mutex<()>,
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    serial: AtomicU64,
}

/// The right to change one entry.
#[derive(Debug)]
pub(crate) struct EntryLock {
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
            tracing::warn!(%error, "a part of the repository cache could not be removed; the next start tries again");
        }
    }
}

impl Cache {
    /// Makes the directories, removes what a crash left half made, unless another process is still at it, and counts.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> Result<Self, OpenError> {
        let cannot = |source| OpenError::Cache { path: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
        let dir = dir.canonicalize().map_err(cannot)?;
        let kinds = Kind::ALL.map(Kind::folder);
        for name in ["tmp", "aside", "locks", "leases", "home"].into_iter().chain(kinds) {
            std::fs::create_dir_all(dir.join(name)).map_err(cannot)?;
        }
        let cache = Self {
            leases: Leases::new(dir.join("leases")),
            dir,
            sizes: Mutex::default(),
            bytes_max,
            boot: std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            evicting: tokio::sync::Mutex::default(),
            locks: Mutex::default(),
            serial: AtomicU64::new(0),
        };
        cache.clear_tmp().map_err(cannot)?;
        cache.recount().map_err(cannot)?;
        Ok(cache)
    }

    /// The name of the mirror of a source: nothing of the tenant or the address can be read from it or steer it.
    pub(crate) fn key(tenant: &str, source: &str) -> String {
        let mut hash = Sha256::new();
        hash.update((tenant.len() as u64).to_le_bytes());
        hash.update(tenant.as_bytes());
        hash.update(source.as_bytes());
        hex(&hash.finalize())
    }

    /// The key of a mirror, by its directory.
    pub(crate) fn key_of_mirror(mirror: &Path) -> String {
        mirror.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn path(&self, entry: &Entry) -> PathBuf {
        match entry.kind {
            Kind::Mirror => self.mirror(&entry.key),
            kind => self.dir.join(kind.folder()).join(&entry.key),
        }
    }

    /// An empty directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    pub(crate) fn mirror(&self, key: &str) -> PathBuf {
        self.dir.join("mirrors").join(format!("{key}.git"))
    }

    /// A name below `tmp` for making the entry `key`; the caller holds its lock.
    pub(crate) fn scratch(&self, key: &str) -> Scratch {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        Scratch(self.dir.join("tmp").join(format!("{key}.{}.{serial}", std::process::id())))
    }

    /// Waits for the right to change an entry.
    pub(crate) async fn lock(&self, key: &str, repo: &str) -> Result<EntryLock, PrepareError> {
        let busy = || PrepareError::Busy { repo: repo.to_owned() };
        let limit = Duration::from_secs(LOCK_SECONDS_MAX);
        let start = Instant::now();
        let waiting = self.mutex(key).lock_owned();
        let guard = tokio::time::timeout(limit, waiting).await.map_err(|_| busy())?;
        let io = |source| PrepareError::Io { what: "locking the repository cache", source };
        let file = File::create(self.lock_path(key)).map_err(io)?;
        while start.elapsed() < limit {
            match file.try_lock() {
                Ok(()) => return Ok(EntryLock { _file: file, _guard: guard }),
                Err(TryLockError::WouldBlock) => {
                    tokio::time::sleep(Duration::from_millis(LOCK_LOOK_MILLIS)).await
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        Err(busy())
    }

    /// The right to change an entry, if nobody else has it.
    pub(crate) fn try_lock(&self, key: &str) -> Option<EntryLock> {
        let guard = self.mutex(key).try_lock_owned().ok()?;
        let file = File::create(self.lock_path(key)).ok()?;
        file.try_lock().ok()?;
        Some(EntryLock { _file: file, _guard: guard })
    }

    fn mutex(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mutex) = locks.get(key).and_then(Weak::upgrade) {
            return mutex;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let mutex = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(key.to_owned(), Arc::downgrade(&mutex));
        mutex
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
        let entry = Entry { kind: Kind::Mirror, key: key.to_owned() };
        let mirror = self.path(&entry);
        File::create(scratch.path().join(USED))?;
        std::fs::rename(scratch.path(), &mirror)?;
        self.weigh(key);
        Ok(mirror)
    }

    /// Lets an entry appear that never changes again. `bytes` is what it takes on disk.
    pub(crate) fn publish_whole(
        &self,
        scratch: &Scratch,
        entry: &Entry,
        bytes: u64,
    ) -> io::Result<()> {
        std::fs::write(scratch.path().join(USED), format!("{bytes}\n"))?;
        std::fs::rename(scratch.path(), self.path(entry))?;
        self.count(entry.clone(), bytes);
        Ok(())
    }

    /// Counts a mirror again, which has few files, after it has grown.
    pub(crate) fn weigh(&self, key: &str) {
        let entry = Entry { kind: Kind::Mirror, key: key.to_owned() };
        let bytes = disk_bytes(&self.path(&entry));
        self.count(entry, bytes);
    }

    fn count(&self, entry: Entry, bytes: u64) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(entry, bytes);
    }

    /// Counts all entries: mirrors by looking, the others by what was counted when they were made.
    fn recount(&self) -> io::Result<()> {
        for kind in Kind::ALL {
            for file in std::fs::read_dir(self.dir.join(kind.folder()))? {
                let file = file?;
                let name = file.file_name().to_string_lossy().into_owned();
                let key = name.strip_suffix(".git").unwrap_or(&name).to_owned();
                let noted = std::fs::read_to_string(file.path().join(USED)).unwrap_or_default();
                let bytes = match noted.trim().parse() {
                    Ok(bytes) if kind != Kind::Mirror => bytes,
                    _ => disk_bytes(&file.path()),
                };
                self.count(Entry { kind, key }, bytes);
            }
        }
        Ok(())
    }

    /// Puts a damaged entry where nobody finds it. What is in use stays on disk until nobody uses it. The caller holds its lock.
    pub(crate) fn set_aside(&self, entry: &Entry) -> io::Result<()> {
        tracing::warn!(?entry, "an entry of the repository cache is damaged; it is made anew");
        let scratch = self.scratch(&entry.key);
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).remove(entry);
        if self.leases.is_held(&entry.key) {
            let name = scratch.path().file_name().unwrap_or_default();
            return std::fs::rename(self.path(entry), self.dir.join("aside").join(name));
        }
        std::fs::rename(self.path(entry), scratch.path())
    }

    /// Notes that an entry is in use now.
    pub(crate) fn touch(entry: &Path) {
        let used = File::options().write(true).create(true).truncate(false).open(entry.join(USED));
        // An entry that cannot be marked goes early at worst, and is then made again.
        let _ = used.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// When it was last used.
    pub(crate) fn used(entry: &Path) -> SystemTime {
        let used = std::fs::metadata(entry.join(USED)).and_then(|meta| meta.modified());
        used.unwrap_or(SystemTime::UNIX_EPOCH)
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

/// A short name of some parts: nobody can steer it or read them from it.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// The first half of a hash, which is enough for a name.
fn hex(hash: &[u8]) -> String {
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
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

/// Bytes of the files below a directory, as long as they are; what vanishes while it looks counts nothing.
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
