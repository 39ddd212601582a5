//! What a gateway session reports.
//!
//! Bounded: the channel; when nobody reads, new events are dropped and counted. Absent: bodies, queries
//! and keys.

use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Most events waiting to be read.
pub(crate) const EVENTS_MAX: usize = 256;
/// Longest host or path in an event, bytes. Both are the agent's words.
const TEXT_BYTES_MAX: usize = 512;

/// Something a human or the engine wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum GatewayEvent {
    /// A request was refused by policy.
    Denied {
        /// Host asked for, when it was not the gateway itself.
        host: Option<String>,
        /// Path asked for, without the query.
        path: String,
        /// Why.
        reason: DenialReason,
    },
    /// A call of a model ended.
    Call {
        /// Name of the route.
        provider: String,
        /// HTTP status; 502 or 504 when the provider did not answer.
        status: u16,
        /// The model, if the request named one. The agent's words.
        model: Option<String>,
        /// From the head of the request to the last byte, milliseconds.
        duration_ms: u64,
        /// Body of the request, bytes.
        request_bytes: u64,
        /// Body of the answer, bytes.
        response_bytes: u64,
        /// Whether the answer arrived to its end.
        complete: bool,
    },
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialReason {
    /// The handle is missing or belongs to another attempt.
    WrongHandle,
    /// No route has this prefix.
    UnknownRoute,
    /// Not a path of a model call.
    PathNotAllowed,
    /// A model path with another method.
    MethodNotAllowed,
    /// CONNECT, or a request for another host.
    PolicyDenied,
    /// More than the body may have.
    BodyTooLarge,
}

impl DenialReason {
    /// As in events and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongHandle => "wrong_handle",
            Self::UnknownRoute => "unknown_route",
            Self::PathNotAllowed => "path_not_allowed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PolicyDenied => "policy_denied",
            Self::BodyTooLarge => "body_too_large",
        }
    }
}

/// Counts, and the sending end of the channel.
#[derive(Debug)]
pub(crate) struct Reporter {
    sender: mpsc::Sender<GatewayEvent>,
    pub(crate) calls: AtomicU64,
    pub(crate) denials: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl Reporter {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<GatewayEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let reporter = Self {
            sender,
            calls: AtomicU64::new(0),
            denials: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        (Arc::new(reporter), receiver)
    }

    pub(crate) fn denied(&self, host: Option<&str>, path: &str, reason: DenialReason) {
        self.denials.fetch_add(1, Ordering::Relaxed);
        let (host, path) = (host.map(clean), clean(path));
        tracing::info!(host, path, reason = reason.as_str(), "gateway denied a request");
        self.send(GatewayEvent::Denied { host, path, reason });
    }

    pub(crate) fn call(&self, event: GatewayEvent) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.send(event);
    }

    fn send(&self, event: GatewayEvent) {
        if self.sender.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Short enough, and nothing a terminal would obey.
fn clean(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    cut.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
