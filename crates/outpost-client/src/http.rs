//! One request: building it, sending it, and turning what comes back into a value or an `ApiError`.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use outpost_types::{ApiError, ErrorCode, Health, Problem};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use serde::de::DeserializeOwned;
use url::{Host, Url};

use crate::{ClientConfig, ClientError, RetryPolicy, install_crypto_provider};

/// Longest answer that is read as one value, bytes: a page of 100 with tasks of 50 KB, escaped.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time of a request that answers with one value, seconds; a long poll adds its own.
pub const UNARY_SECONDS_MAX: u64 = 60;
/// Longest error document that is read, bytes.
const PROBLEM_BYTES_MAX: usize = 256 * 1024;
/// Longest time to reach the server, seconds.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Longest time until a stream begins, seconds.
pub(crate) const HEAD_SECONDS_MAX: u64 = 30;
/// Silence after which the system asks whether the other side is still there, seconds.
const KEEPALIVE_SECONDS: u64 = 30;

/// Pieces of a body.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// The `Api` of a server at a distance. Clones share connections.
#[derive(Clone)]
pub struct HttpApi {
    inner: Arc<Inner>,
}

struct Inner {
    http: Client,
    base: Url,
    retry: RetryPolicy,
    silence_max: Duration,
}

impl fmt::Debug for HttpApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpApi").field("base", &self.inner.base.as_str()).finish_non_exhaustive()
    }
}

