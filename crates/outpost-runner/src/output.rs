//! The agent's output on its way from the pipes into `output.log`.
//!
//! Bytes are moved by `splice`, from the pipe that the launcher keeps straight into the file: there is
//! no moment in which they exist only in this process, so a server that dies loses none and the next
//! one goes on where this one stopped. Which stream a byte came from is written down before the first
//! byte of it is moved, in `output.index` beside the attempt.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use outpost_types::LogStreamName;
use outpost_types::limits::OUTPUT_LOG_BYTES_MAX;
use rustix::pipe::{SpliceFlags, splice};

/// Name of the log among the kept files.
const LOG_FILE: &str = "output.log";
/// Name of the list of streams in the attempt's directory.
const INDEX_FILE: &str = "output.index";
/// Most bytes moved at once: what a pipe usually holds.
pub(crate) const MOVE_BYTES_MAX: usize = 64 * 1024;
/// One entry of the index: eight bytes of offset, little-endian, and one of stream.
const ENTRY_BYTES: usize = 9;
/// Most entries. An agent that changes the stream with every byte would fill our memory with them.
const ENTRIES_MAX: usize = 1_000_000;

/// The log and the index beside it.
#[derive(Debug)]
pub(crate) struct OutputLog {
    log: File,
    index: File,
    end: u64,
    segments: Vec<Segment>,
    dropped_bytes: u64,
}

/// From where on bytes are of which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    start: u64,
    stream: LogStreamName,
}

/// What came out of a pipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// Where in the log they begin; `None` for bytes beyond its bound, which are in no file.
    pub(crate) start: Option<u64>,
}

impl OutputLog {
    /// Opens log and index, which may hold what an earlier server took.
    pub(crate) fn open(kept_dir: &Path, attempt_dir: &Path) -> io::Result<Self> {
        // Not in append mode: splice refuses such files.
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let log = options.open(kept_dir.join(LOG_FILE))?;
        let mut index = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(attempt_dir.join(INDEX_FILE))?;
        let end = log.metadata()?.len();
        let mut entries = Vec::new();
        index.read_to_end(&mut entries)?;
        Ok(Self { log, index, end, segments: segments(&entries), dropped_bytes: 0 })
    }

    /// How far the log reaches.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes beyond the bound of the log.
    pub(crate) const fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Moves what the pipe holds into the log; empty at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when the pipe is empty; anything else is the file's trouble.
    pub(crate) fn take(&mut self, stream: LogStreamName, pipe: impl AsFd) -> io::Result<Taken> {
        let room = OUTPUT_LOG_BYTES_MAX.saturating_sub(self.end);
        let wanted = usize::try_from(room).unwrap_or(usize::MAX).min(MOVE_BYTES_MAX);
        if wanted == 0 || !self.note(stream)? {
            return self.take_beyond_bound(pipe);
        }
        let start = self.end;
        let mut offset = start;
        let flags = SpliceFlags::NONBLOCK;
        let moved = splice(pipe, None, &self.log, Some(&mut offset), wanted, flags)?;
        self.end += moved as u64;
        let mut bytes = vec![0; moved];
        self.log.read_exact_at(&mut bytes, start)?;
        Ok(Taken { bytes, start: Some(start) })
    }

    fn take_beyond_bound(&mut self, pipe: impl AsFd) -> io::Result<Taken> {
        let mut bytes = vec![0; MOVE_BYTES_MAX];
        let read = rustix::io::read(pipe, &mut bytes)?;
        bytes.truncate(read);
        self.dropped_bytes += read as u64;
        Ok(Taken { bytes, start: None })
    }

    /// Writes down of which stream the next byte is, before it is moved. False when there is no room.
    fn note(&mut self, stream: LogStreamName) -> io::Result<bool> {
        if self.segments.last().is_some_and(|last| last.stream == stream) {
            return Ok(true);
        }
        if self.segments.len() >= ENTRIES_MAX {
            return Ok(false);
        }
        let segment = Segment { start: self.end, stream };
        self.index.write_all(&segment.entry())?;
        self.segments.push(segment);
        Ok(true)
    }

    /// What an earlier server took, piece by piece, in the order it was taken.
    pub(crate) fn pieces(&self) -> Vec<(LogStreamName, Range<u64>)> {
        pieces(&self.segments, self.end)
    }

    /// Reads such a piece again.
    pub(crate) fn read(&self, piece: &Range<u64>) -> io::Result<Taken> {
        let length = usize::try_from(piece.end - piece.start).unwrap_or(MOVE_BYTES_MAX);
        let mut bytes = vec![0; length];
        self.log.read_exact_at(&mut bytes, piece.start)?;
        Ok(Taken { bytes, start: Some(piece.start) })
    }
}

