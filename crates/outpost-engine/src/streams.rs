//! Streams of events and bytes that follow a file as it grows.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use outpost_types::{ApiError, ByteStream, ErrorCode, EventEnvelope, EventStream};
use tokio::sync::watch;
use tracing::error;

use crate::journal::{ByteReader, EventReader, Extent, Journal};
use crate::live::Live;

/// How far the logs of a dispatch reach, and whether they grow.
#[derive(Debug)]
pub(crate) struct Growth {
    extent: watch::Receiver<Extent>,
    /// A reader keeps what it follows.
    _live: Option<Arc<Live>>,
}

impl Growth {
    /// Of one that did not end. Its files are there from now on.
    pub(crate) fn of_live(live: Arc<Live>) -> std::io::Result<Self> {
        Ok(Self { extent: live.journal.watch()?, _live: Some(live) })
    }

    /// Of one that did.
    pub(crate) fn of_ended(journal: Journal) -> std::io::Result<Self> {
        journal.seal();
        Ok(Self { extent: journal.watch()?, _live: None })
    }

    /// Where it is now.
    pub(crate) fn extent(&self) -> Extent {
        *self.extent.borrow()
    }

    /// Where it is now; from here on [`Growth::changed`] waits for more.
    fn next(&mut self) -> Extent {
        *self.extent.borrow_and_update()
    }

    /// `None` when there is never more.
    async fn changed(&mut self) -> Option<()> {
        self.extent.changed().await.ok()
    }
}

/// Events with `seq > after` from the log in `dir`, following its growth until it is sealed.
pub(crate) fn events(dir: &Path, after: u64, growth: Growth) -> Result<EventStream, ApiError> {
    let reader = EventReader::open(dir, after).map_err(|error| unreadable(&error))?;
    let state = EventFollower { reader, growth, ready: VecDeque::new(), ended: false };
    Ok(Box::pin(stream::unfold(state, |mut state| async move {
        let next = state.next().await?;
        Some((next, state))
    })))
}

struct EventFollower {
    reader: EventReader,
    growth: Growth,
    ready: VecDeque<EventEnvelope>,
    ended: bool,
}

impl EventFollower {
    async fn next(&mut self) -> Option<Result<EventEnvelope, ApiError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.ended = event.data.is_terminal();
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            let extent = self.growth.next();
            match self.reader.read(extent.events_bytes) {
                Ok(events) if !events.is_empty() => self.ready.extend(events),
                Ok(_) if extent.sealed && self.reader.is_at(extent.events_bytes) => return None,
                Ok(_) => self.growth.changed().await?,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(unreadable(&error)));
                }
            }
        }
    }
}

/// Bytes of a growing file from `after` on; with `follow` until it is sealed.
pub(crate) fn growing(
    path: &Path,
    after: u64,
    follow: bool,
    growth: Growth,
) -> Result<ByteStream, ApiError> {
    let reader = ByteReader::open(path, after).map_err(|error| unreadable(&error))?;
    Ok(Box::pin(stream::unfold((reader, growth), move |(mut reader, mut growth)| async move {
        loop {
            let now = growth.next();
            match reader.read(now.output_bytes) {
                Ok(piece) if !piece.is_empty() => {
                    return Some((Ok(Bytes::from(piece)), (reader, growth)));
                }
                Ok(_) if !follow || now.sealed => return None,
                Ok(_) => growth.changed().await?,
                Err(error) => return Some((Err(unreadable(&error)), (reader, growth))),
            }
        }
    })))
}

/// Bytes of a file that does not grow any more.
pub(crate) fn file(path: &Path) -> Result<ByteStream, ApiError> {
    let reader = ByteReader::open(path, 0).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ApiError::not_found(),
        _ => unreadable(&error),
    })?;
    Ok(Box::pin(stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.read(u64::MAX) {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => Some((Ok(Bytes::from(piece)), Some(reader))),
            Err(error) => Some((Err(unreadable(&error)), None)),
        }
    })))
}

/// The error for a file of ours that cannot be read; the cause stays in the server's log.
pub(crate) fn unreadable(cause: &std::io::Error) -> ApiError {
    error!(%cause, "a kept file could not be read");
    ApiError::new(ErrorCode::Internal, "A kept file could not be read.")
        .with_hint("The server's log says why.")
}
