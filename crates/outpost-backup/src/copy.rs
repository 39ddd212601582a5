//! Copying with a hash: a file is on disk and in the list when it counts.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use outpost_types::hex;
use sha2::{Digest as _, Sha256};

use crate::Progress;
use crate::error::BackupError;
use crate::manifest::{LIST_FILE, Line};

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Makes a directory for this user only, and those above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(BackupError::io(path))
}

/// Makes a new file for this user only.
pub(crate) fn new_file(path: &Path) -> Result<File, BackupError> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(BackupError::io(path))
}

/// Copies everything that `from` gives into a new file and makes it durable; says how much and its hash.
pub(crate) fn copy(from: &mut impl Read, to: &Path) -> Result<(u64, String), BackupError> {
    let mut file = new_file(to)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(BackupError::io(to)(error)),
        };
        hasher.update(&piece[..read]);
        file.write_all(&piece[..read]).map_err(BackupError::io(to))?;
        bytes += read as u64;
    }
    file.sync_all().map_err(BackupError::io(to))?;
    Ok((bytes, hex(&hasher.finalize())))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(BackupError::io(dir))
}

/// Makes the names of all directories below and including this one durable.
pub(crate) fn sync_tree(dir: &Path, depth: usize) -> Result<(), BackupError> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).map_err(BackupError::io(dir))? {
        let entry = entry.map_err(BackupError::io(dir))?;
        if entry.file_type().map_err(BackupError::io(dir))?.is_dir() {
            sync_tree(&entry.path(), depth + 1)?;
        }
    }
    sync_dir(dir)
}

/// Deepest directory of kept files that is copied; agents' files are no deeper.
pub(crate) const DEPTH_MAX: usize = 64;

/// The list of a backup while it is made.
#[derive(Debug)]
pub(crate) struct List {
    file: BufWriter<File>,
    hasher: Sha256,
    pub(crate) progress: Progress,
}

impl List {
    pub(crate) fn new(dir: &Path) -> Result<Self, BackupError> {
        let file = BufWriter::new(new_file(&dir.join(LIST_FILE))?);
        Ok(Self { file, hasher: Sha256::new(), progress: Progress::default() })
    }

    /// Notes a file that is durable.
    pub(crate) fn add(
        &mut self,
        path: &str,
        bytes: u64,
        sha256: String,
    ) -> Result<(), BackupError> {
        let line = Line { path: path.to_owned(), bytes, sha256 };
        let wrong = BackupError::io(LIST_FILE);
        let mut text = match serde_json::to_vec(&line) {
            Ok(text) => text,
            Err(error) => return Err(wrong(io::Error::other(error))),
        };
        text.push(b'\n');
        self.hasher.update(&text);
        self.file.write_all(&text).map_err(wrong)?;
        self.progress.files += 1;
        self.progress.bytes += bytes;
        Ok(())
    }

    /// Makes the list durable; says its hash.
    pub(crate) fn finish(self) -> Result<String, BackupError> {
        let wrong = BackupError::io(LIST_FILE);
        let synced = self.file.into_inner().map_err(io::IntoInnerError::into_error);
        synced.and_then(|file| file.sync_all()).map_err(wrong)?;
        Ok(hex(&self.hasher.finalize()))
    }
}
