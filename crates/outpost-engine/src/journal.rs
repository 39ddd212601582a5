//! The two growing files of a dispatch: `events.jsonl`, which is written here, and `output.log`, which
//! the runner writes.
//!
//! Files are the buffer: a writer appends and announces the new end, a reader follows at its own
//! pace from any position. A slow reader therefore never slows the agent, and nobody sees a gap or a
//! repeat. Appends go to the page cache, which is fast enough to do in place on an async thread;
//! `sync` makes both files durable before the terminal state is announced.
//!
//! A dispatch that only waits has no files: the few events of its waiting are held in memory until
//! somebody reads them or something else happens. A queue of a hundred thousand costs neither
//! descriptors nor directories. After a crash those events are told again by the record; nobody has
//! read the first ones, for then there would be files.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use outpost_runner::Told;
use outpost_types::{Attention, DispatchId, DispatchStatus, EventData, EventEnvelope, Timestamp};
use tokio::sync::watch;

/// Name of the event log among the kept files.
pub(crate) const EVENTS_FILE: &str = "events.jsonl";
/// Name of the output log among the kept files.
pub(crate) const OUTPUT_FILE: &str = "output.log";
/// Most events held in memory; with one more the files are made.
const HELD_EVENTS_MAX: usize = 8;
/// Largest event log, bytes; beyond it only what the platform itself says is added.
const EVENTS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest piece a reader takes at once, bytes.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How far the files reach, and whether they will grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extent {
    pub(crate) events_bytes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) sealed: bool,
}

/// Writer's side of both files.
#[derive(Debug)]
pub(crate) struct Journal {
    dispatch: DispatchId,
    dir: PathBuf,
    pages: Mutex<Pages>,
    extent: watch::Sender<Extent>,
}

/// Where what is written goes.
#[derive(Debug)]
enum Pages {
    /// There are no files yet; events of the waiting and when they happened.
    Held(Vec<(Timestamp, EventData)>),
    Files(Files),
}

#[derive(Debug)]
struct Files {
    events: File,
    output: File,
    next_seq: u64,
    /// Events over the bound, since the files were opened.
    dropped: u64,
}

impl Journal {
    /// Opens or makes the files in `dir`. A torn last event line (from a crash) is cut off.
    pub(crate) fn open(dispatch: DispatchId, dir: &Path) -> io::Result<Self> {
        let (files, extent) = open_files(dir)?;
        Ok(Self::new(dispatch, dir, Pages::Files(files), extent))
    }

    /// The same, but makes no files before they are needed.
    pub(crate) fn open_late(dispatch: DispatchId, dir: &Path) -> io::Result<Self> {
        if dir.try_exists()? {
            return Self::open(dispatch, dir);
        }
        Ok(Self::new(dispatch, dir, Pages::Held(Vec::new()), Extent::default()))
    }

    fn new(dispatch: DispatchId, dir: &Path, pages: Pages, extent: Extent) -> Self {
        let extent = watch::Sender::new(extent);
        Self { dispatch, dir: dir.to_owned(), pages: Mutex::new(pages), extent }
    }

    /// Makes the files, if there are none yet.
    pub(crate) fn materialise(&self) -> io::Result<()> {
        self.with_files(|_| Ok(()))
    }

    /// Whether nothing was written yet.
    pub(crate) fn is_empty(&self) -> bool {
        match &*self.lock() {
            Pages::Held(events) => events.is_empty(),
            Pages::Files(files) => files.next_seq == 1,
        }
    }

    /// Appends one event and announces it. `log_offset` is for what was read from the output.
    pub(crate) fn event(
        &self,
        at: Timestamp,
        log_offset: Option<u64>,
        data: EventData,
    ) -> io::Result<()> {
        if let Pages::Held(events) = &mut *self.lock()
            && events.len() < HELD_EVENTS_MAX
            && is_of_waiting(&data)
        {
            events.push((at, data));
            return Ok(());
        }
        self.with_files(|files| self.append(files, at, log_offset, data))
    }

