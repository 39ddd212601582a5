//! Copies that share their blocks with the original until one of them is written (FICLONE, ioctl_ficlonerange(2)).
//!
//! Bounded: by the original, which is a checkout of this crate. Deliberately absent: copying bytes where the file system cannot
//! share them: writing the files anew is as fast.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, ioctl_ficlone, utimensat};

/// Name of the files of the trial.
const TRIAL: &str = ".outpost-reflink";

/// Whether a file of `from` can be shared with one in `to`; tried, as file systems do not tell.
pub(crate) fn works(from: &Path, to: &Path) -> bool {
    let trial = |dir: &Path| {
        let path = dir.join(format!("{TRIAL}.{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let _ = std::fs::remove_file(path);
        file
    };
    let (Ok(from), Ok(to)) = (trial(from), trial(to)) else { return false };
    ioctl_ficlone(&to, &from).is_ok()
}

/// Copies a checkout into the empty directory `to`, with modes and times, so that its index stays true.
pub(crate) fn clone_tree(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(from.join(&dir))? {
            let entry = entry?;
            let (name, meta) = (dir.join(entry.file_name()), entry.metadata()?);
            let target = to.join(&name);
            if meta.is_dir() {
                crate::prepare::make_dir(&target)?;
                pending.push(name);
            } else if meta.is_symlink() {
                std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target)?;
            } else {
                clone_file(&entry.path(), &target, meta.permissions().mode())?;
            }
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::lchown(&target, Some(uid), Some(gid))?;
            }
            let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, &target, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::lchown(to, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn clone_file(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    if source.metadata()?.len() > 0 {
        ioctl_ficlone(&target, &source)?;
    }
    target.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::{clone_tree, works};

    /// Files without content need no blocks, so this holds on every file system.
    #[test]
    fn modes_times_and_links_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        let shared = works(&from, &to);
        std::fs::write(from.join("a/b/run"), if shared { "content" } else { "" }).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(from.join("a/b/run"), mode).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        clone_tree(&from, &to, None).unwrap();
        for name in ["a/b/run", "link"] {
            let meta = |dir: &std::path::Path| {
                let meta = std::fs::symlink_metadata(dir.join(name)).unwrap();
                (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.len())
            };
            assert_eq!(meta(&to), meta(&from), "{name}");
        }
        assert_eq!(std::fs::read_link(to.join("link")).unwrap().to_str(), Some("/etc/passwd"));
        assert_eq!(std::fs::read_dir(&from).unwrap().count(), 2);
    }
}
