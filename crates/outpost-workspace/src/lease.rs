//! Who uses what of the cache.
//!
//! A lease is a symbolic link in `leases/<key>/` that leads to the directory of whoever uses the entry: an attempt, a
//! persistent workspace, or another entry. It is alive as long as that directory is there, so it needs no end of its own: it
//! survives a server that is killed while its agents run on, and goes with the attempt's directory. A file lock would end with
//! the server. Deliberately absent: counts and times.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cache::digest;

/// The leases of one cache.
#[derive(Debug)]
pub(crate) struct Leases {
    dir: PathBuf,
}

impl Leases {
    /// `dir` exists.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Leases an entry to a directory, which exists. The caller has the entry's lock, and looks at the entry afterwards.
    pub(crate) fn hold(&self, key: &str, holder: &Path) -> io::Result<()> {
        let dir = self.dir.join(key);
        let link = dir.join(digest([holder.as_os_str().as_bytes()]));
        match symlink(holder, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&dir)?;
                symlink(holder, &link)
            }
            done => done,
        }
    }

    /// Ends a lease early.
    pub(crate) fn release(&self, key: &str, holder: &Path) {
        let link = self.dir.join(key).join(digest([holder.as_os_str().as_bytes()]));
        // What stays is dead as soon as its holder is gone.
        let _ = std::fs::remove_file(link);
    }

    /// Whether anybody uses the entry; in doubt, somebody does. Leases whose holder is gone are removed. To act on a "no",
    /// the caller has the entry's lock.
    pub(crate) fn is_held(&self, key: &str) -> bool {
        let dir = self.dir.join(key);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        for entry in entries {
            let Ok(entry) = entry else { return true };
            match std::fs::metadata(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let _ = std::fs::remove_file(entry.path());
                }
                _ => return true,
            }
        }
        // Another lease may have come meanwhile: then the directory is not empty and stays.
        std::fs::remove_dir(&dir).is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::Leases;

    #[test]
    fn a_lease_lives_as_long_as_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let (leases, holder) = (Leases::new(dir.path().join("leases")), dir.path().join("attempt"));
        std::fs::create_dir(dir.path().join("leases")).unwrap();
        assert!(!leases.is_held("k"));
        for name in ["attempt", "other"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            leases.hold("k", &dir.path().join(name)).unwrap();
        }
        leases.hold("k", &holder).unwrap();
        std::fs::remove_dir(dir.path().join("other")).unwrap();
        assert!(leases.is_held("k") && !leases.is_held("j"));
        // Another server knows it, too.
        assert!(Leases::new(dir.path().join("leases")).is_held("k"));
        std::fs::remove_dir(&holder).unwrap();
        assert!(!leases.is_held("k"));
        std::fs::create_dir(&holder).unwrap();
        leases.hold("k", &holder).unwrap();
        leases.release("k", &holder);
        assert!(!leases.is_held("k"));
    }
}
