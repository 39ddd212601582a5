//! One request to a code host's REST API: bounded, without redirects, the token in a header only.

use std::time::{Duration, SystemTime};

use outpost_types::{ErrorCode, PromotionFailure};
use outpost_workspace::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, redirect};
use serde_json::Value;
use url::Url;

use crate::PromoteError;
use crate::error::PromoteError as E;
use crate::words::{line, scrub};

/// Longest time of a request, seconds.
const REQUEST_SECONDS_MAX: u64 = 30;
/// Longest time to reach the code host, seconds.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Longest answer that is read, bytes: a page of 100 pull requests with long bodies.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most of a code host's own words that are kept, characters.
const SAID_PARTS_MAX: usize = 8;

/// The client.
#[derive(Debug)]
pub(crate) struct Http {
    outside: Client,
    local: Client,
}

/// A request to be.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// Headers of the code host's API.
    pub(crate) headers: &'a [(&'static str, &'a str)],
    /// Name of the token's header, and what stands before the token in it.
    pub(crate) auth: (&'static str, &'static str),
    pub(crate) token: &'a Secret,
    pub(crate) body: Option<&'a Value>,
}

/// What came back: any status, as the code host's own words.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) value: Value,
    /// How long it was.
    pub(crate) bytes: usize,
}

impl Http {
    pub(crate) fn new() -> std::io::Result<Self> {
        // An error means that there is a provider: what was asked for.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
                .timeout(Duration::from_secs(REQUEST_SECONDS_MAX))
                .user_agent(concat!("outpost/", env!("CARGO_PKG_VERSION")))
        };
        let build =
            |builder: reqwest::ClientBuilder| builder.build().map_err(std::io::Error::other);
        Ok(Self { outside: build(client())?, local: build(client().no_proxy())? })
    }

    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, PromoteError> {
        let host = crate::forge::authority(&ask.url).unwrap_or_default();
        let unreachable = |error: reqwest::Error| {
            E::unreachable(
                &host,
                &scrub(&error.without_url().to_string(), Some(ask.token.reveal())),
            )
        };
        let local = ask.url.scheme() == "http";
        let client = if local { &self.local } else { &self.outside };
        let (name, before) = ask.auth;
        let value = HeaderValue::from_str(&format!("{before}{}", ask.token.reveal()));
        let mut value = value.map_err(|_| E::credentials(&host))?;
        value.set_sensitive(true);
        let mut request = client.request(ask.method, ask.url.clone());
        request = request.header(HeaderName::from_static(name), value);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(E::unreachable(&host, "its answer is too long"));
            }
            bytes.extend_from_slice(&piece);
        }
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, headers, value, bytes: bytes.len() })
    }
}

impl Answer {
    /// What every refusal of a REST API means, but for those a caller knows better.
    pub(crate) fn refusal(&self, host: &str, what: &str, token: &Secret) -> PromoteError {
        let said = self.said(token);
        match self.status {
            StatusCode::UNAUTHORIZED => E::credentials(host),
            StatusCode::TOO_MANY_REQUESTS => self.limited(host),
            StatusCode::FORBIDDEN if self.is_limit(&said) => self.limited(host),
            StatusCode::FORBIDDEN => E::forbidden(what, &said),
            StatusCode::NOT_FOUND | StatusCode::GONE => E::missing(format!(
                "The API of {host} knows no such repository, or does not show it to this token."
            )),
            status if status.is_redirection() => E::missing(format!(
                "The API of {host} says that the repository has moved. Use its new name."
            )),
            status if status.is_server_error() => {
                E::unreachable(host, &format!("it answered {status}"))
            }
            _ => E::forbidden(what, &said),
        }
    }

    fn is_limit(&self, said: &str) -> bool {
        let none_left =
            self.headers.get("x-ratelimit-remaining").is_some_and(|left| left.as_bytes() == b"0");
        none_left || self.headers.contains_key(RETRY_AFTER) || said.contains("rate limit")
    }

    fn limited(&self, host: &str) -> PromoteError {
        let number = |name: &str| {
            let text = self.headers.get(name).and_then(|value| value.to_str().ok());
            text.and_then(|text| text.trim().parse::<u64>().ok())
        };
        // GitHub says how long to wait, or when its hour is over, in seconds since the Unix epoch.
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since_epoch.map(|since| since.as_secs()).unwrap_or_default();
        let reset = number("x-ratelimit-reset").map(|at| at.saturating_sub(now));
        let seconds = number(RETRY_AFTER.as_str()).or(reset);
        let pause_millis = seconds.map(|seconds| seconds.saturating_mul(1000));
        let message = format!("The code host {host} takes no more requests for now.");
        let failure = PromotionFailure::new(ErrorCode::ForgeUnavailable, message)
            .with_hint("Promote again later; nothing is pushed or opened twice.");
        E::Hindered { failure, pause_millis }
    }

    /// Its own words, bounded and without the token.
    pub(crate) fn said(&self, token: &Secret) -> String {
        let mut parts = Vec::new();
        collect(&self.value["message"], &mut parts);
        collect(&self.value["error"], &mut parts);
        collect(&self.value["errors"], &mut parts);
        line(&scrub(&parts.join("; "), Some(token.reveal())))
    }
}

/// Every text of a value, a few of them.
fn collect(value: &Value, parts: &mut Vec<String>) {
    if parts.len() >= SAID_PARTS_MAX {
        return;
    }
    match value {
        Value::String(text) => parts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, parts)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, parts)),
        _ => {}
    }
}