impl HttpApi {
    /// A client by `config`. Connects when it is first used.
    ///
    /// # Errors
    /// [`ClientError`] when the address or key cannot be right, or the key would travel unencrypted
    /// to another machine.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let base = parse_base(&config.url)?;
        let local = is_loopback(&base);
        if base.scheme() == "http" && !local && !config.allow_plain_http {
            return Err(ClientError::Insecure(config.url));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &config.key {
            let value = HeaderValue::from_str(key.reveal());
            let mut value = value.map_err(|_| ClientError::InvalidKey)?;
            value.set_sensitive(true);
            headers.insert("x-api-key", value);
        }
        install_crypto_provider();
        let mut builder = Client::builder()
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
            .tcp_keepalive(Duration::from_secs(KEEPALIVE_SECONDS))
            .tcp_nodelay(true)
            .user_agent(concat!("outpost/", env!("CARGO_PKG_VERSION")));
        if local {
            // A proxy is for the world outside; the key must not go through one to come back here.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(ClientError::Build)?;
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                base,
                retry: config.retry,
                silence_max: config.silence_max,
            }),
        })
    }

    /// Whether the server can take dispatches, and which version it is. Needs no key. Answers
    /// `status: "unavailable"` with a reason when it is up but not ready.
    ///
    /// # Errors
    /// `unavailable` when no server answers.
    pub async fn ready(&self) -> Result<Health, ApiError> {
        let limit = Duration::from_secs(UNARY_SECONDS_MAX);
        let request = self.request(Method::GET, ["health", "ready"]);
        let response = request.timeout(limit).send().await;
        let response = response.map_err(|error| self.broken(&error))?;
        match response.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE if !is_problem(&response) => {
                self.value(response).await
            }
            _ => Err(self.refusal(response).await),
        }
    }

    pub(crate) fn retry(&self) -> RetryPolicy {
        self.inner.retry
    }

    pub(crate) fn silence_max(&self) -> Duration {
        self.inner.silence_max
    }

    /// A request to the address made of `segments`, each escaped.
    pub(crate) fn request<'a>(
        &self,
        method: Method,
        segments: impl IntoIterator<Item = &'a str>,
    ) -> RequestBuilder {
        let mut url = self.inner.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        self.inner.http.request(method, url)
    }

    /// Sends and reads one value, within `limit`.
    pub(crate) async fn unary<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<(T, HeaderMap), ApiError> {
        let response = request.timeout(limit).send().await;
        let response = response.map_err(|error| self.broken(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let headers = response.headers().clone();
        Ok((self.value(response).await?, headers))
    }

    /// Sends and answers once the head of the stream is there.
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let limit = Duration::from_secs(HEAD_SECONDS_MAX);
        let response = match tokio::time::timeout(limit, request.send()).await {
            Ok(response) => response.map_err(|error| self.broken(&error))?,
            Err(_) => return Err(self.silent()),
        };
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// What to say about a fault on the way.
    pub(crate) fn broken(&self, error: &reqwest::Error) -> ApiError {
        let base = &self.inner.base;
        if error.is_connect() {
            ApiError::new(ErrorCode::Unavailable, format!("No Outpost server answers at {base}."))
                .with_hint("Start it with `outpost serve`, or check the address.")
        } else if error.is_timeout() {
            self.silent()
        } else {
            self.cut()
        }
    }

    /// The connection ended before the answer did.
    pub(crate) fn cut(&self) -> ApiError {
        let base = &self.inner.base;
        ApiError::new(
            ErrorCode::Unavailable,
            format!("The connection to the server at {base} broke."),
        )
        .with_hint("Try again; a create is safe to repeat with the same Idempotency-Key.")
    }

    /// The server did not answer in time.
    pub(crate) fn silent(&self) -> ApiError {
        let base = &self.inner.base;
        ApiError::new(
            ErrorCode::Unavailable,
            format!("The server at {base} did not answer in time."),
        )
        .with_hint("Try again; a create is safe to repeat with the same Idempotency-Key.")
    }

    /// The server answered what no Outpost server answers.
    pub(crate) fn not_ours(&self, what: impl fmt::Display) -> ApiError {
        let base = &self.inner.base;
        ApiError::new(ErrorCode::Internal, format!("The server at {base} {what}."))
            .with_hint("Check that this is the address of an Outpost server of a matching version.")
    }

    async fn value<T: DeserializeOwned>(&self, response: Response) -> Result<T, ApiError> {
        let request_id = request_id_of(&response);
        let bytes = match read(response, ANSWER_BYTES_MAX).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(self.not_ours("sent an answer that is too long")),
            Err(error) => return Err(self.broken(&error)),
        };
        serde_json::from_slice(&bytes).map_err(|_| ApiError {
            request_id,
            ..self.not_ours("sent an answer that could not be read")
        })
    }

    /// Turns an error answer into an `ApiError`.
    async fn refusal(&self, response: Response) -> ApiError {
        let status = response.status();
        let request_id = request_id_of(&response);
        let retry_after_seconds =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let is_problem = is_problem(&response);
        let body = match read(response, PROBLEM_BYTES_MAX).await {
            Ok(Some(bytes)) if is_problem => bytes,
            _ => Bytes::new(),
        };
        let mut error = from_problem(&body).unwrap_or_else(|| self.of_status(status, &body));
        error.retry_after_seconds = retry_after_seconds;
        error.request_id = error.request_id.or(request_id);
        error
    }

    /// An error answer that is no problem document, or has a code this version does not know.
    fn of_status(&self, status: StatusCode, body: &[u8]) -> ApiError {
        let code = match status.as_u16() {
            400 => ErrorCode::InvalidField,
            401 => ErrorCode::Unauthorized,
            402 => ErrorCode::BudgetExceeded,
            403 => ErrorCode::Forbidden,
            404 => ErrorCode::NotFound,
            405 => ErrorCode::MethodNotAllowed,
            413 => ErrorCode::PayloadTooLarge,
            415 => ErrorCode::UnsupportedMediaType,
            429 => ErrorCode::RateLimited,
            502..=504 => ErrorCode::Unavailable,
            _ => ErrorCode::Internal,
        };
        let said = serde_json::from_slice::<serde_json::Value>(body).ok();
        let text = |name: &str| Some(said.as_ref()?.get(name)?.as_str()?.to_owned());
        let error = match text("detail") {
            Some(detail) => ApiError::new(code, detail),
            None => ApiError {
                code,
                ..self.not_ours(format_args!("answered {status} without saying why"))
            },
        };
        ApiError { hint: text("hint").or(error.hint), field: text("field"), ..error }
    }
}

