//! Persistent workspaces: a table, and one by itself.

use outpost_types::{Timestamp, WorkspaceView};

use crate::format::{age, bytes};
use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// Characters of an id in a table; two with the same beginning are hardly ever there.
const SHORT_ID_CHARS: usize = 12;

/// The table.
#[must_use]
pub fn workspaces(surface: Surface, views: &[WorkspaceView], now: Timestamp) -> String {
    const COLUMNS: [Column; 7] = [
        Column::new("ID"),
        Column::new("USER"),
        Column::new("REPO").flexible(),
        Column::new("STATE"),
        Column::new("SIZE").right(),
        Column::new("RUNS").right(),
        Column::new("USED"),
    ];
    let row = |view: &WorkspaceView| {
        vec![
            sanitize::line(&view.id).chars().take(SHORT_ID_CHARS).collect(),
            sanitize::line(&view.user_id),
            text(view.repo.as_deref()),
            state(view).to_owned(),
            bytes(view.size_bytes),
            view.runs.to_string(),
            age(view.used_at, now),
        ]
    };
    table(surface, &COLUMNS, &views.iter().map(row).collect::<Vec<_>>())
}

/// One of them, a line for each fact.
#[must_use]
pub fn workspace(view: &WorkspaceView, now: Timestamp) -> String {
    [
        ("id", sanitize::line(&view.id)),
        ("user", sanitize::line(&view.user_id)),
        ("repo", text(view.repo.as_deref())),
        ("branch", text(view.branch.as_deref())),
        ("commit", sanitize::line(&view.base_commit)),
        ("state", state(view).to_owned()),
        ("size", bytes(view.size_bytes)),
        ("runs", view.runs.to_string()),
        ("made", age(view.created_at, now)),
        ("used", age(view.used_at, now)),
    ]
    .map(|(name, value)| format!("{name:<8}{value}"))
    .join("\n")
}

fn text(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), sanitize::line)
}

const fn state(view: &WorkspaceView) -> &'static str {
    match (view.in_use, view.too_large) {
        (true, _) => "in use",
        (false, true) => "too large",
        (false, false) => "free",
    }
}
