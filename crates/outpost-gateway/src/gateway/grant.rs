//! What one attempt may use: its handle, and for each route the upstream and the real credential.
//!
//! Bounded: routes, lengths. Secrets are redacted in Debug and reach a log or an event in no way. Absent:
//! where credentials come from (see `provider`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use subtle::ConstantTimeEq;
use url::Url;

use super::GatewayError;
use super::meter::BudgetGrant;
use super::prices::PriceTable;
use crate::egress::EgressGrant;

/// Shortest credential, bytes. Shorter ones cannot be redacted without hitting ordinary text.
pub const CREDENTIAL_BYTES_MIN: usize = 8;
/// Longest credential, bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;
/// Most routes of a grant.
pub const ROUTES_MAX: usize = 16;
/// Most credentials of a route.
pub const ROUTE_CREDENTIALS_MAX: usize = 4;
/// Longest time a call is held in all because of a provider's limits, seconds, where a grant says nothing else.
pub const RATE_LIMIT_WAIT_SECONDS_MAX: u64 = 900;
/// Longest route name or prefix, bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest base URL, bytes.
const URL_BYTES_MAX: usize = 2048;
/// What a handle begins with.
const HANDLE_PREFIX: &str = "otph_";
/// Randomness of a handle, bytes (256 bit).
const HANDLE_RANDOM_BYTES: usize = 32;

/// The key an agent holds instead of a real one. It works at its own attempt's gateway and nowhere else.
#[derive(Clone)]
pub struct Handle(Arc<str>);

impl Handle {
    /// A new one.
    ///
    /// # Errors
    /// [`GatewayError::Random`] when the system gives no randomness.
    pub fn generate() -> Result<Self, GatewayError> {
        let mut random = [0_u8; HANDLE_RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|_| GatewayError::Random)?;
        let mut text = String::with_capacity(HANDLE_PREFIX.len() + 2 * HANDLE_RANDOM_BYTES);
        text.push_str(HANDLE_PREFIX);
        for byte in random {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        Ok(Self(text.into()))
    }

    /// One that was recorded, to serve a running agent again after a restart.
    ///
    /// # Errors
    /// [`GatewayError::NotAHandle`] when the text has another form.
    pub fn parse(text: &str) -> Result<Self, GatewayError> {
        let hex = text.strip_prefix(HANDLE_PREFIX).ok_or(GatewayError::NotAHandle)?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() == 2 * HANDLE_RANDOM_BYTES && hex.bytes().all(is_hex) {
            Ok(Self(text.into()))
        } else {
            Err(GatewayError::NotAHandle)
        }
    }

    /// The text, to be given to the agent as its key.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in constant time.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(otph_…)")
    }
}

/// A real key of a provider.
#[derive(Clone)]
pub struct Credential(Arc<str>);

impl Credential {
    /// Checks and wraps a key; surrounding white space is removed.
    ///
    /// # Errors
    /// [`GatewayError::BadCredential`] names the provider, never the key.
    pub fn new(provider: &str, text: &str) -> Result<Self, GatewayError> {
        let text = text.trim();
        let fits = (CREDENTIAL_BYTES_MIN..=CREDENTIAL_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(GatewayError::BadCredential { provider: provider.to_owned() })
        }
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// How a provider wants its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStyle {
    /// `x-api-key: KEY` (Anthropic).
    XApiKey,
    /// `Authorization: Bearer KEY` (OpenAI, DeepSeek, xAI).
    Bearer,
    /// `x-goog-api-key: KEY` (Google).
    XGoogApiKey,
}

/// Where a route leads.
#[derive(Debug, Clone)]
pub struct Upstream(Url);

impl Upstream {
    /// An https base URL, or http to this machine.
    ///
    /// # Errors
    /// [`GatewayError::BadUpstream`] says what is wrong.
    pub fn parse(provider: &str, text: &str) -> Result<Self, GatewayError> {
        Self::check(provider, text, false)
    }

    /// As [`Upstream::parse`], but also plain http to other machines, where the key can be read on the way.
    /// Only for what an operator configured and confirmed.
    ///
    /// # Errors
    /// [`GatewayError::BadUpstream`] says what is wrong.
    pub fn parse_allowing_plain_http(provider: &str, text: &str) -> Result<Self, GatewayError> {
        Self::check(provider, text, true)
    }

