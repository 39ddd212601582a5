//! Dispatches as a table, one a line.

use outpost_types::{DispatchView, Timestamp};

use crate::card::paint_status;
use crate::format::{age, dollars, millis, short_id};
use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// The table, newest first when `views` are.
#[must_use]
pub fn dispatches(surface: Surface, views: &[DispatchView], now: Timestamp) -> String {
    const COLUMNS: [Column; 7] = [
        Column::new("ID"),
        Column::new("STATUS").painted(paint_status),
        Column::new("AGENT"),
        Column::new("CREATED"),
        Column::new("TOOK").right(),
        Column::new("COST").right(),
        Column::new("TASK").flexible(),
    ];
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let cost = view.usage.as_ref().and_then(|usage| usage.cost_usd);
            vec![
                short_id(view.dispatch_id),
                view.status.as_str().to_owned(),
                sanitize::line(&view.agent),
                age(view.created_at, now),
                view.timings.total_millis.map(millis).unwrap_or_default(),
                cost.map(dollars).unwrap_or_default(),
                sanitize::line(&view.task),
            ]
        })
        .collect();
    table(surface, &COLUMNS, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, assert_golden};

    #[test]
    fn a_table_that_fits() {
        let views = [samples::running(), samples::failed(), samples::completed()];
        let surface = Surface { columns: Some(80), tty: true, ..Surface::PLAIN };
        let now = samples::CREATED_AT.plus_millis(200_000);
        assert_golden("ls.txt", &dispatches(surface, &views, now));
    }
}
