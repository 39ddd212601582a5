//! A disk that is full, fails, has no descriptors left or is slow: a typed error, nothing acknowledged
//! that is not durable, and the store goes on by itself once the trouble is over.

use std::time::Duration;

use outpost_powerloss::campaign::scratch;
use outpost_powerloss::check::{Verdict, examine};
use outpost_powerloss::history::History;
use outpost_powerloss::image::Disk;
use outpost_powerloss::random::Random;
use outpost_powerloss::rig::{Rig, Script};
use outpost_powerloss::workload::{Author, Picture};
use outpost_powerloss::world::{Call, Fault, FileKind, Trouble};
use outpost_store::{Audits, Checkpoint, SqliteStore, Store, StoreError};

const SCRIPT: Script = Script { turns: 0, plain: true, early: false };
/// Random faults of the mixed run.
const MIXED_FAULTS: u64 = 60;
/// Failed writes one after the other.
const FAILED_BEFORE: u32 = 10;
/// Cuts of the record of a run with faults.
const CUTS: usize = 40;

/// Runs a store, and afterwards cuts its record at many places.
fn with_store(seed: u64, run: impl AsyncFnOnce(&mut Rig, &mut Author, &mut History, &mut Random)) {
    cut_after(seed, async |rig, author, history, random| {
        run(rig, author, history, random).await;
        0
    });
}

/// The same; `run` says from which position on to cut.
fn cut_after(
    seed: u64,
    run: impl AsyncFnOnce(&mut Rig, &mut Author, &mut History, &mut Random) -> usize,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scratch = scratch().unwrap();
    let directory = scratch.path().join("life");
    std::fs::create_dir(&directory).unwrap();
    runtime.block_on(async {
        let mut random = Random::new(seed);
        let mut author = Author::new(random.fork());
        let mut history = History::new().await.unwrap();
        let mut rig = Rig::open(&directory).unwrap();
        for _ in 0..3 {
            rig.single(SCRIPT, author.accept_claimed(), &mut history).await.unwrap();
        }
        let from = run(&mut rig, &mut author, &mut history, &mut random).await;
        rig.world.set_faults(Vec::new());
        rig.single(SCRIPT, author.accept_claimed(), &mut history).await.unwrap();
        assert_whole(rig.store().unwrap(), &history).await;
        let (base, steps) = rig.world.record();
        let mut cuts: Vec<usize> =
            (0..CUTS).map(|_| from + random.index(steps.len() + 1 - from)).collect();
        cuts.sort_unstable();
        let mut disk = Disk::new(&base, &steps, random.fork());
        for cut in cuts {
            disk.advance(cut);
            let place = scratch.path().join("cut");
            disk.cut(None, &mut random).write_to(&place).unwrap();
            let verdict = examine(&place, &history, cut).await.unwrap();
            assert!(matches!(verdict, Verdict::Lawful(_)), "seed {seed}, cut {cut}: {verdict:?}");
            std::fs::remove_dir_all(&place).unwrap();
        }
        rig.reopen().unwrap();
        assert_whole(rig.store().unwrap(), &history).await;
    });
}

/// The store holds what was acknowledged, and nothing else.
async fn assert_whole(store: &SqliteStore, history: &History) {
    let picture = Picture::of(store).await.unwrap();
    assert_eq!(picture, Picture::of(history.now()).await.unwrap());
    store.verify_audit().await.unwrap().unwrap();
    store.check().await.unwrap();
    assert!(!store.metrics().failed);
}

/// A write that must fail; what it would have made stays a possibility until the next good one.
async fn fail(rig: &Rig, author: &mut Author, history: &mut History) -> StoreError {
    let write = author.accept_claimed();
    let issued = rig.world.position();
    let store = rig.store().unwrap();
    let error = write.issue(store.as_ref()).await.expect_err("the disk does not work");
    history.failed(vec![write], issued).await.unwrap();
    author.reread(store.as_ref()).await.unwrap();
    error
}

#[test]
fn a_full_disk_refuses_and_a_freed_one_goes_on() {
    with_store(1, async |rig, author, history, _| {
        rig.world.set_faults(vec![Fault::always(Call::Write, FileKind::Log, Trouble::Full)]);
        for _ in 0..3 {
            let error = fail(rig, author, history).await;
            assert!(matches!(error, StoreError::DiskFull), "{error:?}");
        }
        assert!(Picture::of(rig.store().unwrap().as_ref()).await.is_ok(), "reading goes on");
        rig.world.set_faults(Vec::new());
        rig.single(SCRIPT, author.accept_claimed(), history).await.unwrap();
    });
}

#[test]
fn a_disk_full_for_the_database_is_survived() {
    with_store(2, async |rig, author, history, _| {
        rig.world.set_faults(vec![Fault::always(Call::Write, FileKind::Database, Trouble::Full)]);
        let error = rig.store().unwrap().checkpoint(Checkpoint::Empty).await.unwrap_err();
        assert!(matches!(error, StoreError::DiskFull), "{error:?}");
        // The log still takes writes.
        rig.single(SCRIPT, author.accept_claimed(), history).await.unwrap();
        rig.world.set_faults(Vec::new());
        rig.store().unwrap().checkpoint(Checkpoint::Empty).await.unwrap();
    });
}

#[test]
fn a_failing_disk_refuses_and_a_mended_one_goes_on() {
    for (seed, call) in [(3, Call::Write), (4, Call::Sync)] {
        with_store(seed, async |rig, author, history, _| {
            rig.world.set_faults(vec![Fault::always(call, FileKind::Log, Trouble::Io)]);
            for _ in 0..3 {
                let error = fail(rig, author, history).await;
                assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
                assert!(rig.store().unwrap().metrics().failed);
            }
            rig.world.set_faults(Vec::new());
            rig.single(SCRIPT, author.accept_claimed(), history).await.unwrap();
        });
    }
}

