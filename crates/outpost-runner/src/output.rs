//! The agent's output on its way from the pipes into `output.log`.
//!
//! Bytes are moved by `splice`, from the pipe that the launcher keeps straight into a file: there is
//! no moment in which they exist only in this process, so a server that dies loses none and the next
//! one goes on where this one stopped. Which stream a byte came from is written down before the first
//! byte of it is moved, in `output.index`.
//!
//! That file, `output.raw`, is beside the attempt and gone with it, for it holds whatever the agent
//! printed. What is kept and served, `output.log`, is the same without secrets. It follows from the raw
//! bytes and their streams alone, so a next server finds how far it was written by its length, and
//! goes on there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use outpost_context::{Scrubber, StreamScrubber};
use outpost_types::LogStreamName;
use outpost_types::limits::OUTPUT_LOG_BYTES_MAX;
use rustix::pipe::{SpliceFlags, splice};

/// Name of the log among the kept files.
const LOG_FILE: &str = "output.log";
/// Name of what the agent printed, byte by byte, in the attempt's directory.
const RAW_FILE: &str = "output.raw";
/// Name of the list of streams in the attempt's directory.
const INDEX_FILE: &str = "output.index";
/// Most bytes moved at once: what a pipe usually holds.
pub(crate) const MOVE_BYTES_MAX: usize = 64 * 1024;
/// One entry of the index: eight bytes of offset, little-endian, and one of stream.
const ENTRY_BYTES: usize = 9;
/// Most entries. An agent that changes the stream with every byte would fill our memory with them.
const ENTRIES_MAX: usize = 1_000_000;

/// The log, and what it is made of.
#[derive(Debug)]
pub(crate) struct OutputLog {
    log: File,
    /// How far the log is written.
    written: u64,
    /// How far it reaches by what was scrubbed; behind `written` while output is read again.
    given: u64,
    /// Of stdout and stderr.
    scrubbers: [StreamScrubber; 2],
    raw: File,
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
    /// The pipe is at its end.
    pub(crate) ended: bool,
    /// The bytes, without secrets: lines that have ended by now.
    pub(crate) bytes: Vec<u8>,
    /// Where in the log they begin; `None` for bytes beyond its bound, which are in no file.
    pub(crate) start: Option<u64>,
}

impl OutputLog {
    /// Opens log and index, which may hold what an earlier server took.
    pub(crate) fn open(
        kept_dir: &Path,
        attempt_dir: &Path,
        scrubber: &Scrubber,
    ) -> io::Result<Self> {
        // Not in append mode: splice refuses such files.
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let log = options.open(kept_dir.join(LOG_FILE))?;
        let mut index = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(attempt_dir.join(INDEX_FILE))?;
        let written = log.metadata()?.len();
        let mut entries = Vec::new();
        index.read_to_end(&mut entries)?;
        let raw_path = attempt_dir.join(RAW_FILE);
        if !entries.is_empty() && written > 0 && !raw_path.try_exists()? {
            // Of a server that kept but one file: what is in there becomes what it was made of.
            std::fs::copy(kept_dir.join(LOG_FILE), &raw_path)?;
        }
        let raw = options.mode(0o600).open(raw_path)?;
        let end = raw.metadata()?.len();
        Ok(Self {
            log,
            written,
            given: 0,
            scrubbers: [scrubber.stream(), scrubber.stream()],
            raw,
            index,
            end,
            segments: segments(&entries),
            dropped_bytes: 0,
        })
    }

    /// How far the log is written.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// How far the log reaches by what was scrubbed so far.
    pub(crate) const fn given(&self) -> u64 {
        self.given
    }

    /// Bytes beyond the bound of the log.
    pub(crate) const fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Moves what the pipe holds into the raw file, and lines that ended into the log.
    ///
    /// # Errors
    /// `WouldBlock` when the pipe is empty; anything else is the file's trouble.
    pub(crate) fn take(&mut self, stream: LogStreamName, pipe: impl AsFd) -> io::Result<Taken> {
        let room = OUTPUT_LOG_BYTES_MAX.saturating_sub(self.end);
        let wanted = usize::try_from(room).unwrap_or(usize::MAX).min(MOVE_BYTES_MAX);
        if wanted == 0 || !self.note(stream)? {
            return self.take_beyond_bound(stream, pipe);
        }
        let start = self.end;
        let mut offset = start;
        let flags = SpliceFlags::NONBLOCK;
        let moved = splice(pipe, None, &self.raw, Some(&mut offset), wanted, flags)?;
        self.end += moved as u64;
        let mut bytes = vec![0; moved];
        self.raw.read_exact_at(&mut bytes, start)?;
        self.give(stream, &bytes)
    }

