//! A report for people to read.

use outpost_terminal::{Column, Surface, table};

use crate::report::{Goal, Report, Row};

/// The whole report as a table.
#[must_use]
pub fn text(surface: Surface, report: &Report) -> String {
    const COLUMNS: [Column; 5] = [
        Column::new("FIGURE"),
        Column::new("GOAL").right(),
        Column::new("MEASURED").right(),
        Column::new("MET").painted(paint_met),
        Column::new("FLOOR").flexible(),
    ];
    let rows: Vec<Vec<String>> = report.rows.iter().map(cells).collect();
    let probe = report.probe.text(&report.floor);
    format!("bench {}\n{probe}\n{}", report.bench, table(surface, &COLUMNS, &rows))
}

fn paint_met(surface: Surface, word: &str) -> String {
    if word == "no" { surface.yellow(word) } else { surface.green(word) }
}

fn cells(row: &Row) -> Vec<String> {
    let with_unit = |value: f64| {
        if row.unit.is_empty() { number(value) } else { format!("{} {}", number(value), row.unit) }
    };
    let goal = match row.goal {
        Some(Goal::AtLeast(value)) => format!(">= {}", with_unit(value)),
        Some(Goal::AtMost(value)) => format!("<= {}", with_unit(value)),
        None => String::new(),
    };
    let met = row.met().map_or("", |met| if met { "yes" } else { "no" });
    let floor = row.floor.as_ref().map(|(value, what)| format!("{} ({what})", with_unit(*value)));
    let measured = with_unit(row.measured);
    vec![row.what.clone(), goal, measured, met.to_owned(), floor.unwrap_or_default()]
}

/// Three digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_everything() {
        let row = Row::new("list", "ms", 1.234).goal(Goal::AtMost(5.0)).floor(0.0421, "sync");
        assert_eq!(cells(&row), ["list", "<= 5.00 ms", "1.23 ms", "yes", "0.042 ms (sync)"]);
        let row = Row::new("lost", "", 1.0).goal(Goal::AtMost(0.0));
        assert_eq!(cells(&row), ["lost", "<= 0", "1.00", "no", ""]);
    }
}
