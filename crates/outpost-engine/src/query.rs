//! Reads the texts of a list query; whatever is wrong is named.

use outpost_store::ListFilter;
use outpost_types::limits::{CURSOR_BYTES_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX};
use outpost_types::{ApiError, DispatchId, ListQuery, TenantId, Timestamp};

/// Says which version of cursors this is, so that a later one can be told apart.
const CURSOR_PREFIX: &str = "c1_";

/// The cursor of a page of what is older than `id`.
pub(crate) fn cursor_before(id: DispatchId) -> String {
    format!("{CURSOR_PREFIX}{id}")
}

/// The filter for a query of `tenant`.
pub(crate) fn filter(query: &ListQuery, tenant: &TenantId) -> Result<ListFilter, ApiError> {
    let limit = query.limit.unwrap_or(LIST_LIMIT_DEFAULT);
    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
        return Err(ApiError::field("limit", format!("It must be 1 to {LIST_LIMIT_MAX}.")));
    }
    Ok(ListFilter {
        tenant: tenant.clone(),
        status: parse("status", query.status.as_deref())?,
        agent: parse("agent", query.agent.as_deref())?,
        repo: query.repo.clone(),
        user: query.user.clone(),
        tag: query.tag.clone(),
        since: instant("since", query.since.as_deref())?,
        until: instant("until", query.until.as_deref())?,
        before: query.cursor.as_deref().map(read_cursor).transpose()?,
        limit,
    })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, ApiError> {
    text.map(str::parse)
        .transpose()
        .map_err(|error: T::Err| ApiError::field(field, error.to_string()))
}

pub(crate) fn instant(field: &str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    text.map(str::parse).transpose().map_err(|_| {
        ApiError::field(field, "It must be an instant in RFC 3339, like 2026-01-31T09:30:00Z.")
    })
}

fn read_cursor(text: &str) -> Result<DispatchId, ApiError> {
    Some(text)
        .filter(|text| text.len() <= CURSOR_BYTES_MAX)
        .and_then(|text| text.strip_prefix(CURSOR_PREFIX))
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| ApiError::field("cursor", "It is not a cursor that a list gave out."))
}
