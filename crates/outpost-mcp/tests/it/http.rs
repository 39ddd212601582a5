//! Single HTTP requests, each for its own caller.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use outpost_mcp::{Checks, Grant, McpHttp};
use outpost_types::{ApiError, Caller, DispatchStatus, KeyId, Scope, TenantId};
use serde_json::{Value, json};

use crate::client::DEADLINE;
use crate::fake::{Fake, id};

fn grant(scopes: &[Scope]) -> Grant {
    grant_over(Fake::new(), scopes)
}

fn grant_over(api: Arc<Fake>, scopes: &[Scope]) -> Grant {
    let caller = Caller {
        tenant: "local".parse::<TenantId>().unwrap(),
        key: KeyId::from_parts(1, 1),
        scopes: scopes.iter().copied().collect(),
    };
    let checks = Checks {
        dispatch: |request| match request.task.len() {
            0..100 => Ok(()),
            _ => Err(ApiError::field("task", "`task` is too long.")),
        },
        cancel: |_| Ok(()),
        promote: |_| Ok(()),
    };
    Grant::of_caller(api, Arc::new(caller), checks)
}

fn request(message: &Value, session: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/mcp")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", "2025-06-18");
    if let Some(session) = session {
        request = request.header("mcp-session-id", session);
    }
    request.body(Full::new(Bytes::from(message.to_string()))).unwrap()
}

async fn post(grant: Grant, message: Value) -> (StatusCode, Value) {
    let request = request(&message, None);
    let response = McpHttp::new(Duration::from_secs(15)).answer(request, grant).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    let last = data.rfind(|data| !data.is_empty()).unwrap_or(&text).to_owned();
    (status, serde_json::from_str(&last).unwrap_or(Value::String(last)))
}

async fn call(grant: Grant, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let (status, answer) = post(grant, message).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["result"].clone()
}

#[tokio::test]
async fn a_request_needs_no_session() {
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let begin = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let (status, answer) = post(grant(&[Scope::Status]), begin).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["result"]["serverInfo"]["name"], "outpost", "{answer}");
    let run =
        call(grant(&[Scope::Status]), "get_run", json!({"dispatchId": id().to_string()})).await;
    assert_eq!(run["structuredContent"]["status"], "RUNNING", "{run}");
}

#[tokio::test]
async fn a_wait_that_its_client_takes_back_ends_and_no_other() {
    let (fake, server) = (Fake::new(), McpHttp::new(Duration::from_secs(15)));
    let ask = async |message: Value, session: Option<&str>| {
        let grant = grant_over(fake.clone(), &[Scope::Status]);
        let response = server.answer(request(&message, session), grant).await;
        assert!(response.status().is_success(), "{message}: {response:?}");
        response
    };
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let begin = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let begun = ask(begin, None).await;
    let session = begun.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let arguments = json!({"dispatchId": id().to_string(), "waitSeconds": 600});
    let meta = json!({"progressToken": 1});
    let params = json!({"name": "wait_run", "arguments": arguments, "_meta": meta});
    let wait = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let mut waiting = ask(wait.clone(), Some(&session)).await.into_body();
    let mut other = ask(wait, Some("another")).await.into_body();
    for body in [&mut waiting, &mut other] {
        tokio::time::timeout(DEADLINE, body.frame()).await.unwrap().unwrap().unwrap();
    }
    let params = json!({"requestId": 7, "reason": "not interested"});
    let back = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    let taken = ask(back, Some(&session)).await;
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    let rest = tokio::time::timeout(DEADLINE, waiting.collect()).await.unwrap().unwrap();
    let rest = String::from_utf8(rest.to_bytes().to_vec()).unwrap();
    assert!(!rest.contains("\"id\":7"), "a call that was taken back has no answer: {rest}");
    // The other client's wait, under the same id, is answered.
    fake.reach(DispatchStatus::Failed, |_| {});
    let rest = tokio::time::timeout(DEADLINE, other.collect()).await.unwrap().unwrap();
    let rest = String::from_utf8(rest.to_bytes().to_vec()).unwrap();
    assert!(rest.contains("FAILED") && rest.contains("\"id\":7"), "{rest}");
    tokio::time::timeout(DEADLINE, fake.view.closed()).await.unwrap();
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn a_key_sees_and_uses_only_the_tools_of_its_scopes() {
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let (_, answer) = post(grant(&[Scope::Status, Scope::List]), message).await;
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let reading = ["wait_run", "get_run", "list_runs", "get_logs", "get_diff", "fleet_status"];
    assert_eq!(names, reading);
    for (tool, scope) in
        [("dispatch", "dispatch"), ("cancel_run", "cancel"), ("promote", "promote")]
    {
        let refused = call(grant(&[Scope::Status]), tool, json!({})).await;
        let text = refused["content"][0]["text"].as_str().unwrap();
        assert_eq!(refused["isError"], true);
        assert!(text.starts_with("forbidden") && text.contains(&format!("`{scope}`")), "{text}");
    }
}

#[tokio::test]
async fn bounds_are_checked_as_for_the_routes() {
    let all = [Scope::Status, Scope::Dispatch];
    let long = call(grant(&all), "dispatch", json!({"task": "x".repeat(200)})).await;
    assert_eq!(long["isError"], true, "{long}");
    assert!(long["content"][0]["text"].as_str().unwrap().contains("too long"), "{long}");
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    for message in [json!([]), json!("x"), json!({"jsonrpc": "2.0"})] {
        let (status, answer) = post(grant(&[Scope::Status]), message.clone()).await;
        assert!(status.is_client_error(), "{message}: {status} {answer}");
    }
    let huge =
        json!({"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"x": "y".repeat(2_000_000)}});
    assert_eq!(post(grant(&[Scope::Status]), huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}
