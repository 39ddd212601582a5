//! What tools do and answer when all is well.

use std::sync::atomic::Ordering;

use outpost_types::DispatchStatus;
use serde_json::{Value, json};

use crate::client::{Client, text};
use crate::fake::{Call, Fake, id};

#[tokio::test]
async fn a_client_sees_the_committed_tools() {
    let client = Client::of(Fake::new()).await;
    let tools = client.running.list_all_tools().await.unwrap();
    let listed = serde_json::to_value(tools).unwrap();
    let committed: Value = serde_json::from_str(&outpost_mcp::tools_json()).unwrap();
    assert_eq!(listed, committed);
    let instructions = client.running.peer_info().unwrap().instructions.clone();
    assert!(instructions.is_some_and(|text| text.contains("wait_run")));
}

#[tokio::test]
async fn a_dispatch_carries_what_was_asked_for() {
    let fake = Fake::new();
    let client = Client::of(fake.clone()).await;
    let arguments = json!({
        "task": "Fix it", "checks": ["make test"], "setup": ["npm ci"], "network": "trusted", "tier": "fast",
        "budgetUsd": 0.5, "idempotencyKey": "k-1", "branch": null,
    });
    let run = client.ask("dispatch", arguments).await;
    assert_eq!(run["dispatchId"], id().to_string());
    assert_eq!((&run["status"], &run["finished"]), (&json!("RUNNING"), &json!(false)));
    assert!(run["next"].as_str().unwrap().contains("wait_run"));
    let Call::Create(request, key) = fake.only_call() else { panic!() };
    assert_eq!(key.as_deref(), Some("k-1"));
    assert_eq!(request.agent, "codex", "the first that is available");
    assert_eq!(request.repo.as_deref(), Some("/srv/here"), "where the server was started");
    assert_eq!((request.checks, request.budget_usd), (vec!["make test".to_owned()], Some(0.5)));
    assert_eq!(request.setup, ["npm ci"]);
}

#[tokio::test]
async fn a_run_that_goes_on_from_another_keeps_its_repository() {
    let fake = Fake::new();
    let client = Client::of(fake.clone()).await;
    let earlier = id().to_string();
    client
        .ask("dispatch", json!({"task": "More", "agent": "claude", "continueFrom": earlier}))
        .await;
    let Call::Create(request, None) = fake.only_call() else { panic!() };
    assert_eq!((request.repo, request.continue_from), (None, Some(earlier)));
}

#[tokio::test]
async fn a_finished_run_says_what_came_of_it_and_what_to_do() {
    let fake = Fake::new();
    let client = Client::of(fake.clone()).await;
    fake.reach(DispatchStatus::Completed, |view| {
        view.files_changed = Some(2);
        view.summary = Some("Done\u{1b}[2J.".into());
    });
    let run = client.ask("get_run", json!({"dispatchId": id().to_string()})).await;
    assert_eq!((&run["finished"], &run["filesChanged"]), (&json!(true), &json!(2)));
    assert_eq!(run["summary"], "Done.");
    assert!(run["next"].as_str().unwrap().contains("get_diff"));
}

#[tokio::test]
async fn lists_are_short_and_can_be_gone_on_with() {
    let fake = Fake::new();
    let client = Client::of(fake.clone()).await;
    let runs = client.ask("list_runs", json!({"status": "RUNNING"})).await;
    assert_eq!(runs["runs"][0]["dispatchId"], id().to_string());
    assert_eq!(runs["nextCursor"], "next");
    let Call::List(query) = fake.only_call() else { panic!() };
    assert_eq!((query.limit, query.status.as_deref()), (Some(10), Some("RUNNING")));
}

#[tokio::test]
async fn the_fleet_says_why_an_agent_cannot_run() {
    let client = Client::of(Fake::new()).await;
    let fleet = client.ask("fleet_status", json!({})).await;
    assert_eq!(fleet["agents"][0]["reason"], "No key.");
    assert_eq!(fleet["agents"][1]["available"], true);
}

#[tokio::test]
async fn an_output_is_read_from_its_end_or_part_by_part() {
    let log: String = (0..2_000).map(|line| format!("line {line} é\n")).collect();
    let client = Client::of(Fake::holding(log.as_bytes(), b"")).await;
    let dispatch = id().to_string();
    let end = client.ask("get_logs", json!({"dispatchId": dispatch})).await;
    assert!(end["text"].as_str().unwrap().ends_with("line 1999 é\n"));
    assert!(end["text"].as_str().unwrap().starts_with("line "));
    assert_eq!(end["nextByte"], log.len());
    let (mut read, mut from) = (String::new(), 0);
    loop {
        let arguments = json!({"dispatchId": dispatch, "fromByte": from, "maxBytes": 4_001});
        let part = client.ask("get_logs", arguments).await;
        assert_eq!(part["fromByte"], from);
        read.push_str(part["text"].as_str().unwrap());
        from = part["nextByte"].as_u64().unwrap();
        if part["more"] == false {
            break;
        }
    }
    assert_eq!(read, log);
}

