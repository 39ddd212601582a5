//! Dispatches that wait are on disk and nowhere else, and behave as if they were in memory.

use futures_util::TryStreamExt as _;
use outpost_types::{
    Api as _, CancelRequest, DispatchStatus, DrainRequest, ErrorCode, EventData, FleetApi as _,
    ResumeRequest,
};

use crate::world::{Scene, first, request};

fn statuses(events: &[outpost_types::EventEnvelope]) -> Vec<DispatchStatus> {
    let status = |data: &EventData| match data {
        EventData::Status { status, .. } => Some(*status),
        _ => None,
    };
    events.iter().filter_map(|event| status(&event.data)).collect()
}

#[tokio::test]
async fn a_reader_of_one_that_waits_sees_its_whole_life() {
    let scene = Scene::new(1).await;
    let (runs, waits) = (scene.dispatch().await.dispatch_id, scene.dispatch().await.dispatch_id);
    // The slot may have been taken before or after the second one came: then it was PENDING first.
    scene.until(waits, DispatchStatus::Queued).await;
    let reader = scene.api.events(waits, 0).await.unwrap();
    let reader = tokio::spawn(reader.try_collect::<Vec<_>>());
    let later = scene.api.events(waits, 1).await.unwrap();
    scene.puppet.release(first(runs));
    scene.puppet.release(first(waits));
    scene.until(waits, DispatchStatus::Completed).await;
    let seen = reader.await.unwrap().unwrap();
    let all = [
        DispatchStatus::Pending,
        DispatchStatus::Queued,
        DispatchStatus::Provisioning,
        DispatchStatus::Running,
        DispatchStatus::Completing,
        DispatchStatus::Completed,
    ];
    assert_eq!(statuses(&seen), all);
    assert!(seen.iter().zip(1..).all(|(event, wanted)| event.seq == wanted));
    assert_eq!(later.try_collect::<Vec<_>>().await.unwrap(), seen[1..]);
    let after: Vec<_> = scene.api.events(waits, 0).await.unwrap().try_collect().await.unwrap();
    assert_eq!(after, seen);
}

#[tokio::test]
async fn one_that_waits_is_cancelled_where_it_is() {
    let scene = Scene::new(1).await;
    let (runs, waits) = (scene.dispatch().await.dispatch_id, scene.dispatch().await.dispatch_id);
    scene.until(waits, DispatchStatus::Queued).await;
    let poll = scene.until(waits, DispatchStatus::Cancelled);
    let cancel = scene.api.cancel_dispatch(waits, CancelRequest::default());
    let (seen, answered) = tokio::join!(poll, cancel);
    assert_eq!(seen.generation, answered.unwrap().generation);
    let again = scene.api.cancel_dispatch(waits, CancelRequest::default()).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::AlreadyFinished);
    scene.puppet.release(first(runs));
    scene.until(runs, DispatchStatus::Completed).await;
    assert_eq!(scene.puppet.attempts(), [first(runs)]);
    assert_eq!(scene.api.fleet().await.unwrap().queued, 0);
}

#[tokio::test]
async fn a_full_queue_turns_away_and_takes_again() {
    let scene = Scene::with_waiting(1, 1).await;
    let runs = scene.dispatch().await.dispatch_id;
    scene.until(runs, DispatchStatus::Running).await;
    let waits = scene.dispatch().await.dispatch_id;
    let error = scene.api.create_dispatch(request(), None).await.unwrap_err();
    assert_eq!((error.code, error.retry_after_seconds), (ErrorCode::Unavailable, Some(30)));
    assert_eq!(error.message, "The queue is full: 1 waiting.");
    scene.api.cancel_dispatch(waits, CancelRequest::default()).await.unwrap();
    scene.dispatch().await;
}

#[tokio::test]
async fn what_is_drained_starts_nothing_until_it_is_resumed_also_after_a_restart() {
    let scene = Scene::new(5).await;
    let runs = scene.dispatch().await.dispatch_id;
    scene.until(runs, DispatchStatus::Running).await;
    let reason = Some("new disk".to_owned());
    let drain = DrainRequest { agent: None, reason: reason.clone() };
    let fleet = scene.api.drain_fleet(drain).await.unwrap();
    assert_eq!(fleet.draining.as_ref().and_then(|drain| drain.reason.clone()), reason);
    let waits = scene.dispatch().await.dispatch_id;
    let view = scene.until(waits, DispatchStatus::Queued).await;
    assert!(view.queue_reason.unwrap().contains("nothing new"));
    // What runs goes on.
    scene.puppet.release(first(runs));
    scene.until(runs, DispatchStatus::Completed).await;

    let scene = scene.next().await;
    assert_eq!(scene.api.fleet().await.unwrap().draining, fleet.draining);
    assert_eq!(scene.puppet.attempts(), []);
    // Host and agents are drained each for itself.
    let agent = Some(request().agent);
    let only = DrainRequest { agent: agent.clone(), reason: None };
    scene.api.drain_fleet(only).await.unwrap();
    let fleet = scene.api.resume_fleet(ResumeRequest::default()).await.unwrap();
    let drained = fleet.agents.iter().filter(|agent| agent.draining.is_some()).count();
    assert_eq!((fleet.draining, drained), (None, 1));
    let unknown = Some("nobody".to_owned());
    let error = scene.api.drain_fleet(DrainRequest { agent: unknown, reason: None }).await;
    assert_eq!(error.unwrap_err().field.as_deref(), Some("agent"));
    let long = DrainRequest { agent: None, reason: Some("x".repeat(257)) };
    assert_eq!(scene.api.drain_fleet(long).await.unwrap_err().field.as_deref(), Some("reason"));
    assert_eq!(scene.puppet.attempts(), []);
    scene.api.resume_fleet(ResumeRequest { agent }).await.unwrap();
    scene.until(waits, DispatchStatus::Running).await;
    scene.puppet.release(first(waits));
    scene.until(waits, DispatchStatus::Completed).await;
}