    /// Does something with the files; what was held in memory is in them by then.
    fn with_files<T>(&self, work: impl FnOnce(&mut Files) -> io::Result<T>) -> io::Result<T> {
        let mut pages = self.lock();
        if let Pages::Held(held) = &*pages {
            let (mut files, extent) = open_files(&self.dir)?;
            self.extent.send_replace(extent);
            // Those that an earlier try could write before it failed are there already.
            let written = usize::try_from(files.next_seq - 1).unwrap_or(usize::MAX);
            for (at, data) in held.iter().skip(written) {
                self.append(&mut files, *at, None, data.clone())?;
            }
            *pages = Pages::Files(files);
        }
        match &mut *pages {
            Pages::Files(files) => work(files),
            Pages::Held(_) => unreachable!("files were made above"),
        }
    }

    fn append(
        &self,
        files: &mut Files,
        at: Timestamp,
        log_offset: Option<u64>,
        data: EventData,
    ) -> io::Result<()> {
        if self.extent.borrow().events_bytes >= EVENTS_BYTES_MAX && !is_essential(log_offset, &data)
        {
            files.dropped += 1;
            return if files.dropped == 1 {
                self.append(files, at, None, too_many())
            } else {
                Ok(())
            };
        }
        let seq = files.next_seq;
        let envelope = EventEnvelope { seq, at, dispatch_id: self.dispatch, log_offset, data };
        let mut line = serde_json::to_vec(&envelope).map_err(io::Error::other)?;
        line.push(b'\n');
        let end = self.extent.borrow().events_bytes;
        files.events.write_all(&line).inspect_err(|_| {
            // All or nothing: what a failed write left behind is cut off again.
            if let Err(error) = files.events.set_len(end) {
                tracing::error!(%error, "could not cut a torn append off");
            }
        })?;
        files.next_seq += 1;
        self.extent.send_modify(|extent| extent.events_bytes += line.len() as u64);
        Ok(())
    }

    /// The runner has written output up to `end`.
    pub(crate) fn output_end(&self, end: u64) {
        self.extent.send_modify(|extent| extent.output_bytes = extent.output_bytes.max(end));
    }

    /// How much of the output became events.
    pub(crate) fn told(&self) -> io::Result<Told> {
        self.materialise()?;
        let end = self.extent.borrow().events_bytes;
        let mut reader = EventReader::open(&self.dir, 0)?;
        let mut told = Told::default();
        loop {
            let events = reader.read(end)?;
            if events.is_empty() {
                return Ok(told);
            }
            for offset in events.into_iter().filter_map(|event| event.log_offset) {
                let count = if offset == told.log_offset { told.count + 1 } else { 1 };
                told = Told { log_offset: offset, count };
            }
        }
    }

    /// What the last event says.
    pub(crate) fn last_event(&self) -> Option<EventData> {
        let after = match &*self.lock() {
            Pages::Held(events) => return events.last().map(|(_, data)| data.clone()),
            Pages::Files(files) => files.next_seq.saturating_sub(2),
        };
        let end = self.extent.borrow().events_bytes;
        let mut reader = EventReader::open(&self.dir, after).ok()?;
        reader.read(end).ok()?.pop().map(|event| event.data)
    }

    /// Makes both files durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.with_files(|files| {
            files.events.sync_data()?;
            files.output.sync_data()
        })
    }

    /// Tells readers that nothing follows.
    pub(crate) fn seal(&self) {
        self.extent.send_modify(|extent| extent.sealed = true);
    }

    /// A reader of the files' growth, which are there from now on.
    pub(crate) fn watch(&self) -> io::Result<watch::Receiver<Extent>> {
        self.materialise()?;
        Ok(self.extent.subscribe())
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pages> {
        // A panic while holding it leaves whole lines in the files and counters that match them.
        self.pages.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether an event is kept even beyond the bound: what the platform itself says, of which there is
/// never much.
const fn is_essential(log_offset: Option<u64>, data: &EventData) -> bool {
    log_offset.is_none()
        && matches!(
            data,
            EventData::Status { .. }
                | EventData::Network { .. }
                | EventData::Phase { .. }
                | EventData::Attention(_)
                | EventData::ArtifactCreated { .. }
        )
}

fn too_many() -> EventData {
    let message = "There are too many events. What the agent says and does from here on is only \
                   in its output log.";
    EventData::Attention(Attention {
        code: "events_truncated".to_owned(),
        message: message.to_owned(),
    })
}

/// Whether an event says only that a dispatch waits, which its record says as well.
const fn is_of_waiting(data: &EventData) -> bool {
    matches!(
        data,
        EventData::Status { status: DispatchStatus::Pending | DispatchStatus::Queued, .. }
    )
}

fn open_files(dir: &Path) -> io::Result<(Files, Extent)> {
    std::fs::create_dir_all(dir)?;
    let append =
        |name| OpenOptions::new().create(true).append(true).read(true).open(dir.join(name));
    let mut events: File = append(EVENTS_FILE)?;
    let output: File = append(OUTPUT_FILE)?;
    let (lines, whole_bytes) = count_lines(&mut events)?;
    events.set_len(whole_bytes)?;
    let extent =
        Extent { events_bytes: whole_bytes, output_bytes: output.metadata()?.len(), sealed: false };
    Ok((Files { events, output, next_seq: lines + 1, dropped: 0 }, extent))
}

fn count_lines(file: &mut File) -> io::Result<(u64, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let (mut lines, mut bytes) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok((lines, bytes));
        }
        lines += 1;
        bytes += read as u64;
    }
}

