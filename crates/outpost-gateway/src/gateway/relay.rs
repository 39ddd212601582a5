//! The two bodies of a forwarded call: the request on its way up, the answer on its way down.
//!
//! Both pass pieces on as they arrive. Bounded: request bytes, bytes looked at for the model's name, idle time
//! of the answer. Absent: trailers, which no provider sends.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use regex::bytes::Regex;
use tokio::time::Sleep;

use super::event::{GatewayEvent, Reporter};
use super::redact::Redactor;
use crate::serve::BodyError;

/// Longest silence in the middle of an answer, seconds. Reasoning models think for minutes.
const ANSWER_IDLE_SECONDS_MAX: u64 = 900;
/// How much of a request is looked at for the model's name, bytes.
const MODEL_SEARCH_BYTES_MAX: usize = 16 * 1024;

/// What is known about a request while it streams.
#[derive(Debug, Default)]
pub(crate) struct RequestTally {
    pub(crate) bytes: AtomicU64,
    pub(crate) too_large: AtomicBool,
    head: Mutex<Vec<u8>>,
}

impl RequestTally {
    /// The model the request names near its beginning.
    pub(crate) fn model(&self) -> Option<String> {
        static MODEL: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r#""model"\s*:\s*"([A-Za-z0-9._:@/+-]{1,128})""#)
                .expect("a constant pattern")
        });
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let found = MODEL.captures(&head)?;
        String::from_utf8(found[1].to_vec()).ok()
    }

    fn saw(&self, piece: &[u8]) -> u64 {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MODEL_SEARCH_BYTES_MAX - head.len();
        head.extend_from_slice(&piece[..piece.len().min(room)]);
        self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64
    }
}

/// The agent's request body, counted and bounded.
pub(crate) struct RequestBody<B> {
    pub(crate) inner: B,
    pub(crate) tally: Arc<RequestTally>,
    pub(crate) bytes_max: u64,
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else {
            return Poll::Ready(None);
        };
        if self.tally.saw(&piece) > self.bytes_max {
            self.tally.too_large.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err("the request body is too large".into())));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reports the call when it ends, however it ends.
pub(crate) struct CallReport {
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) provider: String,
    pub(crate) status: u16,
    pub(crate) path_model: Option<String>,
    pub(crate) tally: Arc<RequestTally>,
    pub(crate) began: Instant,
    pub(crate) response_bytes: u64,
    pub(crate) complete: bool,
}

impl Drop for CallReport {
    fn drop(&mut self) {
        let elapsed = self.began.elapsed().as_millis();
        self.reporter.call(GatewayEvent::Call {
            provider: std::mem::take(&mut self.provider),
            status: self.status,
            model: self.path_model.take().or_else(|| self.tally.model()),
            duration_ms: u64::try_from(elapsed).unwrap_or(u64::MAX),
            request_bytes: self.tally.bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes,
            complete: self.complete,
        });
    }
}

/// The provider's answer, redacted.
pub(crate) struct AnswerBody {
    inner: reqwest::Body,
    redactor: Redactor,
    idle: Pin<Box<Sleep>>,
    /// Bytes still to come, when the provider announced them. The reader stops asking once it has them all.
    left: Option<u64>,
    ended: bool,
    report: CallReport,
}

impl AnswerBody {
    pub(crate) fn new(inner: reqwest::Body, redactor: Redactor, mut report: CallReport) -> Self {
        let left = inner.size_hint().exact();
        report.complete = left == Some(0);
        let idle = Box::pin(tokio::time::sleep(Duration::from_secs(ANSWER_IDLE_SECONDS_MAX)));
        Self { inner, redactor, idle, left, ended: false, report }
    }

    fn give(&mut self, piece: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.report.response_bytes += piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let deadline =
                        tokio::time::Instant::now() + Duration::from_secs(ANSWER_IDLE_SECONDS_MAX);
                    self.idle.as_mut().reset(deadline);
                    let Ok(piece) = frame.into_data() else {
                        continue;
                    };
                    self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
                    let mut piece = self.redactor.push(piece);
                    if self.left == Some(0) {
                        self.ended = true;
                        self.report.complete = true;
                        let rest = self.redactor.finish();
                        if !rest.is_empty() {
                            piece = Bytes::from([piece, rest].concat());
                        }
                    }
                    if !piece.is_empty() {
                        return self.give(piece);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.without_url().into())));
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    self.report.complete = true;
                    let rest = self.redactor.finish();
                    if rest.is_empty() {
                        return Poll::Ready(None);
                    }
                    return self.give(rest);
                }
                Poll::Pending => {
                    if self.idle.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.ended = true;
                    return Poll::Ready(Some(Err("the model provider fell silent".into())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    async fn send(pieces: &[&'static [u8]], bytes_max: u64) -> (Arc<RequestTally>, bool) {
        let tally = Arc::new(RequestTally::default());
        let frames = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(piece))));
        let inner = StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()));
        let body = RequestBody { inner, tally: Arc::clone(&tally), bytes_max };
        let passed = body.collect().await.is_ok();
        (tally, passed)
    }

    #[tokio::test]
    async fn a_body_without_announced_length_is_bounded() {
        let (tally, passed) = send(&[b"1234", b"5678"], 8).await;
        assert!(passed && !tally.too_large.load(Ordering::Relaxed));
        assert_eq!(tally.bytes.load(Ordering::Relaxed), 8);
        let (tally, passed) = send(&[b"1234", b"5678", b"9"], 8).await;
        assert!(!passed && tally.too_large.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn the_model_is_found_near_the_beginning() {
        let (tally, _) = send(&[b"{\"mod", b"el\" : \"gpt-5.2", b"-codex\",\"x\":1}"], 100).await;
        assert_eq!(tally.model().as_deref(), Some("gpt-5.2-codex"));
        let (tally, _) = send(&[b"{\"model\":\"<script>\"}"], 100).await;
        assert_eq!(tally.model(), None);
    }
}
