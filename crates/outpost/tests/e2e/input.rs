//! Input at its bounds: whatever is accepted arrives unchanged.

use outpost_types::limits::TASK_BYTES_MAX;
use outpost_types::{Api as _, DispatchStatus, ErrorCode};

use crate::failures::CUSTOM;
use crate::harness::{Repo, Server, assert_status, has_cli, request};

/// Text that breaks what quotes, splits or decodes carelessly.
const NASTY: &str =
    "line one\nline 'two' \"three\" `four` $(five) ${SIX} \\ \\n\r\n\ttab\u{202e}ü你好🦀 --flag\n";

fn longest_task(situation: &str) -> String {
    let mut task = format!("situation: {situation}\n{NASTY}");
    while task.len() + NASTY.len() <= TASK_BYTES_MAX {
        task.push_str(NASTY);
    }
    task.push_str(&"x".repeat(TASK_BYTES_MAX - task.len()));
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_task_reaches_the_agent_unchanged() {
    let (server, repo) = (Server::start_with(&[], CUSTOM).await, Repo::new());
    let mut request = request("shell", "", &repo);
    request.task = longest_task("anything");
    let view = server.run(request.clone()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert_eq!(view.task, request.task);
    let patch = server.data().join("dispatches").join(view.dispatch_id.to_string());
    repo.git(&["apply", patch.join("diff.patch").to_str().unwrap()]);
    let copy = std::fs::read_to_string(repo.dir.path().join("copy.txt")).unwrap();
    // After what the repository tells of itself, which has a bound of its own.
    let context = copy.strip_suffix(&request.task).expect("the task is at the end, whole");
    assert!(context.contains("# Project context") && context.len() < 8_000, "{context}");
}

async fn takes_the_longest_task(agent: &str) {
    if !has_cli(agent) {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let mut request = request(agent, "", &repo);
    request.task = longest_task("edit");
    let view = server.run(request).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert_eq!(view.files_changed, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_takes_the_longest_task() {
    takes_the_longest_task("claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_takes_the_longest_task() {
    takes_the_longest_task("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_takes_the_longest_task() {
    takes_the_longest_task("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aider_takes_the_longest_task() {
    takes_the_longest_task("aider").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grok_takes_the_longest_task() {
    takes_the_longest_task("grok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unicode_survives_in_every_field() {
    let (server, repo) = (Server::start_with(&[], CUSTOM).await, Repo::new());
    repo.git(&["checkout", "-q", "-b", "zweig/größe-🦀"]);
    let mut request = request("shell", "ü", &repo);
    request.branch = Some("zweig/größe-🦀".to_owned());
    request.user_id = Some("Jörg 🦀".to_owned());
    request.tags = vec!["größe".to_owned(), "a b".to_owned()];
    let view = server.run(request.clone()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert_eq!((&view.branch, &view.user_id), (&request.branch, &request.user_id));
    assert_eq!(view.tags, request.tags);
    let by_tag = outpost_types::ListQuery { tag: Some("größe".into()), ..Default::default() };
    let listed = server.api.list_runs(by_tag).await.unwrap().items;
    assert_eq!(listed.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_nothing() {
    let (server, repo) = (Server::start_with(&[], CUSTOM).await, Repo::new());
    let mut request = request("shell", "x", &repo);
    request.timeout_seconds = Some(1);
    let error = server.api.create_dispatch(request, None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidField);
    assert_eq!(error.field.as_deref(), Some("timeoutSeconds"));
    let kept: Vec<_> = std::fs::read_dir(server.data().join("dispatches")).unwrap().collect();
    assert!(kept.is_empty(), "{kept:?}");
}
