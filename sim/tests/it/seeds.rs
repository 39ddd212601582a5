//! Random histories.

use std::thread::available_parallelism;

use outpost_sim::explore::{explore, shrink};
use outpost_sim::{Mutant, Plan, simulate};
use outpost_types::DispatchStatus;

/// Histories of the usual run; the long one has a million and is started by hand.
const SEEDS: u64 = 20_000;
/// Histories within which every mutant must be found.
const MUTANT_SEEDS_MAX: u64 = 100_000;
/// Histories that are compared line by line.
const TRACES: u64 = 50;

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

#[test]
fn every_history_keeps_every_promise() {
    let summary = explore(0, SEEDS, None, threads());
    if let Some((seed, violation)) = summary.failed {
        let small = simulate(shrink(Plan::random(seed)), true);
        panic!(
            "seed {seed}: {violation}\n{}\ncargo run -p outpost-sim -- --seed {seed} --trace",
            small.trace
        );
    }
    assert_eq!(summary.ran, SEEDS);
    // They are about something: servers died, and dispatches ended in every way.
    assert!(summary.servers > 2 * SEEDS, "{} servers", summary.servers);
    for status in [
        DispatchStatus::Completed,
        DispatchStatus::Failed,
        DispatchStatus::Timeout,
        DispatchStatus::Cancelled,
    ] {
        let ended = summary.ends.get(&status).copied().unwrap_or(0);
        assert!(ended > SEEDS / 10, "{ended} ended {status}");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..TRACES {
        let (one, two) = (simulate(Plan::random(seed), true), simulate(Plan::random(seed), true));
        assert!(!one.trace.is_empty());
        assert_eq!(one, two, "seed {seed}");
        hashes.insert(one.trace_hash);
    }
    assert_eq!(hashes.len(), 50, "different seeds are different histories");
}

#[test]
fn threads_make_no_difference() {
    let (one, two) = (explore(7, 300, None, 1), explore(7, 300, None, 3));
    assert_eq!((one.ran, one.trace_sum), (two.ran, two.trace_sum));
}

#[test]
fn every_bug_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        match explore(0, MUTANT_SEEDS_MAX, Some(*mutant), threads()).failed {
            None => missed.push(mutant.name()),
            Some((seed, _)) => {
                let sound = simulate(Plan::random(seed), false);
                assert_eq!(sound.violation, None, "seed {seed} fails without {}", mutant.name());
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_failing_plan_becomes_smaller_and_still_fails() {
    let mutant = Some(Mutant::CollectLost);
    let (seed, _) = explore(0, 1_000, mutant, 1).failed.unwrap();
    let plan = Plan { mutant, ..Plan::random(seed) };
    let small = shrink(plan.clone());
    assert!(simulate(small.clone(), false).violation.is_some());
    assert!(small.jobs.len() <= plan.jobs.len() && small.chaos_seconds <= plan.chaos_seconds);
}

#[test]
fn mutants_have_names_of_their_own() {
    for mutant in Mutant::ALL {
        assert_eq!(Mutant::named(mutant.name()), Some(*mutant));
    }
}
