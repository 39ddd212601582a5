//! The storm at the size that every test run affords.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use outpost_torture::storm::{Options, PAUSE_MILLIS, storm};

/// Variables that change the size of the storm.
const KILLS_VARIABLE: &str = "OUTPOST_TORTURE_KILLS";
const SEED_VARIABLE: &str = "OUTPOST_TORTURE_SEED";
/// Kills of one test run.
const KILLS: u64 = 300;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_left_behind() {
    let kills = number(KILLS_VARIABLE, KILLS);
    let seed = number(SEED_VARIABLE, 1);
    let binary = outpost_torture::binary().unwrap();
    let options = Options {
        kills,
        seconds_max: None,
        seed,
        clients: 8,
        pause_millis: PAUSE_MILLIS,
        binary,
        progress: |_| {},
    };
    let outcome = storm(&options).await.unwrap();
    assert_eq!(outcome.findings, [] as [String; 0], "seed {seed}: {outcome:#?}");
    assert!(outcome.server_kills + outcome.launcher_kills >= kills);
    assert!(outcome.runs > 0 && outcome.counts.natural > 0, "{outcome:#?}");
}
