//! What one store did to its disk, step by step, and what the disk does to it.
//!
//! A world records every change the file layer passes through, in one order over all threads and
//! files, together with the acknowledgements its harness notes. It can hold a thread before a change
//! (so that two threads meet in a chosen order) and make calls fail, lie or take long.
//!
//! Bounded by its workload, which is small: the steps hold every byte written. Deliberately absent:
//! what survives a cut, which is decided in `image`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a held thread or for what it waits for, seconds.
const GATE_SECONDS: u64 = 30;

/// Which of the store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The database.
    Database,
    /// Its write-ahead log.
    Log,
    /// Anything else SQLite opens by name.
    Other,
}

/// Calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Opening.
    Open,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Cutting off or extending.
    Truncate,
    /// Making durable.
    Sync,
}

/// What a call meets instead of success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No space: half of the bytes are written, then ENOSPC.
    Full,
    /// EIO. A failed sync drops or keeps what it should have written, sector by sector, and no later
    /// sync tries again: what Linux does.
    Io,
    /// EMFILE.
    Descriptors,
    /// Success, after this time.
    Slow(Duration),
    /// A sync that says yes and does nothing.
    Lie,
}

/// Trouble for some calls.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// For these calls.
    pub call: Call,
    /// For this file; `None` is any.
    pub file: Option<FileKind>,
    /// After so many such calls.
    pub skip: u64,
    /// So many times.
    pub times: u64,
    /// What happens.
    pub trouble: Trouble,
}

impl Fault {
    /// From now on, until the faults are lifted.
    #[must_use]
    pub const fn always(call: Call, file: FileKind, trouble: Trouble) -> Self {
        Self { call, file: Some(file), skip: 0, times: u64::MAX, trouble }
    }

    /// The next such call.
    #[must_use]
    pub const fn once(call: Call, file: FileKind, trouble: Trouble) -> Self {
        Self { call, file: Some(file), skip: 0, times: 1, trouble }
    }
}

/// A file by identity, not by name: a name may come to mean another one.
pub type FileId = usize;

/// One change of the disk, or a note of the harness.
#[derive(Debug, Clone)]
pub enum Step {
    /// A name came to mean this new, empty file.
    Create {
        /// The name.
        name: String,
        /// The file.
        file: FileId,
    },
    /// Bytes went to the page cache.
    Write {
        /// Where.
        file: FileId,
        /// From this byte on.
        offset: u64,
        /// Which.
        bytes: Vec<u8>,
    },
    /// The file has this many bytes now.
    Truncate {
        /// Which.
        file: FileId,
        /// New length.
        bytes: u64,
    },
    /// All earlier changes of the file are durable now.
    Sync {
        /// Which.
        file: FileId,
    },
    /// A sync failed; see [`Trouble::Io`].
    SyncFailed {
        /// Which.
        file: FileId,
    },
    /// All earlier changes of names are durable now.
    SyncNames,
    /// A name is gone.
    Delete {
        /// The name.
        name: String,
    },
}

/// What the disk held when the record began.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// Content by identity.
    pub files: Vec<Vec<u8>>,
    /// Identity by name.
    pub names: BTreeMap<String, FileId>,
}

#[derive(Debug)]
struct Gate {
    thread: &'static str,
    skip: u64,
    reached: bool,
}

#[derive(Debug, Default)]
struct Inner {
    base: Base,
    names: BTreeMap<String, FileId>,
    files: usize,
    steps: Vec<Step>,
    faults: Vec<Fault>,
    /// Troubles met so far.
    met: u64,
    gate: Option<Gate>,
}

/// One store's disk.
#[derive(Debug)]
pub struct World {
    directory: PathBuf,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl World {
    /// The disk below `directory`, with the files it holds.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn over(directory: &Path) -> anyhow::Result<Self> {
        let mut base = Base::default();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // The index of the log is memory, and the lock is not SQLite's.
            if name.ends_with("-shm") || name.ends_with(".lock") {
                continue;
            }
            base.names.insert(name, base.files.len());
            base.files.push(std::fs::read(entry.path())?);
        }
        let names = base.names.clone();
        let files = base.files.len();
        let inner = Inner { base, names, files, ..Inner::default() };
        Ok(Self {
            directory: directory.canonicalize()?,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        })
    }

    /// Where the files really are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many steps were taken: the position of a note or a cut.
    #[must_use]
    pub fn position(&self) -> usize {
        self.lock().steps.len()
    }

    /// The record so far.
    #[must_use]
    pub fn record(&self) -> (Base, Vec<Step>) {
        let inner = self.lock();
        (inner.base.clone(), inner.steps.clone())
    }

    /// From now on these troubles.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.lock().faults = faults;
    }

    /// Troubles met since the beginning.
    #[must_use]
    pub fn troubles_met(&self) -> u64 {
        self.lock().met
    }

    /// Holds the thread of this name before its change number `skip` (from 0) from now.
    pub fn hold(&self, thread: &'static str, skip: u64) {
        self.lock().gate = Some(Gate { thread, skip, reached: false });
    }

    /// Whether the thread is held now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.lock().gate.as_ref().is_some_and(|gate| gate.reached)
    }

    /// Lets go whoever is held.
    pub fn release(&self) {
        self.lock().gate = None;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called before every change: waits while the calling thread is held.
    pub(crate) fn pass_gate(&self) {
        let mut inner = self.lock();
        let Some(gate) = inner.gate.as_mut() else {
            return;
        };
        if std::thread::current().name() != Some(gate.thread) {
            return;
        }
        if gate.skip > 0 {
            gate.skip -= 1;
            return;
        }
        gate.reached = true;
        let deadline = Instant::now() + Duration::from_secs(GATE_SECONDS);
        while inner.gate.is_some() && Instant::now() < deadline {
            let wait = Duration::from_millis(100);
            let woken = self.changed.wait_timeout(inner, wait);
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What this call meets, if anything.
    pub(crate) fn trouble(&self, call: Call, kind: FileKind) -> Option<Trouble> {
        let mut inner = self.lock();
        let mut met = None;
        for fault in &mut inner.faults {
            if fault.call != call || fault.file.is_some_and(|file| file != kind) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                met = Some(fault.trouble);
                break;
            }
        }
        inner.met += u64::from(met.is_some());
        met
    }

    /// A file was opened by name. `existed`: it was there before.
    pub(crate) fn opened(&self, name: &str, existed: bool) -> FileId {
        let mut inner = self.lock();
        if let Some(file) = inner.names.get(name) {
            return *file;
        }
        let file = inner.files;
        inner.files += 1;
        inner.names.insert(name.to_owned(), file);
        inner.steps.push(Step::Create { name: name.to_owned(), file });
        if existed {
            // Made by the store itself, which syncs the directory before SQLite opens the file.
            inner.steps.push(Step::SyncNames);
        }
        file
    }

    /// Changes the real file and notes it, as one.
    pub(crate) fn change<T>(&self, change: impl FnOnce() -> (T, Option<Step>)) -> T {
        let mut inner = self.lock();
        let (answer, step) = change();
        if let Some(step) = step {
            if let Step::Delete { name } = &step {
                inner.names.remove(name);
            }
            inner.steps.push(step);
        }
        answer
    }

    /// A note without a change of the real file.
    pub(crate) fn note(&self, step: Step) {
        self.lock().steps.push(step);
    }
}
