//! Setting, listing and removing secrets. No answer contains a value, no error repeats one, and a
//! body is read as JSON only: the parts of a broken form would be shown as names of fields.

use axum::extract::{Extension, Request};
use axum::response::Response;
use http::{StatusCode, Uri};
use outpost_types::limits::SECRET_BYTES_MAX;
use outpost_types::{
    ApiError, ErrorCode, Page, PutSecret, RekeyView, SecretKind, SecretScope, SecretView,
};

use crate::body;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::{SecretPath, WantedSecretPath};
use crate::routes::json;

/// Longest body that sets a secret, bytes: each byte of the longest value as `\u0000`, and a rest.
const SECRET_BODY_BYTES_MAX: usize = 6 * SECRET_BYTES_MAX + 16 * 1024;
/// Longest scope in a query, bytes.
const SCOPE_BYTES_MAX: usize = 16;
/// Most answers about one secret need no more, bytes.
const SECRET_BYTES_USUAL: usize = 512;

/// Set a secret
///
/// Stores the value, encrypted, as the next version of the secret of this name. Its value cannot be
/// read again. What is `injected` is used by the model gateway only; what is `exposed` is given to
/// the environment of dispatches that name it.
#[utoipa::path(
    put, path = "/secrets/{name}", operation_id = "putSecret", tag = "secrets",
    params(("name" = String, Path, max_length = 128, pattern = "^[A-Z][A-Z0-9_]*$",
        description = "Its name, such as ANTHROPIC_API_KEY")),
    request_body(content = PutSecret, content_type = "application/json"),
    responses((status = 200, description = "Stored and durable", body = SecretView)),
)]
pub(crate) async fn put(
    Extension(session): Extension<Session>,
    WantedSecretPath(name): WantedSecretPath,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: PutSecret =
        body::read_json(&parts.headers, body, SECRET_BODY_BYTES_MAX).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send at least {\"value\": …}.")
        })?;
    // Whatever the kind turns out to be, a longer one is allowed for none.
    wanted.value.check(wanted.kind.unwrap_or(SecretKind::Exposed))?;
    let view = session.api.put_secret(name, wanted).await?;
    Ok(json(StatusCode::OK, &view, SECRET_BYTES_USUAL))
}

/// List secrets
///
/// Your own by name, and for the operator those of the platform after them; never their values. At
/// most 256 of each, so there is only one page.
#[utoipa::path(
    get, path = "/secrets", operation_id = "listSecrets", tag = "secrets",
    responses((status = 200, description = "All of them", body = Page<SecretView>)),
)]
pub(crate) async fn list(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let items = session.api.list_secrets().await?;
    let bytes_usual = SECRET_BYTES_USUAL * items.len().max(1);
    Ok(json(StatusCode::OK, &Page { items, next_cursor: None }, bytes_usual))
}

/// Remove a secret
///
/// With all its versions. Attempts that were given it keep it.
#[utoipa::path(
    delete, path = "/secrets/{name}", operation_id = "deleteSecret", tag = "secrets",
    params(
        ("name" = String, Path, description = "Its name"),
        ("scope" = Option<SecretScope>, Query, description = "`tenant` when absent"),
    ),
    responses((status = 200, description = "What it was", body = SecretView)),
)]
pub(crate) async fn delete(
    Extension(session): Extension<Session>,
    SecretPath(name): SecretPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let scope = query.text("scope", SCOPE_BYTES_MAX)?;
    query.finish()?;
    let scope = match scope.as_deref().map(str::parse) {
        None => SecretScope::Tenant,
        Some(Ok(scope)) => scope,
        Some(Err(())) => {
            let message = "`scope` must be one of tenant, platform.";
            return Err(ApiError::field("scope", message).into());
        }
    };
    let view = session.api.delete_secret(name, scope).await?;
    Ok(json(StatusCode::OK, &view, SECRET_BYTES_USUAL))
}

/// Encrypt all secrets with a new key
///
/// Only for the operator. The old key is removed from its file once every version of every secret is
/// encrypted with the new one.
#[utoipa::path(
    post, path = "/secrets/rekey", operation_id = "rekeySecrets", tag = "secrets",
    responses((status = 200, description = "Done and durable", body = RekeyView)),
)]
pub(crate) async fn rekey(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let done = session.api.rekey_secrets().await?;
    Ok(json(StatusCode::OK, &done, SECRET_BYTES_USUAL))
}
