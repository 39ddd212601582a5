//! Every operation of the OpenAPI document against every way to ask for it wrongly. A new operation
//! without a row in [`row`] fails.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Server, problem};

/// The persistent workspace of the tenant of the usual keys.
const WORKSPACE: &str = "0123456789abcdef0123456789abcdef";
/// That of another tenant.
const FOREIGN_WORKSPACE: &str = "fedcba9876543210fedcba9876543210";

struct Op {
    id: String,
    method: Method,
    path: String,
    spec: Value,
}

pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    status: u16,
}

fn document() -> Value {
    serde_json::from_str(&outpost_server::openapi_json()).unwrap()
}

fn operations() -> Vec<Op> {
    let document = document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, spec) in item.as_object().unwrap() {
            operations.push(Op {
                id: spec["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                spec: spec.clone(),
            });
        }
    }
    operations
}

/// A request that works, for the dispatch `id`.
pub(crate) fn row(operation: &str, id: &str) -> Row {
    let get = |path: String| Row { path, body: None, status: 200 };
    match operation {
        "createDispatch" => Row {
            path: "/dispatch".into(),
            body: Some(json!({"agent": "claude", "task": "é\n\u{1F600}"})),
            status: 201,
        },
        "getDispatch" => get(format!("/dispatch/{id}")),
        "cancelDispatch" => Row {
            path: format!("/dispatch/{id}"),
            body: Some(json!({"reason": "é\n"})),
            status: 202,
        },
        "changeNetwork" => Row {
            path: format!("/dispatch/{id}"),
            body: Some(json!({"network": "custom", "allowHosts": ["example.com"]})),
            status: 200,
        },
        "followDispatch" => get(format!("/dispatch/{id}/events")),
        "readLogs" => get(format!("/dispatch/{id}/logs")),
        "readDiff" => get(format!("/dispatch/{id}/diff")),
        "readContext" => get(format!("/dispatch/{id}/context")),
        "listRuns" => get("/runs".into()),
        "listArtifacts" => get(format!("/artifacts/{id}")),
        "readArtifact" => get(format!("/artifacts/{id}/a/b.txt")),
        "putSecret" => Row {
            path: "/secrets/A_1".into(),
            body: Some(json!({"value": "canary-1"})),
            status: 200,
        },
        "listSecrets" => get("/secrets".into()),
        "deleteSecret" => get("/secrets/A_1".into()),
        "rekeySecrets" => get("/secrets/rekey".into()),
        "readUsage" => get("/usage".into()),
        "listWorkspaces" => get("/workspaces".into()),
        "getWorkspace" => get(workspace(id)),
        "deleteWorkspace" => Row { status: 204, ..get(workspace(id)) },
        "promote" => Row {
            path: "/promote".into(),
            body: Some(json!({"dispatchId": crate::memory_promote::PROMOTED})),
            status: 201,
        },
        "getPromotion" => get(format!("/promote/{id}")),
        "mcp" => Row {
            path: "/mcp".into(),
            body: Some(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})),
            status: 200,
        },
        "mcpResource" => get("/.well-known/oauth-protected-resource/mcp".into()),
        "fleet" => get("/fleet".into()),
        "drainFleet" => {
            let body = Some(json!({"agent": "claude", "reason": "é"}));
            Row { path: "/fleet/drain".into(), body, status: 200 }
        }
        "resumeFleet" => Row { path: "/fleet/resume".into(), body: Some(json!({})), status: 200 },
        "healthFleet" => get("/health/fleet".into()),
        "health" => get("/health".into()),
        "healthLive" => get("/health/live".into()),
        "healthReady" => get("/health/ready".into()),
        "openapi" => get("/openapi.json".into()),
        "docs" => get("/docs".into()),
        other => webhook_row(other, id),
    }
}

/// The same for webhooks.
fn webhook_row(operation: &str, id: &str) -> Row {
    let (path, status) = match operation {
        "createWebhook" => {
            let body = Some(json!({"url": "https://example.com/é"}));
            return Row { path: "/webhooks".into(), body, status: 201 };
        }
        "listWebhooks" => ("/webhooks".into(), 200),
        "deleteWebhook" => (webhook(id), 200),
        "testWebhook" => (webhook(id) + "/test", 202),
        "listDeliveries" => (webhook(id) + "/deliveries", 200),
        "replayDelivery" => (webhook(id) + "/deliveries/7/replay", 202),
        other => return access_row(other, id),
    };
    Row { path, body: None, status }
}

