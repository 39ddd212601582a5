//! How output becomes lines, and the same lines again after a restart.

use outpost_runner::fuzzing::{LineCutter, PIECE_BYTES_MAX, index_of, pieces_of};
use outpost_types::LogStreamName::{self, Stderr, Stdout};
use outpost_types::limits::{LINE_BYTES_MAX, OUTPUT_LOG_BYTES_MAX};

use crate::feed::{Feed, grown, pieces};

/// Most entries of a damaged index; more only take longer.
const ENTRIES_MAX: usize = 256;

/// Lines are the same however their bytes arrive, and together they are what arrived.
pub fn line_cutter(data: &[u8]) {
    let mut feed = Feed(data);
    let seed = feed.byte();
    let bytes = grown(feed.0);
    let whole = cut([bytes.as_slice()]);
    assert_eq!(cut(pieces(&bytes, seed)), whole, "lines depend on how they arrive");
    let mut start = 0;
    for (line, end) in &whole {
        let piece = &bytes[start..*end];
        let ended = piece.last() == Some(&b'\n');
        let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
        assert!(piece.len() <= LINE_BYTES_MAX);
        assert!(
            ended || piece.len() == LINE_BYTES_MAX || *end == bytes.len(),
            "a line was cut below its bound"
        );
        let piece = piece.strip_suffix(b"\r").unwrap_or(piece);
        assert_eq!(*line, String::from_utf8_lossy(piece));
        start = *end;
    }
    assert_eq!(start, bytes.len(), "bytes got lost");
}

/// Lines with the offset they end at; the last one may have no end.
fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, usize)> {
    let mut cutter = LineCutter::default();
    let (mut lines, mut start) = (Vec::new(), 0);
    for piece in pieces {
        lines.extend(cutter.push(piece).into_iter().map(|(line, passed)| (line, start + passed)));
        start += piece.len();
    }
    lines.extend(cutter.finish().map(|line| (line, start)));
    lines
}

/// Whatever an index says, nothing beyond the log is read, and no piece is large.
pub fn output_index(data: &[u8]) {
    let mut feed = Feed(data);
    let end = feed.number() % (OUTPUT_LOG_BYTES_MAX + 1);
    let entry_bytes = index_of(&[(0, Stdout)]).len();
    let index = feed.bytes(ENTRIES_MAX * entry_bytes);
    for (_, piece) in pieces_of(index, end) {
        assert!(piece.start < piece.end && piece.end <= end, "{piece:?} of {end}");
        assert!(piece.end - piece.start <= PIECE_BYTES_MAX as u64);
    }
    // One that was written reads back: the pieces cover the log from its first entry on.
    let mut starts: Vec<u64> = Vec::new();
    while !feed.is_empty() {
        starts.push(feed.number() % (end + 1));
    }
    starts.sort_unstable();
    let streams = [Stdout, Stderr].into_iter().cycle();
    let changes: Vec<(u64, LogStreamName)> = starts.into_iter().zip(streams).collect();
    let mut at = changes.first().map_or(end, |first| first.0);
    for (stream, piece) in pieces_of(&index_of(&changes), end) {
        assert_eq!(piece.start, at);
        let change = changes.iter().rev().find(|(start, _)| *start <= piece.start);
        assert_eq!(change.map(|(_, stream)| *stream), Some(stream));
        at = piece.end;
    }
    assert_eq!(at, end);
}

/// A line, the stream it was printed to, and the offset in the log that it ends at.
type Told = (LogStreamName, String, u64);

/// One reader of both streams.
#[derive(Default)]
struct Reader {
    stdout: LineCutter,
    stderr: LineCutter,
    told: Vec<Told>,
}

impl Reader {
    fn digest(&mut self, stream: LogStreamName, bytes: &[u8], start: u64) {
        let cutter = if stream == Stdout { &mut self.stdout } else { &mut self.stderr };
        for (line, passed) in cutter.push(bytes) {
            self.told.push((stream, line, start + passed as u64));
        }
    }
}

/// A next server reads the same lines again, at the same offsets, and goes on as the first would have.
pub fn output_replay(data: &[u8]) {
    let mut feed = Feed(data);
    let crash = usize::from(feed.byte());
    let mut taken: Vec<(LogStreamName, Vec<u8>)> = Vec::new();
    while !feed.is_empty() {
        let head = feed.byte();
        let stream = if head & 1 == 0 { Stdout } else { Stderr };
        taken.push((stream, grown(feed.bytes(usize::from(head >> 1)))));
    }
    let (mut log, mut changes): (Vec<u8>, Vec<(u64, LogStreamName)>) = (Vec::new(), Vec::new());
    let (mut first, mut next) = (Reader::default(), Reader::default());
    let mut resumed = false;
    for (number, (stream, bytes)) in taken.iter().enumerate() {
        // The stream is written down before the first byte of it is moved.
        if changes.last().is_none_or(|(_, last)| last != stream) {
            changes.push((log.len() as u64, *stream));
        }
        if number == crash {
            resumed = true;
            for (stream, piece) in pieces_of(&index_of(&changes), log.len() as u64) {
                let [start, end] = [piece.start, piece.end].map(|at| at as usize);
                next.digest(stream, &log[start..end], piece.start);
            }
            assert_eq!(next.told, first.told, "a next server reads something else");
        }
        first.digest(*stream, bytes, log.len() as u64);
        if resumed {
            next.digest(*stream, bytes, log.len() as u64);
        }
        log.extend_from_slice(bytes);
        if log.len() > crate::GROWN_BYTES_MAX {
            break;
        }
    }
    if resumed {
        assert!(next.told == first.told, "a next server goes on differently");
        assert_eq!(next.stdout.finish(), first.stdout.finish());
        assert_eq!(next.stderr.finish(), first.stderr.finish());
    }
}
