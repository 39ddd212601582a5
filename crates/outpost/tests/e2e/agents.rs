//! Each of the five CLIs does real work.

use outpost_types::{DispatchStatus, EventData};

use crate::harness::{Repo, Server, assert_status, has_cli, request};

async fn edits_a_file(agent: &str) {
    if !has_cli(agent) {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let view = server.run(request(agent, "edit", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let diff = server.diff(view.dispatch_id).await;
    assert!(diff.contains("+Hello from the agent: grüße, 你好"), "{diff}");
    assert!(diff.contains("b/README.md"), "{diff}");
    assert_eq!(view.files_changed, Some(1), "{diff}");
    assert_eq!(view.exit_code, Some(0));
    let usage = view.usage.as_ref().expect("the CLI says how many tokens it used");
    assert!(usage.output_tokens > 0, "{usage:?}");
    assert!(view.summary.as_ref().is_some_and(|text| text.contains("greeting")), "{view:#?}");

    let events = server.events(view.dispatch_id).await;
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "no gap, no repeat");
    assert!(events.last().unwrap().data.is_terminal());
    let messages = events.iter().filter(|event| matches!(event.data, EventData::Message { .. }));
    assert!(messages.count() > 0, "the agent said something");
    if agent != "aider" {
        let tools = events.iter().filter(|event| matches!(event.data, EventData::Tool { .. }));
        assert!(tools.count() > 0, "the agent used tools");
    }
    let kept = server.artifacts(view.dispatch_id).await;
    for name in ["diff.patch", "changes.bundle", "output.log", "events.jsonl", "result.json"] {
        assert!(kept.get(name).is_some_and(|bytes| *bytes > 0), "{name} is missing: {kept:?}");
    }
    assert_eq!(repo.git(&["status", "--porcelain"]), "", "the source repository is untouched");
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_edits_a_file() {
    edits_a_file("claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_edits_a_file() {
    edits_a_file("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_edits_a_file() {
    edits_a_file("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aider_edits_a_file() {
    edits_a_file("aider").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grok_edits_a_file() {
    edits_a_file("grok").await;
}

/// Commits of the agent and what it left uncommitted both arrive, in one bundle that applies.
#[tokio::test(flavor = "multi_thread")]
async fn commits_and_artifacts_are_kept() {
    if !has_cli("codex") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let view = server.run(request("codex", "commit", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let diff = server.diff(view.dispatch_id).await;
    assert!(diff.contains("b/one.txt") && diff.contains("b/two.txt"), "{diff}");
    let kept = server.artifacts(view.dispatch_id).await;
    assert!(kept.contains_key("artifacts/sub/a report.txt"), "{kept:?}");

    let bundle = server.data().join("dispatches");
    let bundle = bundle.join(view.dispatch_id.to_string()).join("changes.bundle");
    repo.git(&["bundle", "verify", "-q", bundle.to_str().unwrap()]);
    let heads = repo.git(&["bundle", "list-heads", bundle.to_str().unwrap()]);
    let head = heads.split_whitespace().nth(1).unwrap();
    repo.git(&["fetch", "-q", bundle.to_str().unwrap(), &format!("{head}:refs/heads/result")]);
    let subjects = repo.git(&["log", "--format=%s", "main..result"]);
    assert_eq!(subjects.lines().count(), 2, "{subjects}");
    assert!(subjects.contains("Add one"), "{subjects}");
}

/// Checks run on the result, each in a sandbox of its own.
#[tokio::test(flavor = "multi_thread")]
async fn checks_tell_pass_from_fail() {
    if !has_cli("codex") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let mut request = request("codex", "edit", &repo);
    request.checks = vec!["grep -q agent README.md".into(), "echo no; exit 3".into()];
    let view = server.run(request).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let outcome: Vec<_> = view.checks.iter().map(|check| (check.passed, check.exit_code)).collect();
    assert_eq!(outcome, [(true, Some(0)), (false, Some(3))]);
    assert_eq!(view.checks[1].output.trim(), "no");
}
