//! Restoring a backup into an empty data directory. Everything is checked while it is copied; only a whole, right
//! directory gets its name.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use outpost_store::{CopiedStore, SCHEMA_VERSION};
use outpost_types::hex;
use sha2::{Digest as _, Sha256};

use crate::copy::{copy, make_dir, new_file, sync_dir};
use crate::create::publish;
use crate::error::BackupError;
use crate::manifest::{LINE_BYTES_MAX, LIST_FILE, Line, Manifest, is_plain};
use crate::{
    ADMIN_KEY_NAME, DATABASE_NAME, DISPATCHES_DIR, KeyFiles, Progress, SECRETS_KEY_NAME,
    SMALL_FILES,
};

/// Name of the note of the boot in which attempts were started.
const BOOT_FILE: &str = "boot-id";
/// What it says in a restored directory: no boot of any host has this name, so no attempt that was being started when
/// the backup was made is started a second time.
const NO_BOOT: &str = "restored from a backup\n";
/// Longest key file, bytes.
const KEY_BYTES_MAX: u64 = 16 * 1024;

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The backup.
    pub from: PathBuf,
    /// The data directory; empty or not there.
    pub data_dir: PathBuf,
    /// Where keys belong, should the backup have them.
    pub keys: KeyFiles,
}

/// Restores a backup; blocks. `tell` hears how far it is, after each file.
///
/// # Errors
/// [`BackupError`]; then the data directory is as it was.
pub fn restore(
    request: &RestoreRequest,
    tell: &mut dyn FnMut(Progress),
) -> Result<Manifest, BackupError> {
    let to = std::path::absolute(&request.data_dir).map_err(BackupError::io(&request.data_dir))?;
    match std::fs::read_dir(&to).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(BackupError::NotEmpty(to)),
        Ok(false) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(BackupError::io(&to)(error)),
    }
    let manifest = Manifest::read(&request.from)?;
    if manifest.schema > SCHEMA_VERSION {
        return Err(BackupError::Newer { version: manifest.version });
    }
    let parent = to.parent().unwrap_or_else(|| Path::new("/")).to_owned();
    make_dir(&parent)?;
    let place = tempfile::Builder::new().prefix(".outpost-restore-").tempdir_in(&parent);
    let place = place.map_err(BackupError::io(&parent))?;
    let keys = fill(request, &manifest, place.path(), tell)?;
    let targets = place_of_keys(request, &to, keys)?;
    check_records(&place.path().join(DATABASE_NAME), &manifest)?;
    make_dir(&place.path().join(DISPATCHES_DIR))?;
    let mut note = new_file(&place.path().join(BOOT_FILE))?;
    note.write_all(NO_BOOT.as_bytes()).map_err(BackupError::io(BOOT_FILE))?;
    // Keys first: a data directory without them would be given new ones by its first start.
    for (path, text) in targets {
        put_key(&path, &text, (&to, place.path()))?;
    }
    publish(place, &to)?;
    Ok(manifest)
}

