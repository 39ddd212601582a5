//! The result of a bench: goal, measured, floor.

use serde::Serialize;

use super::floor::FloorFigures;
use super::probe::Probe;
use crate::render::table::{Column, table};
use crate::ui::Surface;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Goal {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    /// What was measured.
    what: String,
    /// Unit of all its numbers.
    unit: &'static str,
    /// What it should be, if anything is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    /// What it is.
    measured: f64,
    /// What it cannot be better than on this machine, and what that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<(f64, String)>,
}

impl Row {
    /// A figure without a goal.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, measured: f64) -> Self {
        Self { what: what.into(), unit, goal: None, measured, floor: None }
    }

    /// With what is asked for.
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// With what the machine allows.
    pub(crate) fn floor(mut self, value: f64, what: impl Into<String>) -> Self {
        self.floor = Some((value, what.into()));
        self
    }

    /// Whether the goal is met; `None` without one.
    pub(crate) fn met(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtLeast(least) => self.measured >= least,
            Goal::AtMost(most) => self.measured <= most,
        })
    }
}

/// Everything one bench found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Which bench.
    pub(crate) bench: &'static str,
    /// On which machine.
    pub(crate) probe: Probe,
    /// Its floor, milliseconds.
    pub(crate) floor: FloorFigures,
    /// The figures.
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// For a person.
    pub(crate) fn text(&self, surface: Surface) -> String {
        const COLUMNS: [Column; 5] = [
            Column::new("FIGURE"),
            Column::new("GOAL").right(),
            Column::new("MEASURED").right(),
            Column::new("MET").painted(paint_met),
            Column::new("FLOOR").flexible(),
        ];
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        format!(
            "bench {}\n{}\n{}",
            self.bench,
            self.probe.text(&self.floor),
            table(surface, &COLUMNS, &rows)
        )
    }
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
    let floor = row.floor.as_ref();
    let floor = floor.map(|(value, what)| format!("{} ({what})", with_unit(*value)));
    vec![row.what.clone(), goal, with_unit(row.measured), met.to_owned(), floor.unwrap_or_default()]
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
    fn goals_are_judged_in_their_direction() {
        let row = |goal, measured| Row::new("x", "ms", measured).goal(goal).met();
        assert_eq!(row(Goal::AtMost(5.0), 5.0), Some(true));
        assert_eq!(row(Goal::AtMost(5.0), 5.1), Some(false));
        assert_eq!(row(Goal::AtLeast(5.0), 4.9), Some(false));
        assert_eq!(Row::new("x", "", 1.0).met(), None);
    }

    #[test]
    fn a_row_says_everything() {
        let row = Row::new("list", "ms", 1.234).goal(Goal::AtMost(5.0)).floor(0.0421, "sync");
        assert_eq!(cells(&row), ["list", "<= 5.00 ms", "1.23 ms", "yes", "0.042 ms (sync)"]);
    }
}
