//! The result of a bench: goal, measured, floor.

use serde::Serialize;

use crate::floor::FloorFigures;
use crate::probe::Probe;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Unit of all its numbers.
    pub unit: &'static str,
    /// What it should be, if anything is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// What it is.
    pub measured: f64,
    /// What it cannot be better than on this machine, and what that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<(f64, String)>,
}

impl Row {
    /// A figure without a goal.
    #[must_use]
    pub fn new(what: impl Into<String>, unit: &'static str, measured: f64) -> Self {
        Self { what: what.into(), unit, goal: None, measured, floor: None }
    }

    /// With what is asked for.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// With what the machine allows.
    #[must_use]
    pub fn floor(mut self, value: f64, what: impl Into<String>) -> Self {
        self.floor = Some((value, what.into()));
        self
    }

    /// Whether the goal is met; `None` without one.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtLeast(least) => self.measured >= least,
            Goal::AtMost(most) => self.measured <= most,
        })
    }
}

/// Everything one bench found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which bench.
    pub bench: &'static str,
    /// On which machine.
    pub probe: Probe,
    /// Its floor, milliseconds.
    pub floor: FloorFigures,
    /// The figures.
    pub rows: Vec<Row>,
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
}