    /// Scrubs bytes of a stream, and appends what comes out to the log unless it is there.
    fn give(&mut self, stream: LogStreamName, bytes: &[u8]) -> io::Result<Taken> {
        let mut out = Vec::with_capacity(bytes.len());
        self.scrubber(stream).push(bytes, &mut out);
        self.append(out, bytes.is_empty())
    }

    /// The last line of a stream, which did not end.
    pub(crate) fn rest(&mut self, stream: LogStreamName) -> io::Result<Taken> {
        let mut out = Vec::new();
        self.scrubber(stream).finish(&mut out);
        self.append(out, true)
    }

    const fn scrubber(&mut self, stream: LogStreamName) -> &mut StreamScrubber {
        let [stdout, stderr] = &mut self.scrubbers;
        match stream {
            LogStreamName::Stdout => stdout,
            LogStreamName::Stderr => stderr,
        }
    }

    fn append(&mut self, bytes: Vec<u8>, ended: bool) -> io::Result<Taken> {
        let start = self.given;
        self.given += bytes.len() as u64;
        // Masks may be longer than what they stand for, so the log has its own bound.
        let end = self.given.min(OUTPUT_LOG_BYTES_MAX);
        self.dropped_bytes += self.given - end.max(start);
        if end > self.written {
            let new = usize::try_from(self.written.saturating_sub(start)).unwrap_or(usize::MAX);
            let room = usize::try_from(end - start).unwrap_or(usize::MAX);
            self.log.write_all_at(&bytes[new..room], self.written)?;
            self.written = end;
        }
        Ok(Taken { ended, bytes, start: Some(start) })
    }