impl Segment {
    fn entry(self) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..8].copy_from_slice(&self.start.to_le_bytes());
        entry[8] = u8::from(self.stream == LogStreamName::Stderr);
        entry
    }

    fn from_entry(entry: &[u8]) -> Option<Self> {
        let start = u64::from_le_bytes(entry.get(..8)?.try_into().ok()?);
        let stream = match entry.get(8)? {
            0 => LogStreamName::Stdout,
            _ => LogStreamName::Stderr,
        };
        Some(Self { start, stream })
    }
}

/// Reads an index; a torn last entry counts nothing.
fn segments(index: &[u8]) -> Vec<Segment> {
    index.chunks_exact(ENTRY_BYTES).filter_map(Segment::from_entry).collect()
}

/// Cuts the segments of a log of `end` bytes into pieces of at most [`MOVE_BYTES_MAX`]. Whatever the
/// index says, no piece reaches beyond the log.
fn pieces(segments: &[Segment], end: u64) -> Vec<(LogStreamName, Range<u64>)> {
    let ends = segments.iter().skip(1).map(|next| next.start.min(end)).chain([end]);
    let of_segment = |(segment, end): (&Segment, u64)| {
        let stream = segment.stream;
        let starts = (segment.start..end).step_by(MOVE_BYTES_MAX);
        starts.map(move |start| (stream, start..end.min(start + MOVE_BYTES_MAX as u64)))
    };
    segments.iter().zip(ends).flat_map(of_segment).collect()
}

/// An index of these entries (offset and stream), for the fuzzers.
pub(crate) fn index_of(entries: &[(u64, LogStreamName)]) -> Vec<u8> {
    let entry =
        |(start, stream): &(u64, LogStreamName)| Segment { start: *start, stream: *stream }.entry();
    entries.iter().flat_map(entry).collect()
}

/// The pieces that an index of a log of `end` bytes tells of, for the fuzzers.
pub(crate) fn pieces_of(index: &[u8], end: u64) -> Vec<(LogStreamName, Range<u64>)> {
    pieces(&segments(index), end)
}

#[cfg(test)]
mod tests {
    use std::io::PipeWriter;

    use super::*;

    fn pipe_of(text: &[u8]) -> (std::io::PipeReader, PipeWriter) {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text).unwrap();
        (reader, writer)
    }

    #[test]
    fn another_server_replays_exactly_what_was_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (out, _out) = pipe_of("one ü\ntwo".as_bytes());
        let (err, _err) = pipe_of(b"problem\n");
        let mut first = OutputLog::open(dir.path(), dir.path()).unwrap();
        let mut taken = Vec::new();
        for (stream, pipe) in [(LogStreamName::Stdout, &out), (LogStreamName::Stderr, &err)] {
            taken.push((stream, first.take(stream, pipe).unwrap()));
        }
        // What is in the pipe when the first server dies waits for the second.
        drop(first);
        let (rest, _rest) = pipe_of(b" three\n");
        let mut second = OutputLog::open(dir.path(), dir.path()).unwrap();
        let read = |(stream, piece)| (stream, second.read(&piece).unwrap());
        let replayed: Vec<_> = second.pieces().into_iter().map(read).collect();
        assert_eq!(replayed, taken);
        second.take(LogStreamName::Stdout, &rest).unwrap();
        let log = std::fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
        assert_eq!(log, "one ü\ntwoproblem\n three\n");
        assert_eq!(second.end(), log.len() as u64);
    }

    #[test]
    fn streams_may_take_turns_only_so_often() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = OutputLog::open(dir.path(), dir.path()).unwrap();
        log.segments = vec![Segment { start: 0, stream: LogStreamName::Stdout }; ENTRIES_MAX];
        let ((out, _out), (err, _err)) = (pipe_of(b"kept"), pipe_of(b"dropped"));
        assert_eq!(log.take(LogStreamName::Stderr, &err).unwrap().start, None);
        assert_eq!(log.take(LogStreamName::Stdout, &out).unwrap().start, Some(0));
        assert_eq!((log.end(), log.dropped_bytes(), log.segments.len()), (4, 7, ENTRIES_MAX));
    }

    #[test]
    fn a_damaged_index_leads_nowhere_beyond_the_log() {
        use LogStreamName::{Stderr, Stdout};
        let index = index_of(&[(0, Stdout), (u64::MAX - 1, Stderr), (u64::MAX, Stdout)]);
        assert_eq!(pieces_of(&index, 10), [(Stdout, 0..10)]);
        // Back to the start, and half an entry.
        let index = index_of(&[(5, Stdout), (2, Stderr), (4, Stdout)]);
        assert_eq!(pieces_of(&index[..ENTRY_BYTES * 2 + 3], 7), [(Stderr, 2..7)]);
    }

    #[test]
    fn an_empty_pipe_blocks_nobody_and_its_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = OutputLog::open(dir.path(), dir.path()).unwrap();
        let (reader, writer) = pipe_of(b"");
        let error = log.take(LogStreamName::Stdout, &reader).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        assert!(log.take(LogStreamName::Stdout, &reader).unwrap().bytes.is_empty());
    }
}
