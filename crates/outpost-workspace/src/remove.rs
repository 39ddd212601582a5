//! Removing what an agent wrote.
//!
//! An agent may leave unreadable directories, links, and directories nested deeper than any path or descriptor table reaches. The
//! walk holds at most [`DEPTH_MAX`] descriptors, never follows a link, and lifts what lies deeper up to the top, where its turn
//! comes later. Somebody else may remove or add files at the same time, as a git that outlived its server does with a half made
//! mirror: what is gone already is fine, and what appears is met in the next pass. Deliberately absent: a bound on the number of
//! files; a full disk must be freed whatever it takes.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, chmod, fchmod, fstat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

/// Levels of directories that are open at once.
const DEPTH_MAX: usize = 48;
/// Passes over the top directory: each empties it but for what was lifted there.
const PASSES_MAX: usize = 100_000;
/// Names tried for one lifted directory.
const LIFT_TRIES_MAX: usize = 10_000;

/// Removes a directory and everything below it; a missing one is fine. A link at `dir` itself is removed, not followed.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    let top = match open_dir(CWD, &path_text(dir)?) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::LOOP | Errno::NOTDIR) => return std::fs::remove_file(dir),
        Err(error) => return Err(error.into()),
    };
    let mut walk = Walk { top, lifted: 0 };
    for _ in 0..PASSES_MAX {
        let before = walk.lifted;
        let top = walk.top.try_clone()?;
        walk.empty(top.as_fd(), 0)?;
        if walk.lifted == before {
            match std::fs::remove_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                result => return result,
            }
        }
    }
    Err(io::Error::other("the directory is nested too deeply"))
}

fn path_text(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a directory; one that its owner locked is opened up first.
fn open_dir(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let dir = match openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // A mode cannot be changed through a path-only descriptor, but through its entry in /proc it can.
            let handle = openat(
                &parent,
                name,
                OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH,
                Mode::empty(),
            )?;
            let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
            chmod(link.as_str(), Mode::RWXU)?;
            openat(&parent, name, flags, Mode::empty())?
        }
        other => other?,
    };
    if !Mode::from_raw_mode(fstat(&dir)?.st_mode).contains(Mode::RWXU) {
        // Root needs no leave, and may not be the owner in a user namespace.
        let _ = fchmod(&dir, Mode::RWXU);
    }
    Ok(dir)
}

struct Walk {
    top: OwnedFd,
    lifted: u64,
}

impl Walk {
    /// Removes everything in a directory. What it lifts to the top is met there in this pass or the next.
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        let entries = match Dir::read_from(dir) {
            Err(Errno::NOENT) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = match entry {
                Err(Errno::NOENT) => return Ok(()),
                entry => entry?,
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() != FileType::Directory {
                match unlinkat(dir, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    // A file system that does not tell types: it is a directory after all.
                    Err(Errno::ISDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.remove_dir(dir, name, depth)?;
        }
        Ok(())
    }

    fn remove_dir(&mut self, dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        if depth >= DEPTH_MAX {
            return self.lift(dir, name);
        }
        let below = match open_dir(dir, name) {
            Ok(below) => below,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.empty(below.as_fd(), depth + 1)?;
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // A listing may miss entries that change under it; the next pass meets them.
            Err(Errno::NOTEMPTY) => {
                self.lifted += 1;
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    /// Moves a directory to the top, under a name that is free there.
    fn lift(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        for _ in 0..LIFT_TRIES_MAX {
            self.lifted += 1;
            let target = format!(".outpost-lifted-{}", self.lifted);
            match renameat(dir, name, &self.top, target.as_str()) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                // A directory without leave to write cannot be moved, as its `..` changes.
                Err(Errno::ACCESS) => drop(open_dir(dir, name)?),
                Err(Errno::NOENT) => return Ok(()),
                other => return other.map_err(io::Error::from),
            }
        }
        Err(io::Error::other("a deep directory could not be moved"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{Mode, OFlags, mkdirat, openat};

    use super::remove_tree;

    #[test]
    fn links_are_not_followed_and_locks_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("locked/inner")).unwrap();
        std::fs::write(tree.join("locked/inner/f"), "x").unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        for locked in ["locked/inner", "locked", ""] {
            std::fs::set_permissions(tree.join(locked), std::fs::Permissions::from_mode(0o000))
                .unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        remove_tree(&tree).unwrap();
        symlink(&kept, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.is_symlink() && kept.join("file").exists());
    }

    /// A git that a killed server left behind removes its half made mirror itself when the next server does.
    #[test]
    fn two_may_remove_the_same_tree() {
        const ROUNDS: usize = 30;
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for _ in 0..ROUNDS {
            for name in ["objects/a", "objects/b/c", "refs/heads", "refs/tags"] {
                std::fs::create_dir_all(tree.join(name)).unwrap();
                std::fs::write(tree.join(name).join("file"), "x").unwrap();
            }
            std::thread::scope(|scope| {
                let other = scope.spawn(|| remove_tree(&tree));
                remove_tree(&tree).unwrap();
                other.join().unwrap().unwrap();
            });
            assert!(!tree.exists());
        }
    }

    #[test]
    fn very_deep_directories_go() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let mut at = openat(rustix::fs::CWD, &tree, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
