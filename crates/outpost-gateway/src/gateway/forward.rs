//! One request: check it, swap the key, pass it on, clean the answer.
//!
//! Bounded: query, request body. Absent: anything the agent could steer but
//! path, query, body and harmless headers.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, request, response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outpost_core::Nanodollars;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::answer;
use super::call::{Drains, Next, Sent, Tries};
use super::client::UpstreamClient;
use super::event::{BudgetScope, DenialReason, Reporter};
use super::grant::{Credential, GatewayGrant, Route};
use super::meter::{CallMeter, Meter, Refusal};
use super::ratelimit;
use super::reach::{ReachScan, Reaches};
use super::redact::Redactor;
use super::relay::Strictness::{self, Countable, CountableChat};
use super::relay::{AnswerBody, CallReport, ReplayPool, RequestBody, RequestRefusal, RequestTally};
use super::route::{Verdict, charged, judge, model_in, spoken};
use super::usage::UsageDialect;
use crate::egress::Egress;
use crate::serve::{self, Body};

/// Largest request body, bytes.
pub const REQUEST_BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest query, bytes.
const QUERY_BYTES_MAX: usize = 1024;
/// Headers in which a key may arrive; none of them is passed on.
pub(crate) const KEY_HEADERS: [&str; 3] = ["x-api-key", "authorization", "x-goog-api-key"];

/// Request headers that are not passed on: about the connection (the length follows the body), about the way here, or a choice of whom to
/// bill that is not the agent's.
const REQUEST_HEADERS_DROPPED: [&str; 23] = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "expect",
    "host",
    "accept-encoding",
    "cookie",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "openai-organization",
    "openai-project",
    "x-goog-user-project",
    // These would hide the count of tokens, or make another call of this one.
    "x-goog-fieldmask",
    "x-http-method-override",
];

/// Answer headers that are not passed on: about the connection, or about the account behind the key.
const ANSWER_HEADERS_DROPPED: [&str; 16] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "set-cookie",
    "set-cookie2",
    "location",
    "alt-svc",
    "strict-transport-security",
    "openai-organization",
    "openai-project",
    "anthropic-organization-id",
];

/// Everything a connection needs to answer.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) grant: GatewayGrant,
    pub(crate) client: UpstreamClient,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) drains: Arc<Drains>,
    pub(crate) replays: Arc<ReplayPool>,
    /// The way to other hosts than model providers, if there is one.
    pub(crate) egress: Option<Arc<Egress>>,
    /// Cancelled when the session ends: from then on nothing is passed on.
    pub(crate) stop: CancellationToken,
}

/// A call that is passed on.
struct Call<'a> {
    route: &'a Route,
    url: Url,
    head: &'a request::Parts,
    path_model: Option<&'a str>,
    /// How it is charged, if it is.
    charged: Option<UsageDialect>,
    tally: Arc<RequestTally>,
    began: Instant,
}

