//! The audit trail: pages of it, a check of its hashes, and all of it as lines.

use axum::extract::Extension;
use axum::response::Response;
use http::{HeaderValue, StatusCode, Uri, header};
use outpost_types::limits::{AUDIT_VERIFY_ROWS_MAX, CURSOR_BYTES_MAX, TENANT_ID_BYTES_MAX};
use outpost_types::{AuditCheck, AuditQuery, AuditView, ExportAudit, Page, VerifyAudit};

use crate::files;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::json;

/// Longest action in a query, bytes.
const ACTION_BYTES_MAX: usize = 256;
/// Longest instant in a query, bytes.
const INSTANT_BYTES_MAX: usize = 64;
/// Length of a hash in a query, bytes.
const HASH_BYTES_MAX: usize = 64;
/// Most answers need no more, bytes.
const PAGE_BYTES_USUAL: usize = 16 * 1024;

/// Read the audit trail
///
/// Newest first: who did what, when. The operator sees every tenant, others what was done in their own. What one
/// answer may cost is bounded, so a page may have fewer entries than `limit` while there is a `nextCursor`.
#[utoipa::path(
    get, path = "/audit", operation_id = "listAudit", tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "A page", body = Page<AuditView>)),
)]
pub(crate) async fn list(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let wanted = AuditQuery {
        tenant: query.text("tenant", TENANT_ID_BYTES_MAX)?,
        action: query.text("action", ACTION_BYTES_MAX)?,
        since: query.text("since", INSTANT_BYTES_MAX)?,
        until: query.text("until", INSTANT_BYTES_MAX)?,
        limit: query.page_limit()?,
        cursor: query.text("cursor", CURSOR_BYTES_MAX)?,
    };
    query.finish()?;
    let page = session.api.list_audit(wanted).await?;
    Ok(json(StatusCode::OK, &page, PAGE_BYTES_USUAL))
}

/// Check the audit trail
///
/// Computes the hashes of a part of the trail anew. Keep `seq` and `hash` of the answer outside the server: with
/// them a later check also shows that the newest entries were cut off. Only for the operator.
#[utoipa::path(
    get, path = "/audit/verify", operation_id = "verifyAudit", tag = "audit",
    params(VerifyAudit),
    responses((status = 200, description = "What came of it", body = AuditCheck)),
)]
pub(crate) async fn verify(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let limit = query.number("limit", 1..=u64::from(AUDIT_VERIFY_ROWS_MAX))?;
    let wanted = VerifyAudit {
        after: query.number("after", 0..=u64::MAX)?,
        hash: query.text("hash", HASH_BYTES_MAX)?,
        limit: limit.and_then(|limit| u32::try_from(limit).ok()),
    };
    query.finish()?;
    let check = session.api.verify_audit(wanted).await?;
    Ok(json(StatusCode::OK, &check, PAGE_BYTES_USUAL))
}

/// Export the audit trail
///
/// Oldest first, one JSON object a line, with all that its hashes are made of. Only for the operator.
#[utoipa::path(
    get, path = "/audit/export", operation_id = "exportAudit", tag = "audit",
    params(ExportAudit),
    responses((status = 200, description = "The lines", body = String,
        content_type = "application/x-ndjson")),
)]
pub(crate) async fn export(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let wanted = ExportAudit { after: query.number("after", 0..=u64::MAX)? };
    query.finish()?;
    let lines = session.api.export_audit(wanted).await?;
    let mut response = files::text(files::body(lines));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
