//! The two bodies of a forwarded call: the request on its way up, the answer on its way down.
//!
//! Both pass pieces on as they arrive. Bounded: request bytes, the copy of a request that is kept to send it
//! again, idle time of the answer. Absent: trailers, which no provider sends.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::call::Drains;
use super::event::{GatewayEvent, Reporter};
use super::meter::CallMeter;
use super::reach::{ReachScan, Reaches, always_searches};
use super::redact::Redactor;
use super::scan::RequestScan;
use crate::serve::BodyError;

/// Longest silence in the middle of an answer, seconds. Reasoning models think for minutes.
const ANSWER_IDLE_SECONDS_MAX: u64 = 900;

/// Most bytes of a request that are kept to send it again.
pub(crate) const REPLAY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes kept for that by all requests of a session.
const REPLAY_POOL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is put into a request that streams without saying that tokens are to be counted.
const COUNT_STREAM: &[u8] = br#","stream_options":{"include_usage":true}"#;

/// What a request must be like to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Strictness {
    /// Anything passes.
    #[default]
    Any,
    /// A budget is in force: what it costs must be told by the answer.
    Countable,
    /// The same, and the dialect has to be asked to count streams.
    CountableChat,
}

/// Bytes that the requests of a session keep.
#[derive(Debug, Default)]
pub(crate) struct ReplayPool(AtomicUsize);

impl ReplayPool {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= REPLAY_POOL_BYTES_MAX;
        if !taken {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }
}

/// Why a request is not passed on to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestRefusal {
    TooLarge,
    /// Its cost could not be told.
    NotCountable,
    /// Nothing may be reached, and it asks the provider to.
    Reaches(Reaches),
}

/// What is known about a request while it streams.
#[derive(Debug)]
pub(crate) struct RequestTally {
    pub(crate) bytes: AtomicU64,
    /// Why it is not passed on to its end.
    refused: OnceLock<RequestRefusal>,
    /// It has been passed on to its end.
    pub(crate) whole: AtomicBool,
    strictness: Strictness,
    pool: Arc<ReplayPool>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    scan: RequestScan,
    /// Where nothing may be reached.
    reach: Option<ReachScan>,
    /// What was passed on; `None` when it is too much, or is not needed any more.
    sent: Option<Vec<u8>>,
}

impl RequestTally {
    /// `reach` looks for what the provider is asked to reach; without it that may be anything.
    pub(crate) fn new(
        strictness: Strictness,
        reach: Option<ReachScan>,
        pool: &Arc<ReplayPool>,
    ) -> Self {
        let kept = Kept { reach, sent: Some(Vec::new()), ..Kept::default() };
        Self {
            bytes: AtomicU64::new(0),
            refused: OnceLock::new(),
            whole: AtomicBool::new(false),
            strictness,
            pool: Arc::clone(pool),
            kept: Mutex::new(kept),
        }
    }

    /// The model the request names.
    pub(crate) fn model(&self) -> Option<String> {
        self.kept().scan.model()
    }

    /// The request once more, if it was passed on whole and was not too large to be kept.
    pub(crate) fn replay(&self) -> Option<Bytes> {
        let whole = self.whole.load(Ordering::Relaxed);
        let kept = self.kept();
        let sent = kept.sent.as_ref().filter(|_| whole)?;
        Some(Bytes::copy_from_slice(sent))
    }

    pub(crate) fn can_replay(&self) -> bool {
        self.whole.load(Ordering::Relaxed) && self.kept().sent.is_some()
    }

    /// It will not be sent again.
    pub(crate) fn forget(&self) {
        self.kept().forget(&self.pool);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to pass on of a piece; an error ends the request.
    fn pass(&self, piece: Bytes, bytes_max: u64) -> Result<Bytes, &'static str> {
        let bytes = piece.len() as u64;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > bytes_max {
            return Err(self.refuse(RequestRefusal::TooLarge));
        }
        let mut kept = self.kept();
        let end = kept.scan.push(&piece);
        if self.strictness != Strictness::Any && kept.scan.problem().is_some() {
            return Err(self.refuse(RequestRefusal::NotCountable));
        }
        kept.look_out(&piece).map_err(|reaches| self.refuse(RequestRefusal::Reaches(reaches)))?;
        let mut piece = piece;
        if let Some(end) = end {
            match self.at_end(&kept.scan) {
                Ok(true) => piece = [&piece[..end], COUNT_STREAM, &piece[end..]].concat().into(),
                Ok(false) => {}
                Err(error) => return Err(error),
            }
        }
        kept.keep(&piece, &self.pool);
        Ok(piece)
    }

