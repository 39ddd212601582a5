//! What a disk may hold after the power went: one lawful outcome of many, chosen by a seed.
//!
//! What was synced is there. Every later write may be there, missing, or torn at sectors of 512 or
//! 4,096 bytes, each by itself and in any order; a file that grew may have grown without its bytes
//! (zeros or rubbish); a file that was cut off may be long again; a name that was made or deleted
//! after the last sync of its directory may be so or not. What a failed sync left is decided when it
//! fails and never again. Deliberately absent: a disk that damages bytes nobody was writing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::random::Random;
use crate::world::{Base, FileId, Step};

/// Unit the disk writes as a whole, bytes.
const SECTOR_BYTES: usize = 512;
/// Unit of newer disks and of the page cache, bytes.
const PAGE_BYTES: usize = 4096;
/// Size of the rubbish in place of the log's index, bytes.
const INDEX_BYTES: usize = 32 * 1024;

/// The files a cut leaves, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Content by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Writes the files into `directory`, which is made.
    ///
    /// # Errors
    /// When that fails.
    pub fn write_to(&self, directory: &Path) -> std::io::Result<()> {
        use std::io::Write;
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        for (name, content) in &self.files {
            let mut options = fs::OpenOptions::new();
            let path = directory.join(name);
            options.write(true).create_new(true).mode(0o600).open(path)?.write_all(content)?;
        }
        Ok(())
    }
}

/// How much of what was not synced is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it.
    Everything,
    /// The first changes, the last of them torn.
    Beginning,
    /// Any set of whole changes.
    AnyChanges,
    /// Any set of sectors.
    AnySectors,
    /// Any set of pages.
    AnyPages,
}

impl Survival {
    /// All ways.
    pub const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Everything,
        Self::Beginning,
        Self::AnyChanges,
        Self::AnySectors,
        Self::AnyPages,
    ];
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    /// Numbers of the steps since the last sync.
    pending: Vec<usize>,
}

/// The state of a disk at one position of a record; moves forward only.
#[derive(Debug)]
pub struct Disk<'a> {
    steps: &'a [Step],
    position: usize,
    files: Vec<File>,
    names: BTreeMap<String, FileId>,
    /// What names came to mean since the last sync of their directory.
    renamed: Vec<(String, Option<FileId>)>,
    /// Decides what failed syncs left.
    random: Random,
}

impl<'a> Disk<'a> {
    /// The disk before the first step.
    #[must_use]
    pub fn new(base: &Base, steps: &'a [Step], random: Random) -> Self {
        let file = |content: &Vec<u8>| File { durable: content.clone(), pending: Vec::new() };
        Self {
            steps,
            position: 0,
            files: base.files.iter().map(file).collect(),
            names: base.names.clone(),
            renamed: Vec::new(),
            random,
        }
    }

    /// Takes the steps before `position`.
    pub fn advance(&mut self, position: usize) {
        let end = position.min(self.steps.len());
        while self.position < end {
            self.take(self.position);
            self.position += 1;
        }
    }

    fn take(&mut self, number: usize) {
        match &self.steps[number] {
            Step::Create { name, file } => {
                if self.files.len() <= *file {
                    self.files.resize(*file + 1, File::default());
                }
                self.renamed.push((name.clone(), Some(*file)));
            }
            Step::Delete { name } => self.renamed.push((name.clone(), None)),
            Step::SyncNames => {
                for (name, file) in self.renamed.drain(..) {
                    match file {
                        Some(file) => self.names.insert(name, file),
                        None => self.names.remove(&name),
                    };
                }
            }
            Step::Write { file, .. } | Step::Truncate { file, .. } => {
                self.files[*file].pending.push(number);
            }
            Step::Sync { file } => {
                let File { durable, pending } = &mut self.files[*file];
                for step in pending.drain(..) {
                    apply(durable, &self.steps[step], |_, _| true);
                }
            }
            Step::SyncFailed { file } => {
                let File { durable, pending } = &mut self.files[*file];
                let lost = std::mem::take(pending);
                let random = &mut self.random;
                survive(durable, self.steps, &lost, Survival::AnySectors, random);
            }
        }
    }