    fn check(provider: &str, text: &str, plain_http: bool) -> Result<Self, GatewayError> {
        let bad = |problem: &str| GatewayError::BadUpstream {
            provider: provider.to_owned(),
            problem: problem.to_owned(),
        };
        if text.len() > URL_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let url = Url::parse(text.trim()).map_err(|error| bad(&error.to_string()))?;
        let local = match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => return Err(bad("it names no host")),
        };
        match url.scheme() {
            "https" => {}
            "http" if local || plain_http => {}
            "http" => return Err(bad("plain http would show the key on the way: use https")),
            _ => return Err(bad("it must begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it must not contain a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it must not contain ? or #"));
        }
        Ok(Self(url))
    }

    /// The base URL without a slash at the end.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub(crate) fn join(&self, path: &str, query: Option<&str>) -> Result<Url, url::ParseError> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Url::parse(&format!("{}{path}{query}", self.base()))
    }
}

/// One provider an attempt may call.
#[derive(Debug, Clone)]
pub struct Route {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) upstream: Upstream,
    /// Tried in this order when the provider wants no calls with one for now; at least one.
    pub(crate) credentials: Vec<Credential>,
    pub(crate) auth: AuthStyle,
}

impl Route {
    /// A route. `name` appears in events; `prefix` is the path inside the sandbox under which the provider
    /// appears, such as `/anthropic`, or `/` for everything that no other route takes.
    ///
    /// # Errors
    /// [`GatewayError::BadPrefix`] when the prefix is no plain path.
    pub fn new(
        name: &str,
        prefix: &str,
        upstream: Upstream,
        credential: Credential,
        auth: AuthStyle,
    ) -> Result<Self, GatewayError> {
        let bad = |problem| GatewayError::BadPrefix { prefix: prefix.to_owned(), problem };
        if name.len() > NAME_BYTES_MAX || prefix.len() > NAME_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/');
        if !prefix.starts_with('/') || prefix.contains("//") || !prefix.bytes().all(plain) {
            return Err(bad("use a slash, then letters, digits, - or _"));
        }
        Ok(Self {
            name: name.to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            upstream,
            credentials: vec![credential],
            auth,
        })
    }

    /// With another credential, for when the provider wants no calls with those before it for now.
    ///
    /// # Errors
    /// [`GatewayError::CredentialCount`] beyond [`ROUTE_CREDENTIALS_MAX`].
    pub fn with_fallback(mut self, credential: Credential) -> Result<Self, GatewayError> {
        if self.credentials.len() >= ROUTE_CREDENTIALS_MAX {
            return Err(GatewayError::CredentialCount);
        }
        self.credentials.push(credential);
        Ok(self)
    }

    /// The header that carries the real key, marked sensitive.
    pub(crate) fn auth_header(&self, key: &Credential) -> (&'static str, Option<HeaderValue>) {
        let key = key.expose();
        let (name, text) = match self.auth {
            AuthStyle::XApiKey => ("x-api-key", key.to_owned()),
            AuthStyle::Bearer => ("authorization", format!("Bearer {key}")),
            AuthStyle::XGoogApiKey => ("x-goog-api-key", key.to_owned()),
        };
        let mut value = HeaderValue::from_str(&text).ok();
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        (name, value)
    }
}

/// Everything one attempt may use.
#[derive(Debug, Clone)]
pub struct GatewayGrant {
    pub(crate) handle: Handle,
    pub(crate) routes: Vec<Route>,
    pub(crate) budget: BudgetGrant,
    pub(crate) prices: PriceTable,
    pub(crate) rate_limit_wait: Duration,
    pub(crate) egress: Option<EgressGrant>,
}

impl GatewayGrant {
    /// A grant of these routes.
    ///
    /// # Errors
    /// [`GatewayError::RouteCount`] or, for a prefix used twice, [`GatewayError::BadPrefix`].
    pub fn new(handle: Handle, mut routes: Vec<Route>) -> Result<Self, GatewayError> {
        if routes.len() > ROUTES_MAX {
            return Err(GatewayError::RouteCount(routes.len()));
        }
        // The longest prefix is tried first.
        routes.sort_by(|a, b| b.prefix.len().cmp(&a.prefix.len()).then(a.prefix.cmp(&b.prefix)));
        if let Some([twice, _]) = routes.array_windows().find(|[a, b]| a.prefix == b.prefix) {
            return Err(GatewayError::BadPrefix {
                prefix: twice.prefix.clone(),
                problem: "two routes have it",
            });
        }
        Ok(Self {
            handle,
            routes,
            budget: BudgetGrant::default(),
            prices: PriceTable::built_in(),
            rate_limit_wait: Duration::from_secs(RATE_LIMIT_WAIT_SECONDS_MAX),
            egress: None,
        })
    }

