//! Posting to addresses that tenants chose: their webhooks.
//!
//! A tenant may name any address, also one that a name server answers differently from one moment to the next. So
//! names are resolved here, every address is judged as those that sandboxes ask for are, and the
//! connection is made to a judged address itself. Bounded: time to connect, time in all, the part of an answer
//! that is read, addresses of a name. Deliberately absent: redirects, proxies of the environment, cookies,
//! retries, and any header of the answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::HeaderMap;
use outpost_types::limits::WEBHOOK_URL_BYTES_MAX;
use reqwest::dns::{Addrs, Name, Resolving};
use thiserror::Error;
use url::{Host, Url};

use crate::egress::{Cidr, EgressReason, Resolve, SystemResolver, judge};

/// Longest time to connect, seconds.
const CONNECT_SECONDS_MAX: u64 = 5;
/// Longest time of a delivery in all, seconds.
pub const HOOK_SECONDS_MAX: u64 = 15;
/// Most bytes of an answer that are read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Most addresses of a name.
const ADDRESSES_MAX: usize = 16;
/// Longest time an unused connection is kept, seconds.
const POOL_IDLE_SECONDS_MAX: u64 = 20;
/// Unused connections kept for each host.
const POOL_IDLE_COUNT_MAX: usize = 2;

/// Why something was not delivered. The text goes to the tenant: it names no address of the host's network.
#[derive(Debug, Error)]
pub enum HookError {
    /// The address is none that anything is delivered to.
    #[error("{0}")]
    BadUrl(&'static str),
    /// It leads to an address that is not on the public internet.
    #[error("the host leads to an address that is not on the public internet")]
    Private,
    /// The name has no address.
    #[error("the host has no address")]
    NoAddress,
    /// No connection, or it broke.
    #[error("the receiver cannot be reached, or hung up")]
    Unreachable,
    /// It took too long.
    #[error("the receiver did not answer within {HOOK_SECONDS_MAX} seconds")]
    TimedOut,
    /// The client cannot be made.
    #[error("this server cannot make connections")]
    Client(#[source] reqwest::Error),
}

/// Posts to addresses of tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HookClient {
    http: reqwest::Client,
    allowed: Arc<[Cidr]>,
}

impl HookClient {
    /// A client that delivers to the public internet and to `allowed`, with the system's resolver.
    ///
    /// # Errors
    /// [`HookError::Client`].
    pub fn new(allowed: Vec<Cidr>) -> Result<Self, HookError> {
        Self::with_resolver(allowed, Arc::new(SystemResolver))
    }

    /// The same with another resolver.
    ///
    /// # Errors
    /// [`HookError::Client`].
    pub fn with_resolver(
        allowed: Vec<Cidr>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, HookError> {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let allowed: Arc<[Cidr]> = allowed.into();
        let builder = || {
            let judging =
                Judging { resolver: Arc::clone(&resolver), allowed: Arc::clone(&allowed) };
            reqwest::Client::builder()
                .http1_only()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .dns_resolver(Arc::new(judging))
                .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
                .timeout(Duration::from_secs(HOOK_SECONDS_MAX))
                .pool_idle_timeout(Duration::from_secs(POOL_IDLE_SECONDS_MAX))
                .pool_max_idle_per_host(POOL_IDLE_COUNT_MAX)
        };
        let none: [reqwest::Certificate; 0] = [];
        // Without any certificate authorities https cannot be spoken, and http to allowed addresses still can.
        let http = builder().build().or_else(|_| builder().tls_certs_only(none).build());
        Ok(Self { http: http.map_err(HookError::Client)?, allowed })
    }

    /// Whether anything can be delivered to this address, as far as that is known without asking a name server.
    ///
    /// # Errors
    /// [`HookError::BadUrl`], [`HookError::Private`].
    pub fn check(&self, url: &str) -> Result<Url, HookError> {
        let url = parse(url)?;
        match url.scheme() {
            "https" => {}
            "http" if !self.allowed.is_empty() => {}
            _ => return Err(HookError::BadUrl("it must begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(HookError::BadUrl("it must have no user, password or fragment"));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(name)) if name.eq_ignore_ascii_case("localhost") => {
                Some(IpAddr::from([127, 0, 0, 1]))
            }
            Some(Host::Domain(_)) => None,
            None => return Err(HookError::BadUrl("it names no host")),
        };
        if literal.is_some_and(|address| judge(address, &self.allowed).is_err()) {
            return Err(HookError::Private);
        }
        Ok(url)
    }

    /// Posts a body; answers the status. Whatever it is, it is no error here.
    ///
    /// # Errors
    /// [`HookError`].
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: String,
    ) -> Result<u16, HookError> {
        let url = self.check(url)?;
        let sent = self.http.post(url).headers(headers).body(body).send().await;
        let answer = sent.map_err(|error| reason(&error))?;
        let status = answer.status().as_u16();
        let mut pieces = answer.bytes_stream();
        let mut read = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            read += piece.len();
            if read > ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(status)
    }
}

fn parse(url: &str) -> Result<Url, HookError> {
    if url.len() > WEBHOOK_URL_BYTES_MAX || url.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(HookError::BadUrl("it must be a web address without control characters"));
    }
    Url::parse(url).map_err(|_| HookError::BadUrl("it must be a whole web address"))
}

fn reason(error: &reqwest::Error) -> HookError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        match cause.downcast_ref::<HookError>() {
            Some(HookError::Private) => return HookError::Private,
            Some(HookError::NoAddress) => return HookError::NoAddress,
            _ => source = cause.source(),
        }
    }
    if error.is_timeout() { HookError::TimedOut } else { HookError::Unreachable }
}

