//! One call towards a provider: sent, sent again when the provider wants no calls for now, and read to its end
//! also when the agent has hung up.
//!
//! The request runs in a task of its own, so that an agent cannot dodge the count by hanging up; what a call
//! that nobody waits for takes is read on, within bounds, and the rest is estimated. A call that is
//! held because of a provider's limits is no task: it is gone as soon as the agent hangs up.
//!
//! Bounded: time to the head of the answer; time, bytes and number of answers that are read on; tries and
//! time of a held call. Absent: anything that outlives the session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::response;
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ratelimit::{self, LIMIT_BODY_BYTES_MAX, LIMIT_BODY_SECONDS_MAX, Verdict};
use super::relay::CallReport;

/// Longest time from the head of a request to the head of its answer, seconds. Without streaming it
/// includes all of the model's thinking.
const ANSWER_HEAD_SECONDS_MAX: u64 = 900;
/// Most answers that are read on at once after the agent hung up.
const DRAINS_MAX: usize = 8;
/// Longest time one is read on, seconds.
const DRAIN_SECONDS_MAX: u64 = 120;
/// Most bytes of one that are read on.
const DRAIN_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How often a call is sent at most, all credentials together.
pub(crate) const TRIES_MAX: u32 = 5;
/// Wait where the provider named no time, seconds; doubled with each try.
const WAIT_SECONDS_UNNAMED: u64 = 2;

/// What becomes of calls that nobody waits for any more.
#[derive(Debug)]
pub(crate) struct Drains {
    slots: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    runtime: Handle,
    /// Cancelled when the session ends.
    stop: CancellationToken,
}

/// How sending a request ended.
pub(crate) enum Sent {
    Answer(reqwest::Response),
    Failed(reqwest::Error),
    TimedOut,
    Stopped,
}

impl Drains {
    pub(crate) fn new(stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(DRAINS_MAX)),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            stop,
        })
    }

    /// Sends a request and waits for the head of the answer. When this is dropped before, the call goes on.
    pub(crate) async fn send(
        self: &Arc<Self>,
        call: reqwest::RequestBuilder,
        report: CallReport,
    ) -> (Sent, Option<CallReport>) {
        let (sender, receiver) = oneshot::channel();
        let (drains, stop) = (Arc::clone(self), self.stop.clone());
        let task = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = drains.run(call, report, sender) => {}
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
        match receiver.await {
            Ok((sent, report)) => (sent, Some(report)),
            Err(_) => (Sent::Stopped, None),
        }
    }

    async fn run(
        &self,
        call: reqwest::RequestBuilder,
        mut report: CallReport,
        mut sender: oneshot::Sender<(Sent, CallReport)>,
    ) {
        report.unanswered = true;
        let limit = Duration::from_secs(ANSWER_HEAD_SECONDS_MAX);
        let mut sending = std::pin::pin!(timeout(limit, call.send()));
        let first = tokio::select! {
            sent = &mut sending => Some(sent),
            () = sender.closed() => None,
        };
        if let Some(sent) = first {
            let sent = sent_of(sent, &mut report);
            // An agent that hung up at this very moment is found by whoever holds the answer then.
            if let Err((Sent::Answer(response), report)) = sender.send((sent, report)) {
                self.drain(response.into(), report);
            }
            return;
        }
        let Ok(_slot) = self.slots.try_acquire() else { return };
        let limit = Duration::from_secs(DRAIN_SECONDS_MAX);
        let rest = async {
            if let Sent::Answer(response) = sent_of(sending.await, &mut report) {
                read_on(response.into(), &mut report).await;
            }
        };
        // What is not known after that is estimated when the report is dropped.
        let _ = timeout(limit, rest).await;
    }

    /// Reads an answer on that nobody waits for; what does not arrive within the bounds is estimated.
    pub(crate) fn drain(&self, body: reqwest::Body, mut report: CallReport) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
        let stop = self.stop.clone();
        let task = async move {
            let limit = Duration::from_secs(DRAIN_SECONDS_MAX);
            tokio::select! {
                () = stop.cancelled() => {}
                _ = timeout(limit, read_on(body, &mut report)) => {}
            }
            drop((report, slot));
        };
        self.tasks.spawn_on(task, &self.runtime);
    }
}

