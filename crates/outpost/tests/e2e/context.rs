//! What an agent is told of its project reaches the model, is on record, and is told once.

use outpost_types::{Api as _, ContextKind, ContextSkipReason, ContextView, DispatchStatus};

use crate::harness::{Repo, Server, assert_status, has_cli, request};

#[tokio::test(flavor = "multi_thread")]
async fn claude_is_told_of_the_project_before_its_task() {
    if !has_cli("claude") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let dir = std::path::PathBuf::from(repo.path());
    std::fs::create_dir(dir.join("docs")).unwrap();
    // The script answers to this word, which is not in the task.
    std::fs::write(dir.join("docs/ANCHORS.md"), "# Decided\nThe word is plover.\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("docs/SOUL.md")).unwrap();
    repo.git(&["add", "."]);
    repo.git(&["commit", "-qm", "Second"]);

    let view = server.run(request("claude", "unknown", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let id = view.dispatch_id;
    let summary = view.summary.unwrap_or_default();
    assert!(summary.contains("I was told the word"), "{summary}");
    // What the agent found in its workspace is what is kept and answered.
    let context = server.api.context(id).await.unwrap();
    let kept = server.data().join("dispatches").join(id.to_string()).join("context.json");
    let kept: ContextView = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(context, kept);
    assert!(server.artifacts(id).await.contains_key("context.json"));
    let diff = server.diff(id).await;
    assert!(diff.contains("+      \"path\": \"docs/ANCHORS.md\",\n"), "{diff}");
    assert!(
        diff.contains("+The word is plover.\n") && diff.contains("+situation: unknown"),
        "{diff}"
    );

    let kinds: Vec<_> = context.sections.iter().map(|section| section.kind).collect();
    assert_eq!(kinds, [ContextKind::Identity, ContextKind::Decisions, ContextKind::Map]);
    assert_eq!(context.sections[0].path.as_deref(), Some("README.md"));
    assert_eq!(context.skipped[0].path, "docs/SOUL.md");
    assert_eq!(context.skipped[0].reason, ContextSkipReason::Irregular);
    assert!(!context.text.contains("root:"), "{}", context.text);

    // The session has it already.
    let mut again = request("claude", "edit", &repo);
    (again.repo, again.continue_from) = (None, Some(id.to_string()));
    let again = server.run(again).await;
    assert_status(&server, &again, DispatchStatus::Completed).await;
    let context = server.api.context(again.dispatch_id).await.unwrap();
    assert_eq!((context.text.as_str(), context.sections.len()), ("", 0));
    server.assert_nothing_left();
}