/// Reader's side of the event log.
#[derive(Debug)]
pub(crate) struct EventReader {
    file: File,
    position: u64,
    after: u64,
    rest: Vec<u8>,
}

impl EventReader {
    /// Reads events with `seq > after` from the log in `dir`.
    pub(crate) fn open(dir: &Path, after: u64) -> io::Result<Self> {
        Ok(Self { file: File::open(dir.join(EVENTS_FILE))?, position: 0, after, rest: Vec::new() })
    }

    /// Whether everything up to `end` was read.
    pub(crate) fn is_at(&self, end: u64) -> bool {
        self.position >= end
    }

    /// The next events below `end`; empty when it is reached.
    pub(crate) fn read(&mut self, end: u64) -> io::Result<Vec<EventEnvelope>> {
        let mut events = Vec::new();
        while events.is_empty() && self.position < end {
            let piece = read_piece(&mut self.file, &mut self.position, end)?;
            if piece.is_empty() {
                break;
            }
            self.rest.extend_from_slice(&piece);
            let Some(whole) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let tail = self.rest.split_off(whole + 1);
            for line in self.rest.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: EventEnvelope =
                    serde_json::from_slice(line).map_err(io::Error::other)?;
                if event.seq > self.after {
                    events.push(event);
                }
            }
            self.rest = tail;
        }
        Ok(events)
    }
}

/// Reader's side of a file of bytes.
#[derive(Debug)]
pub(crate) struct ByteReader {
    file: File,
    position: u64,
}

impl ByteReader {
    /// Reads `path` from `position` on.
    pub(crate) fn open(path: &Path, position: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(position))?;
        Ok(Self { file, position })
    }

    /// The next piece below `end`; empty when it is reached.
    pub(crate) fn read(&mut self, end: u64) -> io::Result<Vec<u8>> {
        read_piece(&mut self.file, &mut self.position, end)
    }
}

fn read_piece(file: &mut File, position: &mut u64, end: u64) -> io::Result<Vec<u8>> {
    let wanted = usize::try_from(end.saturating_sub(*position)).unwrap_or(usize::MAX);
    let mut piece = vec![0; wanted.min(READ_BYTES_MAX)];
    let read = file.read(&mut piece)?;
    piece.truncate(read);
    *position += read as u64;
    Ok(piece)
}

/// End of a file, at most `bytes_max`, as text; starts at a whole character.
pub(crate) fn tail_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max as u64)))?;
    let mut bytes = Vec::with_capacity(bytes_max);
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    let start = bytes.iter().take(4).position(|byte| byte & 0xC0 != 0x80).unwrap_or(0);
    Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
}

#[cfg(test)]
mod tests {
    use outpost_types::LogStreamName;

    use super::*;

    fn log(text: &str) -> EventData {
        EventData::Log { stream: LogStreamName::Stdout, text: text.into() }
    }

    fn journal(dir: &Path) -> Journal {
        Journal::open(DispatchId::from_parts(1, 1), dir).unwrap()
    }

    fn read_all(journal: &Journal, after: u64) -> Vec<u64> {
        let end = journal.watch().unwrap().borrow().events_bytes;
        let mut reader = EventReader::open(journal.dir(), after).unwrap();
        let mut seqs = Vec::new();
        loop {
            let events = reader.read(end).unwrap();
            if events.is_empty() {
                return seqs;
            }
            seqs.extend(events.iter().map(|event| event.seq));
        }
    }