/// The same for keys, tenants and the audit trail.
fn access_row(operation: &str, id: &str) -> Row {
    let get = |path: String| Row { path, body: None, status: 200 };
    match operation {
        "createKey" => Row {
            path: "/keys".into(),
            body: Some(json!({"name": "é", "scopes": ["status"]})),
            status: 201,
        },
        "listKeys" => get("/keys".into()),
        "getKey" | "revokeKey" => get(format!("/keys/{id}")),
        "rotateKey" => Row {
            path: format!("/keys/{id}/rotate"),
            body: Some(json!({"overlapSeconds": 60})),
            status: 201,
        },
        "createTenant" => Row {
            path: "/tenants".into(),
            body: Some(json!({"id": "acme", "name": "é"})),
            status: 201,
        },
        "listTenants" => get("/tenants".into()),
        "getTenant" => get(format!("/tenants/{id}")),
        "updateTenant" => Row {
            body: Some(json!({"quotas": {"requestsPerMinute": 5}})),
            ..get(format!("/tenants/{id}"))
        },
        "listAudit" => get("/audit".into()),
        "verifyAudit" => get("/audit/verify".into()),
        "exportAudit" => get("/audit/export".into()),
        other => panic!("no row for the operation {other}: add one"),
    }
}

/// The path of the webhook that belongs to whoever has the dispatch `id`; a dispatch of nobody is none of its ids.
fn webhook(id: &str) -> String {
    let is_dispatch = id.parse::<outpost_types::DispatchId>().is_ok();
    let known = is_dispatch && id != "01J9Z3NDEKTSV4RRFFQ69G5FAV";
    format!("/webhooks/{}", if known { crate::memory_webhooks::WEBHOOK } else { id })
}

/// The path of the workspace that belongs to whoever has the dispatch `id`.
fn workspace(id: &str) -> String {
    let is_dispatch = id.parse::<outpost_types::DispatchId>().is_ok();
    format!("/workspaces/{}", if is_dispatch { WORKSPACE } else { id })
}

fn ask(server: &Server, op: &Op, path: &str, key: Option<&str>) -> RequestBuilder {
    let request = server.bare(op.method.clone(), path);
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    match row(&op.id, "x").body {
        Some(body) => request.json(&body),
        None => request,
    }
}

fn scope(op: &Op) -> Option<String> {
    let security = op.spec["security"].as_array().unwrap();
    let first = security.first()?;
    Some(first["apiKey"][0].as_str().unwrap().to_owned())
}

fn parameters<'a>(op: &'a Op, place: &str) -> Vec<&'a Value> {
    let all = op.spec["parameters"].as_array();
    let all = all.into_iter().flatten();
    all.filter(|parameter| parameter["in"] == place).collect()
}

pub(crate) async fn prepared(server: &Server) -> String {
    let id = server.memory.add("local");
    server.memory.keep(id, "a/b.txt", b"kept");
    server.memory.workspace("local", WORKSPACE, false);
    let secret = server.request(Method::PUT, "/secrets/A_1").json(&json!({"value": "canary-0"}));
    assert_eq!(secret.send().await.unwrap().status(), 200);
    id.to_string()
}

#[tokio::test]
async fn every_operation_answers_its_documented_status() {
    let server = Server::start().await;
    for op in operations() {
        let id = prepared(&server).await;
        let row = row(&op.id, &id);
        let response = ask(&server, &op, &row.path, Some("admin")).send().await.unwrap();
        assert_eq!(response.status(), row.status, "{}", op.id);
        assert!(op.spec["responses"].get(row.status.to_string()).is_some(), "{}", op.id);
        assert!(response.headers().contains_key("x-request-id"), "{}", op.id);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{}", op.id);
    }
}

