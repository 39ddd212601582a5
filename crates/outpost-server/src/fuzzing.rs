//! Doors for the fuzzers in `fuzz/`: what reads the bytes of a request, without the HTTP around it. No
//! part of the interface; nothing else may call it.

use http::{HeaderMap, HeaderValue};
use outpost_types::{ApiError, DispatchId, DispatchRequest, TenantId, Timestamp};

use crate::body::FormShape;
use crate::query::Query;
use crate::{ServerConfig, SigningKey, bounds, explain, files, form};

/// The fields of a form; `None` when it is none.
#[must_use]
pub fn form(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    form::parse(bytes).ok()
}

/// A query as a route reads it that knows `after`, `follow` and a text `cursor` of at most 512 bytes.
///
/// # Errors
/// As the routes answer.
pub fn query(query: &str) -> Result<(Option<u64>, bool, Option<String>), ApiError> {
    let mut query = Query::parse(Some(query))?;
    let known = (query.number("after", 0..=u64::MAX)?, query.flag("follow")?);
    let cursor = query.text("cursor", 512)?;
    query.finish()?;
    Ok((known.0, known.1, cursor))
}

/// The header `Last-Event-ID` with this value; `None` when no HTTP message can carry it.
#[must_use]
pub fn last_event_id(value: &[u8]) -> Option<Result<Option<u64>, ApiError>> {
    Some(crate::routes::last_event_id(&headers("last-event-id", value)?))
}

/// The header `Idempotency-Key` with this value; `None` when no HTTP message can carry it.
#[must_use]
pub fn idempotency_key(value: &[u8]) -> Option<Result<Option<String>, ApiError>> {
    Some(bounds::idempotency_key(&headers(bounds::IDEMPOTENCY_KEY, value)?))
}

fn headers(name: &str, value: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.insert(name, HeaderValue::from_bytes(value).ok()?);
    Some(headers)
}

/// The body of `POST /dispatch`, as JSON or as a form, checked against its bounds.
///
/// # Errors
/// As the route answers.
pub fn dispatch(body: &[u8], is_form: bool) -> Result<DispatchRequest, ApiError> {
    let shape: FormShape = crate::routes::DISPATCH_FORM;
    let request: DispatchRequest = if is_form {
        explain::from_value(crate::body::form_object(body, shape)?)?
    } else {
        explain::from_json(body)?
    };
    bounds::dispatch(&request)?;
    Ok(request)
}

/// Whether a path may ask for an artifact of this name.
#[must_use]
pub fn is_artifact_name(name: &str) -> bool {
    files::is_artifact_name(name)
}

/// Media type and disposition with which an artifact is sent, and its signed address.
#[must_use]
pub fn artifact(name: &str) -> [String; 3] {
    let text = |value: HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let config = ServerConfig::new(([127, 0, 0, 1], 1).into(), SigningKey::new([7; 32]));
    let mut view = outpost_types::ArtifactView {
        preview: None,
        name: name.to_owned(),
        size_bytes: 0,
        content_type: String::new(),
        url: String::new(),
        expires_at: Timestamp::default(),
    };
    let id = DispatchId::from_parts(1, 1);
    files::sign(&config, &TenantId::local(), id, Timestamp::from_millis(5_000), &mut view);
    [text(files::content_type(name)), text(files::disposition(name)), view.url]
}
