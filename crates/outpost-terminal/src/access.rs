//! Keys, tenants and entries of the audit trail, one a line.

use outpost_types::{ApiKeyStatus, AuditView, KeyView, TenantView, Timestamp};

use crate::format::age;
use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// The table of keys; never a key itself.
#[must_use]
pub fn keys(surface: Surface, views: &[KeyView], now: Timestamp) -> String {
    const COLUMNS: [Column; 8] = [
        Column::new("ID"),
        Column::new("NAME").flexible(),
        Column::new("TENANT"),
        Column::new("PREFIX"),
        Column::new("STATE"),
        Column::new("SCOPES"),
        Column::new("USED"),
        Column::new("TIMES").right(),
    ];
    let row = |view: &KeyView| {
        let state = match view.status {
            ApiKeyStatus::Active => "active",
            ApiKeyStatus::Revoked => "revoked",
            ApiKeyStatus::Expired => "expired",
        };
        let scopes: Vec<_> = view.scopes.iter().map(|scope| scope.as_str()).collect();
        vec![
            view.id.to_string(),
            sanitize::line(&view.name),
            view.tenant_id.to_string(),
            sanitize::line(&view.prefix),
            state.to_owned(),
            scopes.join(","),
            view.last_used_at.map_or_else(|| "never".to_owned(), |at| age(at, now)),
            view.usage_count.to_string(),
        ]
    };
    table(surface, &COLUMNS, &views.iter().map(row).collect::<Vec<_>>())
}

/// The table of tenants.
#[must_use]
pub fn tenants(surface: Surface, views: &[TenantView], now: Timestamp) -> String {
    const COLUMNS: [Column; 6] = [
        Column::new("ID"),
        Column::new("NAME").flexible(),
        Column::new("STATE"),
        Column::new("REQUESTS/MIN").right(),
        Column::new("AT ONCE").right(),
        Column::new("MADE"),
    ];
    let quota = |quota: Option<u32>| quota.map_or_else(|| "usual".to_owned(), |it| it.to_string());
    let row = |view: &TenantView| {
        vec![
            view.id.to_string(),
            sanitize::line(&view.name),
            view.status.to_string(),
            quota(view.quotas.requests_per_minute),
            quota(view.quotas.concurrent_dispatches),
            age(view.created_at, now),
        ]
    };
    table(surface, &COLUMNS, &views.iter().map(row).collect::<Vec<_>>())
}

/// The table of entries.
#[must_use]
pub fn audit(surface: Surface, views: &[AuditView]) -> String {
    const COLUMNS: [Column; 6] = [
        Column::new("AT"),
        Column::new("TENANT"),
        Column::new("BY"),
        Column::new("ACTION"),
        Column::new("SUBJECT"),
        Column::new("DETAIL").flexible(),
    ];
    let row = |view: &AuditView| {
        vec![
            view.at.to_string(),
            view.tenant_id.to_string(),
            view.key_id.map_or_else(|| view.actor.as_str().to_owned(), |id| id.to_string()),
            sanitize::line(&view.action),
            sanitize::line(&view.subject),
            sanitize::line(&view.detail.to_string()),
        ]
    };
    table(surface, &COLUMNS, &views.iter().map(row).collect::<Vec<_>>())
}
