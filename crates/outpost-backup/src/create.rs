//! Making a backup. First the records, as of one moment; then files, which only grow until their dispatch is over.
//!
//! What a dispatch that was live at that moment wrote after it is cut at its last event: the record in the backup
//! does not know the end. A file that retention removes in between is left out, as its record would be tomorrow.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use outpost_store::{CopiedStore, KeptDispatch, snapshot};
use outpost_types::{EventEnvelope, Timestamp, hex};

use crate::copy::{DEPTH_MAX, List, copy, make_dir, new_file, sync_dir, sync_tree};
use crate::error::BackupError;
use crate::manifest::{FORMAT, MANIFEST_FILE, Manifest};
use crate::{
    ADMIN_KEY_NAME, DATABASE_NAME, DISPATCHES_DIR, KeyFiles, Progress, SECRETS_KEY_NAME,
    SMALL_FILES,
};

/// Dispatches that are asked for at once.
const PAGE_ROWS: u32 = 1_000;
/// Name of the event log among kept files.
const EVENTS_FILE: &str = "events.jsonl";
/// Longest event that is read back, bytes; a longer one is kept as it is.
const EVENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What to back up, and where to.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The data directory; a server may run on it.
    pub data_dir: PathBuf,
    /// The backup; must not be there.
    pub to: PathBuf,
    /// The key files, if they are to be in it.
    pub keys: Option<KeyFiles>,
    /// Now.
    pub now: Timestamp,
    /// Version of this program.
    pub version: String,
}

/// Makes a backup; blocks. `tell` hears how far it is, after each file.
///
/// # Errors
/// [`BackupError`]; then there is no backup, and nothing of it.
pub fn backup(
    request: &BackupRequest,
    tell: &mut dyn FnMut(Progress),
) -> Result<Manifest, BackupError> {
    if request.to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(request.to.clone()));
    }
    if !request.data_dir.join(DATABASE_NAME).is_file() {
        return Err(BackupError::NoRecords(request.data_dir.clone()));
    }
    let to = std::path::absolute(&request.to).map_err(BackupError::io(&request.to))?;
    let parent = to.parent().unwrap_or_else(|| Path::new("/")).to_owned();
    std::fs::create_dir_all(&parent).map_err(BackupError::io(&parent))?;
    // Beside the target, so that a rename is enough. Gone by itself when anything fails.
    let place = tempfile::Builder::new().prefix(".outpost-backup-").tempdir_in(&parent);
    let place = place.map_err(BackupError::io(&parent))?;
    let manifest = fill(request, place.path(), tell)?;
    publish(place, &to)?;
    Ok(manifest)
}

/// Gives a whole directory its name. A directory that came in between is never replaced, unless it is empty.
pub(crate) fn publish(place: tempfile::TempDir, to: &Path) -> Result<(), BackupError> {
    sync_tree(place.path(), 0)?;
    std::fs::rename(place.path(), to).map_err(BackupError::io(to))?;
    // It has another name by now.
    let _ = place.keep();
    sync_dir(to.parent().unwrap_or_else(|| Path::new("/")))
}

fn fill(
    request: &BackupRequest,
    dir: &Path,
    tell: &mut dyn FnMut(Progress),
) -> Result<Manifest, BackupError> {
    let mut list = List::new(dir)?;
    let database = dir.join(DATABASE_NAME);
    snapshot(&request.data_dir, &database)?;
    let (bytes, sha256) = synced(&database)?;
    list.add(DATABASE_NAME, bytes, sha256)?;
    tell(list.progress);
    let store = CopiedStore::open(&database)?;
    let mut after = None;
    loop {
        let page = store.dispatches(after, PAGE_ROWS)?;
        for dispatch in &page {
            copy_dispatch(request, *dispatch, dir, (&mut list, tell))?;
        }
        match page.last() {
            Some(last) => after = Some(last.id),
            None => break,
        }
    }
    for name in SMALL_FILES {
        copy_one(&request.data_dir.join(name), name, dir, &mut list)?;
    }
    if let Some(keys) = &request.keys {
        let files = [(ADMIN_KEY_NAME, &keys.admin), (SECRETS_KEY_NAME, &keys.secrets)];
        for (name, path) in
            files.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)))
        {
            copy_one(path, name, dir, &mut list)?;
        }
    }
    tell(list.progress);
    let progress = list.progress;
    let manifest = Manifest {
        format: FORMAT,
        version: request.version.clone(),
        schema: store.schema(),
        created_at: request.now,
        includes_keys: request.keys.is_some(),
        files: progress.files,
        bytes: progress.bytes,
        list_sha256: list.finish()?,
    };
    write_manifest(dir, &manifest)?;
    Ok(manifest)
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let path = dir.join(MANIFEST_FILE);
    let mut file = new_file(&path)?;
    let written = serde_json::to_writer_pretty(&mut file, manifest).map_err(io::Error::other);
    written.and_then(|()| file.sync_all()).map_err(BackupError::io(&path))
}

