//! Flipped bits: the store refuses, or answers what was written; what it cannot see is counted.

use std::path::Path;

use outpost_powerloss::campaign::{Plan, campaign, scratch};
use outpost_powerloss::check::{Verdict, examine};
use outpost_powerloss::history::History;
use outpost_powerloss::image::{Disk, Image, Survival};
use outpost_powerloss::random::Random;
use outpost_powerloss::rig::{Rig, Script};
use outpost_powerloss::workload::Author;
use outpost_store::StoreError;

/// Bits flipped in each file, one at a time.
const FLIPS: u64 = 300;
/// Cuts of disks with one sync that lies.
const LIE_CUTS: u64 = 300;

/// A store after some writes, as its disk holds it while it runs: all of it in the file or, with
/// `log`, the later part in the log.
async fn made(directory: &Path, log: bool) -> (Image, History, usize) {
    std::fs::create_dir(directory).unwrap();
    let mut random = Random::new(5);
    let mut author = Author::new(random.fork());
    let mut history = History::new().await.unwrap();
    let mut rig = Rig::open(directory).unwrap();
    let script = Script { turns: 0, plain: true, early: false };
    for _ in 0..25 {
        rig.single(script, author.next_write(), &mut history).await.unwrap();
    }
    if !log {
        rig.close().unwrap();
    }
    let (base, steps) = rig.world.record();
    let mut disk = Disk::new(&base, &steps, Random::new(1));
    disk.advance(steps.len());
    let mut image = disk.cut(Some(Survival::Everything), &mut random);
    image.files.remove("outpost.db-shm");
    (image, history, steps.len())
}

/// How many flips were refused, harmless, a lost end, and wrong.
async fn flips(log: bool) -> (u64, u64, u64, Vec<String>) {
    let scratch = scratch().unwrap();
    let (image, history, end) = made(&scratch.path().join("life"), log).await;
    let name = if log { "outpost.db-wal" } else { "outpost.db" };
    let (mut refused, mut harmless, mut older, mut wrong) = (0, 0, 0, Vec::new());
    let mut random = Random::new(11);
    for _ in 0..FLIPS {
        let mut damaged = image.clone();
        let bytes = damaged.files.get_mut(name).unwrap();
        let place = random.index(bytes.len());
        bytes[place] ^= 1 << random.below(8);
        let directory = scratch.path().join("flip");
        damaged.write_to(&directory).unwrap();
        match examine(&directory, &history, end).await {
            Ok(Verdict::Refused) => refused += 1,
            Ok(Verdict::Lawful(_)) => harmless += 1,
            Ok(Verdict::Older(_)) => older += 1,
            Ok(Verdict::Mixed(what)) => wrong.push(format!("byte {place}: {what}")),
            Err(error) => {
                let named = error.downcast_ref::<StoreError>();
                let typed = matches!(
                    named,
                    Some(
                        StoreError::Foreign { .. }
                            | StoreError::SchemaNewer { .. }
                            | StoreError::Corrupt { .. }
                    )
                );
                assert!(typed, "byte {place}: {error:#}");
                refused += 1;
            }
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
    (refused, harmless, older, wrong)
}

#[tokio::test]
async fn a_flipped_bit_of_the_database_is_never_a_record() {
    let (refused, harmless, older, wrong) = flips(false).await;
    assert!(refused > FLIPS / 4, "{refused} refused, {harmless} harmless");
    assert_eq!(older, 0);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_flipped_bit_of_the_log_costs_at_most_its_last_transaction() {
    let (refused, harmless, older, wrong) = flips(true).await;
    assert!(refused > FLIPS / 2, "{refused} refused, {harmless} harmless, {older} older");
    assert!(older < FLIPS / 10, "{older} lost their end");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_sync_that_lies_shows_or_leaves_a_whole_past() {
    let tally = campaign(Plan { seed: 21, cuts: LIE_CUTS, mutant: None, lie: true }).unwrap();
    assert_eq!(tally.mixed, 0, "{tally:?}");
}