    /// The disk after a power cut at this position.
    pub fn cut(&self, survival: Option<Survival>, random: &mut Random) -> Image {
        let mut files = BTreeMap::new();
        for (name, file) in self.names_after(survival, random) {
            let file = &self.files[file];
            let mut content = file.durable.clone();
            let how = survival.unwrap_or_else(|| Survival::ALL[random.index(Survival::ALL.len())]);
            survive(&mut content, self.steps, &file.pending, how, random);
            files.insert(name, content);
        }
        if random.once_in(2) {
            // The index of the log was memory; what its file holds after a cut means nothing.
            let index = (0..INDEX_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
            files.insert("outpost.db-shm".to_owned(), index);
        }
        Image { files }
    }

    fn names_after(
        &self,
        survival: Option<Survival>,
        random: &mut Random,
    ) -> BTreeMap<String, FileId> {
        let mut names = self.names.clone();
        let mut stopped: Vec<&str> = Vec::new();
        for (name, file) in &self.renamed {
            let kept = match survival {
                Some(Survival::Nothing) => false,
                Some(Survival::Everything) => true,
                _ => random.once_in(2),
            };
            // Changes of one name survive from the first on; names do not wait for each other.
            if stopped.contains(&name.as_str()) || !kept {
                stopped.push(name);
                continue;
            }
            match file {
                Some(file) => names.insert(name.clone(), *file),
                None => names.remove(name),
            };
        }
        names
    }
}

/// Applies what survives of the steps `pending`.
fn survive(
    content: &mut Vec<u8>,
    steps: &[Step],
    pending: &[usize],
    survival: Survival,
    random: &mut Random,
) {
    let whole = random.index(pending.len() + 1);
    let rubbish = random.once_in(4);
    for (turn, number) in pending.iter().enumerate() {
        let step = &steps[*number];
        let (unit, keeps) = match survival {
            Survival::Nothing => (0, false),
            Survival::Everything => (0, true),
            Survival::Beginning if turn == whole => (SECTOR_BYTES, true),
            Survival::Beginning => (0, turn < whole),
            Survival::AnyChanges => (0, random.once_in(2)),
            Survival::AnySectors => (SECTOR_BYTES, true),
            Survival::AnyPages => (PAGE_BYTES, true),
        };
        if unit > 0 {
            tear(content, step, unit, rubbish, random);
        } else if keeps {
            apply(content, step, |_, _| true);
        }
    }
}

/// Applies any set of the units of one step.
fn tear(content: &mut Vec<u8>, step: &Step, unit: usize, rubbish: bool, random: &mut Random) {
    let before = content.len();
    if let Step::Truncate { .. } = step {
        if random.once_in(2) {
            apply(content, step, |_, _| true);
        }
        return;
    }
    let fate = random.next();
    // Each unit decides once, by its place, however often it is asked.
    let lives = |place: u64, _: usize| Random::new(fate ^ (place / unit as u64)).once_in(2);
    apply(content, step, lives);
    let Step::Write { offset, bytes, .. } = step else {
        return;
    };
    let end = usize::try_from(*offset).unwrap_or(usize::MAX).saturating_add(bytes.len());
    if end > before && random.once_in(2) {
        // The length got to the disk, the bytes did not.
        let known = content.len();
        content.resize(end.max(known), 0);
        if rubbish {
            for byte in &mut content[known..] {
                *byte = random.next().to_le_bytes()[0];
            }
        }
    }
}

/// Applies the sectors of a step for which `lives(offset, length)` holds.
fn apply(content: &mut Vec<u8>, step: &Step, lives: impl Fn(u64, usize) -> bool) {
    match step {
        Step::Truncate { bytes, .. } => {
            content.resize(usize::try_from(*bytes).unwrap_or(0), 0);
        }
        Step::Write { offset, bytes, .. } => {
            let mut at = usize::try_from(*offset).unwrap_or(0);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let length = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len());
                let (sector, after) = rest.split_at(length);
                if lives(at as u64, length) {
                    if content.len() < at + length {
                        content.resize(at + length, 0);
                    }
                    content[at..at + length].copy_from_slice(sector);
                }
                at += length;
                rest = after;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8, length: usize) -> Step {
        Step::Write { file: 0, offset, bytes: vec![byte; length] }
    }

    fn base() -> Base {
        let names = BTreeMap::from([("outpost.db".to_owned(), 0)]);
        Base { files: vec![vec![1; 1024]], names }
    }

    fn content(image: &Image) -> &[u8] {
        &image.files["outpost.db"]
    }

    #[test]
    fn what_was_synced_survives_every_cut() {
        let steps = [write(0, 2, 1024), Step::Sync { file: 0 }, write(512, 3, 1024)];
        let base = base();
        let mut disk = Disk::new(&base, &steps, Random::new(1));
        disk.advance(3);
        let (mut torn, mut whole, mut none) = (false, false, false);
        for seed in 0..500 {
            let image = disk.cut(None, &mut Random::new(seed));
            let bytes = content(&image);
            assert_eq!(bytes[..512], [2; 512]);
            let middle = &bytes[512..1024];
            assert!(*middle == [2; 512] || *middle == [3; 512], "sectors are never torn inside");
            none |= bytes == [2; 1024];
            whole |= bytes.len() == 1536 && bytes[512..].iter().all(|byte| *byte == 3);
            torn |= bytes.len() == 1536 && bytes[512] == 2 && bytes[1024] == 3;
        }
        assert!(none && whole && torn);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        let steps = [write(0, 2, 512), Step::SyncFailed { file: 0 }, Step::Sync { file: 0 }];
        let base = base();
        let kept = (0..64).filter(|seed| {
            let mut disk = Disk::new(&base, &steps, Random::new(*seed));
            disk.advance(3);
            content(&disk.cut(None, &mut Random::new(0)))[0] == 2
        });
        assert!((1..64).contains(&kept.count()));
    }

    #[test]
    fn names_last_once_their_directory_is_synced() {
        let steps = [
            Step::Create { name: "log".to_owned(), file: 1 },
            Step::SyncNames,
            Step::Delete { name: "log".to_owned() },
        ];
        let base = base();
        let mut disk = Disk::new(&base, &steps, Random::new(1));
        let there = |disk: &Disk<'_>| {
            let found = (0..64)
                .filter(|seed| disk.cut(None, &mut Random::new(*seed)).files.contains_key("log"));
            found.count()
        };
        disk.advance(1);
        assert!((1..64).contains(&there(&disk)));
        disk.advance(2);
        assert_eq!(there(&disk), 64);
        disk.advance(3);
        assert!((1..64).contains(&there(&disk)));
    }
}
