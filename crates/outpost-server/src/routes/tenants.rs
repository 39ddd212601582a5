//! Tenants: making, listing and changing them.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, Uri, header};
use outpost_types::limits::{CURSOR_BYTES_MAX, QUOTA_DISPATCHES_MAX, QUOTA_REQUESTS_MAX};
use outpost_types::{
    ApiError, CreateTenant, ErrorCode, Page, TenantQuery, TenantQuotas, TenantView, UpdateTenant,
};

use crate::body;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::TenantPath;
use crate::routes::keys::check_name;
use crate::routes::{ANSWER_BYTES_USUAL, Shared, json};

/// Longest body about a tenant, bytes.
const TENANT_BODY_BYTES_MAX: usize = 16 * 1024;

/// Make a tenant
///
/// Only the operator can. It has no key at first.
#[utoipa::path(
    post, path = "/tenants", operation_id = "createTenant", tag = "tenants",
    request_body(content = CreateTenant, content_type = "application/json"),
    responses((status = 201, description = "Made and durable", body = TenantView, headers(
        ("Location" = String, description = "Address of the tenant"),
    ))),
)]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: CreateTenant =
        body::read_json(&parts.headers, body, TENANT_BODY_BYTES_MAX).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send at least {\"id\": …}.")
        })?;
    wanted.name.as_deref().map(check_name).transpose()?;
    check_quotas(wanted.quotas)?;
    let view = session.api.create_tenant(wanted).await?;
    let mut response = json(StatusCode::CREATED, &view, ANSWER_BYTES_USUAL);
    let base = shared.config.public_url.as_deref().unwrap_or_default();
    if let Ok(location) = HeaderValue::try_from(format!("{base}/tenants/{}", view.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// List tenants
///
/// By id. The operator sees all of them, others their own.
#[utoipa::path(
    get, path = "/tenants", operation_id = "listTenants", tag = "tenants",
    params(TenantQuery),
    responses((status = 200, description = "A page", body = Page<TenantView>)),
)]
pub(crate) async fn list(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let wanted =
        TenantQuery { limit: query.page_limit()?, cursor: query.text("cursor", CURSOR_BYTES_MAX)? };
    query.finish()?;
    let page = session.api.list_tenants(wanted).await?;
    Ok(json(StatusCode::OK, &page, ANSWER_BYTES_USUAL))
}

/// Read a tenant
#[utoipa::path(
    get, path = "/tenants/{id}", operation_id = "getTenant", tag = "tenants",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The tenant", body = TenantView)),
)]
pub(crate) async fn get(
    Extension(session): Extension<Session>,
    TenantPath(id): TenantPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.get_tenant(id).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

/// Change a tenant
///
/// Its name, its quotas, or whether it is suspended; what is absent stays. Only the operator can. The keys of a
/// suspended tenant are refused and what waits for a slot goes on waiting; what runs is not stopped.
#[utoipa::path(
    patch, path = "/tenants/{id}", operation_id = "updateTenant", tag = "tenants",
    params(("id" = String, Path, description = "Its id")),
    request_body(content = UpdateTenant, content_type = "application/json"),
    responses((status = 200, description = "Changed and durable", body = TenantView)),
)]
pub(crate) async fn update(
    Extension(session): Extension<Session>,
    TenantPath(id): TenantPath,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: UpdateTenant =
        body::read_json(&parts.headers, body, TENANT_BODY_BYTES_MAX).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send what is to change, such as {\"suspended\": true}.")
        })?;
    wanted.name.as_deref().map(check_name).transpose()?;
    check_quotas(wanted.quotas)?;
    let view = session.api.update_tenant(id, wanted).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

fn check_quotas(quotas: Option<TenantQuotas>) -> Result<(), ApiError> {
    let quotas = quotas.unwrap_or_default();
    for (field, quota, most) in [
        ("quotas.requestsPerMinute", quotas.requests_per_minute, QUOTA_REQUESTS_MAX),
        ("quotas.concurrentDispatches", quotas.concurrent_dispatches, QUOTA_DISPATCHES_MAX),
    ] {
        if quota.is_some_and(|quota| !(1..=most).contains(&quota)) {
            return Err(ApiError::field(field, format!("`{field}` must be 1 to {most}.")));
        }
    }
    Ok(())
}
