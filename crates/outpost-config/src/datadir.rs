//! The data directory: where things are, who runs on it, and the admin key.
//!
//! A running server holds a lock on `server.lock` for as long as it lives and says in `server.json`
//! where it listens. The lock, not the process id, tells whether that is still true: the kernel
//! gives it back however the server ends. The directory is only for its owner (0700), so nobody
//! else can put an address there that would then be sent the admin key.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outpost_types::hex;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::secret::Secret;

/// Largest `server.json` and key file that is read, bytes.
const SMALL_FILE_BYTES_MAX: u64 = 16 * 1024;
/// Start of every API key; 64 hexadecimal digits follow.
const KEY_PREFIX: &str = "otp_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// How long a server waits for another one's lock, milliseconds. A command that only looks holds it for
/// microseconds.
const LOCK_WAIT_MILLIS_MAX: u64 = 2_000;
/// Pause between two tries to get a lock, milliseconds.
const LOCK_POLL_MILLIS: u64 = 20;

/// The data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

/// What a running server says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Where it listens.
    pub url: String,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// Held by a server for as long as it lives.
#[derive(Debug)]
pub struct ServerLock(#[expect(dead_code, reason = "held for its lock")] File);

impl DataDir {
    /// The directory at `root`, which need not exist yet.
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory by flag or environment, else the user's own.
    pub fn locate(flag: Option<&Path>) -> Result<Self, ConfigError> {
        if let Some(path) = flag {
            return Ok(Self::new(std::path::absolute(path)?));
        }
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let base = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        base.map(|base| Self::new(base.join("outpost"))).ok_or_else(|| {
            ConfigError::usage("there is no home directory to keep data in")
                .with_hint("name a directory with --data-dir or OUTPOST_DATA_DIR")
        })
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration file that is read when none is named.
    pub fn config_file(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Where the admin key is.
    pub fn admin_key_file(&self) -> PathBuf {
        self.root.join("admin.key")
    }

    /// Where agent CLIs are installed.
    pub fn agents_dir(&self) -> PathBuf {
        self.root.join("agents")
    }

    /// Output of a server that a command started.
    pub fn server_log(&self) -> PathBuf {
        self.root.join("server.log")
    }

    fn server_file(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// Makes the directory, for its owner only. A directory that others may write to is refused.
    pub fn create(&self) -> Result<(), ConfigError> {
        let failed = |error: io::Error| {
            ConfigError::failed(format!(
                "the data directory {} cannot be used: {error}",
                self.root.display()
            ))
            .with_hint("name another one with --data-dir")
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(failed)?;
        let metadata = std::fs::metadata(&self.root).map_err(failed)?;
        let own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !own || metadata.permissions().mode() & 0o022 != 0 {
            return Err(ConfigError::failed(format!(
                "others may write to the data directory {}, or own it",
                self.root.display()
            ))
            .with_hint(
                "take their rights away (chmod go-w), or name another one with --data-dir",
            ));
        }
        Ok(())
    }

    /// The server that runs on this directory now.
    pub fn running_server(&self) -> Option<ServerInfo> {
        let lock = File::open(self.root.join("server.lock")).ok()?;
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        let text = read_small(&self.server_file()).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Becomes the one server of this directory.
    pub fn lock_server(&self) -> Result<ServerLock, ConfigError> {
        self.create()?;
        let file = open_lock(&self.root.join("server.lock"))?;
        let deadline = Instant::now() + Duration::from_millis(LOCK_WAIT_MILLIS_MAX);
        loop {
            match file.try_lock() {
                Ok(()) => {
                    // What an earlier server left behind is no longer true.
                    match std::fs::remove_file(self.server_file()) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(error.into());
                        }
                        _ => return Ok(ServerLock(file)),
                    }
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(LOCK_POLL_MILLIS));
                }
                Err(TryLockError::WouldBlock) => return Err(self.already_running()),
            }
        }
    }

    fn already_running(&self) -> ConfigError {
        let place = self
            .running_server()
            .map(|info| format!(" at {} (process {})", info.url, info.pid))
            .unwrap_or_default();
        ConfigError::failed(format!("a server already runs on {}{place}", self.root.display()))
            .with_hint("use it, end it, or give this one its own --data-dir")
    }

    /// Says where the server listens.
    pub fn publish(&self, info: &ServerInfo) -> Result<(), ConfigError> {
        let text = serde_json::to_string(info)
            .map_err(|error| ConfigError::chain("server.json cannot be written", &error))?;
        write_private(&self.server_file(), &text)?;
        Ok(())
    }

    /// Takes back what [`DataDir::publish`] said.
    pub fn unpublish(&self) {
        let _ = std::fs::remove_file(self.server_file());
    }

    /// Waits until no other command starts a server here; the lock ends with the file.
    pub fn lock_start(&self, patience: Duration) -> Result<File, ConfigError> {
        self.create()?;
        let file = open_lock(&self.root.join("start.lock"))?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(LOCK_POLL_MILLIS));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(ConfigError::failed(
                        "another command has been starting a server for too long",
                    )
                    .with_hint(format!("see {}", self.server_log().display())));
                }
            }
        }
    }
}