/// Makes a file durable that is there already; says its size and hash.
fn synced(path: &Path) -> Result<(u64, String), BackupError> {
    use sha2::{Digest as _, Sha256};
    let wrong = || BackupError::io(path);
    let mut file = File::open(path).map_err(wrong())?;
    file.sync_all().map_err(wrong())?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut piece).map_err(wrong())?;
        if read == 0 {
            return Ok((bytes, hex(&hasher.finalize())));
        }
        hasher.update(&piece[..read]);
        bytes += read as u64;
    }
}

/// Copies the kept files of a dispatch.
fn copy_dispatch(
    request: &BackupRequest,
    dispatch: KeptDispatch,
    dir: &Path,
    (list, tell): (&mut List, &mut dyn FnMut(Progress)),
) -> Result<(), BackupError> {
    let name = format!("{DISPATCHES_DIR}/{}", dispatch.id);
    let from = request.data_dir.join(&name);
    if !from.is_dir() {
        return Ok(());
    }
    make_dir(&dir.join(&name))?;
    if dispatch.is_live {
        let events = format!("{name}/{EVENTS_FILE}");
        if let Some(file) = open(&from.join(EVENTS_FILE))? {
            let mut until_the_end = BeforeTheEnd::of(file);
            let (bytes, sha256) = copy(&mut until_the_end, &dir.join(&events))?;
            list.add(&events, bytes, sha256)?;
        }
    }
    let skip = dispatch.is_live.then_some(EVENTS_FILE);
    copy_tree(&from, &name, dir, (list, skip), 0)?;
    tell(list.progress);
    Ok(())
}

fn copy_tree(
    from: &Path,
    name: &str,
    dir: &Path,
    (list, skip): (&mut List, Option<&str>),
    depth: usize,
) -> Result<(), BackupError> {
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(BackupError::io(from))?,
    };
    for entry in entries {
        let entry = entry.map_err(BackupError::io(from))?;
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        if skip == Some(file_name.as_str()) {
            continue;
        }
        let name = format!("{name}/{file_name}");
        // Of the entry itself: links are not followed, and nothing kept is one.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => {
                copy_tree(&entry.path(), &name, dir, (list, None), depth + 1)?;
            }
            Ok(kind) if kind.is_file() => copy_one(&entry.path(), &name, dir, list)?,
            _ => {}
        }
    }
    Ok(())
}

/// Copies one file, if it is there.
fn copy_one(from: &Path, name: &str, dir: &Path, list: &mut List) -> Result<(), BackupError> {
    let Some(mut file) = open(from)? else { return Ok(()) };
    let (bytes, sha256) = copy(&mut file, &dir.join(name))?;
    list.add(name, bytes, sha256)
}

fn open(path: &Path) -> Result<Option<File>, BackupError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(BackupError::io(path)),
    }
}

/// The whole lines of an event log before the event that nothing follows.
struct BeforeTheEnd {
    lines: BufReader<File>,
    line: Vec<u8>,
    given: usize,
    ended: bool,
}

impl BeforeTheEnd {
    fn of(file: File) -> Self {
        Self { lines: BufReader::new(file), line: Vec::new(), given: 0, ended: false }
    }

    fn next_line(&mut self) -> io::Result<()> {
        self.line.clear();
        self.given = 0;
        let mut bounded = (&mut self.lines).take(EVENT_BYTES_MAX);
        bounded.read_until(b'\n', &mut self.line)?;
        let whole = self.line.ends_with(b"\n");
        let event = serde_json::from_slice::<EventEnvelope>(&self.line);
        if !whole || event.is_ok_and(|event| event.data.is_terminal()) {
            self.ended = true;
            self.line.clear();
        }
        Ok(())
    }
}

impl Read for BeforeTheEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.line.len() && !self.ended {
            self.next_line()?;
        }
        let left = &self.line[self.given..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}
