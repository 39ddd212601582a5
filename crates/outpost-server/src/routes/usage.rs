//! What was used.

use axum::extract::Extension;
use axum::response::Response;
use http::{StatusCode, Uri};
use outpost_types::limits::TENANT_ID_BYTES_MAX;
use outpost_types::{UsageQuery, UsageReport};

use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::json;

/// Longest day in a query, bytes.
const DAY_BYTES_MAX: usize = 10;
/// Longest list of groups in a query, bytes.
const GROUPS_BYTES_MAX: usize = 64;
/// Most answers need no more for each sum, bytes.
const SUM_BYTES_USUAL: usize = 384;

/// Sum up what was used
///
/// By the gateway's count, of dispatches that ended. The operator sees every tenant, others their own.
#[utoipa::path(
    get, path = "/usage", operation_id = "readUsage", tag = "usage",
    params(UsageQuery),
    responses((status = 200, description = "The sums, all of them", body = UsageReport)),
)]
pub(crate) async fn read(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let wanted = UsageQuery {
        from: query.text("from", DAY_BYTES_MAX)?,
        to: query.text("to", DAY_BYTES_MAX)?,
        group_by: query.text("groupBy", GROUPS_BYTES_MAX)?,
        tenant: query.text("tenant", TENANT_ID_BYTES_MAX)?,
    };
    query.finish()?;
    let report = session.api.usage(wanted).await?;
    Ok(json(StatusCode::OK, &report, SUM_BYTES_USUAL * (report.rows.len() + 1)))
}
