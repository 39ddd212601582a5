//! Health, fleet and the OpenAPI document. `/health` and `/health/live` answer from memory.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use outpost_types::{ApiError, FleetView, Health};

use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::Shared;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// A page of text and its own style, and nothing else.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
);

/// The answer of `/health` and `/health/live`, written once.
pub(crate) fn alive() -> Bytes {
    Bytes::from(serde_json::to_vec(&health_of(None)).unwrap_or_default())
}

fn health_of(reason: Option<String>) -> Health {
    Health {
        status: if reason.is_some() { "unavailable".to_owned() } else { "ok".to_owned() },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reason,
    }
}

/// Is the server up
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "health",
    responses((status = 200, description = "It is", body = Health)),
)]
pub(crate) async fn health(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    from_memory(&uri, shared.health.clone())
}

/// Is the process alive
///
/// Asks nothing but the process itself; for a supervisor that restarts it.
#[utoipa::path(
    get, path = "/health/live", operation_id = "healthLive", tag = "health",
    responses((status = 200, description = "It is", body = Health)),
)]
pub(crate) async fn live(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Refusal> {
    from_memory(&uri, shared.health.clone())
}

/// Can it take dispatches
///
/// For a load balancer.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "healthReady", tag = "health",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "Not now; `reason` says why", body = Health),
    ),
)]
pub(crate) async fn ready(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let reason = shared.backend.ready().await.err();
    let status = if reason.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    Ok((status, Json(health_of(reason))).into_response())
}

/// What can run here
///
/// Agents, whether each is available and why not, and what runs now.
#[utoipa::path(
    get, path = "/fleet", operation_id = "fleet", tag = "fleet",
    responses((status = 200, description = "The fleet", body = FleetView)),
)]
pub(crate) async fn fleet(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Json<FleetView>, Refusal> {
    Ok(Json(fleet_of(&session, &uri).await?))
}

/// What can run here
///
/// The same as `/fleet`.
#[utoipa::path(
    get, path = "/health/fleet", operation_id = "healthFleet", tag = "fleet",
    responses((status = 200, description = "The fleet", body = FleetView)),
)]
pub(crate) async fn health_fleet(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Json<FleetView>, Refusal> {
    Ok(Json(fleet_of(&session, &uri).await?))
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")),
)]
pub(crate) async fn openapi(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    from_memory(&uri, shared.openapi.clone())
}

/// This document to read
///
/// A page without scripts.
#[utoipa::path(
    get, path = "/docs", operation_id = "docs", tag = "health",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(crate) async fn docs(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let headers = [(header::CONTENT_TYPE, HTML), (header::CONTENT_SECURITY_POLICY, PAGE_POLICY)];
    Ok((headers, shared.docs.clone()).into_response())
}

async fn fleet_of(session: &Session, uri: &Uri) -> Result<FleetView, ApiError> {
    Query::parse(uri.query())?.finish()?;
    session.api.fleet().await
}

fn from_memory(uri: &Uri, json: Bytes) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}
