//! Reading files that tell of a project, from a workspace or from a user's own repository.
//!
//! They are whatever somebody committed: only the beginning is read, no link is followed, and nothing waits for the other end of
//! a pipe. Bounded: bytes of each file, names of a repository.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::apply::run;
use crate::{ApplyError, Prepared, TRACKED_FILES_MAX, artifacts};

/// The beginning of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Beginning {
    /// Bytes of the whole file.
    pub size_bytes: u64,
    /// The first of them.
    pub bytes: Vec<u8>,
}

impl Prepared {
    /// Reads the beginning of a file of the repository as it is at the base commit. To be called before anything of the
    /// workspace is shown to a sandbox.
    ///
    /// # Errors
    /// There is no such file, it is none (`InvalidInput`), or the disk.
    pub fn beginning_of(&self, name: &str, bytes_max: usize) -> io::Result<Beginning> {
        let checkout = self.overlay.as_ref().and_then(|overlay| overlay.lower.last());
        beginning_of(checkout.unwrap_or(&self.repo_dir), name, bytes_max)
    }
}

/// Reads the beginning of a regular file below a directory.
///
/// # Errors
/// There is no such file, it is none or behind a link (`InvalidInput`), or the disk.
pub fn beginning_of(dir: &Path, name: &str, bytes_max: usize) -> io::Result<Beginning> {
    let irregular = || io::Error::from(io::ErrorKind::InvalidInput);
    let file: File = match artifacts::open_below(dir, name, u64::MAX) {
        Err(error) if error.raw_os_error().is_none() => return Err(irregular()),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(irregular());
        }
        opened => opened?,
    };
    let size_bytes = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(Beginning { size_bytes, bytes })
}

/// The top of the repository around a directory, and the names of its tracked files, at most [`TRACKED_FILES_MAX`]. For the
/// command line, on the user's machine, with the user's git.
///
/// # Errors
/// It is in no repository, or git cannot be run.
pub fn tracked_files_of(dir: &Path) -> Result<(PathBuf, Vec<String>), ApplyError> {
    let top = run(dir, &["rev-parse", "--show-toplevel"], b"")?;
    let top = String::from_utf8_lossy(&top.stdout).trim_end_matches('\n').to_owned();
    if top.is_empty() {
        return Err(ApplyError::NotARepository(dir.to_owned()));
    }
    let listing = run(Path::new(&top), &["ls-files", "-z"], b"")?;
    let names = listing.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names = names.filter_map(|name| std::str::from_utf8(name).ok()).map(str::to_owned);
    Ok((top.into(), names.take(TRACKED_FILES_MAX).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_regular_files_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (repo, kind) = (dir.path().join("repo"), |error: io::Error| error.kind());
        std::fs::create_dir_all(repo.join("docs")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(repo.join("docs/a.md"), "abcdef").unwrap();
        std::os::unix::fs::symlink("../secret", repo.join("README.md")).unwrap();
        std::os::unix::fs::symlink("docs", repo.join("linked")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, repo.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
        let read = |name: &str| beginning_of(&repo, name, 4);
        let beginning = Beginning { size_bytes: 6, bytes: b"abcd".to_vec() };
        assert_eq!(read("docs/a.md").unwrap(), beginning);
        for name in ["README.md", "linked/a.md", "docs", "pipe"] {
            assert_eq!(read(name).map_err(kind), Err(io::ErrorKind::InvalidInput), "{name}");
        }
        assert_eq!(read("none").map_err(kind), Err(io::ErrorKind::NotFound));
        assert!(read("../secret").is_err() && read("/etc/passwd").is_err());
    }

    #[test]
    fn what_is_tracked_is_listed_from_anywhere_in_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(tracked_files_of(dir.path()), Err(ApplyError::NotARepository(_))));
        run(dir.path(), &["init", "-q"], b"").unwrap();
        std::fs::create_dir(dir.path().join("docs")).unwrap();
        for name in ["docs/a \u{fc}.md", "b"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        run(dir.path(), &["add", "docs"], b"").unwrap();
        let (top, names) = tracked_files_of(&dir.path().join("docs")).unwrap();
        assert_eq!(top.canonicalize().unwrap(), dir.path().canonicalize().unwrap());
        assert_eq!(names, ["docs/a \u{fc}.md"]);
    }
}
