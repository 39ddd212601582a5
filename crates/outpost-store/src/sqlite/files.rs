//! The data directory: who may read it, and that only one process has it open.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::StoreError;
use crate::sqlite::log;

/// Name of the database in its directory.
pub const DATABASE_FILE: &str = "outpost.db";
/// Name SQLite gives the write-ahead log.
const LOG_FILE: &str = "outpost.db-wal";
const LOCK_FILE: &str = "outpost.lock";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
/// A process id needs no more, bytes.
const PID_BYTES_MAX: u64 = 16;

/// Holds the directory until dropped; the kernel frees it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that was forked and has not yet become its program
        // still holds a copy of the descriptor, and with it the lock.
        if let Err(errno) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%errno, "the data directory could not be unlocked");
        }
    }
}

/// Makes the directory (0700) or checks the one that is there. Returns it without symbolic links.
pub(crate) fn prepare_directory(path: &Path) -> Result<PathBuf, StoreError> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(StoreError::io)?;
    let path = path.canonicalize().map_err(StoreError::io)?;
    let mode = path.metadata().map_err(StoreError::io)?.mode();
    if mode & GROUP_OR_OTHERS_WRITE != 0 {
        return Err(StoreError::UnsafeDirectory { path });
    }
    Ok(path)
}

/// Takes the directory for this process, or says which one has it.
pub(crate) fn lock(directory: &Path) -> Result<DirectoryLock, StoreError> {
    let mut file = open_private(&directory.join(LOCK_FILE))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The holder may not have written it yet; the answer does not depend on it.
            let read = file.take(PID_BYTES_MAX).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(StoreError::AlreadyOpen { pid });
        }
        Err(errno) => return Err(StoreError::io(errno.into())),
    }
    file.set_len(0).map_err(StoreError::io)?;
    file.rewind().map_err(StoreError::io)?;
    writeln!(file, "{}", std::process::id()).map_err(StoreError::io)?;
    Ok(DirectoryLock { file })
}

/// Makes the database file with its mode before SQLite opens it; its log and index take the mode
/// over. The new name is synced, so that a power cut cannot lose the file after the first answer.
pub(crate) fn prepare_database(directory: &Path) -> Result<PathBuf, StoreError> {
    let path = directory.join(DATABASE_FILE);
    let bytes = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    if bytes(&path) == 0 && bytes(&directory.join(LOG_FILE)) > 0 {
        // SQLite would throw the log away and start empty.
        return Err(StoreError::corrupt("the file is gone but its log is there"));
    }
    log::check(&directory.join(LOG_FILE))?;
    open_private(&path)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(StoreError::io)?;
    Ok(path)
}

/// Makes the file of a copy with its mode before SQLite fills it. It must be new.
pub(crate) fn prepare_copy(path: &Path) -> Result<(), StoreError> {
    if path.symlink_metadata().is_ok() {
        return Err(StoreError::invalid("path", "there is a file already"));
    }
    open_private(path).map(drop)
}

fn open_private(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(StoreError::io)?;
    let mode = file.metadata().map_err(StoreError::io)?.mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(StoreError::io)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        // What a process just forked has.
        let copy = held.file.try_clone().unwrap();
        lock(directory.path()).unwrap_err();
        drop(held);
        lock(directory.path()).unwrap();
        drop(copy);
    }
}
