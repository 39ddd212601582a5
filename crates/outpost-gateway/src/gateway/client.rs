//! The HTTP client towards the model providers, shared by all sessions.
//!
//! HTTP/1.1 only, rustls with ring, the host's own certificate authorities. Bounded: connect time, idle
//! connections. Deliberately absent: proxies of the environment, redirects, cookies, decompression,
//! retries.

use std::time::Duration;

use super::GatewayError;

/// Longest time to connect, seconds.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Longest time an unused connection is kept, seconds; below what providers and balancers keep.
const POOL_IDLE_SECONDS_MAX: u64 = 20;
/// Most unused connections kept per provider.
const POOL_IDLE_COUNT_MAX: usize = 32;

/// The client, and whether it can speak https.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamClient {
    pub(crate) http: reqwest::Client,
    /// False on a host without any certificate authorities; plain http on loopback still works.
    pub(crate) https: bool,
}

impl UpstreamClient {
    pub(crate) fn new() -> Result<Self, GatewayError> {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        match builder().build() {
            Ok(http) => Ok(Self { http, https: true }),
            Err(error) => {
                tracing::warn!(%error, "no certificate authorities: https to model providers is off");
                let none: [reqwest::Certificate; 0] = [];
                let http = builder().tls_certs_only(none).build().map_err(GatewayError::Client)?;
                Ok(Self { http, https: false })
            }
        }
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
        .pool_idle_timeout(Duration::from_secs(POOL_IDLE_SECONDS_MAX))
        .pool_max_idle_per_host(POOL_IDLE_COUNT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_built_also_when_a_provider_is_installed() {
        assert!(UpstreamClient::new().is_ok());
        assert!(UpstreamClient::new().is_ok());
    }
}
