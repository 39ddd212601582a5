//! Streams of events and bytes that follow a file as it grows.

use std::collections::VecDeque;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use outpost_types::{ApiError, ByteStream, ErrorCode, EventEnvelope, EventStream};
use tokio::sync::watch;
use tracing::error;

use crate::journal::{ByteReader, EventReader, Extent};

/// Events with `seq > after` from the log in `dir`, following `extent` until it is sealed.
pub(crate) fn events(
    dir: &Path,
    after: u64,
    extent: watch::Receiver<Extent>,
) -> Result<EventStream, ApiError> {
    let reader = EventReader::open(dir, after).map_err(|error| unreadable(&error))?;
    let state = EventFollower { reader, extent, ready: VecDeque::new(), ended: false };
    Ok(Box::pin(stream::unfold(state, |mut state| async move {
        let next = state.next().await?;
        Some((next, state))
    })))
}

struct EventFollower {
    reader: EventReader,
    extent: watch::Receiver<Extent>,
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
            let extent = *self.extent.borrow_and_update();
            match self.reader.read(extent.events_bytes) {
                Ok(events) if !events.is_empty() => self.ready.extend(events),
                Ok(_) if extent.sealed && self.reader.is_at(extent.events_bytes) => return None,
                Ok(_) => self.extent.changed().await.ok()?,
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
    extent: watch::Receiver<Extent>,
) -> Result<ByteStream, ApiError> {
    let reader = ByteReader::open(path, after).map_err(|error| unreadable(&error))?;
    Ok(Box::pin(stream::unfold((reader, extent), move |(mut reader, mut extent)| async move {
        loop {
            let now = *extent.borrow_and_update();
            match reader.read(now.output_bytes) {
                Ok(piece) if !piece.is_empty() => {
                    return Some((Ok(Bytes::from(piece)), (reader, extent)));
                }
                Ok(_) if !follow || now.sealed => return None,
                Ok(_) => extent.changed().await.ok()?,
                Err(error) => return Some((Err(unreadable(&error)), (reader, extent))),
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