#[test]
fn what_failed_before_is_not_taken_for_damage() {
    for seed in 20..26 {
        cut_after(seed, async |rig, author, history, _| {
            // Failed transactions of several lengths leave several commits where the log will go on.
            let mut failed = 0;
            while failed < FAILED_BEFORE {
                rig.world.set_faults(vec![Fault::once(Call::Sync, FileKind::Log, Trouble::Io)]);
                let write = author.next_write();
                let issued = rig.world.position();
                let outcome = write.issue(rig.store().unwrap().as_ref()).await;
                if matches!(outcome, Err(StoreError::Io { .. })) {
                    failed += 1;
                    history.failed(vec![write], issued).await.unwrap();
                    author.reread(rig.store().unwrap().as_ref()).await.unwrap();
                } else {
                    // Nothing was to be written.
                    let position = rig.world.position();
                    history.happened(vec![write], issued, &[position]).await.unwrap();
                }
            }
            rig.world.position()
        });
    }
}

#[test]
fn a_failed_sync_of_the_database_loses_nothing() {
    with_store(5, async |rig, author, history, _| {
        for _ in 0..3 {
            rig.world.set_faults(vec![Fault::once(Call::Sync, FileKind::Database, Trouble::Io)]);
            let error = rig.store().unwrap().checkpoint(Checkpoint::Empty).await.unwrap_err();
            assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
            rig.single(SCRIPT, author.accept_claimed(), history).await.unwrap();
        }
        rig.store().unwrap().checkpoint(Checkpoint::Empty).await.unwrap();
    });
}

#[test]
fn without_descriptors_the_open_store_works_and_a_new_one_says_why() {
    with_store(6, async |rig, author, history, _| {
        rig.world.set_faults(vec![Fault {
            call: Call::Open,
            file: None,
            skip: 0,
            times: u64::MAX,
            trouble: Trouble::Descriptors,
        }]);
        rig.single(SCRIPT, author.accept_claimed(), history).await.unwrap();
        let error = rig.reopen().unwrap_err().downcast::<StoreError>().unwrap();
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        rig.world.set_faults(Vec::new());
        rig.reopen().unwrap();
    });
}

#[test]
fn getting_over_an_error_waits_for_descriptors() {
    with_store(7, async |rig, author, history, _| {
        rig.world.set_faults(vec![
            Fault::once(Call::Sync, FileKind::Log, Trouble::Io),
            Fault::always(Call::Open, FileKind::Database, Trouble::Descriptors),
        ]);
        for _ in 0..2 {
            let error = fail(rig, author, history).await;
            assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        }
        rig.world.set_faults(Vec::new());
        rig.single(SCRIPT, author.accept_claimed(), history).await.unwrap();
    });
}

#[test]
fn a_slow_sync_delays_the_answer_until_it_is_done() {
    with_store(8, async |rig, author, history, _| {
        let slow = Trouble::Slow(Duration::from_secs(1));
        rig.world.set_faults(vec![Fault::once(Call::Sync, FileKind::Log, slow)]);
        let store = rig.store().unwrap().clone();
        let write = author.accept_claimed();
        let issued = rig.world.position();
        let call = tokio::spawn({
            let write = write.clone();
            async move { write.issue(store.as_ref()).await }
        });
        while rig.world.troubles_met() == 0 {
            tokio::task::yield_now().await;
        }
        // The sync runs; readers do not wait for it, and the answer does.
        let before = Picture::of(rig.store().unwrap().as_ref()).await.unwrap();
        assert_eq!(before, Picture::of(history.now()).await.unwrap());
        call.await.unwrap().unwrap();
        let position = rig.world.position();
        history.happened(vec![write], issued, &[position]).await.unwrap();
    });
}

#[test]
fn a_mix_of_faults_loses_nothing() {
    with_store(9, async |rig, author, history, random| {
        let mut failed = 0;
        for _ in 0..MIXED_FAULTS {
            rig.world.set_faults(vec![random_fault(random)]);
            let write = author.next_write();
            let issued = rig.world.position();
            let store = rig.store().unwrap();
            let outcome = write.issue(store.as_ref()).await;
            match outcome {
                Err(StoreError::DiskFull | StoreError::Io { .. }) => {
                    failed += 1;
                    history.failed(vec![write], issued).await.unwrap();
                    author.reread(store.as_ref()).await.unwrap();
                }
                Err(StoreError::Corrupt { what }) => panic!("nothing is damaged: {what}"),
                _ => {
                    let position = rig.world.position();
                    history.happened(vec![write], issued, &[position]).await.unwrap();
                }
            }
            if random.once_in(4) {
                // It may fail; the log stays as good as it was.
                let kind = if random.once_in(2) { Checkpoint::Empty } else { Checkpoint::Beside };
                let _outcome = store.checkpoint(kind).await;
            }
        }
        assert!(failed > MIXED_FAULTS / 10, "{failed} writes failed");
    });
}

fn random_fault(random: &mut Random) -> Fault {
    let calls = [Call::Write, Call::Sync, Call::Truncate, Call::Open];
    let call = calls[random.index(calls.len())];
    let trouble = match call {
        Call::Open => Trouble::Descriptors,
        Call::Write if random.once_in(2) => Trouble::Full,
        _ => Trouble::Io,
    };
    let file = if random.once_in(3) { FileKind::Database } else { FileKind::Log };
    let skip = random.below(if call == Call::Write { 12 } else { 2 });
    Fault { call, file: Some(file), skip, times: 1 + random.below(3), trouble }
}
