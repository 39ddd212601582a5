//! Reading request bodies: bounded, JSON or form, every fault named.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, header};
use outpost_types::limits::BODY_BYTES_MAX;
use outpost_types::{ApiError, ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::explain;
use crate::form::{self, FormError};

/// What is still read of a body that is refused, bytes. Without it a client that sends first and
/// listens later would see a reset connection instead of the reason.
pub(crate) const DISCARD_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// Fields of a form that are not plain texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FormShape {
    /// May be sent more than once, as `name` or `name[]`.
    pub(crate) lists: &'static [&'static str],
    /// Numbers.
    pub(crate) numbers: &'static [&'static str],
}

/// Reads a body into `T`. An empty one is `None`; whether that is allowed is the route's matter.
pub(crate) async fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    shape: FormShape,
) -> Result<Option<T>, ApiError> {
    let bytes = collect(headers, body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    match kind(headers) {
        Some(Kind::Json) => explain::from_json(&bytes).map(Some),
        Some(Kind::Form) => explain::from_value(form_object(&bytes, shape)?).map(Some),
        None => {
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, "The body must be JSON or a form.")
                .with_hint("Send it with the header Content-Type: application/json."))
        }
    }
}

/// Reads a body of at most `bytes_max` that must be JSON. An empty one is `None`.
pub(crate) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Option<T>, ApiError> {
    let bytes = collect(headers, body).await?;
    if bytes.len() > bytes_max {
        let message = format!("The body is over its bound of {bytes_max} bytes.");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
    }
    match kind(headers) {
        _ if bytes.is_empty() => Ok(None),
        Some(Kind::Json) => explain::from_json(&bytes).map(Some),
        _ => Err(ApiError::new(ErrorCode::UnsupportedMediaType, "The body must be JSON.")
            .with_hint("Send it with the header Content-Type: application/json.")),
    }
}

/// Reads and drops what is left of a body, up to [`DISCARD_BYTES_MAX`].
pub(crate) async fn discard(body: Body) {
    if body.is_end_stream() {
        return;
    }
    let mut stream = body.into_data_stream();
    let mut seen = 0usize;
    while let Some(Ok(piece)) = stream.next().await {
        seen = seen.saturating_add(piece.len());
        if seen > DISCARD_BYTES_MAX {
            return;
        }
    }
}

async fn collect(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        if announced.is_some_and(|bytes| bytes <= DISCARD_BYTES_MAX) {
            discard(body).await;
        }
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let mut first = None;
    let mut rest = BytesMut::new();
    let mut length = 0usize;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| {
            ApiError::new(ErrorCode::MalformedBody, "The body broke off in the middle.")
        })?;
        length = length.saturating_add(piece.len());
        if length > DISCARD_BYTES_MAX {
            return Err(too_large());
        }
        if length > BODY_BYTES_MAX {
            (first, rest) = (None, BytesMut::new());
            continue;
        }
        match first.take() {
            None if rest.is_empty() => first = Some(piece),
            None => rest.extend_from_slice(&piece),
            Some(begin) => {
                rest.reserve(announced.unwrap_or(length).max(length));
                rest.extend_from_slice(&begin);
                rest.extend_from_slice(&piece);
            }
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

fn too_large() -> ApiError {
    ApiError::new(
        ErrorCode::PayloadTooLarge,
        format!("The body is over its bound of {BODY_BYTES_MAX} bytes."),
    )
    .with_hint("Put large material into the repository instead of the request.")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Form,
}

fn kind(headers: &HeaderMap) -> Option<Kind> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if !utf8 {
        None
    } else if essence.eq_ignore_ascii_case("application/json") {
        Some(Kind::Json)
    } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Some(Kind::Form)
    } else {
        None
    }
}

pub(crate) fn form_object(bytes: &[u8], shape: FormShape) -> Result<Value, ApiError> {
    if bytes.starts_with(b"{") {
        return Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "The body looks like JSON but was sent as a form.",
        )
        .with_hint("Send it with the header Content-Type: application/json."));
    }
    let fields = form::parse(bytes).map_err(|error| {
        let message = match error {
            FormError::TooMany => "The form has too many fields.",
            FormError::NotText => "The form has a broken % escape or is no UTF-8 text.",
        };
        ApiError::new(ErrorCode::MalformedBody, message)
    })?;
    let mut object = Map::new();
    for (name, value) in fields {
        let list = name.strip_suffix("[]").unwrap_or(&name);
        if shape.lists.contains(&list) {
            let entry = object.entry(list).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(entries) = entry {
                entries.push(Value::String(value));
            }
            continue;
        }
        let number = shape.numbers.contains(&name.as_str()).then(|| number(&value)).flatten();
        let parsed = number.unwrap_or(Value::String(value));
        let shown = explain::shown_name(&name);
        if object.insert(name, parsed).is_some() {
            let message = format!("`{shown}` was given more than once.");
            return Err(ApiError::field(shown, message));
        }
    }
    Ok(Value::Object(object))
}

/// A whole or decimal number, written in digits.
fn number(text: &str) -> Option<Value> {
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    match text.parse::<u64>() {
        Ok(whole) => Some(Value::from(whole)),
        Err(_) => text.parse::<f64>().ok().map(Value::from).filter(Value::is_number),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn content_types() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
            kind(&headers)
        };
        assert_eq!(of("application/json"), Some(Kind::Json));
        assert_eq!(of("Application/JSON; Charset=\"UTF-8\"; x=y"), Some(Kind::Json));
        assert_eq!(of("application/x-www-form-urlencoded"), Some(Kind::Form));
        for bad in ["text/plain", "application/json; charset=latin1", "", "application/jsonp"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(kind(&HeaderMap::new()), None);
    }

    #[test]
    fn forms_become_objects() {
        let shape = FormShape { lists: &["tags"], numbers: &["n"] };
        let value = form_object(b"a=x&n=5&tags=1&tags[]=2&m=7", shape).unwrap();
        let expected = serde_json::json!({"a": "x", "n": 5, "tags": ["1", "2"], "m": "7"});
        assert_eq!(value, expected);
        for (text, expected) in
            [("0.25", serde_json::json!(0.25)), ("1e9", "1e9".into()), ("inf", "inf".into())]
        {
            let value = form_object(format!("n={text}").as_bytes(), shape).unwrap();
            assert_eq!(value["n"], expected);
        }
        let twice = form_object(b"a=1&a=2", shape).unwrap_err();
        assert_eq!(twice.field.as_deref(), Some("a"));
    }
}
