//! Answers the gateway gives itself.
//!
//! The bodies have the fields the CLIs of all dialects look for, so its message reaches the agent's output.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;

use crate::serve::Body;

/// An error with a stable code and a sentence that says what to do.
pub(crate) fn problem(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let value = json!({
        "type": "error",
        "error": {"type": code, "code": code, "message": message},
        "message": message
    });
    let mut response = empty(status);
    let full = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    *response.body_mut() = full.boxed_unsync();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let full = Full::new(Bytes::new()).map_err(|never| match never {});
    let mut response = Response::new(full.boxed_unsync());
    *response.status_mut() = status;
    response
}