/// Resolves names to judged addresses; one bad address spoils the name.
#[derive(Debug, Clone)]
struct Judging {
    resolver: Arc<dyn Resolve>,
    allowed: Arc<[Cidr]>,
}

impl reqwest::dns::Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found = this.resolver.resolve(&name.as_str().to_ascii_lowercase()).await;
            let found = found.map_err(|_| HookError::NoAddress)?;
            let judged: Result<Vec<SocketAddr>, EgressReason> = found
                .into_iter()
                .take(ADDRESSES_MAX)
                .map(|address| judge(address, &this.allowed).map(|()| SocketAddr::new(address, 0)))
                .collect();
            let judged = judged.map_err(|_| HookError::Private)?;
            if judged.is_empty() {
                return Err(HookError::NoAddress.into());
            }
            let addresses: Addrs = Box::new(judged.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Resolving as Found;

    #[derive(Debug)]
    struct Fixed(Vec<IpAddr>);

    impl Resolve for Fixed {
        fn resolve<'a>(&'a self, _: &'a str) -> Found<'a> {
            let found = self.0.clone();
            Box::pin(async move { Ok(found) })
        }
    }

    fn strict() -> HookClient {
        HookClient::new(Vec::new()).unwrap()
    }

    #[test]
    fn only_public_addresses_over_tls_are_taken() {
        let client = strict();
        for good in ["https://example.com/a?b=c", "https://example.com:8443", "https://1.1.1.1/"] {
            client.check(good).unwrap();
        }
        for bad in [
            "http://example.com",
            "ftp://example.com",
            "example.com",
            "",
            "https://user@example.com",
            "https://u:p@example.com",
            "https://example.com/#x",
            "https://exa\nmple.com",
            "https://127.0.0.1/",
            "https://localhost:9/",
            "https://LOCALHOST/",
            "https://[::1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://10.0.0.1/",
            "https://[::ffff:10.0.0.1]/",
        ] {
            assert!(client.check(bad).is_err(), "{bad}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2_048));
        client.check(&long).unwrap_err();
    }

    #[test]
    fn an_operator_opens_a_range_but_no_metadata() {
        let all = ["0.0.0.0/0", "::/0"].map(|range| range.parse().unwrap());
        let client = HookClient::new(all.into()).unwrap();
        for good in ["http://127.0.0.1:1/", "https://10.0.0.1/", "http://localhost/"] {
            client.check(good).unwrap();
        }
        assert!(matches!(client.check("http://169.254.169.254/"), Err(HookError::Private)));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_never_connected_to() {
        let inside: IpAddr = "127.0.0.1".parse().unwrap();
        let listener = std::net::TcpListener::bind((inside, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let mixed = vec!["1.1.1.1".parse().unwrap(), inside];
        for addresses in [vec![inside], mixed] {
            let client = HookClient::with_resolver(Vec::new(), Arc::new(Fixed(addresses))).unwrap();
            let url = format!("https://example.com:{port}/");
            let refused = client.post(&url, HeaderMap::new(), String::new()).await;
            assert!(matches!(refused, Err(HookError::Private)), "{refused:?}");
            assert!(listener.accept().is_err(), "somebody connected");
        }
        let client = HookClient::with_resolver(Vec::new(), Arc::new(Fixed(Vec::new()))).unwrap();
        let none = client.post("https://example.com/", HeaderMap::new(), String::new()).await;
        assert!(matches!(none, Err(HookError::NoAddress)), "{none:?}");
    }
}