    /// With a budget; without this nothing is limited, and everything is counted all the same.
    #[must_use]
    pub fn with_budget(self, budget: BudgetGrant) -> Self {
        Self { budget, ..self }
    }

    /// With a way to other hosts; without this there is none.
    #[must_use]
    pub fn with_egress(self, egress: EgressGrant) -> Self {
        Self { egress: Some(egress), ..self }
    }

    /// With other prices than the built-in ones.
    #[must_use]
    pub fn with_prices(self, prices: PriceTable) -> Self {
        Self { prices, ..self }
    }

    /// With another bound on the time a call is held because of a provider's limits; zero holds none.
    #[must_use]
    pub fn with_rate_limit_wait(self, rate_limit_wait: Duration) -> Self {
        Self { rate_limit_wait, ..self }
    }

    /// The handle, to be given to the agent as its key.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(text: &str) -> Result<Upstream, GatewayError> {
        Upstream::parse("anthropic", text)
    }

    #[test]
    fn handles_are_random_and_hidden() {
        let (a, b) = (Handle::generate().unwrap(), Handle::generate().unwrap());
        assert_ne!(a.expose(), b.expose());
        assert_eq!(a.expose().len(), 69);
        assert!(Handle::parse(a.expose()).unwrap().matches(a.expose().as_bytes()));
        assert!(!a.matches(b.expose().as_bytes()));
        assert!(!a.matches(b""));
        assert!(Handle::parse("otph_123").is_err());
        let credential = Credential::new("x", "sk-very-secret").unwrap();
        let shown = format!("{a:?} {credential:?}");
        assert!(!shown.contains(&a.expose()[5..]) && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn credentials_are_checked_without_being_shown() {
        assert_eq!(Credential::new("x", " sk-12345678\n").unwrap().expose(), "sk-12345678");
        for bad in ["", "short", "with space inside", "schlüssel-1234", &"x".repeat(5000)] {
            let error = Credential::new("openai", bad).unwrap_err().to_string();
            assert!(error.contains("openai"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn upstreams_are_https_or_local() {
        assert_eq!(upstream("https://api.x.ai/").unwrap().base(), "https://api.x.ai");
        for good in ["http://127.0.0.1:1", "http://localhost:1/a", "http://[::1]:1"] {
            assert!(upstream(good).is_ok(), "{good}");
        }
        let bad = [
            "http://api.x.ai",
            "ftp://x",
            "api.x.ai",
            "https://u:p@x",
            "https://x/?a=b",
            "https://x/#y",
            "",
        ];
        for bad in bad {
            assert!(upstream(bad).is_err(), "{bad}");
        }
        assert!(Upstream::parse_allowing_plain_http("x", "http://proxy:4000").is_ok());
        let joined = upstream("https://x/a/").unwrap().join("/v1/m", Some("b=c")).unwrap();
        assert_eq!(joined.as_str(), "https://x/a/v1/m?b=c");
    }

    #[test]
    fn a_grant_needs_distinct_prefixes() {
        let route = |prefix: &str| {
            let credential = Credential::new("x", "12345678").unwrap();
            Route::new("x", prefix, upstream("https://x").unwrap(), credential, AuthStyle::Bearer)
        };
        let handle = || Handle::generate().unwrap();
        assert!(route("x").is_err() && route("/a b").is_err() && route("/../a").is_err());
        assert!(GatewayGrant::new(handle(), Vec::new()).is_ok(), "it may be for other hosts only");
        let many: Vec<_> = (0..=ROUTES_MAX).map(|n| route(&format!("/{n}")).unwrap()).collect();
        assert!(GatewayGrant::new(handle(), many).is_err());
        let twice = vec![route("/a").unwrap(), route("/").unwrap(), route("/a/").unwrap()];
        assert!(GatewayGrant::new(handle(), twice).is_err());
        let grant = GatewayGrant::new(handle(), vec![route("/").unwrap(), route("/a").unwrap()]);
        assert_eq!(grant.unwrap().routes[0].prefix, "/a");
    }
}
