//! What a dispatch produces, as it happens: events, output, diff.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use outpost_types::{ApiError, ByteStream, EventStream, LogQuery};

use crate::edge::RequestId;
use crate::files;
use crate::guard::Session;
use crate::problem::{self, Refusal};
use crate::query::{Query, out_of_bounds};
use crate::routes::Shared;
use crate::routes::ids::IdPath;
use crate::sse::SseBody;
use crate::stop::{Stopped, stopped};

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// One event of a stream, as server-sent events carry it.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is only there to be described")]
pub(crate) struct StreamedEvent {
    /// Its sequence number; a client that comes back sends it as `Last-Event-ID`.
    id: String,
    /// Its type.
    event: String,
    /// The `EventEnvelope`, as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Follow a dispatch
///
/// Server-sent events: `id` is the sequence number, `event` the type, `data` the envelope. Resumes
/// after `Last-Event-ID` (or `after`), sends a comment every 15 seconds and ends with the terminal
/// event. A fault is an event named `error` with a problem document; so is the end of the key that opened the
/// stream, or of its tenant, which ends it at once. A reader that comes back after
/// the terminal event gets 204, which tells a browser to stop.
#[utoipa::path(
    get, path = "/dispatch/{id}/events", operation_id = "followDispatch", tag = "dispatches",
    params(
        ("id" = String, Path, description = "Id of the dispatch"),
        ("after" = Option<u64>, Query, minimum = 0, description = "Only events with a greater sequence number"),
        ("Last-Event-ID" = Option<u64>, Header, minimum = 0, description = "The same, and wins over it"),
    ),
    responses(
        (status = 200, description = "The stream", body = StreamedEvent, content_type = "text/event-stream"),
        (status = 204, description = "There is nothing after that event, and never will be"),
    ),
)]
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    Extension(request_id): Extension<RequestId>,
    IdPath(id): IdPath,
    request: Request,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(request.uri().query())?;
    let after = query.number("after", 0..=u64::MAX)?;
    query.finish()?;
    let last = last_event_id(request.headers())?;
    let position = last.or(after).unwrap_or(0);
    // Asked before the stream is opened: what is finished by now has a stream that ends.
    let finished = position > 0 && {
        let view = session.api.get_dispatch(id, None, None).await?;
        view.status.is_terminal()
    };
    let mut events: EventStream = session.api.events(id, position).await?;
    if finished {
        let Some(first) = events.next().await else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        events = Box::pin(stream::iter([first]).chain(events));
    }
    let stopped = stopped(request.extensions());
    let heartbeat = shared.config.heartbeat;
    let write = move |error: ApiError| {
        let document = problem::document(&shared.config, error, &request_id.0);
        serde_json::to_vec(&document).unwrap_or_default()
    };
    let body = SseBody::new(events, stopped, heartbeat, write);
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Some proxies hold a stream back to fill their buffer unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Read the agent's output
///
/// The bytes the agent printed, from offset `after`. The header `X-Outpost-Log-Offset` says where
/// the body begins, so that the next offset is that plus the length of the body. While it follows, the connection
/// breaks when the key that opened it stops to work.
#[utoipa::path(
    get, path = "/dispatch/{id}/logs", operation_id = "readLogs", tag = "dispatches",
    params(
        ("id" = String, Path, description = "Id of the dispatch"),
        ("after" = Option<u64>, Query, minimum = 0, description = "Byte offset to start at"),
        ("follow" = Option<bool>, Query, description = "Go on until the dispatch ends"),
    ),
    responses((status = 200, description = "The output", body = String, content_type = "text/plain", headers(
        ("X-Outpost-Log-Offset" = u64, description = "Offset of the first byte of the body"),
    ))),
)]
pub(crate) async fn logs(
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    request: Request,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(request.uri().query())?;
    let wanted = LogQuery {
        after: query.number("after", 0..=u64::MAX)?.unwrap_or(0),
        follow: query.flag("follow")?,
    };
    query.finish()?;
    let mut bytes = session.api.logs(id, wanted).await?;
    if wanted.follow {
        bytes = break_off_at(bytes, stopped(request.extensions()));
    }
    let mut response = files::text(files::body(bytes));
    files::log_offset(response.headers_mut(), wanted.after);
    Ok(response)
}

/// Read the diff
///
/// What the agent changed, as a patch for `git apply`; empty while there is none.
#[utoipa::path(
    get, path = "/dispatch/{id}/diff", operation_id = "readDiff", tag = "dispatches",
    params(("id" = String, Path, description = "Id of the dispatch")),
    responses((status = 200, description = "The patch", body = String, content_type = "text/plain")),
)]
pub(crate) async fn diff(
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let bytes = session.api.diff(id).await?;
    Ok(files::text(files::body(bytes)))
}

/// Ends a followed log with a fault when the server stops: a clean end would say that the dispatch is
/// finished, a broken one makes the reader resume.
fn break_off_at(bytes: ByteStream, stopped: Stopped) -> ByteStream {
    let stopping = stopped.map(|()| {
        Err(ApiError::new(outpost_types::ErrorCode::Unavailable, "The server is stopping."))
    });
    // The log's own end must win over the wait for a stop, so the two are not merged.
    Box::pin(stream::unfold(Some((bytes, Box::pin(stopping))), |state| async move {
        let (mut bytes, mut stopping) = state?;
        tokio::select! {
            biased;
            piece = bytes.next() => piece.map(|piece| (piece, Some((bytes, stopping)))),
            fault = stopping.as_mut() => Some((fault, None)),
        }
    }))
}

pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .map(Some)
        .ok_or_else(|| out_of_bounds(LAST_EVENT_ID, &(0..=u64::MAX)))
}