/// Copies every file of the list, checked; answers the keys, which do not belong into the data directory.
fn fill(
    request: &RestoreRequest,
    manifest: &Manifest,
    dir: &Path,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<(&'static str, Vec<u8>)>, BackupError> {
    let mut lines = Lines::open(&request.from)?;
    let mut progress = Progress::default();
    let mut keys = Vec::new();
    let mut records = false;
    while let Some(line) = lines.next()? {
        match place(&line.path) {
            Place::Data => {
                records |= line.path == DATABASE_NAME;
                copy_checked(&request.from.join(&line.path), &line, &dir.join(&line.path))?;
            }
            Place::Key(name) => keys.push((name, read_key(&request.from, &line)?)),
            Place::Nowhere => return Err(BackupError::damaged(line.path, "it has no place")),
        }
        progress.files += 1;
        progress.bytes += line.bytes;
        tell(progress);
    }
    if lines.finish() != manifest.list_sha256
        || (progress.files, progress.bytes) != (manifest.files, manifest.bytes)
    {
        return Err(BackupError::damaged(LIST_FILE, "it is not the list of the manifest"));
    }
    if !records {
        return Err(BackupError::damaged(DATABASE_NAME, "it is missing"));
    }
    Ok(keys)
}

enum Place {
    Data,
    Key(&'static str),
    Nowhere,
}

fn place(path: &str) -> Place {
    if !is_plain(path) {
        return Place::Nowhere;
    }
    if let Some(key) = [ADMIN_KEY_NAME, SECRETS_KEY_NAME].into_iter().find(|name| *name == path) {
        return Place::Key(key);
    }
    let kept = path.strip_prefix(DISPATCHES_DIR).is_some_and(|rest| rest.starts_with('/'));
    if kept || path == DATABASE_NAME || SMALL_FILES.contains(&path) {
        Place::Data
    } else {
        Place::Nowhere
    }
}

fn copy_checked(from: &Path, line: &Line, to: &Path) -> Result<(), BackupError> {
    let file = open_plain(from, line)?;
    // One byte more than there should be shows that there are too many.
    let (bytes, sha256) = copy(&mut file.take(line.bytes.saturating_add(1)), to)?;
    check(line, bytes, &sha256)
}

fn read_key(from: &Path, line: &Line) -> Result<Vec<u8>, BackupError> {
    let path = from.join(&line.path);
    let mut text = Vec::new();
    let file = open_plain(&path, line)?;
    file.take(KEY_BYTES_MAX).read_to_end(&mut text).map_err(BackupError::io(&path))?;
    check(line, text.len() as u64, &hex(&Sha256::digest(&text)))?;
    Ok(text)
}

fn open_plain(path: &Path, line: &Line) -> Result<File, BackupError> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => File::open(path).map_err(BackupError::io(path)),
        Ok(_) => Err(BackupError::damaged(line.path.clone(), "it is no file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(BackupError::damaged(line.path.clone(), "it is missing"))
        }
        Err(error) => Err(BackupError::io(path)(error)),
    }
}

fn check(line: &Line, bytes: u64, sha256: &str) -> Result<(), BackupError> {
    if bytes != line.bytes {
        return Err(BackupError::damaged(line.path.clone(), "its size is another one"));
    }
    if sha256 != line.sha256 {
        return Err(BackupError::damaged(line.path.clone(), "its content is another one"));
    }
    Ok(())
}

fn check_records(database: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let store = CopiedStore::open(database)?;
    store.check()?;
    if store.schema() != manifest.schema {
        return Err(BackupError::damaged(DATABASE_NAME, "its schema is another one"));
    }
    Ok(())
}

/// Where each key goes; refused before anything of it is written.
fn place_of_keys(
    request: &RestoreRequest,
    data_dir: &Path,
    keys: Vec<(&'static str, Vec<u8>)>,
) -> Result<Vec<(PathBuf, Vec<u8>)>, BackupError> {
    let mut targets = Vec::new();
    for (name, text) in keys {
        let path = match name {
            ADMIN_KEY_NAME => {
                request.keys.admin.clone().unwrap_or_else(|| data_dir.join("admin.key"))
            }
            _ => request.keys.secrets.clone().ok_or(BackupError::NoPlaceForKey)?,
        };
        match std::fs::read(&path) {
            Ok(found) if found == text => continue,
            Ok(_) => return Err(BackupError::OtherKey(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::io(&path)(error)),
        }
        targets.push((path, text));
    }
    Ok(targets)
}

fn put_key(path: &Path, text: &[u8], (to, place): (&Path, &Path)) -> Result<(), BackupError> {
    let path = match path.strip_prefix(to) {
        Ok(inside) => place.join(inside),
        Err(_) => path.to_owned(),
    };
    let mut file = new_file(&path)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(BackupError::io(&path))?;
    sync_dir(path.parent().unwrap_or_else(|| Path::new("/")))
}

/// The list, line by line.
struct Lines {
    file: BufReader<File>,
    hasher: Sha256,
}

impl Lines {
    fn open(dir: &Path) -> Result<Self, BackupError> {
        let path = dir.join(LIST_FILE);
        let file = File::open(&path).map_err(BackupError::io(&path))?;
        Ok(Self { file: BufReader::new(file), hasher: Sha256::new() })
    }

    fn next(&mut self) -> Result<Option<Line>, BackupError> {
        let mut text = Vec::new();
        let mut bounded = (&mut self.file).take(LINE_BYTES_MAX as u64);
        bounded.read_until(b'\n', &mut text).map_err(BackupError::io(LIST_FILE))?;
        if text.is_empty() {
            return Ok(None);
        }
        self.hasher.update(&text);
        let line = serde_json::from_slice(&text).ok().filter(|_| text.ends_with(b"\n"));
        line.map(Some).ok_or_else(|| BackupError::damaged(LIST_FILE, "a line cannot be read"))
    }

    fn finish(self) -> String {
        hex(&self.hasher.finalize())
    }
}
