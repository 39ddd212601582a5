//! One shape for every error: RFC 9457 problem documents.
//!
//! A handler answers [`Refusal`]; it becomes a response that carries the `ApiError` as an extension,
//! and the edge, which knows the request id, writes the document.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use outpost_types::{ApiError, ErrorCode, Problem};

use crate::ServerConfig;

/// Media type of RFC 9457.
pub(crate) const PROBLEM_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status_of(self.0.code);
        response.extensions_mut().insert(self.0);
        response
    }
}

/// HTTP status of a code.
pub(crate) fn status_of(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The document about `error`.
pub(crate) fn document(config: &ServerConfig, error: ApiError, request_id: &str) -> Problem {
    let status = status_of(error.code);
    let code = error.code.as_str();
    Problem {
        kind: config
            .docs_url
            .as_ref()
            .map_or_else(|| format!("urn:outpost:error:{code}"), |base| format!("{base}/{code}")),
        title: status.canonical_reason().unwrap_or("Unknown Status").to_owned(),
        status: status.as_u16(),
        detail: error.message,
        code: error.code,
        request_id: request_id.to_owned(),
        field: error.field,
        hint: error.hint,
    }
}

/// Writes `error` into `response`, keeping the headers it has (`Allow`, `RateLimit-*`).
pub(crate) fn write(
    config: &ServerConfig,
    response: &mut Response,
    error: ApiError,
    request_id: &str,
) {
    *response.status_mut() = status_of(error.code);
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.code == ErrorCode::Unauthorized {
        let bearer = HeaderValue::from_static("Bearer realm=\"outpost\"");
        headers.entry(header::WWW_AUTHENTICATE).or_insert(bearer);
    }
    headers.insert(header::CONTENT_TYPE, PROBLEM_TYPE);
    headers.remove(header::CONTENT_LENGTH);
    let document = document(config, error, request_id);
    *response.body_mut() = serde_json::to_vec(&document).unwrap_or_default().into();
}

/// What to say about an answer that carries a bare error status, as the router makes them.
pub(crate) fn of_bare_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => no_route(),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(
            ErrorCode::MethodNotAllowed,
            "This address exists, but not with this method.",
        )
        .with_hint("The Allow header lists the methods it takes."),
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(ErrorCode::PayloadTooLarge, "The request is too large.")
        }
        other if other.is_client_error() => {
            ApiError::new(ErrorCode::MalformedBody, "The request could not be read.")
        }
        _ => internal(),
    }
}

/// No route has this address.
pub(crate) fn no_route() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "There is nothing at this address.")
        .with_hint("GET /openapi.json lists every address.")
}

/// A fault of ours, about which a client learns nothing but the request id.
pub(crate) fn internal() -> ApiError {
    ApiError::new(ErrorCode::Internal, "The server failed on this request.")
        .with_hint("Give the request id to the operator: it is in the server's log.")
}