/// Reads a key from its file.
pub fn read_key(path: &Path) -> Result<Secret, ConfigError> {
    let text = read_small(path).map_err(|error| {
        ConfigError::failed(format!("the key file {} cannot be read: {error}", path.display()))
    })?;
    let text = text.trim();
    if is_key(text) {
        Ok(Secret::new(text.to_owned()))
    } else {
        Err(ConfigError::failed(format!(
            "{} holds no API key: expected {KEY_PREFIX} and {} lower-case hexadecimal digits",
            path.display(),
            KEY_BYTES * 2
        )))
    }
}

/// Whether a text has the shape of a key.
pub fn is_key(text: &str) -> bool {
    text.strip_prefix(KEY_PREFIX).is_some_and(|digits| {
        digits.len() == KEY_BYTES * 2
            && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn random() -> Result<[u8; KEY_BYTES], ConfigError> {
    let mut bytes = [0_u8; KEY_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| ConfigError::chain("no randomness for a key", &error))?;
    Ok(bytes)
}

/// Reads the key in `path`; makes one when there is none and `may_create`.
pub fn admin_key(path: &Path, may_create: bool) -> Result<Secret, ConfigError> {
    match read_key(path) {
        Err(_) if may_create && !path.exists() => {
            let key = format!("{KEY_PREFIX}{}", hex(&random()?));
            write_private(path, &format!("{key}\n"))?;
            Ok(Secret::new(key))
        }
        result => result,
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Reads a file of at most [`SMALL_FILE_BYTES_MAX`].
pub fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SMALL_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    // A temporary file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir() -> (tempfile::TempDir, DataDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temporary.path().join("data"));
        (temporary, dir)
    }

    fn info() -> ServerInfo {
        ServerInfo { url: "http://127.0.0.1:1".into(), pid: 1, version: "0".into() }
    }

    #[test]
    fn a_server_is_running_exactly_while_it_holds_its_lock() {
        let (_keep, dir) = data_dir();
        assert_eq!(dir.running_server(), None);
        let lock = dir.lock_server().unwrap();
        assert_eq!(dir.running_server(), None);
        dir.publish(&info()).unwrap();
        assert_eq!(dir.running_server(), Some(info()));
        assert!(dir.lock_server().unwrap_err().to_string().contains("already runs"));
        drop(lock);
        // As after a crash: the file is still there, but nobody holds the lock.
        assert_eq!(dir.running_server(), None);
        let _lock = dir.lock_server().unwrap();
        assert_eq!(dir.running_server(), None);
    }

    #[test]
    fn the_admin_key_is_made_once_and_only_for_its_owner() {
        let (_keep, dir) = data_dir();
        dir.create().unwrap();
        let path = dir.admin_key_file();
        assert!(admin_key(&path, false).is_err());
        let key = admin_key(&path, true).unwrap();
        assert!(is_key(key.expose()));
        assert_eq!(admin_key(&path, true).unwrap(), key);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let (_keep, dir) = data_dir();
        dir.create().unwrap();
        std::fs::write(dir.admin_key_file(), "otp_short").unwrap();
        assert!(admin_key(&dir.admin_key_file(), true).is_err());
        assert_eq!(std::fs::read(dir.admin_key_file()).unwrap(), b"otp_short");
    }

    #[test]
    fn a_directory_that_others_write_to_is_refused() {
        let (_keep, dir) = data_dir();
        dir.create().unwrap();
        std::fs::set_permissions(dir.root(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(dir.create().is_err());
    }
}