    fn take_beyond_bound(&mut self, stream: LogStreamName, pipe: impl AsFd) -> io::Result<Taken> {
        let mut bytes = vec![0; MOVE_BYTES_MAX];
        let read = rustix::io::read(pipe, &mut bytes)?;
        bytes.truncate(read);
        self.dropped_bytes += read as u64;
        let mut out = Vec::new();
        self.scrubber(stream).push(&bytes, &mut out);
        Ok(Taken { ended: bytes.is_empty(), bytes: out, start: None })
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
    pub(crate) fn read(&mut self, stream: LogStreamName, piece: &Range<u64>) -> io::Result<Taken> {
        let length = usize::try_from(piece.end - piece.start).unwrap_or(MOVE_BYTES_MAX);
        let mut bytes = vec![0; length];
        self.raw.read_exact_at(&mut bytes, piece.start)?;
        self.give(stream, &bytes)
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

    const SECRET: &str = "hunter2!hunter2";

    fn open(dir: &Path) -> OutputLog {
        OutputLog::open(dir, dir, &Scrubber::new([("PASSWORD", SECRET)])).unwrap()
    }

    fn log_in(dir: &Path) -> String {
        std::fs::read_to_string(dir.join(LOG_FILE)).unwrap()
    }

    /// Takes text of a stream; what of it could be told then.
    fn take(log: &mut OutputLog, (stream, text): (LogStreamName, &str)) -> (LogStreamName, Taken) {
        let (pipe, _pipe) = pipe_of(text.as_bytes());
        (stream, log.take(stream, pipe).unwrap())
    }

    const PRINTED: [(LogStreamName, &str); 7] = [
        (LogStreamName::Stdout, "one \u{fc}\nit is hunter2!"),
        (LogStreamName::Stderr, "problem\nhun"),
        (LogStreamName::Stdout, "hunter2, "),
        (LogStreamName::Stdout, "and hunter2!hunter2\n"),
        (LogStreamName::Stderr, "ter2!hunter2"),
        (LogStreamName::Stdout, "two\n"),
        (LogStreamName::Stderr, " end"),
    ];
    const KEPT: &str = "one \u{fc}\nproblem\nit is [masked:PASSWORD], and [masked:PASSWORD]\ntwo\n\
                        [masked:PASSWORD] end";

    #[test]
    fn another_server_goes_on_wherever_the_first_one_died() {
        for died_after in 0..=PRINTED.len() {
            for wrote_less in [0, 1, 5, 20] {
                let dir = tempfile::tempdir().unwrap();
                let mut first = open(dir.path());
                let told =
                    |(stream, taken): (LogStreamName, Taken)| (stream, taken.start, taken.bytes);
                let taken =
                    PRINTED[..died_after].iter().map(|piece| told(take(&mut first, *piece)));
                let taken: Vec<_> = taken.filter(|piece| !piece.2.is_empty()).collect();
                let end = first.written();
                drop(first);
                // It may have died between the raw bytes and the log.
                let log = OpenOptions::new().write(true).open(dir.path().join(LOG_FILE)).unwrap();
                log.set_len(end.saturating_sub(wrote_less)).unwrap();
                let mut second = open(dir.path());
                let pieces = second.pieces().into_iter();
                let again = pieces
                    .map(|(stream, piece)| told((stream, second.read(stream, &piece).unwrap())));
                let again: Vec<_> = again.collect();
                for stream in [LogStreamName::Stdout, LogStreamName::Stderr] {
                    let of = |pieces: &[(LogStreamName, Option<u64>, Vec<u8>)]| {
                        let of = pieces.iter().filter(|piece| piece.0 == stream);
                        of.flat_map(|piece| piece.2.clone()).collect::<Vec<_>>()
                    };
                    assert_eq!(of(&again), of(&taken), "{died_after}");
                }
                assert_eq!((second.written(), second.given()), (end, end), "{died_after}");
                for piece in &PRINTED[died_after..] {
                    take(&mut second, *piece);
                }
                for stream in [LogStreamName::Stdout, LogStreamName::Stderr] {
                    second.rest(stream).unwrap();
                }
                assert_eq!(log_in(dir.path()), KEPT, "{died_after}");
                assert_eq!(second.given(), KEPT.len() as u64);
            }
        }
    }

    #[test]
    fn what_an_older_server_took_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOG_FILE), "one\ntw").unwrap();
        std::fs::write(dir.path().join(INDEX_FILE), index_of(&[(0, LogStreamName::Stdout)]))
            .unwrap();
        let mut log = open(dir.path());
        for (stream, piece) in log.pieces() {
            log.read(stream, &piece).unwrap();
        }
        take(&mut log, (LogStreamName::Stdout, "o hunter2!hunter2\n"));
        assert_eq!(log_in(dir.path()), "one\ntwo [masked:PASSWORD]\n");
    }

    #[test]
    fn the_log_is_bounded_also_where_masks_are_longer() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        (log.given, log.written) = (OUTPUT_LOG_BYTES_MAX - 4, OUTPUT_LOG_BYTES_MAX - 4);
        take(&mut log, (LogStreamName::Stdout, "hunter2!hunter2\n"));
        take(&mut log, (LogStreamName::Stdout, "more\n"));
        assert_eq!(log.written(), OUTPUT_LOG_BYTES_MAX);
        assert_eq!(log.dropped_bytes(), "[masked:PASSWORD]\nmore\n".len() as u64 - 4);
    }

    #[test]
    fn streams_may_take_turns_only_so_often() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        log.segments = vec![Segment { start: 0, stream: LogStreamName::Stdout }; ENTRIES_MAX];
        assert_eq!(take(&mut log, (LogStreamName::Stderr, "dropped")).1.start, None);
        assert_eq!(take(&mut log, (LogStreamName::Stdout, "kept\n")).1.start, Some(0));
        assert_eq!((log.written(), log.dropped_bytes(), log.segments.len()), (5, 7, ENTRIES_MAX));
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
        let mut log = open(dir.path());
        let (reader, writer) = pipe_of(b"");
        let error = log.take(LogStreamName::Stdout, &reader).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        assert!(log.take(LogStreamName::Stdout, &reader).unwrap().ended);
    }
}
