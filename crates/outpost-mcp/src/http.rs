//! Streamable HTTP without sessions: every request brings its key and stands for itself.

use std::convert::Infallible;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::sync::oneshot;

use crate::calls::{Calls, Kept, Message, Name, new_session};
use crate::grant::Grant;
use crate::server::McpServer;

/// Largest message of a client, bytes: a task of 50 KiB with every byte escaped, and a rest.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// What an answer may be: a client has to take both.
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
/// Names a client's session.
const SESSION: &str = "mcp-session-id";

type Body = BoxBody<Bytes, Infallible>;
type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Serve = dyn Fn(Request<Full<Bytes>>) -> Answer + Send + Sync;

/// Answers HTTP requests of MCP clients.
///
/// Who asks, under which name and from which web page, is checked by who calls this: it needs the key for
/// that. Between requests nothing is kept but the names of calls that are under way; an answer is a stream
/// that ends with it, or when its client takes the call back.
pub struct McpHttp {
    serve: Box<Serve>,
    calls: Calls,
}

impl fmt::Debug for McpHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpHttp").finish_non_exhaustive()
    }
}

impl McpHttp {
    /// A server whose silent answers send a comment after each `heartbeat`.
    #[must_use]
    pub fn new(heartbeat: Duration) -> Self {
        Self::with_handler(heartbeat, McpServer::of_requests())
    }

    /// The same for another server behind it, such as one that a suite of tests asks for.
    #[must_use]
    pub fn with_handler(heartbeat: Duration, handler: impl ServerHandler + Clone) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(false)
            .with_sse_keep_alive(Some(heartbeat))
            .with_sse_retry(None)
            .with_max_request_body_bytes(REQUEST_BYTES_MAX)
            .disable_allowed_hosts();
        let sessions = Arc::new(NeverSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(handler.clone()), sessions, config);
        let serve = move |request| -> Answer {
            let service = service.clone();
            Box::pin(async move { service.handle(request).await })
        };
        Self { serve: Box::new(serve), calls: Calls::default() }
    }

    /// Answers a request of whoever has `grant`.
    pub async fn answer<B>(&self, request: Request<B>, grant: Grant) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
    {
        let (mut parts, body) = request.into_parts();
        let session = clean(&mut parts.headers);
        let session = session.as_ref().and_then(|session| session.to_str().ok());
        let body = read(body).await;
        let message = Message::of(&body);
        let name = |id| Name::new(grant.key(), session, id);
        let mut running = None;
        match message.method.as_str() {
            "tools/call" => running = name(&message.id).and_then(|name| self.calls.begin(name)),
            "notifications/cancelled" => {
                let meant = message.params.as_ref().and_then(|params| name(&params.request));
                if let Some(name) = meant {
                    self.calls.take_back(&name);
                }
            }
            _ => {}
        }
        parts.extensions.insert(grant);
        let mut response = (self.serve)(Request::from_parts(parts, Full::new(body))).await;
        if message.method == "initialize"
            && response.status().is_success()
            && let Some(session) = new_session().and_then(|name| HeaderValue::try_from(name).ok())
        {
            response.headers_mut().insert(SESSION, session);
        }
        match running {
            Some((taken_back, kept)) => response.map(|body| until(body, taken_back, kept)),
            None => response,
        }
    }
}

/// Makes the headers those that the protocol's code is to see, and answers the name of the session.
fn clean(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // Nobody's key goes further than this.
    headers.remove(header::AUTHORIZATION);
    headers.remove("x-api-key");
    let anything = |value: &HeaderValue| value.as_bytes() == b"*/*";
    if headers.get(header::ACCEPT).is_none_or(anything) {
        headers.insert(header::ACCEPT, ACCEPTED);
    }
    headers.remove(SESSION)
}

/// The body of a request. One that is too large is read until that is certain, which is enough to refuse it; of
/// one that breaks off there is what came, which is no message.
async fn read(body: impl http_body::Body<Data = Bytes>) -> Bytes {
    let mut body = pin!(body);
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > REQUEST_BYTES_MAX {
            break;
        }
    }
    Bytes::from(read)
}

/// An answer that ends when its call is taken back: the call with it, as when its client hangs up.
fn until(body: Body, taken_back: oneshot::Receiver<()>, kept: Kept) -> Body {
    let pieces = body.into_data_stream().take_until(taken_back).map(move |piece| {
        let _held = &kept;
        piece.map(Frame::data)
    });
    BoxBody::new(StreamBody::new(pieces))
}
