//! Making, listing, replacing and taking back API keys. A key is in the one answer that makes it, which nobody
//! may store, and in no error.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, Uri, header};
use outpost_types::limits::{
    CURSOR_BYTES_MAX, KEY_OVERLAP_SECONDS_MAX, NAME_BYTES_MAX, TENANT_ID_BYTES_MAX,
};
use outpost_types::{
    ApiError, CreateKey, CreatedKey, ErrorCode, KeyQuery, KeyView, Page, RotateKey, Scope,
};

use crate::body;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::KeyPath;
use crate::routes::{ANSWER_BYTES_USUAL, Shared, json};

/// Longest body about a key, bytes.
const KEY_BODY_BYTES_MAX: usize = 16 * 1024;

/// Make a key
///
/// The answer is the only time the key is shown; only its hash is kept. It can allow no more than the key that
/// makes it. Only the operator makes keys of other tenants.
#[utoipa::path(
    post, path = "/keys", operation_id = "createKey", tag = "keys",
    request_body(content = CreateKey, content_type = "application/json"),
    responses((status = 201, description = "Made and durable", body = CreatedKey, headers(
        ("Location" = String, description = "Address of what is kept of it"),
    ))),
)]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: CreateKey =
        body::read_json(&parts.headers, body, KEY_BODY_BYTES_MAX).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send at least {\"name\": …, \"scopes\": […]}.")
        })?;
    check_name(&wanted.name)?;
    let most = Scope::ALL.len();
    if !(1..=most).contains(&wanted.scopes.len()) {
        return Err(ApiError::field("scopes", format!("`scopes` must have 1 to {most}.")).into());
    }
    Ok(shown_once(&shared, &session.api.create_key(wanted).await?))
}

/// List keys
///
/// Newest first, in every state. The operator sees those of all tenants, others those of their own.
#[utoipa::path(
    get, path = "/keys", operation_id = "listKeys", tag = "keys",
    params(KeyQuery),
    responses((status = 200, description = "A page", body = Page<KeyView>)),
)]
pub(crate) async fn list(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let wanted = KeyQuery {
        tenant: query.text("tenant", TENANT_ID_BYTES_MAX)?,
        limit: query.page_limit()?,
        cursor: query.text("cursor", CURSOR_BYTES_MAX)?,
    };
    query.finish()?;
    let page = session.api.list_keys(wanted).await?;
    Ok(json(StatusCode::OK, &page, ANSWER_BYTES_USUAL))
}

/// Read a key
///
/// What is kept of it; never the key itself.
#[utoipa::path(
    get, path = "/keys/{id}", operation_id = "getKey", tag = "keys",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The key", body = KeyView)),
)]
pub(crate) async fn get(
    Extension(session): Extension<Session>,
    KeyPath(id): KeyPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.get_key(id).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

/// Replace a key
///
/// Makes a key with the same name, scopes, tenant and end. The old one works on for the overlap, if there is one.
#[utoipa::path(
    post, path = "/keys/{id}/rotate", operation_id = "rotateKey", tag = "keys",
    params(("id" = String, Path, description = "Its id")),
    request_body(content = RotateKey, content_type = "application/json"),
    responses((status = 201, description = "Made and durable", body = CreatedKey, headers(
        ("Location" = String, description = "Address of what is kept of the new key"),
    ))),
)]
pub(crate) async fn rotate(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    KeyPath(id): KeyPath,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: RotateKey =
        body::read_json(&parts.headers, body, KEY_BODY_BYTES_MAX).await?.unwrap_or_default();
    if wanted.overlap_seconds.is_some_and(|seconds| seconds > KEY_OVERLAP_SECONDS_MAX) {
        let message = format!("`overlapSeconds` must be 0 to {KEY_OVERLAP_SECONDS_MAX}.");
        return Err(ApiError::field("overlapSeconds", message).into());
    }
    Ok(shown_once(&shared, &session.api.rotate_key(id, wanted).await?))
}

/// Take a key back
///
/// From now on it is refused like one that is not known. Doing it twice changes nothing.
#[utoipa::path(
    delete, path = "/keys/{id}", operation_id = "revokeKey", tag = "keys",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "What is kept of it", body = KeyView)),
)]
pub(crate) async fn revoke(
    Extension(session): Extension<Session>,
    KeyPath(id): KeyPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.revoke_key(id).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

fn shown_once(shared: &Shared, created: &CreatedKey) -> Response {
    let mut response = json(StatusCode::CREATED, created, ANSWER_BYTES_USUAL);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let base = shared.config.public_url.as_deref().unwrap_or_default();
    let id = created.api_key.id;
    if let Ok(location) = HeaderValue::try_from(format!("{base}/keys/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    response
}

pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(ApiError::field("name", format!("`name` must be 1 to {NAME_BYTES_MAX} bytes.")))
}