impl Door {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        if let Some(egress) = self.egress.as_ref().filter(|_| !self.stop.is_cancelled()) {
            if request.method() == Method::CONNECT {
                return egress.tunnel(request).await;
            }
            if request.uri().authority().is_some() {
                return egress.plain(request, &self.grant.handle).await;
            }
        }
        let (head, body) = request.into_parts();
        match self.admit(&head) {
            Ok((route, rest)) => self.forward(route, rest, &head, body, began).await,
            Err(answer) => {
                serve::drain(body).await;
                *answer
            }
        }
    }

    /// The route of a request that may pass, and its path from there; else the answer it gets.
    fn admit<'a>(
        &'a self,
        head: &'a request::Parts,
    ) -> Result<(&'a Route, &'a str), Box<Response<Body>>> {
        let path = head.uri.path();
        let deny = |host: Option<&str>, reason| Err(Box::new(self.deny(host, path, reason)));
        if self.stop.is_cancelled() {
            return Err(Box::new(local(StatusCode::SERVICE_UNAVAILABLE.as_u16())));
        }
        if head.method == Method::CONNECT || head.uri.authority().is_some() {
            return deny(asked_host(&head.uri).as_deref(), DenialReason::PolicyDenied);
        }
        let found = self.find_route(path);
        // Grok looks at the root of whatever host it was given, whether or not a route leads there.
        let rest = found.map_or(path, |(_, rest)| rest);
        match (judge(&head.method, rest), found) {
            (Verdict::Local(status), Some(_)) => Err(Box::new(local(status))),
            (Verdict::Local(status), None) if path == "/" => Err(Box::new(local(status))),
            (_, None) => deny(None, DenialReason::UnknownRoute),
            (Verdict::Deny(reason), Some(_)) => deny(None, reason),
            (Verdict::Forward, Some(_)) if !self.holds_handle(head) => {
                deny(None, DenialReason::WrongHandle)
            }
            (Verdict::Forward, Some(found)) => Ok(found),
        }
    }

    fn find_route<'a>(&'a self, path: &'a str) -> Option<(&'a Route, &'a str)> {
        self.grant.routes.iter().find_map(|route| {
            let rest = path.strip_prefix(route.prefix.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((route, rest))
        })
    }

    /// Whether any place for a key holds this attempt's handle.
    fn holds_handle(&self, head: &request::Parts) -> bool {
        let in_headers =
            KEY_HEADERS.iter().flat_map(|name| head.headers.get_all(*name)).any(|value| {
                let bytes = value.as_bytes();
                let bearer = bytes.get(..7).filter(|start| start.eq_ignore_ascii_case(b"bearer "));
                self.grant.handle.matches(bearer.map_or(bytes, |_| &bytes[7..]))
            });
        let in_query = head.uri.query().unwrap_or_default().split('&').any(|pair| {
            pair.strip_prefix("key=").is_some_and(|key| self.grant.handle.matches(key.as_bytes()))
        });
        in_headers || in_query
    }

    async fn forward(
        &self,
        route: &Route,
        rest: &str,
        head: &request::Parts,
        body: Incoming,
        began: Instant,
    ) -> Response<Body> {
        let path = head.uri.path();
        if content_length(&head.headers).is_some_and(|bytes| bytes > REQUEST_BODY_BYTES_MAX) {
            return self.deny(None, path, DenialReason::BodyTooLarge);
        }
        let charged = charged(&head.method, rest);
        let Some(url) = target(route, rest, head.uri.query(), charged) else {
            return self.deny(None, path, DenialReason::PathNotAllowed);
        };
        if route.upstream.is_https() && !self.client.https {
            let message = "This host has no certificate authorities, so the gateway cannot reach the \
                model provider: install the package ca-certificates and restart Outpost.";
            return answer::problem(StatusCode::BAD_GATEWAY, "no_certificates", message);
        }
        let plain = is_plain(&head.headers);
        let reach = spoken(&head.method, rest).filter(|_| !self.reaches_out());
        let strictness = match charged {
            Some(_) if self.meter.limited() && !plain => {
                return self.deny(None, path, DenialReason::NotCountable);
            }
            Some(UsageDialect::Chat) if self.meter.limited() => CountableChat,
            Some(_) if self.meter.limited() => Countable,
            _ => Strictness::Any,
        };
        if reach.is_some() && !plain {
            return self.deny(None, path, DenialReason::NotReadable);
        }
        let reach = reach.map(ReachScan::new);
        let tally = Arc::new(RequestTally::new(strictness, reach, &self.replays));
        let call = Call { route, url, head, path_model: model_in(rest), charged, tally, began };
        self.carry_out(&call, body).await
    }

    /// Whether this attempt may reach anything but models, and so its provider for it.
    fn reaches_out(&self) -> bool {
        self.egress.as_ref().is_some_and(|egress| egress.opens_anything())
    }

    /// Sends the call, again where the provider wants no calls for now, until there is an answer to pass on.
    async fn carry_out(&self, call: &Call<'_>, body: Incoming) -> Response<Body> {
        let mut meter = call.charged.map(|dialect| CallMeter::new(&self.meter, dialect));
        let body = RequestBody::new(body, Arc::clone(&call.tally), REQUEST_BODY_BYTES_MAX);
        let mut body = Some(reqwest::Body::wrap(body));
        let mut tries = Tries::new(call.route.credentials.len(), self.grant.rate_limit_wait);
        let mut credential = 0;
        loop {
            if let Some(meter) = &mut meter {
                match self.meter.turn().await {
                    Ok(turn) => meter.begin(turn),
                    Err(refusal) => return refused(refusal),
                }
            }
            let Some(body) = body.take().or_else(|| call.tally.replay().map(reqwest::Body::from))
            else {
                return unreachable_upstream(call.route, None);
            };
            let key = &call.route.credentials[credential];
            let request = self.request(call, key, body);
            let report = self.report(call, meter.take());
            let (sent, report) = self.drains.send(request, report).await;
            let Some(mut report) = report else {
                return local(StatusCode::SERVICE_UNAVAILABLE.as_u16());
            };
            let response = match sent {
                Sent::Answer(response) => response,
                sent => return self.not_answered(call, sent, report),
            };
            if !ratelimit::may_be_limit(response.status()) || !call.tally.can_replay() {
                call.tally.forget();
                return self.pass_down(call.route, key, response, report);
            }
            let response = http::Response::from(response);
            let (head, limited) = response.into_parts();
            // Its turn goes to others while it waits.
            meter = report.meter.take();
            if let Some(meter) = &mut meter {
                meter.pause();
            }
            match tries.next(credential, &head, limited).await {
                Next::PassOn(bytes) => return self.pass_bytes(key, head, bytes, report),
                Next::GiveUp(bytes, wait) => {
                    self.reporter.rate_limited(&call.route.name, wait, false);
                    return self.pass_bytes(key, head, bytes, report);
                }
                Next::Again { wait, credential: next } => {
                    drop(report);
                    credential = next;
                    if let Some(wait) = wait {
                        self.reporter.rate_limited(&call.route.name, wait, true);
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }

    fn request(
        &self,
        call: &Call<'_>,
        key: &Credential,
        body: reqwest::Body,
    ) -> reqwest::RequestBuilder {
        let request = self.client.http.request(call.head.method.clone(), call.url.clone());
        let request = request.headers(request_headers(&call.head.headers, call.route, key));
        if call.head.method == Method::POST { request.body(body) } else { request }
    }

    fn report(&self, call: &Call<'_>, meter: Option<CallMeter>) -> CallReport {
        CallReport {
            reporter: Arc::clone(&self.reporter),
            provider: call.route.name.clone(),
            status: StatusCode::BAD_GATEWAY.as_u16(),
            path_model: call.path_model.map(str::to_owned),
            tally: Arc::clone(&call.tally),
            began: call.began,
            response_bytes: 0,
            complete: false,
            whole: false,
            unanswered: false,
            meter,
        }
    }

    fn not_answered(&self, call: &Call<'_>, sent: Sent, mut report: CallReport) -> Response<Body> {
        let path = call.head.uri.path();
        if let (Sent::Failed(_), Some(refusal)) = (&sent, call.tally.refused()) {
            let answer = match refusal {
                RequestRefusal::TooLarge => self.deny(None, path, DenialReason::BodyTooLarge),
                RequestRefusal::NotCountable => self.deny(None, path, DenialReason::NotCountable),
                RequestRefusal::Reaches(Reaches::Unreadable) => {
                    self.deny(None, path, DenialReason::NotReadable)
                }
                RequestRefusal::Reaches(Reaches::Out(what)) => {
                    self.deny(None, &format!("{path} ({what})"), DenialReason::ProviderTool)
                }
            };
            report.status = answer.status().as_u16();
            return answer;
        }
        match sent {
            Sent::TimedOut => {
                report.status = StatusCode::GATEWAY_TIMEOUT.as_u16();
                let message = "The model provider did not answer in time: try again.";
                answer::problem(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
            }
            Sent::Failed(error) => unreachable_upstream(call.route, Some(error)),
            Sent::Answer(_) | Sent::Stopped => unreachable_upstream(call.route, None),
        }
    }

    fn pass_down(
        &self,
        route: &Route,
        key: &Credential,
        response: reqwest::Response,
        mut report: CallReport,
    ) -> Response<Body> {
        let status = response.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            tracing::warn!(
                provider = route.name,
                "the model provider redirects; check its base URL"
            );
            report.status = StatusCode::BAD_GATEWAY.as_u16();
            let message = "The model provider redirects to another address, which the gateway does not \
                follow: ask the operator to correct its base URL.";
            return answer::problem(StatusCode::BAD_GATEWAY, "upstream_redirect", message);
        }
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|value| value != "identity") {
            // Compressed bytes cannot be searched for the key; no encoding was asked for.
            report.status = StatusCode::BAD_GATEWAY.as_u16();
            let message = "The model provider sent a compressed answer that was not asked for.";
            return answer::problem(StatusCode::BAD_GATEWAY, "upstream_encoding", message);
        }
        let (head, body) = http::Response::from(response).into_parts();
        self.pass(key, &head, body, report)
    }

    /// Passes an answer on whose body was read already.
    fn pass_bytes(
        &self,
        key: &Credential,
        mut head: response::Parts,
        bytes: Bytes,
        report: CallReport,
    ) -> Response<Body> {
        head.headers.remove(header::CONTENT_LENGTH);
        self.pass(key, &head, bytes.into(), report)
    }

    /// Passes an answer on, without the key it was asked for with.
    fn pass(
        &self,
        key: &Credential,
        head: &response::Parts,
        inner: reqwest::Body,
        report: CallReport,
    ) -> Response<Body> {
        let redactor = Redactor::new(key.expose());
        let headers = answer_headers(&head.headers, &redactor);
        let body = AnswerBody::new(inner, redactor, report, Arc::clone(&self.drains));
        let mut answer = Response::new(body.boxed_unsync());
        *answer.status_mut() = head.status;
        *answer.headers_mut() = headers;
        answer
    }

    fn deny(&self, host: Option<&str>, path: &str, reason: DenialReason) -> Response<Body> {
        self.reporter.denied(host, path, reason);
        let (status, message) = match reason {
            DenialReason::WrongHandle => (
                StatusCode::UNAUTHORIZED,
                "This key is not the gateway handle of this run: use the key the agent was started with.",
            ),
            DenialReason::UnknownRoute => (
                StatusCode::NOT_FOUND,
                "The gateway has no such route: use the base URL the agent was started with.",
            ),
            DenialReason::PathNotAllowed => (
                StatusCode::FORBIDDEN,
                "The gateway passes on calls of models only; this path is not one.",
            ),
            DenialReason::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "The gateway does not pass on this method for this path.",
            ),
            DenialReason::PolicyDenied => (
                StatusCode::FORBIDDEN,
                "The network policy of this run does not allow this host: only the model provider can be \
                 reached.",
            ),
            DenialReason::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request body is over 64 MiB: send less at once.",
            ),
            DenialReason::ProviderTool => (
                StatusCode::FORBIDDEN,
                "This run has no network, so the model provider may reach nothing for it either: no search, no \
                 fetched page, file or image, no remote tools, no code run there. A human can allow it while it \
                 runs, with `outpost network <id of the dispatch> --network trusted`.",
            ),
            DenialReason::NotReadable => (
                StatusCode::BAD_REQUEST,
                "This run has no network, so a call must be one plain JSON object that the gateway can read, \
                 not compressed.",
            ),
            DenialReason::NotCountable => (
                StatusCode::BAD_REQUEST,
                "This run has a budget, so a call must be one plain JSON object, not compressed, not in the \
                 background, and must not switch the count of its tokens off.",
            ),
        };
        answer::problem(status, reason.as_str(), message)
    }
}

