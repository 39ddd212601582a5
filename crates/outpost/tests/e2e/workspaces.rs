//! Persistent workspaces: what a run leaves is there for the next one of its user, one run at a time.

use std::time::Duration;

use outpost_types::{
    Api as _, CancelRequest, DispatchId, DispatchRequest, DispatchStatus, ErrorCode, EventData,
    WorkspaceMode,
};
use rustix::process::Signal;

use crate::harness::{Repo, Server, assert_status, request, within};

/// An agent without a model that runs the repository's script.
const CONFIG: &str = r#"
[[agents]]
name = "script"
command = ["/bin/sh", "agent.sh"]
stdin_prompt = true
"#;

/// Shows what earlier runs left, adds its own task to it, and stays if it is told to.
const SCRIPT: &str = r#"
cat left.txt 2>/dev/null
task=$(tail -n 1)
task=${task#situation: }
echo "left by $task" >> left.txt
echo "here is $task"
[ "$task" != stay ] || while :; do sleep 0.1; done
"#;

/// Pause between two looks, milliseconds.
const LOOK_MILLIS: u64 = 5;

fn persistent(user: &str, task: &str, repo: &Repo) -> DispatchRequest {
    DispatchRequest {
        workspace_mode: Some(WorkspaceMode::Persistent),
        user_id: (!user.is_empty()).then(|| user.to_owned()),
        ..request("script", task, repo)
    }
}

async fn create(server: &Server, request: DispatchRequest) -> DispatchId {
    server.api.create_dispatch(request, None).await.unwrap().dispatch.dispatch_id
}

async fn until_it_stays(server: &Server, id: DispatchId) {
    let stays =
        |data: &EventData| matches!(data, EventData::Log { text, .. } if text == "here is stay");
    server.event(id, |event| stays(&event.data)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_leaves_is_there_for_the_next_one() {
    let (server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(SCRIPT));
    let first = server.run(persistent("ann", "one", &repo)).await;
    assert_status(&server, &first, DispatchStatus::Completed).await;
    assert_eq!(server.log(first.dispatch_id).await.trim(), "here is one");
    // The next server finds it, too.
    let server = server.replace(Signal::KILL).await;
    let second = server.run(persistent("ann", "two", &repo)).await;
    assert_status(&server, &second, DispatchStatus::Completed).await;
    let log = server.log(second.dispatch_id).await;
    assert_eq!(log.lines().collect::<Vec<_>>(), ["left by one", "here is two"]);
    // Nobody else sees it: neither another user, nor who names none, nor an ephemeral workspace.
    let ephemeral = DispatchRequest { workspace_mode: None, ..persistent("ann", "own", &repo) };
    for other in [persistent("bob", "own", &repo), persistent("", "own", &repo), ephemeral] {
        let view = server.run(other).await;
        assert_eq!(server.log(view.dispatch_id).await.trim(), "here is own");
    }

    let all = server.api.list_workspaces().await.unwrap();
    let users: Vec<_> = all.iter().map(|view| (view.user_id.as_str(), view.runs)).collect();
    assert_eq!(users.len(), 3, "{all:?}");
    for known in [("ann", 2), ("bob", 1), ("default", 1)] {
        assert!(users.contains(&known), "{known:?} is not in {users:?}");
    }
    let ann = all.iter().find(|view| view.user_id == "ann").unwrap();
    assert!(ann.size_bytes > 0 && !ann.in_use && ann.used_at >= ann.created_at, "{ann:?}");
    assert_eq!(&server.api.get_workspace(&ann.id).await.unwrap(), ann);
    server.api.delete_workspace(&ann.id).await.unwrap();
    for gone in [
        server.api.get_workspace(&ann.id).await.map(|_| ()),
        server.api.delete_workspace(&ann.id).await,
    ] {
        assert_eq!(gone.unwrap_err().code, ErrorCode::NotFound);
    }
    let view = server.run(persistent("ann", "three", &repo)).await;
    assert_eq!(server.log(view.dispatch_id).await.trim(), "here is three");
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time_and_the_others_wait_with_the_reason() {
    let (server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(SCRIPT));
    let stays = create(&server, persistent("ann", "stay", &repo)).await;
    until_it_stays(&server, stays).await;
    // However the repository is written: it is the same.
    let next = DispatchRequest {
        repo: Some(format!("file://{}", repo.path())),
        ..persistent("ann", "next", &repo)
    };
    let next = create(&server, next).await;
    let bob = server.run(persistent("bob", "own", &repo)).await;
    assert_status(&server, &bob, DispatchStatus::Completed).await;

    let server = assert_busy(server, next).await.replace(Signal::KILL).await;
    let server = assert_busy(server, next).await;
    server.api.cancel_dispatch(stays, CancelRequest::default()).await.unwrap();
    let view = server.until(next, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    // It found the workspace free: nothing was tried twice.
    assert_eq!(view.attempt, 1);
    let log = server.log(next).await;
    assert_eq!(log.lines().collect::<Vec<_>>(), ["left by stay", "here is next"]);
    let all = server.api.list_workspaces().await.unwrap();
    for view in &all {
        assert!(!view.in_use, "{view:?}");
        server.api.delete_workspace(&view.id).await.unwrap();
    }
    assert_eq!((all.len(), server.api.list_workspaces().await.unwrap().len()), (2, 0));
    server.assert_nothing_left();
}

/// Ann's workspace is in use, cannot be deleted, and `next` says that it waits for it.
async fn assert_busy(server: Server, next: DispatchId) -> Server {
    let view = server.until(next, |view| view.status == DispatchStatus::Queued).await;
    let reason = view.queue_reason.unwrap();
    assert!(reason.contains("works in the same workspace"), "{reason}");
    assert_eq!((view.attempt, view.queue_position), (0, Some(0)));
    let all = within(server.api.list_workspaces()).await.unwrap();
    let ann = all.iter().find(|view| view.user_id == "ann").unwrap();
    assert!(ann.in_use, "{ann:?}");
    let refused = server.api.delete_workspace(&ann.id).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::WorkspaceInUse);
    server
}

/// One that nobody used for its time is gone soon after the next server starts; the other one stays.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_goes() {
    let (server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(SCRIPT));
    for user in ["ann", "bob"] {
        server.run(persistent(user, "one", &repo)).await;
    }
    let all = server.api.list_workspaces().await.unwrap();
    let ann = all.into_iter().find(|view| view.user_id == "ann").unwrap();
    let mut tenants = std::fs::read_dir(server.data().join("workspaces")).unwrap().flatten();
    let path = tenants.find_map(|tenant| {
        let path = tenant.path().join(&ann.id).join("record.json");
        path.exists().then_some(path)
    });
    let path = path.unwrap();
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["used_at"] = 1.into();
    std::fs::write(&path, record.to_string()).unwrap();
    let server = server.replace(Signal::TERM).await;
    within(until_gone(&server, &ann.id)).await;
    let left = server.api.list_workspaces().await.unwrap();
    assert_eq!(left.iter().map(|view| view.user_id.as_str()).collect::<Vec<_>>(), ["bob"]);
}

/// One that has grown beyond its bound says so at the end of the run, and takes no further one.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_too_large_takes_no_further_run() {
    let config = format!("[workspaces]\nbytes_max = 1_048_576\n{CONFIG}");
    let server = Server::start_with(&[], &config).await;
    let repo = Repo::with_script("head -c 2000000 /dev/zero > large.bin");
    let view = server.run(persistent("ann", "one", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let told = |data: &EventData| matches!(data, EventData::Attention(it) if it.code == "workspace_too_large");
    let events = server.events(view.dispatch_id).await;
    assert!(events.iter().any(|event| told(&event.data)), "{events:?}");
    let refused = server.run(persistent("ann", "two", &repo)).await;
    assert_status(&server, &refused, DispatchStatus::Failed).await;
    let id = server.api.list_workspaces().await.unwrap().remove(0).id;
    assert!(refused.failure.unwrap().hint.unwrap().contains(&format!("workspaces rm {id}")));
    assert_eq!(refused.attempt, 1);
    server.api.delete_workspace(&id).await.unwrap();
    let view = server.run(persistent("ann", "three", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
}

async fn until_gone(server: &Server, id: &str) {
    while server.api.get_workspace(id).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
    }
}

/// A run that is cancelled before its agent starts, or that cannot be made, leaves the workspace free.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_made_leaves_the_workspace_free() {
    let (server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(SCRIPT));
    let none = DispatchRequest {
        branch: Some("no-such-branch".to_owned()),
        ..persistent("ann", "one", &repo)
    };
    let failed = server.run(none).await;
    assert_status(&server, &failed, DispatchStatus::Failed).await;
    for round in 0..3 {
        let id = create(&server, persistent("ann", "stay", &repo)).await;
        if round == 2 {
            until_it_stays(&server, id).await;
        }
        server.api.cancel_dispatch(id, CancelRequest::default()).await.unwrap();
        let view = server.until(id, |view| view.status.is_terminal()).await;
        assert_status(&server, &view, DispatchStatus::Cancelled).await;
    }
    let view = server.run(persistent("ann", "two", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let refused = DispatchRequest { repo: None, ..persistent("ann", "one", &repo) };
    let refused = server.api.create_dispatch(refused, None).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("repo"));
    server.assert_nothing_left();
}
