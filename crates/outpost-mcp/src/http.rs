//! Streamable HTTP without sessions: every request brings its key and stands for itself.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::combinators::BoxBody;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use crate::grant::Grant;
use crate::server::McpServer;

/// Largest message of a client, bytes: a task of 50 KiB with every byte escaped, and a rest.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// What an answer may be: a client has to take both.
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// Answers HTTP requests of MCP clients.
///
/// Who asks, under which name and from which web page, is checked by who calls this: it needs the key for
/// that. Nothing is kept between requests; an answer is a stream that ends with it.
pub struct McpHttp {
    service: StreamableHttpService<McpServer, NeverSessionManager>,
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
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(false)
            .with_sse_keep_alive(Some(heartbeat))
            .with_sse_retry(None)
            .with_max_request_body_bytes(REQUEST_BYTES_MAX)
            .disable_allowed_hosts();
        let sessions = Arc::new(NeverSessionManager::default());
        Self {
            service: StreamableHttpService::new(|| Ok(McpServer::of_requests()), sessions, config),
        }
    }

    /// Answers a request of whoever has `grant`.
    pub async fn answer<B>(
        &self,
        mut request: Request<B>,
        grant: Grant,
    ) -> Response<BoxBody<Bytes, Infallible>>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send + 'static,
        B::Error: fmt::Display,
    {
        request.extensions_mut().insert(grant);
        let headers = request.headers_mut();
        // Nobody's key goes further than this.
        headers.remove(header::AUTHORIZATION);
        headers.remove("x-api-key");
        let anything = |value: &HeaderValue| value.as_bytes() == b"*/*";
        if headers.get(header::ACCEPT).is_none_or(anything) {
            headers.insert(header::ACCEPT, ACCEPTED);
        }
        self.service.handle(request).await
    }
}
