//! Group commit: shared, bounded, and answered only when durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outpost_core::Event;
use outpost_store::conformance::sample::{self, accept, after};
use outpost_store::{
    ACCEPT_QUEUE_MAX, BATCH_MAX, Dispatches, SqliteStore, Store, StoreError, StoreMetrics,
};
use rusqlite::Connection;
use tokio::task::JoinSet;

use crate::open;

/// Longest wait for a condition, seconds.
const DEADLINE_SECONDS: u64 = 60;

async fn until(store: &SqliteStore, condition: impl Fn(StoreMetrics) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(DEADLINE_SECONDS);
    while !condition(store.metrics()) {
        assert!(Instant::now() < deadline, "{:?}", store.metrics());
        tokio::task::yield_now().await;
    }
}

/// Keeps the writer from beginning a transaction until dropped.
fn hold(store: &SqliteStore) -> Connection {
    let connection = Connection::open(store.path()).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_shared() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let held = hold(&store);
    let mut calls = JoinSet::new();
    for serial in 1..=1_000 {
        let store = Arc::clone(&store);
        calls.spawn(async move { store.accept(accept(serial)).await });
    }
    // One batch waits in the writer's hands, the rest in the queue.
    until(&store, |metrics| metrics.queue_depth >= 1_000 - BATCH_MAX as u64).await;
    drop(held);
    for outcome in calls.join_all().await {
        outcome.unwrap();
    }
    let metrics = store.metrics();
    assert_eq!(metrics.commands, 1_000);
    assert!(metrics.commits <= 10, "{metrics:?}");
    assert!(metrics.batch_size_max > 100 && metrics.batch_size_max <= BATCH_MAX as u64);
    assert!(metrics.rows >= 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_before_its_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let held = hold(&store);
    let call = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.accept(accept(1)).await }
    });
    let other = Connection::open(store.path()).unwrap();
    let count =
        || -> i64 { other.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)).unwrap() };
    // It is in the writer's hands, and cannot be committed.
    while store.metrics().queue_depth > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!call.is_finished() && count() == 0);
    drop(held);
    call.await.unwrap().unwrap();
    assert_eq!(count(), 1, "another connection sees what was acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_turns_new_work_away_and_lets_old_work_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    store.accept(accept(1)).await.unwrap();
    let held = hold(&store);
    let mut calls = JoinSet::new();
    let more = (ACCEPT_QUEUE_MAX + 2 * BATCH_MAX) as u64;
    for serial in 2..=more {
        let store = Arc::clone(&store);
        calls.spawn(async move { store.accept(accept(serial)).await });
    }
    until(&store, |metrics| metrics.busy > 0).await;
    let next = after(&accept(1).dispatch, &Event::Placed);
    let update = tokio::spawn({
        let (store, next) = (Arc::clone(&store), next.clone());
        let audit = sample::audit(&next, "dispatch.placed");
        async move { store.update(&next, 1, audit).await }
    });
    until(&store, |metrics| metrics.busy + metrics.queue_depth >= more - BATCH_MAX as u64).await;
    drop(held);
    update.await.unwrap().unwrap();
    let (mut accepted, mut busy) = (1, 0);
    while let Some(outcome) = calls.join_next().await {
        match outcome.unwrap() {
            Ok(_) => accepted += 1,
            Err(error) => {
                assert!(matches!(error, StoreError::Busy), "{error:?}");
                assert!(error.is_transient());
                busy += 1;
            }
        }
    }
    assert!(busy > 0 && accepted > ACCEPT_QUEUE_MAX);
    assert_eq!(store.live().await.unwrap().len(), accepted);
    assert_eq!(store.metrics().queue_depth, 0);
}

#[tokio::test]
async fn closing_finishes_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let held = hold(&store);
    // Queued, then nobody waits for the answer any more.
    {
        let call = store.accept(accept(1));
        let mut call = std::pin::pin!(call);
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    drop(held);
    store.close();
    let store = open(directory.path());
    assert_eq!(store.live().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_a_write_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    store.accept(accept(1)).await.unwrap();
    let held = hold(&store);
    let call = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.accept(accept(2)).await }
    });
    let mut reads = JoinSet::new();
    for _ in 0..64 {
        let store = Arc::clone(&store);
        reads.spawn(async move {
            let one = store.get(accept(1).dispatch.id).await.unwrap();
            (one.is_some(), store.live().await.unwrap().len())
        });
    }
    let reads = reads.join_all().await;
    assert!(reads.iter().all(|read| *read == (true, 1)));
    drop(held);
    call.await.unwrap().unwrap();
}