    #[test]
    fn sequence_goes_on_after_a_reopen_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let first = journal(dir.path());
        first.event(Timestamp::default(), None, log("a\nb")).unwrap();
        first.event(Timestamp::default(), None, log(&"ü".repeat(100_000))).unwrap();
        drop(first);
        let mut file = OpenOptions::new().append(true).open(dir.path().join(EVENTS_FILE)).unwrap();
        file.write_all(b"{\"seq\":3,\"torn").unwrap();
        let second = journal(dir.path());
        second.event(Timestamp::default(), None, log("c")).unwrap();
        assert_eq!(read_all(&second, 0), [1, 2, 3]);
        assert_eq!(read_all(&second, 2), [3]);
        assert_eq!(read_all(&second, 9), [] as [u64; 0]);
    }

    fn status(status: DispatchStatus) -> EventData {
        EventData::Status { status, reason: None, failure: None }
    }

    #[test]
    fn waiting_makes_no_files_until_somebody_looks() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        let late = || Journal::open_late(DispatchId::from_parts(1, 1), &kept).unwrap();
        let journal = late();
        assert!(journal.is_empty() && journal.last_event().is_none());
        let (pending, queued) = (status(DispatchStatus::Pending), status(DispatchStatus::Queued));
        journal.event(Timestamp::from_millis(5), None, pending.clone()).unwrap();
        journal.event(Timestamp::from_millis(6), None, queued.clone()).unwrap();
        assert!(!kept.exists() && !journal.is_empty());
        assert_eq!(journal.last_event(), Some(queued.clone()));
        // A reader finds everything, with the instants at which it happened.
        assert_eq!(read_all(&journal, 0), [1, 2]);
        let mut reader = EventReader::open(&kept, 0).unwrap();
        let first = reader.read(u64::MAX).unwrap().remove(0);
        assert_eq!((first.at, first.data), (Timestamp::from_millis(5), pending));
        // From now on it goes on in the files, also after a restart.
        journal.event(Timestamp::from_millis(7), None, queued.clone()).unwrap();
        drop(journal);
        let journal = late();
        assert_eq!(journal.last_event(), Some(queued));
        assert_eq!(read_all(&journal, 1), [2, 3]);
    }

    #[test]
    fn whatever_is_not_waiting_makes_the_files() {
        let steps: [fn(&Journal); 4] = [
            |journal| journal.event(Timestamp::default(), None, log("x")).unwrap(),
            |journal| journal.sync().unwrap(),
            |journal| assert_eq!(journal.told().unwrap(), Told::default()),
            |journal| {
                for _ in 0..=HELD_EVENTS_MAX {
                    let queued = status(DispatchStatus::Queued);
                    journal.event(Timestamp::default(), None, queued).unwrap();
                }
            },
        ];
        for step in steps {
            let dir = tempfile::tempdir().unwrap();
            let kept = dir.path().join("kept");
            let id = DispatchId::from_parts(1, 1);
            let journal = Journal::open_late(id, &kept).unwrap();
            step(&journal);
            assert!(kept.join(EVENTS_FILE).exists() && kept.join(OUTPUT_FILE).exists());
        }
    }

    #[test]
    fn what_was_told_of_the_output_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        assert_eq!(journal.told().unwrap(), Told::default());
        for offset in [Some(5), None, Some(9), Some(9), None] {
            journal.event(Timestamp::default(), offset, log("x")).unwrap();
        }
        assert_eq!(journal.told().unwrap(), Told { log_offset: 9, count: 2 });
    }

    #[test]
    fn a_flood_of_events_is_cut_but_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        journal.event(Timestamp::default(), Some(1), log("x")).unwrap();
        journal.watch().unwrap();
        journal.extent.send_modify(|extent| extent.events_bytes = EVENTS_BYTES_MAX);
        for offset in 2..10 {
            journal.event(Timestamp::default(), Some(offset), log("x")).unwrap();
        }
        let status =
            EventData::Status { status: DispatchStatus::Completed, reason: None, failure: None };
        journal.event(Timestamp::default(), None, status).unwrap();
        let text = std::fs::read_to_string(dir.path().join(EVENTS_FILE)).unwrap();
        let kinds: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<EventEnvelope>(line).unwrap().data.kind())
            .collect();
        assert_eq!(kinds, ["log", "attention", "dispatch.status"]);
    }

    #[test]
    fn tail_is_whole_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "aüüü").unwrap();
        assert_eq!(tail_text(&path, 5).unwrap(), "üü");
        assert_eq!(tail_text(&path, 100).unwrap(), "aüüü");
    }
}
