//! What the settings come to, side by side.

use std::fmt::Write as _;

use outpost_core::pool::{BUILDS_COUNT_DEFAULT, Miss, Stage, WARM_COUNT_MAX};

use super::{Day, Figures, Fleet, LOADS, simulate};

/// Builds at once that a container fleet is tried with beside the default.
const BUILDS_MORE: u32 = 16;
/// Slots of an agent in the design.
const AGENT_SLOTS: u32 = 5;
/// The settings: that of the design, then the stages.
const STAGES: [Option<Stage>; 4] =
    [None, Some(Stage::Dev), Some(Stage::Staging), Some(Stage::Prod)];

/// Every load with every setting: on a local host; on a container fleet with few builds at once, with more,
/// and with as many warm workers in all as there may be; on a local host with few slots for each agent.
#[must_use]
pub fn days(seed: u64) -> Vec<Day> {
    let kinds: [(Fleet, u32, Option<u32>, u32); 5] = [
        (Fleet::Local, BUILDS_COUNT_DEFAULT, None, u32::MAX),
        (Fleet::Container, BUILDS_COUNT_DEFAULT, None, u32::MAX),
        (Fleet::Container, BUILDS_MORE, None, u32::MAX),
        (Fleet::Container, BUILDS_MORE, Some(WARM_COUNT_MAX), u32::MAX),
        (Fleet::Local, BUILDS_COUNT_DEFAULT, None, AGENT_SLOTS),
    ];
    let mut days = Vec::new();
    for (fleet, builds_max, warm_max, agent_attempts_max) in kinds {
        for load in LOADS {
            let day = |stage| Day::new(seed, load, fleet, stage);
            let of = |stage| Day { builds_max, warm_max, agent_attempts_max, ..day(stage) };
            days.extend(STAGES.map(of));
        }
    }
    days
}

/// Names of the columns.
pub const HEAD: &str = "\
fleet     builds total slots  a day peak sizes   hits % starting exhausted backoff unhealthy other_tier rest \
built idle min most warm wait p50 ms p99 ms";

/// One row.
#[must_use]
pub fn row(day: &Day, figures: &Figures) -> String {
    let missed = |miss| figures.misses.get(&miss).copied().unwrap_or(0);
    let named =
        [Miss::Starting, Miss::Exhausted, Miss::BackingOff, Miss::Unhealthy, Miss::OtherTier];
    let named = named.map(missed);
    let rest = figures.claims() - figures.hits - named.iter().sum::<u64>();
    let per_mille = figures.hits_per_mille();
    let slots = match day.agent_attempts_max {
        u32::MAX => "any".to_owned(),
        slots => slots.to_string(),
    };
    let mut row = format!(
        "{:<9} {:>6} {:>5} {slots:>5} {:>6} {:>4} {:<7} {:>4}.{}",
        day.fleet.as_str(),
        day.builds_max,
        day.config().warm_max,
        day.load.dispatches,
        day.load.peak,
        day.stage.map_or("design", Stage::as_str),
        per_mille / 10,
        per_mille % 10,
    );
    let [starting, exhausted, backing_off, unhealthy, other_tier] = named;
    // Writing into memory cannot fail.
    let _ = write!(
        row,
        " {starting:>8} {exhausted:>9} {backing_off:>7} {unhealthy:>9} {other_tier:>10} {rest:>4} \
         {:>5} {:>8} {:>9} {:>11} {:>6}",
        figures.built,
        figures.idle_minutes,
        figures.warm_most,
        figures.wait_millis.0,
        figures.wait_millis.1,
    );
    row
}

/// Lives through those days on that many threads; in their order, a row or what must never be.
#[must_use]
pub fn rows(days: &[Day], threads: usize) -> Vec<Result<String, String>> {
    let part = days.len().div_ceil(threads.max(1)).max(1);
    let live = |day: &Day| {
        let outcome = simulate(day, false);
        match outcome.violation {
            None => Ok(row(day, &outcome.figures)),
            Some(violation) => Err(format!("{day:?}: {violation}")),
        }
    };
    std::thread::scope(|scope| {
        let parts = days.chunks(part);
        let parts: Vec<_> = parts
            .map(|days| scope.spawn(move || days.iter().map(live).collect::<Vec<_>>()))
            .collect();
        let joined = parts.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .flat_map(|rows| rows.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
