//! What an operator decides about the HTTP surface.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use outpost_types::limits::SSE_HEARTBEAT_SECONDS;

use crate::SigningKey;

/// Settings of the HTTP surface. There is no switch to serve without keys: every route but health,
/// the OpenAPI document and signed artifact addresses asks for one, on loopback too.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address the listener is bound to. On a loopback address the `Host` header is checked, so that
    /// a web page cannot reach the server under a name it made resolve to 127.0.0.1.
    pub bind: SocketAddr,
    /// Address clients use, such as `https://outpost.example.com`, without a slash at the end. With
    /// it `Location` and signed addresses are absolute, without it they are relative to the server.
    pub public_url: Option<String>,
    /// Where the pages of `docs/errors/` are published. With it the `type` of a problem is
    /// `<docs_url>/<code>`, without it the stable name `urn:outpost:error:<code>`.
    pub docs_url: Option<String>,
    /// Signs artifact addresses; the same on all instances that share a backend.
    pub signing_key: SigningKey,
    /// Requests per key and minute; `None` is no limit.
    pub rate_limit_per_minute: Option<NonZeroU32>,
    /// Host names accepted beside localhost, 127.0.0.1, \[::1\], the bound address and the host of
    /// `public_url`. On an address that is not loopback, names are checked only if this is not empty.
    pub allowed_hosts: Vec<String>,
    /// Pause after which a silent event stream sends a comment. 15 s by default.
    pub heartbeat: Duration,
}

impl ServerConfig {
    /// Defaults for a listener bound to `bind`.
    #[must_use]
    pub const fn new(bind: SocketAddr, signing_key: SigningKey) -> Self {
        Self {
            bind,
            public_url: None,
            docs_url: None,
            signing_key,
            rate_limit_per_minute: None,
            allowed_hosts: Vec::new(),
            heartbeat: Duration::from_secs(SSE_HEARTBEAT_SECONDS),
        }
    }
}
