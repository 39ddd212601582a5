//! Nonsense, and what a model is told about it.

use serde_json::{Value, json};

use crate::client::Client;
use crate::fake::{Fake, id};

#[tokio::test]
async fn every_refusal_names_what_is_wrong() {
    let client = Client::of(Fake::holding(b"x", b"diff --git a/x b/x\n")).await;
    let run = id().to_string();
    let foreign = "01J9Z3NDEKTSV4RRFFQ69G5FAV";
    let cases: Vec<(&str, Value, &[&str])> = vec![
        ("dispatch", json!({}), &["task", "(required)"]),
        ("dispatch", json!({"task": 7}), &["`task`"]),
        ("dispatch", json!({"task": "x", "prompt": "y"}), &["prompt", "`agent`"]),
        ("dispatch", json!({"task": "x", "network": "all"}), &["network", "trusted"]),
        (
            "dispatch",
            json!({"task": "x", "agent": "missing"}),
            &["agent_unavailable", "fleet_status"],
        ),
        ("dispatch", json!({"task": "x", "idempotencyKey": "a b"}), &["idempotencyKey", "visible"]),
        ("dispatch", json!({"task": "x", "waitSeconds": 999_999}), &["waitSeconds", "3600"]),
        ("get_run", json!({}), &["dispatchId"]),
        ("get_run", json!({"dispatchId": "last"}), &["dispatchId", "list_runs"]),
        ("get_run", json!({"dispatchId": foreign}), &["not_found", "list_runs"]),
        ("get_run", json!({"id": run}), &["unknown field", "dispatchId"]),
        ("wait_run", json!({"dispatchId": foreign}), &["not_found"]),
        ("wait_run", json!({"dispatchId": run, "waitSeconds": 0}), &["waitSeconds", "1"]),
        ("wait_run", json!({"dispatchId": run, "waitSeconds": "soon"}), &["waitSeconds"]),
        ("list_runs", json!({"limit": 1000}), &["limit", "50"]),
        ("get_logs", json!({"dispatchId": run, "maxBytes": 1}), &["maxBytes", "256"]),
        ("get_logs", json!({"dispatchId": foreign}), &["not_found"]),
        ("get_diff", json!({"dispatchId": run, "file": "y"}), &["did not change", "It changed: x"]),
        ("get_diff", json!({"dispatchId": run, "fromByte": 99}), &["fromByte", "19"]),
        ("get_diff", json!({"dispatchId": foreign}), &["not_found"]),
        ("cancel_run", json!({"dispatchId": foreign}), &["not_found"]),
        ("promote", json!({"dispatchId": foreign}), &["not_found"]),
        ("promote", json!({"dispatchId": run, "force": true}), &["force", "allowProtected"]),
        ("fleet_status", json!({"agent": "x"}), &["agent", "no arguments"]),
    ];
    for (tool, arguments, words) in cases {
        let text = client.refused(tool, arguments.clone()).await;
        for word in words {
            assert!(text.contains(word), "{tool} {arguments}: {word} is not in {text}");
        }
    }
}

#[tokio::test]
async fn an_unknown_tool_is_an_error_of_the_protocol_and_the_server_goes_on() {
    let client = Client::of(Fake::new()).await;
    let request = crate::client::request("rm_rf", json!({}));
    let error = client.running.call_tool(request).await.unwrap_err();
    assert!(error.to_string().contains("fleet_status"), "{error}");
    client.ask("fleet_status", json!({})).await;
}