/// Error of a problem document; `None` when it is none.
pub(crate) fn from_problem(body: &[u8]) -> Option<ApiError> {
    let problem: Problem = serde_json::from_slice(body).ok()?;
    Some(ApiError {
        code: problem.code,
        message: problem.detail,
        field: problem.field,
        hint: problem.hint,
        retry_after_seconds: None,
        request_id: Some(problem.request_id),
    })
}

fn is_problem(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"))
}

fn request_id_of(response: &Response) -> Option<String> {
    let id = response.headers().get("x-request-id")?;
    id.to_str().ok().map(str::to_owned)
}

/// Reads a body of at most `bytes_max`; `None` when it is longer.
async fn read(response: Response, bytes_max: usize) -> reqwest::Result<Option<Bytes>> {
    let mut pieces = response.bytes_stream();
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if all.len() + piece.len() > bytes_max {
            return Ok(None);
        }
        all.extend_from_slice(&piece);
    }
    Ok(Some(all.freeze()))
}

fn parse_base(text: &str) -> Result<Url, ClientError> {
    let invalid = || ClientError::InvalidUrl(without_user(text));
    let url = Url::parse(text).map_err(|_| invalid())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain && matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(invalid())
    }
}

/// The text without what may be a password.
fn without_user(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiKey;

    fn client(url: &str, key: &str) -> Result<HttpApi, ClientError> {
        HttpApi::new(ClientConfig::new(url, Some(ApiKey::new(key))))
    }

    #[test]
    fn addresses_that_cannot_be_right_are_refused_without_showing_a_password() {
        for bad in [
            "",
            "127.0.0.1:7700",
            "ftp://x/",
            "http://",
            "unix:/x",
            "http://u:secret@localhost/",
            "http://localhost/?key=1",
            "http://localhost/#x",
            "data:text/plain,x",
        ] {
            let error = client(bad, "k").unwrap_err();
            assert!(matches!(error, ClientError::InvalidUrl(_)), "{bad}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_key_travels_in_the_clear_only_within_this_machine() {
        for good in [
            "http://localhost:7700",
            "http://127.0.0.1",
            "http://127.8.8.8:1/base/",
            "http://[::1]:1",
            "https://outpost.test/base",
        ] {
            assert!(client(good, "k").is_ok(), "{good}");
        }
        for bad in ["http://outpost.test", "http://10.0.0.1:7700", "http://localhost.outpost.test"]
        {
            assert!(matches!(client(bad, "k"), Err(ClientError::Insecure(_))), "{bad}");
        }
        let mut config = ClientConfig::new("http://10.0.0.1", Some(ApiKey::new("k")));
        config.allow_plain_http = true;
        assert!(HttpApi::new(config).is_ok());
    }

    #[test]
    fn a_key_never_shows() {
        let client = client("http://localhost", "otp_secret").unwrap();
        assert!(!format!("{client:?}").contains("secret"));
        let request = client.request(Method::GET, ["x"]);
        assert!(!format!("{request:?}").contains("secret"));
        let error =
            HttpApi::new(ClientConfig::new("http://localhost", Some(ApiKey::new("se\ncret"))));
        assert!(!format!("{:?}", error.unwrap_err()).contains("cret"));
    }

    #[test]
    fn names_stay_within_their_segment() {
        let client = client("http://localhost:1/base/", "k").unwrap();
        let request = client.request(Method::GET, ["artifacts", "a/b ?#é", "%2e"]);
        let url = request.build().unwrap().url().to_string();
        assert_eq!(url, "http://localhost:1/base/artifacts/a%2Fb%20%3F%23%C3%A9/%252e");
    }
}
