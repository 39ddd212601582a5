//! What dispatches took, as histograms and as rows.

use std::time::Duration;

use outpost_types::{PhaseTimings, Timestamp};

use super::lane::Told;
use super::share;
use crate::error::BenchError;
use crate::floor::FloorFigures;
use crate::histogram::Histogram;
use crate::report::{Goal, Row};

/// Goals of the project, from the answer to the agent's process, warm: beyond one sync of the disk, as the
/// attempt is on disk before anything of it is started; and for the slowest.
const STARTED_BEYOND_SYNC_MILLIS: f64 = 2.0;
const STARTED_P99_MILLIS: f64 = 25.0;
/// Phases as the record names them.
const PHASES: [&str; 4] = ["queue", "fetch", "checkout", "sandbox"];

/// What dispatches of one kind took.
pub(super) struct Times {
    /// From the request's first byte to the agent's process.
    sent: Histogram,
    /// From the answer, which says that the dispatch is on disk, to the agent's process.
    pub(super) answered: Histogram,
    /// From the recorded acceptance to the recorded start.
    recorded: Histogram,
    /// From the recorded acceptance to the agent's first event.
    first: Histogram,
    phases: [Histogram; 4],
    /// Dispatches that were of the other kind: they count nowhere else.
    other: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            sent: Histogram::new(),
            answered: Histogram::new(),
            recorded: Histogram::new(),
            first: Histogram::new(),
            phases: std::array::from_fn(|_| Histogram::new()),
            other: 0,
        }
    }
}

impl Times {
    /// Adds a dispatch of the agent that says the time, if its worker was as wanted.
    pub(super) fn add(&mut self, told: &Told, warm: bool) -> Result<(), BenchError> {
        let silent = || BenchError::failed("the agent of the bench did not say the time");
        let said = told.said.ok_or_else(silent)?;
        if self.add_records(told, warm) {
            self.sent.add(Duration::from_nanos(said.saturating_sub(told.sent)));
            self.answered.add(Duration::from_nanos(said.saturating_sub(told.answered)));
        }
        Ok(())
    }

    /// Adds what the records say, if the worker was as wanted; whether it was.
    pub(super) fn add_records(&mut self, told: &Told, warm: bool) -> bool {
        let (view, timings) = (&told.view, &told.view.timings);
        if timings.warm != Some(warm) {
            self.other += 1;
            return false;
        }
        let since = |at: Timestamp| Duration::from_millis(at.millis_since(view.created_at));
        if let Some(at) = view.started_at {
            self.recorded.add(since(at));
        }
        if let Some(at) = told.first {
            self.first.add(since(at));
        }
        for (phase, millis) in self.phases.iter_mut().zip(phases(timings)) {
            phase.add(Duration::from_millis(millis.unwrap_or_default()));
        }
        true
    }
}

const fn phases(timings: &PhaseTimings) -> [Option<u64>; 4] {
    [timings.queue_millis, timings.fetch_millis, timings.checkout_millis, timings.sandbox_millis]
}

fn two(what: &str, times: &Histogram) -> [Row; 2] {
    [
        Row::new(format!("{what}, p50 of {}", times.count()), "ms", times.millis(0.5)),
        Row::new(format!("{what}, p99"), "ms", times.millis(0.99)),
    ]
}

/// Of the agent that says the time; the goals are for warm workers.
pub(super) fn clock_rows(kind: &str, times: &Times, floor: &FloorFigures, warm: bool) -> Vec<Row> {
    let [p50, p99] = two(&format!("{kind}: answered to process"), &times.answered);
    let mut started =
        [p50.floor(floor.append_p50, "fdatasync"), p99.floor(floor.append_p99, "fdatasync p99")];
    if warm {
        let goals = [floor.append_p50 + STARTED_BEYOND_SYNC_MILLIS, STARTED_P99_MILLIS];
        started = std::array::from_fn(|at| started[at].clone().goal(Goal::AtMost(goals[at])));
    }
    let mut rows: Vec<Row> = started.into();
    rows.extend(two(&format!("{kind}: sent to process"), &times.sent));
    rows.extend(recorded_rows(kind, times));
    for (name, phase) in PHASES.iter().zip(&times.phases) {
        rows.extend(two(&format!("{kind}: {name} (to 1 ms)"), phase));
    }
    rows.push(Row::new(
        format!("{kind}: not {}", if warm { "warm" } else { "cold" }),
        "",
        times.other as f64,
    ));
    rows
}

fn recorded_rows(kind: &str, times: &Times) -> Vec<Row> {
    let recorded = two(&format!("{kind}: accepted to start (records, to 1 ms)"), &times.recorded);
    let first = two(&format!("{kind}: accepted to its first event (to 1 ms)"), &times.first);
    recorded.into_iter().chain(first).collect()
}

