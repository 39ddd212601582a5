//! The way of a dispatch as a client sees it.

use outpost_types::{Api as _, CancelRequest, DispatchStatus, ErrorCode, EventData};

use crate::failures::CUSTOM;
use crate::harness::{Repo, Server, assert_status, give, has_cli, request, within};

fn statuses(events: &[outpost_types::EventEnvelope]) -> Vec<DispatchStatus> {
    let status = |event: &outpost_types::EventEnvelope| match &event.data {
        EventData::Status { status, .. } => Some(*status),
        _ => None,
    };
    events.iter().filter_map(status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_is_passed_once_and_in_order() {
    let (server, repo) = (Server::start_with(&[], CUSTOM).await, Repo::new());
    let view = server.run(request("shell", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let passed = statuses(&server.events(view.dispatch_id).await);
    use DispatchStatus::{Completed, Completing, Pending, Provisioning, Running};
    assert_eq!(passed, [Pending, Provisioning, Running, Completing, Completed]);
    let timings = view.timings;
    assert!(timings.queue_millis.is_some() && timings.sandbox_millis.is_some(), "{timings:?}");
    assert!(timings.agent_millis.is_some() && timings.collect_millis.is_some(), "{timings:?}");
    assert!(view.isolation.unwrap().effective.len() > 3);
}

/// Nothing of this needs root: the sandbox is made in a user namespace of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_needs_no_root() {
    let (server, repo) = (Server::start_as_ordinary_user(CUSTOM).await, Repo::new());
    give(repo.dir.path());
    let view = server.run(request("shell", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    if has_cli("codex") {
        let view = server.run(request("codex", "edit", &repo)).await;
        assert_status(&server, &view, DispatchStatus::Completed).await;
        assert_eq!(view.files_changed, Some(1));
    }
    server.assert_nothing_left();
}

/// Two dispatches of real agents on one repository at once disturb neither each other nor it.
#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_on_one_repository() {
    if !has_cli("codex") || !has_cli("claude") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let (first, second) = tokio::join!(
        server.run(request("codex", "edit", &repo)),
        server.run(request("claude", "edit", &repo)),
    );
    for view in [&first, &second] {
        assert_status(&server, view, DispatchStatus::Completed).await;
        assert!(server.diff(view.dispatch_id).await.contains("Hello from the agent"));
    }
    assert_eq!(first.base_commit, second.base_commit);
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_slot_waits_and_says_why() {
    let config = r#"
[[agents]]
name = "patient"
command = ["/bin/sh", "-c", "echo waiting; tail -f /dev/null"]
stdin_prompt = true
"#;
    let flags = ["--concurrency", "1"];
    let (server, repo) = (Server::start_with(&flags, config).await, Repo::new());
    let create = || server.api.create_dispatch(request("patient", "x", &repo), None);
    let first = create().await.unwrap().dispatch.dispatch_id;
    server.until(first, |view| view.status == DispatchStatus::Running).await;
    let second = create().await.unwrap().dispatch.dispatch_id;
    let waiting = server.until(second, |view| view.status == DispatchStatus::Queued).await;
    assert!(waiting.queue_reason.is_some_and(|reason| reason.contains("host")));
    let third = create().await.unwrap().dispatch.dispatch_id;
    let last = server.until(third, |view| view.status == DispatchStatus::Queued).await;
    assert_eq!((waiting.queue_position, last.queue_position), (Some(0), Some(1)));

    // A queued one is cancelled at once; the slot of a running one goes to the next.
    server.api.cancel_dispatch(third, CancelRequest::default()).await.unwrap();
    let view = server.until(third, |view| view.status.is_terminal()).await;
    assert_eq!((view.status, view.attempt), (DispatchStatus::Cancelled, 0));
    server.api.cancel_dispatch(first, CancelRequest::default()).await.unwrap();
    server.until(second, |view| view.status == DispatchStatus::Running).await;
    server.api.cancel_dispatch(second, CancelRequest::default()).await.unwrap();
    server.until(second, |view| view.status.is_terminal()).await;
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_one_dispatch() {
    let (server, repo) = (Server::start_with(&[], CUSTOM).await, Repo::new());
    let key = Some("order-1".to_owned());
    let create = |task: &str| {
        let mut request = request("shell", "x", &repo);
        request.task = task.to_owned();
        server.api.create_dispatch(request, key.clone())
    };
    let all = within(futures_util::future::join_all((0..8).map(|_| create("same")))).await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert_eq!(all.iter().filter(|created| !created.replayed).count(), 1);
    let id = all[0].dispatch.dispatch_id;
    assert!(all.iter().all(|created| created.dispatch.dispatch_id == id));
    let error = create("other").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::IdempotencyConflict);
    assert_eq!(server.api.list_runs(Default::default()).await.unwrap().items.len(), 1);
    server.until(id, |view| view.status.is_terminal()).await;
}

/// The credential never enters the sandbox: the agent looks for it everywhere it can.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_key_is_nowhere_inside() {
    let config = r#"
[[agents]]
name = "spy"
command = ["/bin/sh", "-c", "env; cat /proc/*/environ | tr '\\0' '\\n'; grep -r scripted /home /tmp /workspace /outpost 2>/dev/null; true"]
stdin_prompt = true
"#;
    let (server, repo) = (Server::start_with(&[], config).await, Repo::new());
    let view = server.run(request("spy", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let log = server.log(view.dispatch_id).await;
    assert!(log.contains("HOME=/home/agent"), "{log}");
    assert!(!log.contains(outpost_scripted::SCRIPTED_KEY), "{log}");
    assert!(!log.contains(&server.key), "{log}");
}
