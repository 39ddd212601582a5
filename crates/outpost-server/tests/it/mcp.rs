//! /mcp: who may speak, and what a client without a key learns.

use outpost_types::Scope;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::{Server, problem};

fn call(server: &Server, key: Option<&str>, tool: &str, arguments: Value) -> RequestBuilder {
    let params = json!({"name": tool, "arguments": arguments});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let request = server.bare(Method::POST, "/mcp").json(&message);
    match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

async fn result(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    let last = data.rfind(|data| !data.is_empty()).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str::<Value>(last).unwrap()["result"].clone()
}

#[tokio::test]
async fn a_client_without_a_key_is_told_what_protects_it() {
    let server = Server::start().await;
    let response = call(&server, None, "fleet_status", json!({})).send().await.unwrap();
    let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
    problem(response, 401, "unauthorized").await;
    let url = challenge.split('"').nth(3).unwrap().to_owned();
    assert!(challenge.contains("resource_metadata="), "{challenge}");
    let document: Value = server.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["resource"], server.url("/mcp"));
    assert_eq!(document["bearer_methods_supported"], json!(["header"]));
}

#[tokio::test]
async fn pages_of_others_are_refused_and_our_own_is_not() {
    let server = Server::configured(|config| {
        config.public_url = Some("https://out.example".into());
    })
    .await;
    let ask = |origin: &str| {
        call(&server, Some("admin"), "fleet_status", json!({})).header("origin", origin)
    };
    for origin in
        ["http://evil.example", "null", "", "https://out.example.evil", "http://localhost"]
    {
        let response = ask(origin).send().await.unwrap();
        problem(response, 403, "forbidden").await;
    }
    for origin in [format!("http://{}", server.address), "https://out.example".to_owned()] {
        let fleet = result(ask(&origin).send().await.unwrap()).await;
        assert_eq!(fleet["isError"], false, "{origin}: {fleet}");
    }
}

#[tokio::test]
async fn a_key_acts_for_its_tenant_within_its_scopes() {
    let server = Server::start().await;
    let foreign = server.memory.add("acme");
    let own = server.memory.add("local");
    server.memory.key("reader", "local", &[Scope::Status]);
    let get = |id: String| call(&server, Some("reader"), "get_run", json!({"dispatchId": id}));
    let run = result(get(own.to_string()).send().await.unwrap()).await;
    assert_eq!(run["structuredContent"]["dispatchId"], own.to_string(), "{run}");
    let unknown = "01J9Z3NDEKTSV4RRFFQ69G5FAV".to_owned();
    let mut answers = Vec::new();
    for id in [foreign.to_string(), unknown] {
        answers.push(result(get(id).send().await.unwrap()).await);
    }
    assert_eq!(answers[0], answers[1], "foreign and unknown ids look alike");
    let arguments = json!({"task": "x", "agent": "claude"});
    let refused = call(&server, Some("reader"), "dispatch", arguments).send().await.unwrap();
    let refused = result(refused).await;
    assert_eq!(refused["isError"], true);
    assert!(refused["content"][0]["text"].as_str().unwrap().starts_with("forbidden"), "{refused}");
}

#[tokio::test]
async fn bounds_are_those_of_the_routes() {
    let server = Server::start().await;
    let arguments = json!({"task": "x".repeat(51_201), "agent": "claude"});
    let refused = call(&server, Some("admin"), "dispatch", arguments).send().await.unwrap();
    let refused = result(refused).await;
    assert_eq!(refused["isError"], true);
    assert!(refused["content"][0]["text"].as_str().unwrap().contains("51200"), "{refused}");
    let huge = call(&server, Some("admin"), "dispatch", json!({"task": "x".repeat(2_000_000)}));
    assert_eq!(huge.send().await.unwrap().status(), 413);
}

#[tokio::test]
async fn there_is_nothing_to_get_or_to_delete() {
    let server = Server::start().await;
    for method in [Method::GET, Method::DELETE] {
        let response = server.request(method, "/mcp").send().await.unwrap();
        assert_eq!(response.headers()["allow"], "POST");
        problem(response, 405, "method_not_allowed").await;
    }
}
