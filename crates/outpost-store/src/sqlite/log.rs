//! A look at the write-ahead log before SQLite opens it: is it damaged in its middle?
//!
//! SQLite ends a log silently at the first frame whose checksum is wrong, and ignores a log whose
//! header is. That is right for the last transaction, which a power cut may have torn, and would
//! lose acknowledged writes anywhere else. The difference shows: a transaction is synced before the
//! next begins and the log starts empty, so a cut leaves at most one commit at or after the first bad
//! frame, and never a bad header before frames. What remains undetectable is damage in the last
//! transaction itself.
//!
//! Layout: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>. Bounded: one frame in memory.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::StoreError;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit says whether checksums are computed over big-endian words.
const MAGIC: u32 = 0x377f_0682;
/// Place of the salts in the header of a frame, bytes.
const SALTS_AT: u64 = 8;
/// Least unit a disk writes as a whole, bytes.
const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES_MAX: usize = 65_536;
const PAGE_BYTES_MIN: usize = 512;
/// Commits of the current log that a power cut may leave at or after its first bad frame.
const TORN_COMMITS_MAX: u32 = 1;

/// Refuses a log that lost more than a power cut can take. No log is a good log.
pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io(error)),
    };
    let bytes = file.metadata().map_err(StoreError::io)?.len();
    if bytes < (HEADER_BYTES + FRAME_HEADER_BYTES) as u64 {
        return Ok(());
    }
    let mut file = BufReader::with_capacity(PAGE_BYTES_MAX, file);
    let header = Header::read(&mut file).map_err(StoreError::io)?;
    let Some(header) = header else {
        return Err(StoreError::corrupt("the header of its log"));
    };
    let torn = header.torn_commits(&mut file).map_err(StoreError::io)?;
    if torn > TORN_COMMITS_MAX {
        return Err(StoreError::corrupt(format!("{torn} transactions at the end of its log")));
    }
    Ok(())
}

struct Header {
    big_endian: bool,
    page_bytes: usize,
    salts: [u8; 8],
    sum: [u32; 2],
}

impl Header {
    /// `None` when it is damaged.
    fn read(file: &mut BufReader<File>) -> std::io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact(&mut bytes)?;
        let big_endian = word(&bytes, 0) & 1 == 1;
        let page_bytes = word(&bytes, 8) as usize;
        let mut salts = [0; 8];
        salts.copy_from_slice(&bytes[16..24]);
        let sum = summed([0, 0], &bytes[..24], big_endian);
        let sound = word(&bytes, 0) & !1 == MAGIC
            && page_bytes.is_power_of_two()
            && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes)
            && sum == [word(&bytes, 24), word(&bytes, 28)];
        Ok(sound.then_some(Self { big_endian, page_bytes, salts, sum }))
    }

    /// Commits of this log at or after its first bad frame.
    fn torn_commits(&self, file: &mut BufReader<File>) -> std::io::Result<u32> {
        let mut frame = vec![0; FRAME_HEADER_BYTES + self.page_bytes];
        let mut sum = self.sum;
        let mut torn = false;
        let mut commits = 0;
        let mut at = HEADER_BYTES as u64;
        loop {
            match file.read_exact(&mut frame) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(commits),
                Err(error) => return Err(error),
            }
            let ours = frame[8..16] == self.salts;
            if !torn {
                sum = summed(sum, &frame[..8], self.big_endian);
                sum = summed(sum, &frame[FRAME_HEADER_BYTES..], self.big_endian);
                torn = !ours || sum != [word(&frame, 16), word(&frame, 20)];
            }
            // A commit states the size of the database after it. Where a sector ends between that and
            // the salts, a torn write may have left the size of an older log.
            let whole = !(at + SALTS_AT).is_multiple_of(SECTOR_BYTES);
            if torn && ours && whole && word(&frame, 4) != 0 {
                commits += 1;
            }
            at += frame.len() as u64;
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

/// SQLite's checksum of a log, continued over `bytes`, whose length is a multiple of eight.
fn summed(sum: [u32; 2], bytes: &[u8], big_endian: bool) -> [u32; 2] {
    let [mut one, mut two] = sum;
    for pair in bytes.chunks_exact(8) {
        let word =
            |at: usize| if big_endian { word(pair, at) } else { word(pair, at).swap_bytes() };
        one = one.wrapping_add(word(0)).wrapping_add(two);
        two = two.wrapping_add(word(4)).wrapping_add(one);
    }
    [one, two]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::*;

    const FRAME_BYTES: usize = FRAME_HEADER_BYTES + 4096;

    /// A log of several transactions, and where the last begins.
    fn log() -> (tempfile::TempDir, std::path::PathBuf, usize) {
        let directory = tempfile::tempdir().unwrap();
        let database = Connection::open(directory.path().join("a.db")).unwrap();
        let log = directory.path().join("a.db-wal");
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = FULL;
                 CREATE TABLE t (x); CREATE TABLE u (x);",
            )
            .unwrap();
        let mut last = 0;
        for _ in 0..4 {
            last = fs::metadata(&log).unwrap().len();
            database
                .execute_batch("BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); COMMIT")
                .unwrap();
        }
        let kept = directory.path().join("kept");
        fs::copy(&log, &kept).unwrap();
        (directory, kept, usize::try_from(last).unwrap())
    }

    #[test]
    fn a_whole_log_and_none_are_good() {
        let (directory, log, last) = log();
        check(&log).unwrap();
        check(&directory.path().join("nothing")).unwrap();
        // A power cut may take any of the last transaction.
        let good = fs::read(&log).unwrap();
        for length in [good.len() - 1, last + 100, last, 40, 0] {
            fs::write(&log, &good[..length]).unwrap();
            check(&log).unwrap();
        }
    }

    #[test]
    fn a_flipped_bit_shows_except_in_the_last_transaction() {
        let (_directory, log, last) = log();
        let good = fs::read(&log).unwrap();
        for place in (0..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[place] ^= 4;
            fs::write(&log, bad).unwrap();
            let found = check(&log);
            let in_last = place >= last;
            // The salts and the size of a commit frame are what tells it from rubbish.
            let marks = (place.saturating_sub(HEADER_BYTES) % FRAME_BYTES) < 16;
            if in_last {
                // A page that turned into a commit shows even there.
                assert!(found.is_ok() || marks, "{place}: {found:?}");
            } else if place < HEADER_BYTES || !marks {
                assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{place}: {found:?}");
            }
        }
    }
}
