//! Writes that fail, writes that only seem to, clocks that are set, servers that follow each other.

use outpost_runner::ResumeStage;
use outpost_store::Audits as _;
use outpost_types::{Api as _, CancelRequest, DispatchStatus, ErrorCode, Timestamp};

use crate::world::{Fault, Scene, first, request};

#[tokio::test]
async fn an_accept_that_was_made_is_an_accept_whatever_was_heard_of_it() {
    let scene = Scene::new(1).await;
    scene.store.then(&[Fault::Unheard]);
    let id = scene.dispatch().await.dispatch_id;
    scene.puppet.release(first(id));
    scene.until(id, DispatchStatus::Completed).await;
    assert_eq!(scene.puppet.attempts(), [first(id)]);
}

#[tokio::test]
async fn an_accept_that_was_not_made_is_refused_and_leaves_nothing() {
    let scene = Scene::new(1).await;
    scene.store.then(&[Fault::Lost]);
    let error = scene.api.create_dispatch(request(), None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(scene.api.fleet().await.unwrap().queued, 0);
    // The next one is placed as if nothing had been.
    let id = scene.dispatch().await.dispatch_id;
    scene.puppet.release(first(id));
    scene.until(id, DispatchStatus::Completed).await;
    assert_eq!(scene.puppet.attempts(), [first(id)]);
}

#[tokio::test]
async fn every_change_may_be_made_unheard_and_each_start_happens_once() {
    let scene = Scene::new(1).await;
    // Accept, placed, started, exited, collected.
    scene.store.then(&[Fault::None]);
    scene.store.then(&[Fault::Unheard; 4]);
    let id = scene.dispatch().await.dispatch_id;
    scene.puppet.release(first(id));
    let view = scene.until(id, DispatchStatus::Completed).await;
    assert_eq!((view.attempt, view.generation), (1, 5));
    let seen = scene.puppet.until(first(id), |seen| seen.ended).await;
    assert_eq!((seen.runs, seen.stops), (vec![None], 0));
    scene.store.verify_audit().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_costs_time_and_nothing_else() {
    let scene = Scene::new(1).await;
    scene.store.then(&[Fault::None]);
    scene.store.then(&[Fault::Lost; 3]);
    let id = scene.dispatch().await.dispatch_id;
    scene.puppet.until(first(id), |seen| !seen.runs.is_empty()).await;
    scene.store.then(&[Fault::Lost, Fault::Lost]);
    scene.puppet.release(first(id));
    let view = scene.until(id, DispatchStatus::Completed).await;
    assert_eq!((view.attempt, view.generation), (1, 5));
    assert_eq!(scene.puppet.until(first(id), |seen| seen.ended).await.runs, [None]);
}

#[tokio::test]
async fn a_deadline_holds_though_the_clock_was_set_back_before_it() {
    let scene = Scene::new(2).await;
    let view = scene.dispatch().await;
    let id = view.dispatch_id;
    scene.until(id, DispatchStatus::Running).await;
    let start = view.created_at;
    scene.clock.set(Timestamp::from_millis(start.as_millis() - 500_000));
    // Whoever comes makes the placer look.
    scene.dispatch().await;
    assert_eq!(scene.puppet.until(first(id), |_| true).await.stops, 0);
    scene.clock.set(start.plus_millis(view.timeout_seconds * 1_000));
    scene.dispatch().await;
    let view = scene.until(id, DispatchStatus::Timeout).await;
    assert_eq!(scene.puppet.until(first(id), |seen| seen.ended).await.stops, 1);
    assert!(view.failure.unwrap().message.contains("600 seconds"));
}

#[tokio::test]
async fn a_deadline_that_cannot_be_recorded_is_recorded_later() {
    let scene = Scene::new(1).await;
    let view = scene.dispatch().await;
    let id = view.dispatch_id;
    scene.until(id, DispatchStatus::Running).await;
    // The accept that wakes the placer, then the deadline, twice.
    scene.store.then(&[Fault::None, Fault::Lost, Fault::Lost]);
    scene.clock.set(view.created_at.plus_millis(view.timeout_seconds * 1_000));
    scene.dispatch().await;
    scene.until(id, DispatchStatus::Timeout).await;
    assert_eq!(scene.puppet.until(first(id), |seen| seen.ended).await.stops, 1);
}

#[tokio::test]
async fn the_next_server_takes_up_what_runs_and_repeats_what_was_wanted() {
    let scene = Scene::new(2).await;
    let (one, two) = (scene.dispatch().await.dispatch_id, scene.dispatch().await.dispatch_id);
    let waits = scene.dispatch().await.dispatch_id;
    for id in [one, two] {
        scene.until(id, DispatchStatus::Running).await;
    }
    let scene = scene.next().await;
    assert_eq!(scene.puppet.sweeps(), [[first(one), first(two)].into()]);
    for id in [one, two] {
        let seen = scene.puppet.until(first(id), |seen| !seen.runs.is_empty()).await;
        assert_eq!(seen.runs[0].as_ref().unwrap().stage, ResumeStage::Started);
    }
    // It still waits, is told so, and runs when there is room.
    assert_eq!(scene.until(waits, DispatchStatus::Queued).await.queue_position, Some(0));
    scene.api.cancel_dispatch(one, CancelRequest::default()).await.unwrap();
    scene.until(one, DispatchStatus::Cancelled).await;
    scene.puppet.release(first(two));
    scene.puppet.release(first(waits));
    for id in [two, waits] {
        scene.until(id, DispatchStatus::Completed).await;
    }
    assert_eq!(scene.puppet.until(first(one), |seen| seen.ended).await.stops, 1);
    assert_eq!(scene.puppet.until(first(waits), |seen| seen.ended).await.runs, [None]);
}