/// Of a real CLI, warm and cold.
pub(super) fn cli_rows(name: &str, times: &[Times; 2]) -> Vec<Row> {
    let kinds = times.iter().zip(["warm", "cold"]);
    kinds.flat_map(|(times, kind)| recorded_rows(&format!("{name}, {kind}"), times)).collect()
}

/// Many dispatches at once.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// Until the last agent's process.
    pub(super) started: Duration,
    /// Until the last end was known.
    pub(super) done: Duration,
    pub(super) failed: u64,
    pub(super) hits: u64,
    pub(super) claims: u64,
}

/// Of each size.
pub(super) struct Bursts(Vec<(Histogram, Histogram, Burst)>);

impl Bursts {
    pub(super) fn new(sizes: usize) -> Self {
        let none = || (Histogram::new(), Histogram::new(), Burst::default());
        Self(std::iter::repeat_with(none).take(sizes).collect())
    }

    pub(super) fn add(&mut self, size: usize, one: Burst) {
        let (started, done, sum) = &mut self.0[size];
        started.add(one.started);
        done.add(one.done);
        sum.failed += one.failed;
        sum.hits += one.hits;
        sum.claims += one.claims;
    }
}

/// Of one server; `sizes` as they were added.
pub(super) fn burst_rows(kind: &str, sizes: &[u32], bursts: &Bursts) -> Vec<Row> {
    let mut rows = Vec::new();
    for (size, (started, done, sum)) in sizes.iter().zip(&bursts.0) {
        let what = format!("{size} at once, {kind}, 100 files");
        let times = format!("median of {}", started.count());
        rows.push(Row::new(format!("{what}: all started, {times}"), "ms", started.millis(0.5)));
        rows.push(Row::new(format!("{what}: all done, {times}"), "ms", done.millis(0.5)));
        let failed = Row::new(format!("{what}: failed"), "", sum.failed as f64);
        rows.push(failed.goal(Goal::AtMost(0.0)));
        if sum.hits > 0 {
            let hits = share(sum.hits, sum.claims);
            rows.push(Row::new(format!("{what}: got a warm worker"), "%", hits));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatches::tests::view;

    const FLOOR: FloorFigures = FloorFigures {
        overwrite_p50: 1.0,
        overwrite_p99: 1.0,
        append_p50: 1.0,
        append_p99: 4.0,
        exec_p50: 1.0,
        exec_p99: 1.0,
    };

    fn told(warm: bool, micros: u64) -> Told {
        let timings = format!(r#"{{"queueMillis":1,"sandboxMillis":2,"warm":{warm}}}"#);
        let view = view("COMPLETED", &timings);
        let first = Some(view.created_at.plus_millis(12));
        Told { sent: 1_000, answered: 2_000, view, first, said: Some(2_000 + micros * 1_000) }
    }

    fn met(rows: &[Row]) -> Vec<bool> {
        rows.iter().filter_map(Row::met).collect()
    }

    #[test]
    fn the_goals_are_for_warm_workers_and_count_only_those() {
        let mut times = Times::default();
        for micros in 2_000..2_200 {
            times.add(&told(true, micros), true).unwrap();
        }
        times.add(&told(false, 90_000), true).unwrap();
        let rows = clock_rows("warm", &times, &FLOOR, true);
        assert_eq!(met(&rows), [true, true]);
        assert!(rows[0].what.ends_with("p50 of 200") && (2.0..2.2).contains(&rows[0].measured));
        assert_eq!(rows.last().unwrap().measured, 1.0, "the one without a warm worker is told");
        let figure = |what: &str| rows.iter().find(|row| row.what.contains(what)).unwrap().measured;
        assert!((9.0..9.2).contains(&figure("accepted to start")));
        assert!((12.0..12.2).contains(&figure("first event")));
        assert!((2.0..2.1).contains(&figure("sandbox")));
        for _ in 0..300 {
            times.add(&told(true, 26_000), true).unwrap();
        }
        assert_eq!(met(&clock_rows("warm", &times, &FLOOR, true)), [false, false]);
        assert!(met(&clock_rows("cold", &times, &FLOOR, false)).is_empty());
    }

    #[test]
    fn an_agent_that_says_nothing_is_no_figure() {
        let mut times = Times::default();
        let silent = Told { said: None, ..told(true, 1) };
        assert!(times.add(&silent, true).is_err());
        assert!(times.add_records(&silent, true), "a real CLI says other things");
    }

    #[test]
    fn one_failure_in_a_burst_is_one_too_many() {
        let mut bursts = Bursts::new(1);
        let burst = |failed| Burst { failed, hits: 5, claims: 50, ..Burst::default() };
        bursts.add(0, burst(0));
        assert_eq!(met(&burst_rows("warm", &[50], &bursts)), [true]);
        bursts.add(0, burst(1));
        let rows = burst_rows("warm", &[50], &bursts);
        assert_eq!(met(&rows), [false]);
        assert_eq!(rows.last().unwrap().measured, 10.0);
    }
}