#[tokio::test]
async fn the_end_of_a_long_log_is_found_without_reading_what_is_before() {
    let lines = |count: usize| (0..count).map(|line| format!("line {line}\n")).collect::<String>();
    for count in [1, 2_000, 2_001, 99_999, 400_000] {
        let log = lines(count);
        let fake = Fake::holding(log.as_bytes(), b"");
        let client = Client::of(fake.clone()).await;
        let arguments = json!({"dispatchId": id().to_string(), "maxBytes": 4_096});
        let end = client.ask("get_logs", arguments).await;
        let text = end["text"].as_str().unwrap();
        assert!(log.ends_with(text) && text.len() > 4_000.min(log.len() - 1), "{count}: {text}");
        assert_eq!(end["fromByte"], log.len() - text.len(), "{count}");
        assert_eq!(end["nextByte"], log.len(), "{count}");
        let read = fake.log_read.load(Ordering::Relaxed);
        assert!(read <= 5 * 4_096, "{count}: {read} bytes were read of {}", log.len());
    }
    let short = Client::of(Fake::holding(b"one\n", b"")).await;
    let beyond = json!({"dispatchId": id().to_string(), "fromByte": 100});
    let refused = short.call("get_logs", beyond).await;
    assert!(text(&refused).contains("`fromByte`"), "{refused:?}");
}

fn diff() -> String {
    let file = |name: &str, lines: usize| {
        let body: String = (0..lines).map(|line| format!("+line {line}\n")).collect();
        format!(
            "diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{lines} @@\n{body}"
        )
    };
    format!("{}{}", file("long.txt", 1_000), file("short.txt", 2))
}

#[tokio::test]
async fn a_diff_lists_its_files_and_comes_in_parts() {
    let whole = diff();
    let client = Client::of(Fake::holding(b"", whole.as_bytes())).await;
    let dispatch = id().to_string();
    let (mut read, mut from) = (String::new(), 0);
    loop {
        let arguments = json!({"dispatchId": dispatch, "fromByte": from, "maxBytes": 1_000});
        let part = client.ask("get_diff", arguments).await;
        assert_eq!(part["files"][0], json!({"path": "long.txt", "added": 1_000, "removed": 0}));
        let text = part["text"].as_str().unwrap();
        assert!(text.ends_with('\n'), "parts end with a line");
        read.push_str(text);
        from = part["nextByte"].as_u64().unwrap();
        if part["more"] == false {
            break;
        }
    }
    assert_eq!(read, whole);
    let one = json!({"dispatchId": dispatch, "file": "short.txt"});
    let short = client.ask("get_diff", one).await;
    let text = short["text"].as_str().unwrap();
    assert!(text.starts_with("diff --git a/short.txt ") && text.ends_with("+line 1\n"), "{text}");
    assert_eq!(short["more"], false);
}

#[tokio::test]
async fn no_diff_says_why() {
    let fake = Fake::new();
    let client = Client::of(fake.clone()).await;
    let arguments = json!({"dispatchId": id().to_string()});
    let early = client.call("get_diff", arguments.clone()).await;
    assert!(text(&early).contains("has not ended"), "{early:?}");
    fake.reach(DispatchStatus::Completed, |_| {});
    let late = client.call("get_diff", arguments).await;
    assert!(text(&late).contains("changed nothing"), "{late:?}");
}

#[tokio::test]
async fn a_promotion_is_waited_for() {
    let fake = Fake::new();
    let client = Client::of(fake.clone()).await;
    let arguments = json!({"dispatchId": id().to_string(), "draft": false});
    let promotion = client.ask("promote", arguments).await;
    assert_eq!((&promotion["status"], &promotion["finished"]), (&json!("DONE"), &json!(true)));
    assert_eq!(promotion["protectedPaths"][0], ".github/workflows/ci.yml");
    let Call::Promote(request) = fake.only_call() else { panic!() };
    assert_eq!(request.draft, Some(false));
}

#[tokio::test]
async fn a_cancel_carries_its_reason() {
    let fake = Fake::new();
    let client = Client::of(fake.clone()).await;
    let arguments = json!({"dispatchId": id().to_string(), "reason": "wrong way"});
    let run = client.ask("cancel_run", arguments).await;
    assert!(run["next"].as_str().unwrap().contains("being ended"));
    assert_eq!(fake.calls(), [Call::Cancel(Some("wrong way".into()))]);
}
