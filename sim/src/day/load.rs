//! When dispatches come over a day, for which agent, and how long they run.

use outpost_types::{BuiltinAgent, Tier};

use super::{Load, tier_of};
use crate::rng::Rng;

/// An hour, milliseconds.
pub(super) const HOUR_MILLIS: u64 = 3_600_000;
/// A day, milliseconds.
pub(super) const DAY_MILLIS: u64 = 24 * HOUR_MILLIS;
/// Parts of the day's dispatches in each hour: a working day with a dent at noon.
const HOURS: [u64; 24] =
    [1, 1, 1, 1, 1, 2, 4, 7, 10, 12, 12, 11, 9, 10, 12, 12, 11, 9, 7, 5, 4, 3, 2, 1];
/// When many come at once, milliseconds after midnight: 10:00, 14:20, 16:40.
const PEAKS_MILLIS: [u64; 3] = [36_000_000, 51_600_000, 60_000_000];
/// Parts of a hundred of each agent, in the order of [`BuiltinAgent::ALL`].
const MIX: [u64; 5] = [40, 30, 12, 8, 10];
/// Dispatches of another size than their agent's usual one, parts of a million.
const OTHER_TIER: u64 = 20_000;

/// One dispatch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) at_millis: u64,
    pub(super) agent: usize,
    pub(super) tier: Tier,
    pub(super) run_millis: u64,
}

/// Those of a day, in the order they come.
pub(super) fn jobs(load: &Load, rng: &mut Rng) -> Vec<Job> {
    let mut jobs: Vec<_> = (0..load.dispatches).map(|index| job(load, index, rng)).collect();
    jobs.sort_by_key(|job| job.at_millis);
    jobs
}

fn job(load: &Load, index: u64, rng: &mut Rng) -> Job {
    let agent = weighted(&MIX, rng);
    let usual = tier_of(BuiltinAgent::ALL[agent]);
    let other = if usual == Tier::Flagship { Tier::Balanced } else { Tier::Flagship };
    let peak = usize::try_from(index / load.peak.max(1)).ok();
    let at_millis = match peak.and_then(|peak| PEAKS_MILLIS.get(peak)) {
        Some(peak) => peak + rng.range(0, 999),
        None => weighted(&HOURS, rng) as u64 * HOUR_MILLIS + rng.range(0, HOUR_MILLIS - 1),
    };
    // From a quarter of the mean to seven quarters.
    let quarter = load.run_seconds * 250;
    Job {
        at_millis,
        agent,
        tier: if rng.chance(OTHER_TIER) { other } else { usual },
        run_millis: rng.range(quarter, 7 * quarter),
    }
}

fn weighted(parts: &[u64], rng: &mut Rng) -> usize {
    let mut point = rng.range(0, parts.iter().sum::<u64>() - 1);
    for (index, part) in parts.iter().enumerate() {
        match point.checked_sub(*part) {
            Some(rest) => point = rest,
            None => return index,
        }
    }
    0
}