#[tokio::test]
async fn every_key_is_checked_before_anything_else() {
    let server = Server::start().await;
    let all = ["dispatch", "status", "list", "cancel", "promote", "delete"];
    for scope in all {
        let others: Vec<_> =
            all.iter().filter(|s| **s != scope).map(|s| s.parse().unwrap()).collect();
        server.memory.key(&format!("all-but-{scope}"), "local", &others);
        server.memory.key(&format!("only-{scope}"), "local", &[scope.parse().unwrap()]);
    }
    server.memory.key("all-but-admin", "local", &all.map(|scope| scope.parse().unwrap()));
    server.memory.key("only-admin", "local", &[outpost_types::Scope::Admin]);
    for op in operations() {
        let id = prepared(&server).await;
        let path = row(&op.id, &id).path;
        let Some(scope) = scope(&op) else {
            let response = ask(&server, &op, &path, None).send().await.unwrap();
            assert_eq!(response.status(), 200, "{} is open", op.id);
            continue;
        };
        for key in [None, Some("nobody"), Some(""), Some("revoked"), Some("expired")] {
            // A fault in the request must not show before the key is good.
            let wrong = format!("{path}?nonsense=1");
            let response = ask(&server, &op, &wrong, key).send().await.unwrap();
            assert!(response.headers().contains_key("www-authenticate"), "{}", op.id);
            problem(response, 401, "unauthorized").await;
        }
        let wrong = format!("all-but-{scope}");
        let response = ask(&server, &op, &path, Some(&wrong)).send().await.unwrap();
        let refused = problem(response, 403, "forbidden").await;
        assert!(refused["detail"].as_str().unwrap().contains(&scope), "{}", op.id);
        let right = format!("only-{scope}");
        let response = ask(&server, &op, &path, Some(&right)).send().await.unwrap();
        assert!(response.status().is_success(), "{} with only {scope}", op.id);
    }
}

#[tokio::test]
async fn unknown_malformed_and_foreign_ids_look_alike() {
    let server = Server::start().await;
    let foreign = server.memory.add("acme");
    server.memory.keep(foreign, "a/b.txt", b"kept");
    server.memory.workspace("acme", FOREIGN_WORKSPACE, false);
    let ids = [
        FOREIGN_WORKSPACE.to_owned(),
        foreign.to_string(),
        "01J9Z3NDEKTSV4RRFFQ69G5FAV".to_owned(),
        "nonsense".to_owned(),
        "%00".to_owned(),
        "%FF%FE".to_owned(),
        "..%2f..".to_owned(),
        "x".repeat(2_000),
    ];
    let with_id: Vec<_> = operations().into_iter().filter(|op| op.path.contains("{id}")).collect();
    assert!(with_id.len() >= 7);
    for op in with_id {
        let mut seen = Vec::new();
        for id in &ids {
            let path = row(&op.id, id).path;
            let response = ask(&server, &op, &path, Some("admin")).send().await.unwrap();
            let mut document = problem(response, 404, "not_found").await;
            document["requestId"] = Value::Null;
            seen.push(document);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{}: {seen:?}", op.id);
    }
}

#[tokio::test]
async fn every_parameter_has_a_bound_and_an_error_that_names_it() {
    let server = Server::start().await;
    let mut bounds = 0;
    for op in operations() {
        let id = prepared(&server).await;
        let path = row(&op.id, &id).path;
        let mut wrong: Vec<(String, String)> = vec![("nonsense".into(), "1".into())];
        if op.id == "readArtifact" {
            // With a key these are unknown; their own tests are those of signed addresses.
            wrong.extend([("tenant", "x"), ("expires", "x")].map(|(a, b)| (a.into(), b.into())));
        } else {
            for parameter in parameters(&op, "query") {
                let name = parameter["name"].as_str().unwrap();
                let values = wrong_values(parameter);
                assert!(!values.is_empty(), "{}: `{name}` has no bound", op.id);
                bounds += values.len();
                wrong.extend(values.into_iter().map(|value| (name.to_owned(), value)));
            }
        }
        for (name, value) in wrong {
            let request = ask(&server, &op, &path, Some("admin")).query(&[(&name, &value)]);
            let document = problem(request.send().await.unwrap(), 400, "invalid_field").await;
            assert_eq!(document["field"], *name, "{} {name}={value:.40}", op.id);
        }
    }
    assert!(bounds > 20, "the document lost its bounds: {bounds}");
}

/// Values a parameter must refuse, from its schema.
fn wrong_values(parameter: &Value) -> Vec<String> {
    let schema = &parameter["schema"];
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("integer") => {
            let mut values = vec!["x".into(), String::new(), "-1".into(), "1.5".into()];
            if let Some(minimum) = schema["minimum"].as_u64().filter(|minimum| *minimum > 0) {
                values.push((minimum - 1).to_string());
            }
            values.push(match schema["maximum"].as_u64() {
                Some(maximum) => (maximum + 1).to_string(),
                None => "18446744073709551616".to_owned(),
            });
            values
        }
        Some("boolean") => vec!["1".into(), "yes".into(), String::new()],
        // Longest of all is a repository's address, and the largest head the server reads is 64 KiB.
        _ => vec![String::new(), "x".repeat(2_049)],
    }
}