fn sent_of(
    sent: Result<Result<reqwest::Response, reqwest::Error>, tokio::time::error::Elapsed>,
    report: &mut CallReport,
) -> Sent {
    match sent {
        Ok(Ok(response)) => {
            report.unanswered = false;
            report.status = response.status().as_u16();
            begin_answer(&response, report);
            Sent::Answer(response)
        }
        Ok(Err(error)) => {
            report.unanswered = !error.is_connect();
            Sent::Failed(error)
        }
        Err(_) => Sent::TimedOut,
    }
}

/// Answers of success are charged; others are not.
fn begin_answer(response: &reqwest::Response, report: &mut CallReport) {
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    let events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if response.status().is_success()
        && let Some(meter) = &mut report.meter
    {
        meter.answer(events);
    }
}

async fn read_on(mut body: reqwest::Body, report: &mut CallReport) {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        let Ok(piece) = frame.into_data() else { continue };
        bytes += piece.len() as u64;
        if !report.saw(&piece) || bytes > DRAIN_BYTES_MAX {
            return;
        }
    }
    report.whole = true;
}

/// What to do about an answer that may be a "not now".
pub(crate) enum Next {
    /// It is the answer; its body was read.
    PassOn(Bytes),
    /// Send the call again after that wait; at once with the next credential.
    Again { wait: Option<Duration>, credential: usize },
    /// It is the answer, since the provider is limited for longer than the call may be held.
    GiveUp(Bytes, Duration),
}

/// The tries of one call.
#[derive(Debug)]
pub(crate) struct Tries {
    sent: u32,
    credentials: usize,
    /// From when each credential may be used again.
    limited_until: Vec<Option<Instant>>,
    wait_left: Duration,
}

impl Tries {
    pub(crate) fn new(credentials: usize, wait_max: Duration) -> Self {
        let limited_until = vec![None; credentials];
        Self { sent: 0, credentials, limited_until, wait_left: wait_max }
    }

    /// Reads what a provider says that may want no calls for now, and decides.
    pub(crate) async fn next(
        &mut self,
        credential: usize,
        head: &response::Parts,
        body: reqwest::Body,
    ) -> Next {
        let now = Instant::now();
        let limit = Duration::from_secs(LIMIT_BODY_SECONDS_MAX);
        let body = timeout(limit, beginning(body)).await.unwrap_or_default();
        self.sent += 1;
        let wait = match ratelimit::judge(head.status, &head.headers, &body, SystemTime::now()) {
            Verdict::PassOn => return Next::PassOn(body),
            Verdict::ComeBack(Some(wait)) => wait,
            Verdict::ComeBack(None) => {
                let doubled = WAIT_SECONDS_UNNAMED << (self.sent - 1).min(TRIES_MAX);
                Duration::from_secs(doubled)
            }
        };
        self.limited_until[credential] = Some(now + wait);
        if self.sent >= TRIES_MAX {
            return Next::GiveUp(body, wait);
        }
        let free = (0..self.credentials)
            .find(|other| self.limited_until[*other].is_none_or(|until| until <= now));
        if let Some(free) = free.filter(|free| *free != credential) {
            return Next::Again { wait: None, credential: free };
        }
        let soonest = (0..self.credentials).min_by_key(|other| self.limited_until[*other]);
        let credential = soonest.unwrap_or(credential);
        let wait = self.limited_until[credential].map_or(wait, |until| until - now);
        if wait > self.wait_left || self.wait_left.is_zero() {
            return Next::GiveUp(body, wait);
        }
        self.wait_left -= wait;
        Next::Again { wait: Some(wait), credential }
    }
}

/// The beginning of an answer about limits; nobody needs more of it.
async fn beginning(mut body: reqwest::Body) -> Bytes {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(piece) = frame.into_data() else { continue };
        let room = LIMIT_BODY_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() >= room {
            break;
        }
    }
    Bytes::from(bytes)
}
