//! Secrets, one a line; never their values.

use outpost_types::{SecretView, Timestamp};

use crate::Surface;
use crate::format::age;
use crate::table::{Column, table};

/// The table.
#[must_use]
pub fn secrets(surface: Surface, views: &[SecretView], now: Timestamp) -> String {
    const COLUMNS: [Column; 7] = [
        Column::new("NAME").flexible(),
        Column::new("KIND"),
        Column::new("SCOPE"),
        Column::new("VERSION").right(),
        Column::new("UPDATED"),
        Column::new("USED"),
        Column::new("TIMES").right(),
    ];
    let row = |view: &SecretView| {
        vec![
            view.name.to_string(),
            view.kind.as_str().to_owned(),
            view.scope.as_str().to_owned(),
            view.version.to_string(),
            age(view.updated_at, now),
            view.last_used_at.map_or_else(|| "never".to_owned(), |at| age(at, now)),
            view.use_count.to_string(),
        ]
    };
    table(surface, &COLUMNS, &views.iter().map(row).collect::<Vec<_>>())
}
