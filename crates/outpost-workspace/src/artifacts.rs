//! Taking files out of a directory an agent wrote.
//!
//! Names are opened one by one from directory descriptors, never through a link, never across a mount, and never waiting (a pipe).
//! Bounded: number, depth, names and bytes. What breaks a bound is left out and told. Deliberately absent: modes and times of the
//! originals; a kept file is a plain file of this process.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::Note;
use crate::inspect::names;
use crate::remote::note;

/// Files kept of one dispatch.
const FILES_MAX: usize = 1000;
/// Entries looked at, of any kind.
const ENTRIES_MAX: usize = 20_000;
/// Levels of directories below `artifacts/`.
const DEPTH_MAX: usize = 8;
/// Longest name, with its directories, bytes.
const NAME_BYTES_MAX: usize = 512;
/// Largest file and all files together, bytes.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;
const TOTAL_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Names of files left out that are remembered for the note.
const LEFT_OUT_MAX: usize = 1000;

/// What was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// (name relative to the kept directory, bytes), sorted.
    pub(crate) files: Vec<(String, u64)>,
    left_out: Vec<String>,
    entries: usize,
    bytes: u64,
}

/// Opens a regular file below a trusted directory through names that may be anything but links. `bytes_max` bounds its size.
pub(crate) fn open_below(dir: &Path, name: &str, bytes_max: u64) -> io::Result<File> {
    let root = open_root(dir)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat2(&root, name, flags, Mode::empty(), sealed())?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if meta.len() > bytes_max {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(file)
}

fn sealed() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

fn open_root(dir: &Path) -> io::Result<OwnedFd> {
    Ok(openat(
        CWD,
        dir,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Copies the regular files of `<workspace>/artifacts` to `<kept>/artifacts`, which is replaced.
pub(crate) fn keep(workspace: &Path, kept_dir: &Path) -> io::Result<(Kept, Vec<Note>)> {
    let target = kept_dir.join("artifacts");
    crate::remove::remove_tree(&target)?;
    let mut kept = Kept::default();
    let root = open_root(workspace)?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut notes = Vec::new();
    match openat2(&root, "artifacts", flags, Mode::empty(), sealed()) {
        Ok(dir) => kept.walk(dir.as_fd(), "artifacts", 1, kept_dir)?,
        Err(error) => {
            tracing::debug!(%error, "no artifacts directory");
            notes.push(note("artifacts_gone", "The agent removed or replaced the artifacts directory, or locked it. Nothing of it is kept.".to_owned()));
        }
    }
    kept.files.sort();
    if !kept.left_out.is_empty() {
        let message = format!(
            "Some entries of artifacts are not kept, because they are links or special files, unreadable, oddly named, too many, too deep, or too large: {}.",
            names(&kept.left_out)
        );
        notes.push(note("artifacts_left_out", message));
    }
    Ok((kept, notes))
}

impl Kept {
    fn leave_out(&mut self, name: String) {
        if self.left_out.len() < LEFT_OUT_MAX {
            self.left_out.push(name);
        }
    }

    fn walk(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &str,
        depth: usize,
        kept_dir: &Path,
    ) -> io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let Ok(entry) = entry else { break };
            let raw = entry.file_name();
            if raw == c"." || raw == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                self.leave_out(format!("{path}/..."));
                return Ok(());
            }
            let Some(name) = plain(raw) else {
                self.leave_out(format!("{path}/{}", raw.to_string_lossy()));
                continue;
            };
            let full = format!("{path}/{name}");
            let fits = full.len() <= NAME_BYTES_MAX;
            match entry.file_type() {
                FileType::Directory if fits && depth < DEPTH_MAX => {
                    let flags =
                        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match openat2(dir, raw, flags, Mode::empty(), sealed()) {
                        Ok(below) => self.walk(below.as_fd(), &full, depth + 1, kept_dir)?,
                        Err(_) => self.leave_out(full),
                    }
                }
                FileType::RegularFile if fits && self.files.len() < FILES_MAX => {
                    self.copy(dir, raw, full, kept_dir)?
                }
                _ => self.leave_out(full),
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        dir: BorrowedFd<'_>,
        raw: &CStr,
        full: String,
        kept_dir: &Path,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat2(dir, raw, flags, Mode::empty(), sealed()).map(File::from) else {
            self.leave_out(full);
            return Ok(());
        };
        let meta = file.metadata()?;
        let room = FILE_BYTES_MAX.min(TOTAL_BYTES_MAX.saturating_sub(self.bytes));
        if !meta.is_file() || meta.len() > room {
            self.leave_out(full);
            return Ok(());
        }
        let target = kept_dir.join(&full);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut copy =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        let bytes = io::copy(&mut file.take(room), &mut copy)?;
        self.bytes += bytes;
        self.files.push((full, bytes));
        Ok(())
    }
}

/// A name that can stand in an address and in a list: UTF-8 without control characters, and without a
/// backslash, which is another slash to some readers, so that no server gives such a file out.
pub(crate) fn plain(name: &CStr) -> Option<&str> {
    name.to_str().ok().filter(|name| !name.contains(|c: char| c.is_control() || c == '\\'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{keep, open_below};

    #[test]
    fn only_regular_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (work, kept) = (dir.path().join("work"), dir.path().join("kept"));
        std::fs::create_dir_all(work.join("artifacts/a/b")).unwrap();
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::write(work.join("artifacts/report ü.txt"), "hello").unwrap();
        std::fs::write(work.join("artifacts/a/b/-n"), "x").unwrap();
        std::fs::write(work.join("artifacts/new\nline"), "x").unwrap();
        std::fs::write(work.join("artifacts/a\\b"), "x").unwrap();
        symlink("/etc/passwd", work.join("artifacts/passwd")).unwrap();
        symlink("/etc", work.join("artifacts/etc")).unwrap();
        let fifo = work.join("artifacts/pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let (result, notes) = keep(&work, &kept).unwrap();
        assert_eq!(
            result.files,
            [("artifacts/a/b/-n".to_owned(), 1), ("artifacts/report ü.txt".to_owned(), 5)]
        );
        assert_eq!(result.left_out.len(), 5);
        assert_eq!(notes[0].code, "artifacts_left_out");
        assert_eq!(std::fs::read_to_string(kept.join("artifacts/report ü.txt")).unwrap(), "hello");
    }

    #[test]
    fn a_directory_that_became_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc", dir.path().join("artifacts")).unwrap();
        let (result, notes) = keep(dir.path(), dir.path().join("kept").as_path()).unwrap();
        assert!(result.files.is_empty());
        assert_eq!(notes[0].code, "artifacts_gone");
        assert!(open_below(dir.path(), "artifacts/passwd", 1 << 20).is_err());
        assert!(open_below(dir.path(), "../x", 1).is_err());
    }
}
