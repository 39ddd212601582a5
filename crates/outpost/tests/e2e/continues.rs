//! A dispatch that goes on from another one: its files, and the session of its agent.

use outpost_types::{Api as _, DispatchRequest, DispatchStatus, DispatchView, ErrorCode};

use crate::harness::{Repo, Server, assert_status, has_cli, request};

/// An agent without a model and without sessions that shows its task and the files it finds.
const CONFIG: &str = r#"
[[agents]]
name = "script"
command = ["/bin/sh", "agent.sh"]
stdin_prompt = true
"#;
const SCRIPT: &str = r#"
cat
echo
pwd
ls
n=$(ls step* 2>/dev/null | wc -l)
echo "$n" > step$n
[ "$n" = 0 ] && git add step0 && git commit -qm "Step 0"
[ "$n" != 2 ]
"#;

fn next(agent: &str, task: &str, of: &DispatchView) -> DispatchRequest {
    DispatchRequest {
        agent: agent.to_owned(),
        task: task.to_owned(),
        continue_from: Some(of.dispatch_id.to_string()),
        timeout_seconds: Some(120),
        ..DispatchRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_on_and_the_agent_hears_what_was_before() {
    let (server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(SCRIPT));
    let branch = Some("main".to_owned());
    let first = DispatchRequest { branch, ..request("script", "one", &repo) };
    let first = server.run(first).await;
    assert_status(&server, &first, DispatchStatus::Completed).await;
    // The branch moves on: the work goes on from where it began.
    repo.git(&["commit", "-q", "--allow-empty", "-m", "Elsewhere"]);
    let second = server.run(next("script", "situation: two", &first)).await;
    assert_status(&server, &second, DispatchStatus::Completed).await;
    assert_eq!(second.continued_from, Some(first.dispatch_id));
    assert_eq!((&second.repo, &second.branch), (&first.repo, &first.branch));
    assert_eq!(second.base_commit, first.base_commit);
    let log = server.log(second.dispatch_id).await;
    assert!(log.contains("situation: one") && log.contains("situation: two"), "{log}");
    assert!(log.contains("step0") && log.contains(&first.dispatch_id.to_string()), "{log}");
    // Also from one that failed: its files are kept. And the result is the whole of it.
    let third = server.run(next("script", "three", &second)).await;
    assert_status(&server, &third, DispatchStatus::Failed).await;
    let fourth = server.run(next("script", "four", &third)).await;
    assert_status(&server, &fourth, DispatchStatus::Completed).await;
    let diff = server.diff(fourth.dispatch_id).await;
    for step in 0..4 {
        assert!(diff.contains(&format!("b/step{step}")), "{diff}");
    }
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_together_is_refused() {
    let (server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(SCRIPT));
    let first = server.run(request("script", "one", &repo)).await;
    let on = || next("script", "two", &first);
    let nobody = Some("01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned());
    for (field, request) in [
        ("continueFrom", DispatchRequest { continue_from: nobody, ..on() }),
        ("continueFrom", DispatchRequest { continue_from: Some("last".into()), ..on() }),
        ("branch", DispatchRequest { branch: Some("main".into()), ..on() }),
        ("repo", DispatchRequest { repo: Some("owner/name".into()), ..on() }),
    ] {
        let error = server.api.create_dispatch(request, None).await.unwrap_err();
        let found = (error.code, error.field.as_deref());
        assert_eq!(found, (ErrorCode::InvalidField, Some(field)), "{error:?}");
    }
    // An answer to a question that names the repository once more.
    let again = DispatchRequest { repo: first.repo.clone(), ..on() };
    let view = server.run(again).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    server.assert_nothing_left();
}

/// The same session, so the CLI found the one that was kept; a CLI that does not find it fails.
async fn session_goes_on(agent: &str) {
    if !has_cli(agent) {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let first = server.run(request(agent, "edit", &repo)).await;
    assert_status(&server, &first, DispatchStatus::Completed).await;
    assert!(first.session_id.is_some(), "{first:#?}");
    let second = server.run(next(agent, "situation: commit", &first)).await;
    assert_status(&server, &second, DispatchStatus::Completed).await;
    assert_eq!(second.session_id, first.session_id);
    let diff = server.diff(second.dispatch_id).await;
    for file in ["README.md", "one.txt", "two.txt"] {
        assert!(diff.contains(&format!("b/{file}")), "{diff}");
    }
    let kept = server.artifacts(second.dispatch_id).await;
    assert!(kept.keys().all(|name| !name.contains("session")), "{kept:?}");
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_claude_goes_on() {
    session_goes_on("claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_codex_goes_on() {
    session_goes_on("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_gemini_goes_on() {
    session_goes_on("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_grok_goes_on() {
    session_goes_on("grok").await;
}
