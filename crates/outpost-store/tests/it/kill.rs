//! `kill -9` under load: whatever was acknowledged is there afterwards.
//!
//! The killed process is this test binary itself, started on the one test `child`. It writes each
//! acknowledgement to a file as soon as it has it; a write that returned survives the process.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outpost_store::conformance::sample::{self, accept, after, claim, good_run};
use outpost_store::{
    AcceptDispatch, Accepted, Audits, Dispatches, SqliteOptions, SqliteStore, StoreError,
};
use outpost_types::DispatchId;
use tokio::task::JoinSet;

use crate::open;

const KILLS: u64 = 20;
/// Dispatches at once in the child.
const CLIENTS: u64 = 32;
/// Dispatches of one client before the child gives up being killed.
const CLIENT_DISPATCHES_MAX: u64 = 5_000;
/// Longest wait for the acknowledgements of one round, seconds.
const ROUND_SECONDS: u64 = 60;
const DIRECTORY: &str = "OUTPOST_STORE_KILL_DIRECTORY";
const ROUND: &str = "OUTPOST_STORE_KILL_ROUND";
const SERIALS_PER_ROUND: u64 = 1_000_000;

fn wanted(serial: u64) -> AcceptDispatch {
    let mut accept = accept(serial);
    accept.idempotency = Some(claim(&format!("key-{serial}"), "body", u64::MAX));
    accept
}

/// One client: a dispatch after the other, each to its end. Every answer is noted.
async fn client(store: Arc<SqliteStore>, acks: Arc<File>, first: u64) {
    for turn in 0..CLIENT_DISPATCHES_MAX {
        let serial = first + turn * CLIENTS;
        let note = |generation: u64| {
            let line = format!("{serial} {generation}\n");
            (&*acks).write_all(line.as_bytes()).unwrap();
        };
        let accept = wanted(serial);
        let mut dispatch = accept.dispatch.clone();
        store.accept(accept).await.unwrap();
        note(1);
        for event in good_run(dispatch.id) {
            let next = after(&dispatch, &event);
            let audit = sample::audit(&next, "step");
            store.update(&next, dispatch.generation, audit).await.unwrap();
            dispatch = next;
            note(dispatch.generation);
        }
    }
}

/// Does nothing unless the other test started it.
#[test]
fn child() {
    let (Ok(directory), Ok(round)) = (std::env::var(DIRECTORY), std::env::var(ROUND)) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let round: u64 = round.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(&directory));
        let mut options = OpenOptions::new();
        let acks = Arc::new(options.append(true).create(true).open(acks(&directory)).unwrap());
        let mut clients = JoinSet::new();
        for number in 1..=CLIENTS {
            let first = round * SERIALS_PER_ROUND + number;
            clients.spawn(client(Arc::clone(&store), Arc::clone(&acks), first));
        }
        clients.join_all().await;
    });
}

fn acks(directory: &Path) -> PathBuf {
    directory.join("acks")
}

/// Acknowledged generation of each dispatch; a line the kill cut short does not count.
fn acknowledged(directory: &Path) -> BTreeMap<u64, u64> {
    let text = fs::read_to_string(acks(directory)).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut all = BTreeMap::new();
    for line in whole.lines() {
        let (serial, generation) = line.split_once(' ').unwrap();
        let generation: u64 = generation.parse().unwrap();
        let known = all.entry(serial.parse().unwrap()).or_insert(generation);
        *known = generation.max(*known);
    }
    all
}

/// Killed at the latest when the test that started it ends, however it ends.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(directory: &Path, round: u64) -> Victim {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Victim(child)
}

/// Lets the child acknowledge so many answers, then kills it.
fn run_and_kill(directory: &Path, round: u64, answers: usize) {
    let mut child = start(directory, round);
    let before = fs::read(acks(directory)).unwrap_or_default().len();
    let deadline = Instant::now() + Duration::from_secs(ROUND_SECONDS);
    loop {
        let text = fs::read(acks(directory)).unwrap_or_default();
        if text[before..].iter().filter(|byte| **byte == b'\n').count() >= answers {
            break;
        }
        assert!(Instant::now() < deadline, "the child acknowledges too little");
        assert!(child.0.try_wait().unwrap().is_none(), "the child ended by itself");
        std::thread::yield_now();
    }
    if round == 0 {
        let error = SqliteStore::open(&SqliteOptions::new(directory, 7)).unwrap_err();
        let held = matches!(error, StoreError::AlreadyOpen { pid } if pid == Some(child.0.id()));
        assert!(held, "{error:?}");
    }
    child.0.kill().unwrap();
    child.0.wait().unwrap();
}

async fn assert_nothing_lost(store: &SqliteStore, directory: &Path) -> u64 {
    let acknowledged = acknowledged(directory);
    for (serial, generation) in &acknowledged {
        let id = DispatchId::from_parts(*serial, 0);
        let found = store.get(id).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("dispatch {serial} is lost"));
        assert!(found.generation >= *generation, "dispatch {serial} went back");
        let attempts = store.attempts(id).await.unwrap();
        assert_eq!(attempts.len() as u32, found.attempt);
    }
    // The promise of the idempotency keys outlives the crash too.
    let last = acknowledged.keys().next_back().copied().unwrap();
    let replay = store.accept(wanted(last)).await.unwrap();
    assert!(matches!(replay, Accepted::Replayed(_)), "{replay:?}");
    acknowledged.values().sum()
}

#[tokio::test]
async fn killed_under_load_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..KILLS {
        // Other numbers each round, so that the kill meets other moments.
        let answers = 20 + (round * 37 % 101) as usize;
        run_and_kill(directory.path(), round, answers);
        let store = open(directory.path());
        let changes = assert_nothing_lost(&store, directory.path()).await;
        let trail = store.verify_audit().await.unwrap().unwrap();
        assert!(trail.count >= changes, "an acknowledged change has no audit row");
        store.check().await.unwrap();
        store.close();
    }
}
