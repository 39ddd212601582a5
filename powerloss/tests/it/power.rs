//! Cuts of a healthy store, of a lying disk, and of stores with a deliberate bug.

use outpost_powerloss::campaign::{Mutant, Plan, Tally, campaign, every_position};

/// Cuts of the random runs together.
const CUTS: u64 = 2_000;
/// Within so many cuts each bug must show.
const MUTANT_CUTS: u64 = 300;

fn halves(plan: Plan) -> Tally {
    let other = Plan { seed: plan.seed + 1, ..plan };
    let thread = std::thread::spawn(move || campaign(other).unwrap());
    let one = campaign(plan).unwrap();
    one.plus(thread.join().unwrap())
}

#[test]
fn no_cut_loses_or_mixes_anything() {
    let tally = halves(Plan { seed: 1, cuts: CUTS / 2, mutant: None, lie: false });
    assert!(tally.cuts >= CUTS, "{tally:?}");
    assert!(tally.unanswered > CUTS / 100, "cuts hit writes under way: {tally:?}");
}

#[test]
fn every_position_of_a_small_run_is_safe() {
    let tally = every_position(3, 2, 1).unwrap();
    assert!(tally.cuts > 500, "{tally:?}");
}

#[test]
fn each_bug_shows() {
    for mutant in [Mutant::NoSync, Mutant::NoLogSync, Mutant::NoDatabaseSync, Mutant::EarlyAnswer] {
        let plan = Plan { seed: 9, cuts: MUTANT_CUTS, mutant: Some(mutant), lie: false };
        let found = campaign(plan);
        assert!(found.is_err(), "{mutant:?} was not found: {found:?}");
    }
}
