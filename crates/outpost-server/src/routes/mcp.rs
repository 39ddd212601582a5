//! MCP for assistants: messages over streamable HTTP, and what a client without a key is told.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use outpost_mcp::{Checks, Grant};
use outpost_types::{ApiError, ErrorCode, Scope};
use serde_json::{Value, json};

use crate::bounds;
use crate::guard::Session;
use crate::ops::Op;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::{ANSWER_BYTES_USUAL, Shared, json as json_answer, promote};
use crate::stop::stopped;

/// The bounds that the routes of the same operations hold.
const CHECKS: Checks =
    Checks { dispatch: bounds::dispatch, cancel: bounds::cancel, promote: promote::check };

/// One event of the answer's stream, as server-sent events carry it.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is only there to be described")]
pub(crate) struct StreamedMessage {
    /// Its type, which is always `message`.
    event: Option<String>,
    /// A JSON-RPC message.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Speak MCP
///
/// One message of the Model Context Protocol (streamable HTTP), without a session: each request brings its
/// key and stands for itself. The answer is a stream of server-sent events that ends with the result. A key
/// sees the tools of its scopes. docs/mcp.md says more.
#[utoipa::path(
    post, path = "/mcp", operation_id = "mcp", tag = "mcp",
    request_body(content = Object, description = "A JSON-RPC message", content_type = "application/json"),
    responses(
        (status = 200, description = "The answer, perhaps after progress", content_type = "text/event-stream", body = StreamedMessage),
        (status = 202, description = "A message that needs no answer was taken"),
    ),
)]
pub(crate) async fn message(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    check_origin(&shared, request.headers())?;
    let stopped = stopped(request.extensions());
    let grant = Grant::of_caller(session.api, session.caller, CHECKS);
    let is_json = is_json(request.headers());
    let (mut parts, body) = shared.mcp.answer(request, grant).await.into_parts();
    if parts.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return Err(unread(is_json).into());
    }
    if parts.status.is_client_error() && !parts.headers.contains_key(header::CONTENT_TYPE) {
        // The protocol's own complaints are text; without a type they would be taken for the router's.
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        parts.headers.insert(header::CONTENT_TYPE, text);
    }
    parts.headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    // A stopping server ends its answers; what a tool began goes on, and the client asks again.
    let pieces = Body::new(body).into_data_stream().take_until(stopped);
    Ok(Response::from_parts(parts, Body::from_stream(pieces)))
}

/// Whether a request says that its body is JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/json"))
}

/// The error for a body that the protocol cannot read, for which it has the same status in both cases.
fn unread(is_json: bool) -> ApiError {
    if is_json {
        ApiError::new(ErrorCode::MalformedBody, "The body is no JSON-RPC message.")
            .with_hint("Send one message of the Model Context Protocol, such as tools/list.")
    } else {
        ApiError::new(ErrorCode::UnsupportedMediaType, "The body must be JSON.")
            .with_hint("Send it with the header Content-Type: application/json.")
    }
}

/// Refuses messages that a web page of somebody else sends: no page but our own has business here.
fn check_origin(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default().trim_end_matches('/');
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let public = shared.config.public_url.as_deref();
    let is_public = public.is_some_and(|url| url.trim_end_matches('/') == origin);
    if is_public || authority.is_some_and(|authority| Some(authority) == host) {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Forbidden, "This origin may not send messages to this server.")
        .with_hint("Assistants send no Origin header, or that of this server's own address."))
}

/// Address of this server as a client sees it.
fn base(shared: &Shared, headers: &HeaderMap) -> String {
    shared.config.public_url.clone().unwrap_or_else(|| {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        format!("http://{}", host.unwrap_or("localhost"))
    })
}

/// What protects /mcp
///
/// The document of RFC 9728. It names no authorization server, since there is none: keys are made by the
/// operator and sent as a bearer token or as `X-API-Key`.
#[utoipa::path(
    get, path = "/.well-known/oauth-protected-resource/mcp", operation_id = "mcpResource", tag = "mcp",
    responses((status = 200, description = "The document", body = Object, content_type = "application/json")),
)]
pub(crate) async fn resource(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    Ok(json_answer(
        StatusCode::OK,
        &protected_resource(&base(&shared, &headers)),
        ANSWER_BYTES_USUAL,
    ))
}

fn protected_resource(base: &str) -> Value {
    let scopes = [Scope::Status, Scope::List, Scope::Dispatch, Scope::Cancel, Scope::Promote];
    json!({
        "resource": format!("{base}{}", Op::Mcp.path()),
        "resource_name": "Outpost",
        "bearer_methods_supported": ["header"],
        "scopes_supported": scopes.map(Scope::as_str),
    })
}

/// Tells a client without a good key where [`resource`] is.
pub(crate) async fn challenge(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let base = base(&shared, request.headers());
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        let path = Op::McpResource.path();
        let text = format!("Bearer realm=\"outpost\", resource_metadata=\"{base}{path}\"");
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
    }
    response
}
