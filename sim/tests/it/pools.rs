//! Days of the warm pools: every law holds after every event, the same seed is the same day, and the
//! settings differ in what they should.

use outpost_core::pool::{Miss, Stage};
use outpost_sim::day::{Day, DayOutcome, Fleet, LOADS, Load, simulate, table};

/// A quarter of the smallest day, so that each costs a moment.
const SHORT: Load = Load { dispatches: 500, peak: 25, run_seconds: 120 };
/// Seeds of the usual run; `--pools --days N` has as many as one likes.
const SEEDS: u64 = 12;

fn lawful(day: &Day) -> DayOutcome {
    let outcome = simulate(day, false);
    assert_eq!(outcome.violation, None, "{day:?}");
    outcome
}

#[test]
fn no_day_breaks_a_law() {
    let stages = [None, Some(Stage::Dev), Some(Stage::Staging), Some(Stage::Prod)];
    for seed in 0..SEEDS {
        for fleet in [Fleet::Local, Fleet::Container] {
            let stage = stages[seed as usize % stages.len()];
            let day = Day::new(seed, SHORT, fleet, stage);
            // In turns there is room for everything, for little, and for nothing but attempts.
            let day = Day { room: [50, 4, 0][seed as usize % 3], ..day };
            // And in turns few slots for each agent, so that dispatches wait.
            let agent_attempts_max = if seed % 2 == 0 { u32::MAX } else { 5 };
            let figures = lawful(&Day { agent_attempts_max, ..day }).figures;
            assert!(figures.claims() > 400 && figures.servers > 3, "{figures:?}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_day() {
    let day = Day::new(3, SHORT, Fleet::Container, None);
    let (one, two) = (simulate(&day, true), simulate(&day, true));
    assert!(one == two && !one.trace.is_empty());
    assert_eq!(simulate(&day, false).trace_hash, one.trace_hash);
    assert_ne!(simulate(&Day { seed: 4, ..day }, false).trace_hash, one.trace_hash);
}

#[test]
fn a_quiet_local_day_misses_only_what_it_must() {
    let day = Day { faults: false, ..Day::new(1, LOADS[0], Fleet::Local, None) };
    let figures = lawful(&day).figures;
    assert_eq!(figures.claims(), LOADS[0].dispatches);
    // What misses is of another size, or one of the hundred and fifty that come in a second.
    let other: u64 = figures.misses.get(&Miss::OtherTier).copied().unwrap_or(0);
    assert!((1_880..2_000).contains(&(figures.hits + other)), "{figures:?}");
    assert!(figures.misses.keys().all(|miss| [Miss::OtherTier, Miss::Starting].contains(miss)));
    assert_eq!(figures.wait_millis.0, 0);
}

#[test]
fn slow_builds_are_the_bottleneck_and_more_at_once_help() {
    let few = Day { faults: false, ..Day::new(1, LOADS[1], Fleet::Container, None) };
    let more = Day { builds_max: 16, ..few };
    let (few, more) = (lawful(&few).figures, lawful(&more).figures);
    assert!(few.hits_per_mille() + 100 < more.hits_per_mille(), "{few:?} {more:?}");
    assert!(more.built > few.built && more.warm_most >= few.warm_most);
}

#[test]
fn the_table_has_a_row_for_each_setting() {
    assert_eq!(table::days(0).len(), 60);
    let days = [Day::new(0, SHORT, Fleet::Local, None); 3];
    let rows = table::rows(&days, 2);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row == &rows[0]), "{rows:?}");
    assert!(rows[0].as_ref().is_ok_and(|row| row.starts_with("local")), "{rows:?}");
}
