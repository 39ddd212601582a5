//! Kept files: the list with signed addresses, and the files themselves.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::Response;
use http::Uri;
use outpost_types::limits::{
    SIGNED_URL_SECONDS_DEFAULT, SIGNED_URL_SECONDS_MAX, SIGNED_URL_SECONDS_MIN, TENANT_ID_BYTES_MAX,
};
use outpost_types::{ApiError, ArtifactView, ErrorCode, Page, TenantId, Timestamp};

use crate::files;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::Shared;
use crate::routes::ids::{FilePath, IdPath};

/// Longest signature that is looked at, bytes.
const SIGNATURE_BYTES_MAX: usize = 64;

/// List kept files
///
/// Each with a signed address that needs no key and expires.
#[utoipa::path(
    get, path = "/artifacts/{id}", operation_id = "listArtifacts", tag = "artifacts",
    params(
        ("id" = String, Path, description = "Id of the dispatch"),
        ("expiresIn" = Option<u64>, Query, minimum = 60, maximum = 86400,
            description = "Life of the signed addresses, seconds; 3,600 when absent"),
        ("preview" = Option<bool>, Query,
            description = "Also how the first 100 files begin: texts, and the size of pictures"),
    ),
    responses((status = 200, description = "The files", body = Page<ArtifactView>)),
)]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<Json<Page<ArtifactView>>, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let seconds = query
        .number("expiresIn", SIGNED_URL_SECONDS_MIN..=SIGNED_URL_SECONDS_MAX)?
        .unwrap_or(SIGNED_URL_SECONDS_DEFAULT);
    let preview = query.flag("preview")?;
    query.finish()?;
    let life = Duration::from_secs(seconds);
    let mut items = if preview {
        session.api.artifacts_with_previews(id, life).await?
    } else {
        session.api.artifacts(id, life).await?
    };
    let expires_at = Timestamp::from_millis((now_seconds() + seconds) * 1000);
    for view in &mut items {
        files::sign(&shared.config, &session.caller.tenant, id, expires_at, view);
    }
    Ok(Json(Page { items, next_cursor: None }))
}

/// Download a kept file
///
/// With a key, or with the signed address of the list.
#[utoipa::path(
    get, path = "/artifacts/{id}/{name}", operation_id = "readArtifact", tag = "artifacts",
    params(
        ("id" = String, Path, description = "Id of the dispatch"),
        ("name" = String, Path, description = "Name of the file; may contain slashes"),
        ("tenant" = Option<String>, Query, max_length = 64, description = "Part of a signed address"),
        ("expires" = Option<u64>, Query, minimum = 0,
            description = "Part of a signed address: seconds since the Unix epoch"),
        ("sig" = Option<String>, Query, max_length = 64, description = "Part of a signed address"),
    ),
    responses((status = 200, description = "The file, always as a download", body = String,
        content_type = "application/octet-stream")),
)]
pub(crate) async fn artifact(
    State(shared): State<Arc<Shared>>,
    session: Option<Extension<Session>>,
    FilePath { id, name }: FilePath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let bytes = match session {
        Some(Extension(session)) => {
            query.finish()?;
            session.api.artifact(id, &name).await?
        }
        None => {
            let tenant = query.text("tenant", TENANT_ID_BYTES_MAX)?;
            let expires = query.number("expires", 0..=u64::MAX)?;
            let signature = query.text("sig", SIGNATURE_BYTES_MAX)?;
            query.finish()?;
            let (Some(tenant), Some(expires), Some(signature)) = (tenant, expires, signature)
            else {
                return Err(bad_signature().into());
            };
            let tenant: TenantId = tenant.parse().map_err(|_| bad_signature())?;
            let key = &shared.config.signing_key;
            let valid = key.verify(&tenant, id, &name, expires, &signature);
            if !valid || expires <= now_seconds() {
                return Err(bad_signature().into());
            }
            shared.backend.artifact_for_signed(&tenant, id, &name).await?
        }
    };
    Ok(files::download(&name, bytes))
}

fn bad_signature() -> ApiError {
    ApiError::new(ErrorCode::Forbidden, "This signed address is not valid, or no longer.")
        .with_hint("Get a fresh one from GET /artifacts/{id}.")
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
