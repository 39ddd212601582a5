//! What goes wrong has one outcome, a code and a hint, and leaves nothing behind.

use outpost_types::{Api as _, DispatchRequest, DispatchStatus, ErrorCode, EventData, FailureCode};

use crate::harness::{Repo, Server, assert_status, has_cli, request, within};

async fn fails(agent: &str, situation: &str, code: FailureCode) {
    if !has_cli(agent) {
        return;
    }
    // A limit that stays is not waited for any longer than this.
    let config = "[budget]\nrate_limit_wait_seconds = 2\n";
    let (server, repo) = (Server::start_with(&[], config).await, Repo::new());
    let view = server.run(request(agent, situation, &repo)).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.as_ref().unwrap();
    assert_eq!(failure.code, code, "{failure:?}\n{}", server.log(view.dispatch_id).await);
    assert!(failure.hint.is_some(), "{failure:?}");
    server.assert_nothing_left();
}

/// The wrong key: every CLI's own way of saying it becomes the same code.
#[tokio::test(flavor = "multi_thread")]
async fn claude_with_a_wrong_key() {
    fails("claude", "refused", FailureCode::AgentAuth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_with_a_wrong_key() {
    fails("codex", "refused", FailureCode::AgentAuth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_with_a_wrong_key() {
    fails("gemini", "refused", FailureCode::AgentAuth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aider_with_a_wrong_key() {
    fails("aider", "refused", FailureCode::AgentAuth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grok_with_a_wrong_key() {
    fails("grok", "refused", FailureCode::AgentAuth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_that_stays() {
    fails("codex", "limited", FailureCode::RateLimited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_with_a_rate_limit_that_stays() {
    fails("claude", "limited", FailureCode::RateLimited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_always_cut() {
    fails("codex", "cut", FailureCode::AgentExit).await;
}

async fn recovers(agent: &str, situation: &str) {
    if !has_cli(agent) {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let view = server.run(request(agent, situation, &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert_eq!(view.files_changed, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_that_passes() {
    recovers("claude", "limited once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_once() {
    recovers("codex", "cut once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_keeps_what_was_done_and_kills_everything() {
    if !has_cli("codex") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let mut request = request("codex", "endless", &repo);
    request.timeout_seconds = Some(30);
    let view = server.run(request).await;
    assert_status(&server, &view, DispatchStatus::Timeout).await;
    assert_eq!(view.failure.as_ref().unwrap().code, FailureCode::Timeout);
    assert!(server.diff(view.dispatch_id).await.contains("started.txt"));
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_keeps_what_was_done_and_kills_everything() {
    if !has_cli("codex") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let created =
        server.api.create_dispatch(request("codex", "endless", &repo), None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    let is_endless = |data: &EventData| match data {
        EventData::Tool { summary: Some(summary), .. } => summary.contains("tail -f"),
        _ => false,
    };
    server.event(id, |event| is_endless(&event.data)).await;
    let reason = Some("changed my mind: ü".to_owned());
    server.api.cancel_dispatch(id, outpost_types::CancelRequest { reason }).await.unwrap();
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Cancelled).await;
    let failure = view.failure.as_ref().unwrap();
    assert!(failure.message.contains("changed my mind: ü"), "{failure:?}");
    assert!(server.diff(id).await.contains("started.txt"));
    let again = server.api.cancel_dispatch(id, Default::default()).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::AlreadyFinished);
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_is_told_apart() {
    if !has_cli("claude") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let view = server.run(request("claude", "crash", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    assert_eq!(view.failure.as_ref().unwrap().code, FailureCode::AgentExit);
    assert!(server.diff(view.dispatch_id).await.contains("before.txt"));
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_installed_is_never_accepted() {
    let empty = tempfile::tempdir().unwrap();
    let flags = ["--agents-dir", empty.path().to_str().unwrap()];
    let (server, repo) = (Server::start_with(&flags, "").await, Repo::new());
    let request = request("claude", "edit", &repo);
    let error = server.api.create_dispatch(request, None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AgentUnavailable);
    assert!(error.message.contains("outpost agents install claude"), "{error}");
    let fleet = server.api.fleet().await.unwrap();
    assert!(fleet.agents.iter().all(|agent| !agent.availability.available));
    assert!(server.api.list_runs(Default::default()).await.unwrap().items.is_empty());
}

/// A custom agent needs no CLI of a vendor: what the sandbox does with a greedy one.
#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_tier_is_an_oom() {
    let config = r#"
[[agents]]
name = "greedy"
command = ["/usr/bin/env", "sh", "-c", "x=$(head -c 3000000000 /dev/zero | tr '\\0' x); echo $x | wc -c"]
tier = "fast"
stdin_prompt = true
"#;
    let (server, repo) = (Server::start_with(&[], config).await, Repo::new());
    let view = server.run(request("greedy", "anything", &repo)).await;
    let limited = view.isolation.as_ref().unwrap().effective.iter().any(|e| e.contains("memory"));
    if !limited {
        assert!(std::env::var_os("CI").is_none(), "CI may skip nothing");
        eprintln!("SKIPPED: this host cannot limit memory");
        return;
    }
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.as_ref().unwrap();
    assert_eq!(failure.code, FailureCode::Oom, "{failure:?}");
    assert!(failure.hint.as_ref().unwrap().contains("balanced"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_missing_is_named() {
    let server = Server::start_with(&[], CUSTOM).await;
    let task = "anything".to_owned();
    let repo = Some("/nowhere/at/all".to_owned());
    let agent = "shell".to_owned();
    let request = DispatchRequest { agent, task, repo, ..DispatchRequest::default() };
    let error = within(server.api.create_dispatch(request, None)).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("repo"), "{error:?}");
    assert!(server.api.list_runs(Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_missing_fails_with_a_hint_and_no_retry() {
    let (server, repo) = (Server::start_with(&[], CUSTOM).await, Repo::new());
    let mut request = request("shell", "anything", &repo);
    request.branch = Some("mian".to_owned());
    let view = server.run(request).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.unwrap();
    assert_eq!(failure.code, FailureCode::Provisioning);
    assert!(format!("{failure:?}").contains("main"), "close names are told: {failure:?}");
    assert_eq!(view.attempt, 1);
    server.assert_nothing_left();
}

/// An agent without a model.
pub(crate) const CUSTOM: &str = r#"
[[agents]]
name = "shell"
command = ["/bin/sh", "-c", "cat \"$1\" > copy.txt; echo working", "sh", "{prompt_file}"]
"#;

/// A disk flood ends with its own code, and what it wrote is gone with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said() {
    let config = "[[agents]]\nname = \"flood\"\ncommand = [\"/bin/sh\", \"-c\", \
                  \"for n in 1 2 3 4 5 6; do fallocate -l 1G big$n || exit 3; done; sleep 100\"]\n\
                  stdin_prompt = true\ntier = \"fast\"\n";
    let (server, repo) = (Server::start_with(&[], config).await, Repo::new());
    let view = server.run(request("flood", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.as_ref().unwrap();
    assert_eq!(failure.code, FailureCode::DiskFull, "{failure:?}");
    assert!(failure.hint.as_ref().unwrap().contains("tier"), "{failure:?}");
    server.assert_nothing_left();
}
