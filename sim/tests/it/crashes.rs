//! Every scenario, with a death at every point of it: before each effect, after it and before it is
//! recorded, and after that; and with a second death at every point of the recovery.

use outpost_sim::scenario::{all, crash_everywhere};
use outpost_sim::{Kill, Mutant};

/// Points after the first death at which the server dies once more.
const SECOND_POINTS: u64 = 40;

#[test]
fn no_death_anywhere_breaks_a_promise() {
    let mut ran = 0;
    for scenario in all() {
        let kills = [Kill::Server, Kill::Launcher, Kill::Host];
        let crashes = crash_everywhere(&scenario, None, &kills, SECOND_POINTS);
        assert_eq!(crashes.failed, None);
        ran += crashes.ran;
    }
    assert!(ran > 10_000, "{ran} histories");
}

#[test]
fn deaths_show_what_is_done_in_the_wrong_order() {
    // Each of these is a window of a few instructions: chance would need luck, this does not.
    for mutant in [
        Mutant::EffectsFirst,
        Mutant::NoRearm,
        Mutant::NoSweep,
        Mutant::CancelLost,
        Mutant::CollectLost,
        Mutant::RetryAfterBegin,
        Mutant::BootNotedFirst,
        Mutant::LostStartRetried,
        Mutant::ReleasedBeforeSaved,
        Mutant::RemovedBeforeRecorded,
    ] {
        let kills = [Kill::Server, Kill::Launcher, Kill::Host];
        let found = all().iter().any(|scenario| {
            crash_everywhere(scenario, Some(mutant), &kills, SECOND_POINTS).failed.is_some()
        });
        assert!(found, "{} is not found", mutant.name());
    }
}
