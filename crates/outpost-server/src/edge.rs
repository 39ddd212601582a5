//! The outermost layer. Gives each request an id, one tracing span and a time limit, checks the host,
//! contains panics, and writes every error as one problem document.
//!
//! Fields of the span `request`: `request_id`, `method`, `route` (the pattern, never the address,
//! which may hold a signature), `status`, `tenant`, `key_id`, `dispatch_id`.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, header};
use outpost_types::limits::WAIT_SECONDS_MAX;
use outpost_types::{ApiError, ErrorCode};
use tracing::Instrument;
use tracing::field::Empty;

use crate::problem::{self, Refusal};
use crate::routes::Shared;

/// Longest time until a handler answers (its stream may go on), seconds: the longest poll and a rest.
pub(crate) const HANDLER_SECONDS_MAX: u64 = WAIT_SECONDS_MAX + 15;
/// Longest `X-Request-Id` taken over from a client, bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
const REQUEST_ID: &str = "x-request-id";

/// Id of one request, in the answer, in errors and in the log.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes request ids: random per process, counted within it, so that none costs a system call.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self {
            // Without randomness ids are still unique within the process.
            process: getrandom::u64().unwrap_or(0),
            next: AtomicU64::new(1),
        }
    }

    /// The client's own id when it is harmless in logs and headers, else a new one.
    fn of(&self, headers: &HeaderMap) -> RequestId {
        let sane = |text: &&str| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let sent = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok());
        RequestId(sent.filter(sane).map_or_else(
            || {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                Arc::from(format!("{:016x}-{number:x}", self.process))
            },
            Arc::from,
        ))
    }
}

/// Runs one request.
pub(crate) async fn edge(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = shared.request_ids.of(request.headers());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = tracing::info_span!(
        "request",
        request_id = %id,
        method = %request.method(),
        route = route.as_ref().map_or("unmatched", MatchedPath::as_str),
        status = Empty,
        tenant = Empty,
        key_id = Empty,
        dispatch_id = Empty,
    );
    let refused = shared.hosts.check(&request).err();
    request.extensions_mut().insert(id.clone());
    let mut response = match refused {
        Some(error) => Refusal(error).into_response(),
        None => contain(next.run(request)).instrument(span.clone()).await,
    };
    span.in_scope(|| finish(&shared, &mut response, &id));
    response
}

/// Bounds the time of a handler and turns its panic into an error.
async fn contain(run: impl Future<Output = Response>) -> Response {
    let limit = Duration::from_secs(HANDLER_SECONDS_MAX);
    match tokio::time::timeout(limit, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            tracing::error!(panic = text.unwrap_or("no text"), "a handler panicked");
            Refusal(problem::internal()).into_response()
        }
        Err(_) => Refusal(
            ApiError::new(
                ErrorCode::Unavailable,
                "The server did not finish this request in time.",
            )
            .with_hint("Try again; a create is safe to repeat with the same Idempotency-Key.")
            .with_retry_after_seconds(1),
        )
        .into_response(),
    }
}

fn finish(shared: &Shared, response: &mut Response, id: &RequestId) {
    let status = response.status();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        problem::write(&shared.config, response, error, &id.0);
    } else if status.as_u16() >= 400 && !response.headers().contains_key(header::CONTENT_TYPE) {
        let error = problem::of_bare_status(status);
        problem::write(&shared.config, response, error, &id.0);
    }
    tracing::Span::current().record("status", response.status().as_u16());
    if response.status().is_server_error() {
        tracing::warn!("answered with a server error");
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
