//! A server that dies takes nothing with it: the next one takes its agents up.

use outpost_types::{Api as _, CancelRequest, DispatchStatus, EventData, EventEnvelope};
use rustix::process::Signal;

use crate::harness::{Repo, Server, assert_status, has_cli, request};

/// Counts in lines, to both streams, slowly enough to be interrupted.
const COUNTER: &str = r#"
[[agents]]
name = "counter"
command = ["/bin/sh", "-c", "for i in $(seq 1 300); do echo line $i; echo side $i >&2; sleep 0.01; done; echo end > end.txt"]
stdin_prompt = true
"#;

fn log_lines(events: &[EventEnvelope]) -> Vec<String> {
    let text = |event: &EventEnvelope| match &event.data {
        EventData::Log { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

fn numbered(word: &str) -> Vec<String> {
    (1..=300).map(|number| format!("{word} {number}")).collect()
}

fn only(word: &str, lines: &[String]) -> Vec<String> {
    lines.iter().filter(|line| line.starts_with(word)).cloned().collect()
}

/// Whatever ends the server, and however often: no byte of output and no event is lost or repeated,
/// and the agent is the same process all along.
async fn no_byte_is_lost(signal: Signal) {
    let (mut server, repo) = (Server::start_with(&[], COUNTER).await, Repo::new());
    let created = server.api.create_dispatch(request("counter", "x", &repo), None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    for seen in ["line 20", "line 120", "line 200"] {
        let has_seen = |event: &EventEnvelope| match &event.data {
            EventData::Log { text, .. } => text == seen,
            _ => false,
        };
        server.event(id, has_seen).await;
        server = server.replace(signal).await;
    }
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert_eq!((view.attempt, view.exit_code, view.files_changed), (1, Some(0), Some(1)));
    let log: Vec<String> = server.log(id).await.lines().map(str::to_owned).collect();
    assert_eq!(only("line", &log), numbered("line"));
    assert_eq!(only("side", &log), numbered("side"));
    let events = server.events(id).await;
    let lines = log_lines(&events);
    assert_eq!(only("line", &lines), numbered("line"));
    assert_eq!(only("side", &lines), numbered("side"));
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_no_byte() {
    no_byte_is_lost(Signal::KILL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_server_loses_no_byte() {
    no_byte_is_lost(Signal::TERM).await;
}

/// A real CLI goes on through the death of its server: its tool runs on, and its next model call
/// finds the gateway of the next server.
async fn goes_on(agent: &str) {
    if !has_cli(agent) {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let created = server.api.create_dispatch(request(agent, "slow", &repo), None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    let is_tool = |event: &EventEnvelope| matches!(event.data, EventData::Tool { .. });
    server.event(id, is_tool).await;
    let server = server.replace(Signal::KILL).await;
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert!(server.diff(id).await.contains("over.txt"));
    assert!(view.summary.is_some_and(|text| text.contains("at last")));
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_goes_on_when_its_server_is_killed() {
    goes_on("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_goes_on_when_its_server_is_killed() {
    goes_on("claude").await;
}

/// A queued dispatch and a cancel both survive.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_still_there() {
    let config = r#"
[[agents]]
name = "patient"
command = ["/bin/sh", "-c", "trap '' TERM; echo waiting; while :; do sleep 0.2; done"]
stdin_prompt = true
"#;
    let server = Server::start_with(&["--concurrency", "1"], config).await;
    let repo = Repo::new();
    let create = async |server: &Server| {
        let created = server.api.create_dispatch(request("patient", "x", &repo), None).await;
        created.unwrap().dispatch.dispatch_id
    };
    let first = create(&server).await;
    server.event(first, |event| matches!(event.data, EventData::Log { .. })).await;
    let second = create(&server).await;
    server.api.cancel_dispatch(first, CancelRequest::default()).await.unwrap();
    let server = server.replace(Signal::KILL).await;
    let view = server.until(first, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Cancelled).await;
    let view = server.until(second, |view| view.status == DispatchStatus::Running).await;
    assert_eq!(view.attempt, 1);
    server.api.cancel_dispatch(second, CancelRequest::default()).await.unwrap();
    server.until(second, |view| view.status.is_terminal()).await;
    server.assert_nothing_left();
}

/// The launcher's death takes the sandbox with it; what the agent had changed is still collected.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_launcher_is_a_lost_worker() {
    let (server, repo) = (Server::start_with(&[], COUNTER).await, Repo::new());
    let created = server.api.create_dispatch(request("counter", "x", &repo), None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    server.event(id, |event| matches!(event.data, EventData::Log { .. })).await;
    server.kill_launcher();
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    assert_eq!(view.failure.unwrap().code, outpost_types::FailureCode::LostWorker);
    // The next one finds a new launcher.
    let view = server.run(request("counter", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    server.assert_nothing_left();
}

/// An agent that is not declared any more cannot be taken up; nothing of it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_removed_from_the_configuration_ends() {
    let (server, repo) = (Server::start_with(&[], COUNTER).await, Repo::new());
    let created = server.api.create_dispatch(request("counter", "x", &repo), None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    server.event(id, |event| matches!(event.data, EventData::Log { .. })).await;
    std::fs::write(server.data().join("../config.toml"), "").unwrap();
    let server = server.replace(Signal::KILL).await;
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    assert_eq!(view.failure.unwrap().code, outpost_types::FailureCode::LostWorker);
    server.assert_nothing_left();
}