fn local(status: u16) -> Response<Body> {
    answer::empty(StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND))
}

/// Why a call may not begin, as the CLIs show it.
fn refused(refusal: Refusal) -> Response<Body> {
    match refusal {
        Refusal::Busy => {
            let message = "Too many calls run at once for a run with a budget: try again later.";
            answer::problem(StatusCode::SERVICE_UNAVAILABLE, "gateway_busy", message)
        }
        Refusal::Exhausted { scope, spent, limit, assumed } => {
            let (spent, limit) = (spent.to_usd(), limit.to_usd());
            let (whose, advice) = match scope {
                BudgetScope::Attempt => {
                    ("of this run", "Dispatch it again with a higher budgetUsd.")
                }
                BudgetScope::TenantDay => (
                    "of this tenant for today",
                    "It begins anew at 00:00 UTC, or the operator raises it.",
                ),
            };
            let assumed = if assumed == Nanodollars::ZERO {
                String::new()
            } else {
                let assumed = assumed.to_usd();
                format!(" ${assumed:.4} of that is assumed for models without a known price.")
            };
            let message = format!(
                "The budget {whose} is used up: ${spent:.4} of ${limit:.4} is spent.{assumed} {advice}"
            );
            answer::problem(StatusCode::PAYMENT_REQUIRED, "budget_exceeded", &message)
        }
    }
}

