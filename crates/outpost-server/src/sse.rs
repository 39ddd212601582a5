//! Events of a dispatch as a `text/event-stream` body.
//!
//! Nothing is read ahead: an event leaves the source only when the connection can take it, and at
//! most one chunk of [`CHUNK_BYTES`] plus one event is held per reader, so a slow reader costs
//! bounded memory and slows nobody else. Events that are ready together travel in one chunk.

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use outpost_types::{ApiError, EventEnvelope, EventStream};
use tokio::time::Interval;

use crate::stop::Stopped;

/// Size at which a chunk is sent, bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// Pause a browser makes before it reconnects, milliseconds.
const RETRY_MILLIS: u32 = 1_000;

/// The body of one reader. Ends after the terminal event, after an error (sent as an event named
/// `error` with a problem document) and when the server stops.
pub(crate) struct SseBody<F> {
    events: EventStream,
    stopped: Stopped,
    heartbeat: Interval,
    buffer: BytesMut,
    problem: F,
    ended: bool,
}

impl<F: Fn(ApiError) -> Vec<u8> + Unpin> SseBody<F> {
    /// Reads `events`; `problem` writes the document of an error.
    pub(crate) fn new(
        events: EventStream,
        stopped: Stopped,
        heartbeat: Duration,
        problem: F,
    ) -> Self {
        let start = tokio::time::Instant::now() + heartbeat;
        let mut heartbeat = tokio::time::interval_at(start, heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut buffer = BytesMut::with_capacity(1024);
        // Also makes proxies pass the head on at once.
        write_to(&mut buffer, format_args!("retry: {RETRY_MILLIS}\n\n"));
        Self { events, stopped, heartbeat, buffer, problem, ended: false }
    }

    fn push(&mut self, item: Result<EventEnvelope, ApiError>) {
        match item {
            Ok(event) => {
                self.ended = event.data.is_terminal();
                let (seq, kind) = (event.seq, event.data.kind());
                write_to(&mut self.buffer, format_args!("id: {seq}\nevent: {kind}\ndata: "));
                // Writing to memory does not fail, and JSON on one line holds no line break.
                let _ = serde_json::to_writer((&mut self.buffer).writer(), &event);
            }
            Err(error) => {
                self.ended = true;
                write_to(&mut self.buffer, format_args!("event: error\ndata: "));
                self.buffer.extend_from_slice(&(self.problem)(error));
            }
        }
        self.buffer.extend_from_slice(b"\n\n");
    }
}

fn write_to(buffer: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = buffer.writer().write_fmt(text);
}

impl<F: Fn(ApiError) -> Vec<u8> + Unpin> Stream for SseBody<F> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.ended && this.buffer.len() < CHUNK_BYTES {
            match this.events.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => this.push(item),
                Poll::Ready(None) => this.ended = true,
                Poll::Pending => break,
            }
        }
        if !this.buffer.is_empty() {
            this.heartbeat.reset();
            return Poll::Ready(Some(Ok(this.buffer.split().freeze())));
        }
        if this.ended || this.stopped.as_mut().poll(cx).is_ready() {
            this.ended = true;
            return Poll::Ready(None);
        }
        if this.heartbeat.poll_tick(cx).is_ready() {
            // The next poll arms the timer again.
            return Poll::Ready(Some(Ok(Bytes::from_static(b": heartbeat\n\n"))));
        }
        Poll::Pending
    }
}