#[tokio::test]
async fn header_parameters_are_bounded() {
    let server = Server::start().await;
    for op in operations() {
        for parameter in parameters(&op, "header") {
            let id = prepared(&server).await;
            let name = parameter["name"].as_str().unwrap();
            let values: &[&str] = match name {
                "Idempotency-Key" => &["", "a b", "é", &"x".repeat(256)],
                "Last-Event-ID" => &["x", "-1", "", "18446744073709551616"],
                other => panic!("no wrong values for the header {other}: add some"),
            };
            for value in values {
                let path = row(&op.id, &id).path;
                let request = ask(&server, &op, &path, Some("admin"));
                let value = reqwest::header::HeaderValue::from_bytes(value.as_bytes()).unwrap();
                let response = request.header(name, value).send().await.unwrap();
                let document = problem(response, 400, "invalid_field").await;
                assert_eq!(document["field"], name, "{}", op.id);
            }
        }
    }
}

#[tokio::test]
async fn every_field_of_a_body_has_a_bound_and_an_error_that_names_it() {
    let server = Server::start().await;
    let document = document();
    let mut fields = 0;
    for op in operations() {
        let Some(reference) =
            op.spec["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
        else {
            continue;
        };
        let name = reference.rsplit('/').next().unwrap();
        let schema = &document["components"]["schemas"][name];
        for (field, property) in schema["properties"].as_object().unwrap() {
            let flag = property["type"].to_string().contains("boolean");
            // Every field of the quotas may be left out.
            let object = if field == "quotas" { json!("x") } else { json!({}) };
            let mut values = vec![object, if flag { json!("x") } else { json!(true) }];
            values.extend(over_bound(property));
            let bounded = values.len() > 2 || flag || property.get("oneOf").is_some();
            assert!(bounded, "`{field}` has no bound");
            for value in values {
                fields += 1;
                refused(&server, &op, field, &value, field).await;
            }
        }
        refused(&server, &op, "nonsense", &json!(1), "nonsense").await;
    }
    assert!(fields > 40, "the document lost its fields: {fields}");
}

async fn refused(server: &Server, op: &Op, field: &str, value: &Value, named: &str) {
    let id = prepared(server).await;
    let row = row(&op.id, &id);
    let mut body = row.body.unwrap();
    body[field] = value.clone();
    let request = server.request(op.method.clone(), &row.path).json(&body);
    let document = problem(request.send().await.unwrap(), 400, "invalid_field").await;
    let at = document["field"].as_str().unwrap();
    let same =
        at == named || at.starts_with(&format!("{named}[")) || at.starts_with(&format!("{named}."));
    assert!(same, "{} {named}: {document}", op.id);
}

fn over_bound(property: &Value) -> Vec<Value> {
    let mut values = Vec::new();
    if let Some(length) = property["maxLength"].as_u64() {
        values.push(json!("x".repeat(length as usize + 1)));
    }
    if let Some(length) = property["minLength"].as_u64() {
        values.push(json!("x".repeat(length as usize - 1)));
    }
    for (bound, step) in [("minimum", -1), ("maximum", 1)] {
        if let Some(number) = property[bound].as_i64() {
            values.push(json!(number + step));
        }
    }
    if let Some(count) = property["maxItems"].as_u64() {
        values.push(json!(vec!["x"; count as usize + 1]));
        values.push(json!(["x".repeat(5_000)]));
        values.push(json!(["", "x"]));
    }
    values
}

#[tokio::test]
async fn other_methods_are_refused_with_those_allowed() {
    let server = Server::start().await;
    for op in operations() {
        let path = row(&op.id, "x").path;
        let taken = |method: &Method| {
            operations().iter().any(|other| other.path == op.path && other.method == *method)
        };
        let others = [Method::PUT, Method::PATCH, Method::OPTIONS];
        for method in others.into_iter().filter(|method| !taken(method)) {
            let response = server.request(method, &path).send().await.unwrap();
            let allow = response.headers()["allow"].to_str().unwrap().to_owned();
            assert!(allow.split(',').any(|m| m == op.method.as_str()), "{path}: {allow}");
            problem(response, 405, "method_not_allowed").await;
        }
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = Server::start().await;
    for op in operations().into_iter().filter(|op| op.method == Method::GET) {
        let id = prepared(&server).await;
        let path = row(&op.id, &id).path;
        let response = server.request(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", op.id);
        assert!(response.bytes().await.unwrap().is_empty(), "{}", op.id);
    }
    let response = server.request(Method::HEAD, "/dispatch/none").send().await.unwrap();
    assert_eq!(response.status(), 404);
}