fn unreachable_upstream(route: &Route, error: Option<reqwest::Error>) -> Response<Body> {
    let error = error.map(reqwest::Error::without_url);
    let timeout = error.as_ref().is_some_and(reqwest::Error::is_timeout);
    tracing::warn!(provider = route.name, error = ?error, "a model provider could not be reached");
    let what = if timeout { "did not accept a connection in time" } else { "could not be reached" };
    let message = format!(
        "The model provider {} {what}: check the network of the Outpost host and the provider's base URL.",
        route.name
    );
    answer::problem(StatusCode::BAD_GATEWAY, "upstream_unreachable", &message)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Host and port without a user name or password.
fn asked_host(uri: &http::Uri) -> Option<String> {
    let host = uri.host()?;
    Some(match uri.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// Whether the body is sent as it is. A budget is in force, and what cannot be read cannot be counted.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().all(|value| value == "identity")
}

/// Where to send the call; `None` when the query is too long.
fn target(
    route: &Route,
    rest: &str,
    query: Option<&str>,
    charged: Option<UsageDialect>,
) -> Option<Url> {
    let mut query = query_without_key(query).ok()?;
    if charged == Some(UsageDialect::Gemini) {
        // Google's APIs take a choice of fields and of encoding there, which could hide the count.
        let asked = query.unwrap_or_default();
        let alt = asked.split('&').find(|pair| matches!(*pair, "alt=sse" | "alt=json"));
        query = alt.map(str::to_owned);
    }
    route.upstream.join(rest, query.as_deref()).ok()
}

#[derive(Debug)]
struct QueryTooLong;

/// The query without `key=`, in which Google's clients may send the handle.
fn query_without_key(query: Option<&str>) -> Result<Option<String>, QueryTooLong> {
    let Some(query) = query else {
        return Ok(None);
    };
    if query.len() > QUERY_BYTES_MAX {
        return Err(QueryTooLong);
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("key=")).collect();
    let kept = kept.join("&");
    Ok((!kept.is_empty()).then_some(kept))
}

fn request_headers(from: &HeaderMap, route: &Route, key: &Credential) -> HeaderMap {
    let mut headers = kept_headers(from, &REQUEST_HEADERS_DROPPED);
    for name in KEY_HEADERS {
        headers.remove(name);
    }
    // Plain bytes, so that an echoed key can be found.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let (name, Some(value)) = route.auth_header(key) {
        headers.insert(HeaderName::from_static(name), value);
    }
    headers
}

fn answer_headers(from: &HeaderMap, redactor: &Redactor) -> HeaderMap {
    let mut headers = kept_headers(from, &ANSWER_HEADERS_DROPPED);
    for value in headers.values_mut() {
        if let Some(masked) = redactor.text(value.as_bytes()) {
            *value = HeaderValue::from_bytes(&masked)
                .unwrap_or_else(|_| HeaderValue::from_static("redacted"));
        }
    }
    headers
}

/// All headers but the dropped ones and those that `Connection` names.
pub(crate) fn kept_headers(from: &HeaderMap, dropped: &[&str]) -> HeaderMap {
    let mut headers = from.clone();
    for value in from.get_all(header::CONNECTION) {
        for name in value.to_str().unwrap_or_default().split(',') {
            headers.remove(name.trim());
        }
    }
    for name in dropped {
        headers.remove(*name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_leaves_the_query() {
        let kept = |query| query_without_key(Some(query)).ok().flatten();
        assert_eq!(kept("alt=sse&key=otph_1").as_deref(), Some("alt=sse"));
        assert_eq!(kept("key=otph_1"), None);
        assert_eq!(kept("beta=true").as_deref(), Some("beta=true"));
        assert!(query_without_key(Some(&"x".repeat(QUERY_BYTES_MAX + 1))).is_err());
    }

    #[test]
    fn headers_named_by_connection_are_dropped() {
        let mut from = HeaderMap::new();
        for (name, value) in [("connection", "x-secret, close"), ("x-secret", "1"), ("x-kept", "1")]
        {
            from.append(name, HeaderValue::from_static(value));
        }
        let kept = kept_headers(&from, &REQUEST_HEADERS_DROPPED);
        assert_eq!(kept.len(), 1);
        assert!(kept.contains_key("x-kept"));
    }
}
