//! The file with the keys: kept apart from the data directory, for its owner only, changed whole or
//! not at all.
//!
//! Bounded: its size and the number of its keys. Absent: a key in the environment or in an argument.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::seal::{KeyRing, NotKeys};

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024;
/// Rights of anybody but the owner.
const GROUP_OR_OTHERS: u32 = 0o077;
/// Rights of anybody but owner and group.
const OTHERS: u32 = 0o007;

/// Where the key of the secrets is.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    data_dir: PathBuf,
    managed: bool,
}

/// Why secrets cannot be had. The text is for the operator: it names files.
#[derive(Debug, Error)]
pub enum KeyFault {
    /// No place was configured and there is no home directory.
    #[error(
        "there is no place for their key: name one in secrets.key_file or OUTPOST_SECRETS_KEY_FILE"
    )]
    NoPlace,
    /// There is no file, and no value that would need it.
    #[error("there is no key file {} yet; the first secret makes it", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// There is no file any more.
    #[error(
        "the key file {} is gone, but there are secrets that were encrypted with it; put it back where it was, or, if it is lost, remove the secrets and set them anew",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// It is the key of something else.
    #[error(
        "the key in {} is not the one the secrets were encrypted with; put the right file back", path.display()
    )]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or change it.
    #[error(
        "others may read the key file {}, or own it; run `chmod 600` on it, give it to the user that runs the server, and consider `outpost secrets rekey`",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A copy of the data would contain it.
    #[error(
        "the key file {} is inside the data directory, where a copy of the data would contain it; move it elsewhere and name its place in secrets.key_file or OUTPOST_SECRETS_KEY_FILE",
        path.display()
    )]
    InsideData {
        /// The file.
        path: PathBuf,
    },
    /// It holds no keys.
    #[error("{} is no key file: {}; put the right file back", path.display(), NotKeys)]
    NotKeys {
        /// The file.
        path: PathBuf,
    },
    /// It was replaced while the server ran.
    #[error("the key file {} was changed while the server ran; start the server anew", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// A service manager's credential is not ours to write.
    #[error(
        "the key in {} is a credential that cannot be written here; put a new key on a line above the old one, start the server anew, and remove the old line after that",
        path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("the key file {} cannot be used ({error}); check its place and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl KeyFile {
    /// A file that is made when the first secret needs it, and changed by a rekey.
    pub fn new(path: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), data_dir: data_dir.into(), managed: true }
    }

    /// A credential that a service manager provides; only ever read.
    pub fn credential(path: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self { managed: false, ..Self::new(path, data_dir) }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is ours to write.
    pub(super) const fn is_managed(&self) -> bool {
        self.managed
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`KeyFault::Absent`] when there is none, and whatever makes it unfit.
    pub(super) fn load(&self) -> Result<KeyRing, KeyFault> {
        self.check_place()?;
        let path = || self.path.clone();
        // Opening something that is no file, such as a pipe, could wait for ever.
        match self.path.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(KeyFault::Absent { path: path() });
            }
            Err(error) => return Err(self.io(error)),
            Ok(metadata) if !metadata.is_file() => return Err(KeyFault::NotKeys { path: path() }),
            Ok(_) => {}
        }
        let file = File::open(&self.path).map_err(|error| self.io(error))?;
        let metadata = file.metadata().map_err(|error| self.io(error))?;
        // A service manager lets its service in by an access list, which shows as rights of the group;
        // the directory around it keeps everybody else out (systemd.exec(5), "Credentials").
        let forbidden = if self.managed { GROUP_OR_OTHERS } else { OTHERS };
        let owner = metadata.uid();
        let trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
        if !trusted || metadata.mode() & forbidden != 0 {
            return Err(KeyFault::Exposed { path: path() });
        }
        let bytes_max = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
        let mut text = Zeroizing::new(String::with_capacity(bytes_max));
        let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        match read {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(KeyFault::NotKeys { path: path() })
            }
            Err(error) => Err(self.io(error)),
            Ok(_) => KeyRing::parse(&text).map_err(|_| KeyFault::NotKeys { path: path() }),
        }
    }

    /// Makes it, unless somebody else just did, and answers what is in it.
    ///
    /// # Errors
    /// [`KeyFault::Io`] when it cannot be made, and those of [`KeyFile::load`].
    pub(super) fn create(&self, ring: &KeyRing) -> Result<KeyRing, KeyFault> {
        if !self.managed {
            return Err(KeyFault::Absent { path: self.path.clone() });
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.parent());
        made.map_err(|error| self.io(error))?;
        self.check_place()?;
        let partial = self.write_partial(ring).map_err(|error| self.io(error))?;
        // A link never replaces what is there.
        let linked = match std::fs::hard_link(&partial, &self.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        let removed = std::fs::remove_file(&partial);
        linked.and(removed).and_then(|()| self.sync_parent()).map_err(|error| self.io(error))?;
        self.load()
    }

    /// Replaces it; when this returns, that is on disk.
    ///
    /// # Errors
    /// [`KeyFault::Io`]; then it is as it was, or as it shall be.
    pub(super) fn replace(&self, ring: &KeyRing) -> Result<(), KeyFault> {
        let replaced = self
            .write_partial(ring)
            .and_then(|partial| std::fs::rename(partial, &self.path))
            .and_then(|()| self.sync_parent());
        replaced.map_err(|error| self.io(error))
    }

    fn write_partial(&self, ring: &KeyRing) -> io::Result<PathBuf> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = self.path.with_file_name(name);
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(ring.text().as_bytes())?;
        file.sync_all()?;
        Ok(partial)
    }

    fn sync_parent(&self) -> io::Result<()> {
        File::open(self.parent())?.sync_all()
    }

    fn parent(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    /// Refuses a place inside the data directory, also behind links.
    fn check_place(&self) -> Result<(), KeyFault> {
        let data_dir = self.data_dir.canonicalize().unwrap_or_else(|_| self.data_dir.clone());
        let resolved = self.path.canonicalize().ok();
        let parent = self.parent().canonicalize().ok();
        let places = [Some(self.path.clone()), resolved, parent];
        if places.into_iter().flatten().any(|place| place.starts_with(&data_dir)) {
            return Err(KeyFault::InsideData { path: self.path.clone() });
        }
        Ok(())
    }

    fn io(&self, error: io::Error) -> KeyFault {
        KeyFault::Io { path: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::seal::KEY_BYTES;
    use super::*;

    fn ring(seed: u8) -> KeyRing {
        KeyRing::of(Zeroizing::new([seed; KEY_BYTES]))
    }

    fn place() -> (tempfile::TempDir, KeyFile) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let file =
            KeyFile::new(dir.path().join("config/outpost/secrets.key"), dir.path().join("data"));
        (dir, file)
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn it_is_made_once_for_its_owner_and_replaced_whole() {
        let (_dir, file) = place();
        assert!(matches!(file.load(), Err(KeyFault::Absent { .. })));
        file.create(&ring(1)).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(file.parent())), (0o600, 0o700));
        assert_eq!(file.load().unwrap().id(), ring(1).id());
        // Somebody else was first: his key stays.
        assert_eq!(file.create(&ring(2)).unwrap().id(), ring(1).id());
        // What a crash left of an earlier try is in nobody's way.
        std::fs::write(file.path().with_file_name("secrets.key.partial"), "torn").unwrap();
        file.replace(&ring(2)).unwrap();
        assert_eq!(file.load().unwrap().id(), ring(2).id());
        assert_eq!(std::fs::read_dir(file.parent()).unwrap().count(), 1);
        assert_eq!(mode(file.path()), 0o600);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let (_dir, file) = place();
        file.create(&ring(1)).unwrap();
        for mode in [0o640, 0o620, 0o604, 0o660, 0o644, 0o601] {
            chmod(file.path(), mode);
            let fault = file.load().unwrap_err();
            assert!(matches!(fault, KeyFault::Exposed { .. }), "{mode:o}: {fault:?}");
            assert!(fault.to_string().contains("chmod 600"));
        }
        let credential = KeyFile::credential(file.path(), &file.data_dir);
        chmod(file.path(), 0o440);
        assert_eq!(credential.load().unwrap().id(), ring(1).id());
        chmod(file.path(), 0o444);
        assert!(matches!(credential.load(), Err(KeyFault::Exposed { .. })));
        chmod(file.path(), 0o400);
        assert_eq!(file.load().unwrap().id(), ring(1).id());
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_dir, file) = place();
        file.create(&ring(1)).unwrap();
        std::os::unix::fs::chown(file.path(), Some(65_534), None).unwrap();
        assert!(matches!(file.load(), Err(KeyFault::Exposed { .. })));
    }

    #[test]
    fn a_place_inside_the_data_is_refused_also_behind_links() {
        let (dir, file) = place();
        let data = dir.path().join("data");
        let inside = KeyFile::new(data.join("secrets.key"), &data);
        assert!(matches!(inside.load(), Err(KeyFault::InsideData { .. })));
        assert!(matches!(inside.create(&ring(1)), Err(KeyFault::InsideData { .. })));
        assert!(!inside.path().exists());
        symlink(&data, dir.path().join("away")).unwrap();
        let behind = KeyFile::new(dir.path().join("away/secrets.key"), &data);
        assert!(matches!(behind.create(&ring(1)), Err(KeyFault::InsideData { .. })));
        assert!(!data.join("secrets.key").exists());
        file.create(&ring(1)).unwrap();
        std::fs::rename(file.path(), data.join("real.key")).unwrap();
        symlink(data.join("real.key"), file.path()).unwrap();
        assert!(matches!(file.load(), Err(KeyFault::InsideData { .. })));
    }

    #[test]
    fn what_is_no_key_file_is_said_and_never_replaced() {
        let (dir, file) = place();
        file.create(&ring(1)).unwrap();
        for bytes in [&b"nonsense"[..], b"", b"\xff\xfe", &[b'a'; 8_192]] {
            std::fs::write(file.path(), bytes).unwrap();
            let fault = file.load().unwrap_err();
            assert!(matches!(fault, KeyFault::NotKeys { .. }), "{fault:?}");
            assert!(file.create(&ring(2)).is_err());
            assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
        }
        let folder = KeyFile::new(dir.path(), dir.path().join("data"));
        assert!(matches!(folder.load(), Err(KeyFault::NotKeys { .. })));
    }

    #[test]
    fn a_credential_is_never_written() {
        let (dir, _) = place();
        let path = dir.path().join("credential");
        let credential = KeyFile::credential(&path, dir.path().join("data"));
        assert!(matches!(credential.create(&ring(1)), Err(KeyFault::Absent { .. })));
        assert!(!path.exists());
    }
}