    /// The fields are all known, and the last byte has not been passed on. Says whether to ask for the count.
    fn at_end(&self, scan: &RequestScan) -> Result<bool, &'static str> {
        let chat = self.strictness == Strictness::CountableChat;
        let uncounted = chat && scan.streams() && scan.counts_stream() == Some(false);
        if self.strictness != Strictness::Any && (scan.is_background() || uncounted) {
            return Err(self.refuse(RequestRefusal::NotCountable));
        }
        Ok(chat && scan.streams() && scan.counts_stream().is_none())
    }

    fn refuse(&self, refusal: RequestRefusal) -> &'static str {
        let _ = self.refused.set(refusal);
        "the request is refused"
    }

    /// Why it was not passed on to its end, if it was not.
    pub(crate) fn refused(&self) -> Option<&RequestRefusal> {
        self.refused.get()
    }

    /// No more comes.
    fn end(&self) -> Result<(), &'static str> {
        let kept = self.kept();
        if !kept.scan.is_whole() {
            if self.strictness != Strictness::Any {
                return Err(self.refuse(RequestRefusal::NotCountable));
            }
            if kept.reach.is_some() {
                return Err(self.refuse(RequestRefusal::Reaches(Reaches::Unreadable)));
            }
        }
        drop(kept);
        self.whole.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for RequestTally {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Kept {
    /// Whether a piece asks the provider to reach something, where that may not be.
    fn look_out(&mut self, piece: &[u8]) -> Result<(), Reaches> {
        let Some(reach) = &mut self.reach else { return Ok(()) };
        reach.push(piece);
        if let Some(found) = reach.found() {
            return Err(found.clone());
        }
        if self.scan.problem().is_some() {
            return Err(Reaches::Unreadable);
        }
        // Known before its last byte is passed on.
        match self.scan.model().filter(|model| self.scan.is_whole() && always_searches(model)) {
            Some(model) => Err(Reaches::Out(model)),
            None => Ok(()),
        }
    }

    fn keep(&mut self, piece: &Bytes, pool: &ReplayPool) {
        let Some(sent) = &mut self.sent else { return };
        if sent.len() + piece.len() <= REPLAY_BYTES_MAX && pool.take(piece.len()) {
            // One buffer: pieces can be as small as the agent likes, or hold on to much larger ones.
            sent.extend_from_slice(piece);
        } else {
            self.forget(pool);
        }
    }

    fn forget(&mut self, pool: &ReplayPool) {
        let sent_bytes = self.sent.take().map_or(0, |sent| sent.len());
        pool.0.fetch_sub(sent_bytes, Ordering::Relaxed);
    }
}

/// The agent's request body, counted and bounded.
pub(crate) struct RequestBody<B> {
    pub(crate) inner: B,
    pub(crate) tally: Arc<RequestTally>,
    pub(crate) bytes_max: u64,
    /// Bytes the agent announced. The last of them are the end, whether or not the reader asks for more.
    pub(crate) left: Option<u64>,
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes>,
{
    pub(crate) fn new(inner: B, tally: Arc<RequestTally>, bytes_max: u64) -> Self {
        let left = inner.size_hint().exact();
        Self { inner, tally, bytes_max, left }
    }
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
            Poll::Ready(None) => return Poll::Ready(self.tally.end().err().map(|e| Err(e.into()))),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else {
            return Poll::Ready(self.tally.end().err().map(|e| Err(e.into())));
        };
        self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
        let passed = self.tally.pass(piece, self.bytes_max).and_then(|piece| {
            if self.left == Some(0) {
                self.tally.end()?;
            }
            Ok(piece)
        });
        match passed {
            Ok(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What may be put in makes the length unknown.
        if self.tally.strictness == Strictness::CountableChat {
            return SizeHint::default();
        }
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
    /// The answer arrived to its end, whether or not the agent took all of it.
    pub(crate) whole: bool,
    /// The provider may have got the request, and nobody knows what it answered.
    pub(crate) unanswered: bool,
    /// `None` for calls that are not charged.
    pub(crate) meter: Option<CallMeter>,
}

impl CallReport {
    fn model(path_model: Option<&String>, tally: &RequestTally) -> Option<String> {
        path_model.cloned().or_else(|| tally.model())
    }

    /// Looks at a piece of the answer; false when the call must not go on.
    pub(crate) fn saw(&mut self, piece: &[u8]) -> bool {
        let (path_model, tally) = (self.path_model.as_ref(), &self.tally);
        let requested = || Self::model(path_model, tally);
        self.meter.as_mut().is_none_or(|meter| meter.saw(piece, requested))
    }
}

impl Drop for CallReport {
    fn drop(&mut self) {
        let elapsed = self.began.elapsed();
        let requested = Self::model(self.path_model.as_ref(), &self.tally);
        let request_bytes = self.tally.bytes.load(Ordering::Relaxed);
        let sent = self.unanswered && self.tally.whole.load(Ordering::Relaxed);
        let settled = self.meter.take().and_then(|meter| {
            meter.settle(self.whole, requested.clone(), request_bytes, sent, elapsed)
        });
        let model = settled.as_ref().and_then(|settled| settled.model.clone());
        self.reporter.call(GatewayEvent::Call {
            provider: std::mem::take(&mut self.provider),
            status: self.status,
            model: model.or(requested),
            duration_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            request_bytes,
            response_bytes: self.response_bytes,
            complete: self.complete,
            usage: settled.as_ref().map(|settled| settled.tokens),
            cost: settled.as_ref().and_then(|settled| settled.cost),
            estimated: settled.as_ref().is_some_and(|settled| settled.estimated),
        });
    }
}

/// The provider's answer, redacted.
pub(crate) struct AnswerBody {
    inner: Option<reqwest::Body>,
    redactor: Redactor,
    idle: Pin<Box<Sleep>>,
    /// Bytes still to come, when the provider announced them. The reader stops asking once it has them all.
    left: Option<u64>,
    report: Option<CallReport>,
    drains: Arc<Drains>,
}

impl AnswerBody {
    pub(crate) fn new(
        inner: reqwest::Body,
        redactor: Redactor,
        mut report: CallReport,
        drains: Arc<Drains>,
    ) -> Self {
        let left = inner.size_hint().exact();
        report.complete = left == Some(0);
        report.whole = report.complete;
        let idle = Box::pin(tokio::time::sleep(Duration::from_secs(ANSWER_IDLE_SECONDS_MAX)));
        Self { inner: Some(inner), redactor, idle, left, report: Some(report), drains }
    }

    fn give(&mut self, piece: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(report) = &mut self.report {
            report.response_bytes += piece.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// The provider has nothing more to say.
    fn arrived(&mut self) {
        self.inner = None;
        if let Some(report) = &mut self.report {
            (report.complete, report.whole) = (true, true);
        }
    }

    fn fail(
        &mut self,
        error: impl Into<BodyError>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.inner = None;
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // The agent hung up: what the call costs in the end is counted all the same.
        if let (Some(inner), Some(report)) = (self.inner.take(), self.report.take())
            && report.meter.is_some()
        {
            self.drains.drain(inner, report);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
            match Pin::new(inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let deadline =
                        tokio::time::Instant::now() + Duration::from_secs(ANSWER_IDLE_SECONDS_MAX);
                    self.idle.as_mut().reset(deadline);
                    let Ok(piece) = frame.into_data() else {
                        continue;
                    };
                    if !self.report.as_mut().is_none_or(|report| report.saw(&piece)) {
                        return self.fail("the budget is used up");
                    }
                    self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
                    let mut piece = self.redactor.push(piece);
                    if self.left == Some(0) {
                        self.arrived();
                        let rest = self.redactor.finish();
                        if !rest.is_empty() {
                            piece = Bytes::from([piece, rest].concat());
                        }
                    }
                    if !piece.is_empty() {
                        return self.give(piece);
                    }
                }
                Poll::Ready(Some(Err(error))) => return self.fail(error.without_url()),
                Poll::Ready(None) => {
                    self.arrived();
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
                    return self.fail("the model provider fell silent");
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
        let tally = Arc::new(RequestTally::new(Strictness::Any, None, &Arc::default()));
        let frames = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(piece))));
        let inner = StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()));
        let body = RequestBody::new(inner, Arc::clone(&tally), bytes_max);
        let passed = body.collect().await.is_ok();
        (tally, passed)
    }

    #[tokio::test]
    async fn a_body_without_announced_length_is_bounded() {
        let (tally, passed) = send(&[b"1234", b"5678"], 8).await;
        assert!(passed && tally.refused().is_none());
        assert_eq!(tally.bytes.load(Ordering::Relaxed), 8);
        let (tally, passed) = send(&[b"1234", b"5678", b"9"], 8).await;
        assert!(!passed && tally.refused() == Some(&RequestRefusal::TooLarge));
    }

    #[tokio::test]
    async fn the_model_is_found_and_the_request_can_be_sent_again() {
        let (tally, _) = send(&[b"{\"mod", b"el\" : \"gpt-5.2", b"-codex\",\"x\":1}"], 100).await;
        assert_eq!(tally.model().as_deref(), Some("gpt-5.2-codex"));
        assert_eq!(tally.replay().unwrap(), "{\"model\" : \"gpt-5.2-codex\",\"x\":1}");
        tally.forget();
        assert_eq!(tally.replay(), None);
        let (tally, _) = send(&[b"{\"model\":\"<script>\"}"], 100).await;
        assert_eq!(tally.model(), None);
    }
}
