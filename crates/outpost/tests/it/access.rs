//! Every operation of the OpenAPI document over the real engine, with every kind of key that must not get through,
//! and with an admin key of another tenant. A new operation without a row in [`row`] fails.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use outpost_store::conformance::sample;
use outpost_store::{
    ApiKey, ApiKeyRecord, ApiKeys as _, AuditEntry, Dispatches as _, SqliteOptions, SqliteStore,
    TenantRecord, Tenants as _,
};
use outpost_types::{ApiKeyStatus, KeyId, Scope, TenantQuotas, TenantStatus, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cli::Outpost;

/// A dispatch of the tenant `local`.
const DISPATCH: u64 = 1_000;

/// How an operation is asked for rightly, with ids of the tenant `local`.
struct Row {
    path: String,
    body: Option<Value>,
    /// What an admin of another tenant gets.
    foreign: &'static [u16],
}

/// Ids of the tenant `local`.
struct Local {
    dispatch: String,
    key: String,
}

fn row(operation: &str, local: &Local) -> Row {
    let Local { dispatch, key } = local;
    let unknown = "01J9Z3NDEKTSV4RRFFQ69G5FAV";
    let row = |path: String, foreign| Row { path, body: None, foreign };
    let get = |path: &str, foreign| row(path.to_owned(), foreign);
    let with = |body: Value, row: Row| Row { body: Some(body), ..row };
    match operation {
        "createDispatch" => {
            with(json!({"agent": "nobody", "task": "x"}), get("/dispatch", &[400, 422]))
        }
        "getDispatch" | "cancelDispatch" => row(format!("/dispatch/{dispatch}"), &[404]),
        "changeNetwork" => {
            with(json!({"network": "none"}), row(format!("/dispatch/{dispatch}"), &[404]))
        }
        "followDispatch" => row(format!("/dispatch/{dispatch}/events"), &[404]),
        "readLogs" => row(format!("/dispatch/{dispatch}/logs"), &[404]),
        "readDiff" => row(format!("/dispatch/{dispatch}/diff"), &[404]),
        "readContext" => row(format!("/dispatch/{dispatch}/context"), &[404]),
        "listRuns" => get("/runs", &[200]),
        "listArtifacts" => row(format!("/artifacts/{dispatch}"), &[404]),
        "readArtifact" => row(format!("/artifacts/{dispatch}/diff.patch"), &[404]),
        "putSecret" => with(json!({"value": "0123456789"}), get("/secrets/OWN_1", &[200])),
        "listSecrets" => get("/secrets", &[200]),
        "deleteSecret" => get("/secrets/OTHER_1", &[404]),
        "rekeySecrets" => get("/secrets/rekey", &[403]),
        "readUsage" => get("/usage", &[200]),
        "listWorkspaces" => get("/workspaces", &[200]),
        "getWorkspace" | "deleteWorkspace" => {
            get("/workspaces/0123456789abcdef0123456789abcdef", &[404])
        }
        "promote" => with(json!({"dispatchId": dispatch}), get("/promote", &[404])),
        "getPromotion" => row(format!("/promote/{dispatch}"), &[404]),
        "mcp" => with(
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
            get("/mcp", &[200, 400]),
        ),
        "createWebhook" => {
            with(json!({"url": "http://127.0.0.1/no"}), get("/webhooks", &[201, 400]))
        }
        "listWebhooks" => get("/webhooks", &[200]),
        "deleteWebhook" => row(format!("/webhooks/{unknown}"), &[404]),
        "testWebhook" => row(format!("/webhooks/{unknown}/test"), &[404]),
        "listDeliveries" => row(format!("/webhooks/{unknown}/deliveries"), &[404]),
        "replayDelivery" => row(format!("/webhooks/{unknown}/deliveries/1/replay"), &[404]),
        "createKey" => {
            let body = json!({"name": "x", "scopes": ["status"], "tenantId": "local"});
            with(body, get("/keys", &[404]))
        }
        "listKeys" => get("/keys", &[200]),
        "getKey" | "revokeKey" => row(format!("/keys/{key}"), &[404]),
        "rotateKey" => row(format!("/keys/{key}/rotate"), &[404]),
        "createTenant" => with(json!({"id": "another"}), get("/tenants", &[403])),
        "listTenants" => get("/tenants", &[200]),
        "getTenant" => get("/tenants/local", &[404]),
        "updateTenant" => with(json!({"name": "mine"}), get("/tenants/local", &[404])),
        "listAudit" => get("/audit", &[200]),
        "verifyAudit" => get("/audit/verify", &[403]),
        "exportAudit" => get("/audit/export", &[403]),
        "fleet" => get("/fleet", &[200]),
        "drainFleet" => with(json!({"agent": "claude"}), get("/fleet/drain", &[403])),
        "resumeFleet" => with(json!({}), get("/fleet/resume", &[403])),
        "healthFleet" => get("/health/fleet", &[200]),
        other => panic!(
            "the operation {other} has no row: add one to `row` in crates/outpost/tests/it/access.rs with its path \
             (ids of the tenant `local`), a body that is right, and the status that an admin of another tenant gets"
        ),
    }
}

/// The keys of a test, by what is wrong with them.
struct Keys {
    expired: ApiKey,
    revoked: ApiKey,
    suspended: ApiKey,
    acme: ApiKey,
    only: Vec<(Scope, ApiKey)>,
}

struct Server {
    outpost: Outpost,
    child: Child,
    address: String,
    admin: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
            self.child.wait().unwrap();
        }
        assert!(self.outpost.data_dir().exists());
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}: {}", self.head, self.body))
    }
}

impl Server {
    fn ask(&self, method: &str, path: &str, key: Option<&str>, body: Option<&Value>) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n", self.address);
        head.push_str("Accept: application/json, text/event-stream\r\n");
        if let Some(key) = key {
            head.push_str(&format!("X-API-Key: {key}\r\n"));
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            let length = text.len();
            head.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        stream.write_all(format!("{head}\r\n{text}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask(method, path, Some(&self.admin), body)
    }
}

fn entry(subject: &str) -> AuditEntry {
    AuditEntry {
        at: Timestamp::from_millis(1),
        tenant: sample::tenant("local"),
        actor: None,
        action: "test.prepared",
        subject: subject.to_owned(),
        detail: json!({}),
    }
}

/// A data directory that has a dispatch and all kinds of keys, and a server on it.
async fn start() -> (Server, Keys) {
    let outpost = Outpost::new();
    let dir = outpost.data_dir();
    let store = SqliteStore::open(&SqliteOptions::new(&dir, 1)).unwrap();
    store.accept(sample::accept(DISPATCH)).await.unwrap();
    for (id, status) in [("acme", TenantStatus::Active), ("late", TenantStatus::Suspended)] {
        let tenant = TenantRecord {
            id: sample::tenant(id),
            name: id.to_owned(),
            status,
            quotas: TenantQuotas::default(),
            generation: 1,
            created_at: Timestamp::from_millis(1),
        };
        store.put_tenant(tenant, 0, entry(id)).await.unwrap();
    }
    let mut serial = 0;
    let mut key = async |tenant: &str, scopes: &[Scope], end: Option<u64>, revoked: bool| {
        serial += 1;
        let key = ApiKey::generate([serial; 32]);
        let (id, now) = (KeyId::from_parts(1, serial.into()), Timestamp::from_millis(1));
        let end = end.map(Timestamp::from_millis);
        let scopes = scopes.iter().copied().collect();
        let mut record = ApiKeyRecord::new(id, sample::tenant(tenant), &key, scopes, now, end);
        if revoked {
            record.status = ApiKeyStatus::Revoked;
        }
        store.insert_key(record, entry("key")).await.unwrap();
        key
    };
    // It ended a moment ago, so that nobody has removed it yet.
    let ago = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let ago = u64::try_from(ago.as_millis()).unwrap() - 1;
    let mut keys = Keys {
        expired: key("local", &Scope::ALL, Some(ago), false).await,
        revoked: key("local", &Scope::ALL, None, true).await,
        suspended: key("late", &Scope::ALL, None, false).await,
        acme: key("acme", &Scope::ALL, None, false).await,
        only: Vec::new(),
    };
    for scope in Scope::ALL {
        keys.only.push((scope, key("local", &[scope], None, false).await));
    }
    drop(store);
    (serve(outpost), keys)
}

fn serve(outpost: Outpost) -> Server {
    let mut child = outpost
        .command(&["serve", "--json", "--listen", "127.0.0.1:0", "--model", "scripted"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let info: Value = serde_json::from_str(&line).unwrap();
    let address = info["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let admin = std::fs::read_to_string(outpost.data_dir().join("admin.key")).unwrap();
    Server { child, address, admin: admin.trim().to_owned(), outpost }
}

/// Method, id and scope of every operation.
fn operations() -> Vec<(String, String, Option<Scope>)> {
    let document: Value = serde_json::from_str(&outpost_server::openapi_json()).unwrap();
    let mut all = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        for (method, spec) in item.as_object().unwrap() {
            let scope = spec["security"][0]["apiKey"][0].as_str();
            let scope = scope.map(|scope| scope.parse().unwrap());
            let id = spec["operationId"].as_str().unwrap().to_owned();
            all.push((method.to_uppercase(), id, scope));
        }
    }
    all
}

#[tokio::test]
async fn every_operation_refuses_every_key_that_must_not_get_through() {
    let (server, keys) = start().await;
    let listed = server.admin("GET", "/keys?tenant=local", None).json();
    let local = Local {
        dispatch: sample::accept(DISPATCH).dispatch.id.to_string(),
        key: listed["items"][0]["id"].as_str().unwrap().to_owned(),
    };
    let mut guarded = 0;
    for (method, id, scope) in operations() {
        let Some(scope) = scope else { continue };
        guarded += 1;
        let row = row(&id, &local);
        let ask = |key: Option<&str>| server.ask(&method, &row.path, key, row.body.as_ref());
        let unknown = ApiKey::generate([99; 32]);
        let bad = [
            ("no key", None),
            ("what is no key", Some("otp_")),
            ("an unknown key", Some(unknown.expose())),
            ("an expired key", Some(keys.expired.expose())),
            ("a revoked key", Some(keys.revoked.expose())),
        ];
        for (what, key) in bad {
            let answer = ask(key);
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (401, &json!("unauthorized")),
                "{id}: {what}"
            );
            assert!(answer.head.contains("www-authenticate"), "{id}: {what}");
        }
        let answer = ask(Some(keys.suspended.expose()));
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (403, &json!("tenant_suspended")),
            "{id}"
        );
        let others = keys.only.iter().filter(|(only, _)| *only != scope && *only != Scope::Admin);
        for (only, key) in others {
            let answer = ask(Some(key.expose()));
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (403, &json!("forbidden")),
                "{id} with {only}"
            );
        }
        let answer = ask(Some(keys.acme.expose()));
        assert!(row.foreign.contains(&answer.status), "{id}: {} {}", answer.status, answer.body);
        for secret in [&local.key, &local.dispatch] {
            // A problem document may repeat what was asked for.
            let told = answer.status < 300 && answer.body.contains(secret.as_str());
            assert!(!told, "{id} tells of another tenant: {}", answer.body);
        }
    }
    assert!(guarded >= 40, "the document lost its operations: {guarded}");
}

#[tokio::test]
async fn keys_and_tenants_live_and_end() {
    let (server, keys) = start().await;
    let acme = keys.acme.expose();
    // An admin of a tenant makes and replaces keys of his tenant.
    let body = json!({"name": "ci", "scopes": ["list"]});
    let made = server.ask("POST", "/keys", Some(acme), Some(&body));
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.head.contains("cache-control: no-store"), "{}", made.head);
    let (first, id) = (made.json()["key"].clone(), made.json()["apiKey"]["id"].clone());
    let (first, id) = (first.as_str().unwrap().to_owned(), id.as_str().unwrap().to_owned());
    let runs = |key: &str| server.ask("GET", "/runs", Some(key), None);
    assert_eq!(runs(&first).status, 200);
    let kept = server.ask("GET", &format!("/keys/{id}"), Some(acme), None).json();
    assert_eq!((&kept["usageCount"], &kept["tenantId"]), (&json!(1), &json!("acme")));
    let next = server.ask("POST", &format!("/keys/{id}/rotate"), Some(acme), None).json();
    let second = next["key"].as_str().unwrap();
    assert_eq!((runs(&first).status, runs(second).status), (401, 200));
    // Its own quota counts, from the next request on.
    let quota = json!({"quotas": {"requestsPerMinute": 1}});
    assert_eq!(server.admin("PATCH", "/tenants/acme", Some(&quota)).status, 200);
    let (one, over) = (runs(second), runs(second));
    assert_eq!((one.status, over.status), (200, 429));
    for header in ["ratelimit-limit: 1", "ratelimit-policy: 1;w=60", "retry-after: "] {
        assert!(over.head.contains(header), "{header}: {}", over.head);
    }
    let wide = json!({"quotas": {}, "suspended": true});
    assert_eq!(server.admin("PATCH", "/tenants/acme", Some(&wide)).status, 200);
    assert_eq!(runs(second).json()["code"], "tenant_suspended");
    let resume = json!({"suspended": false});
    assert_eq!(server.admin("PATCH", "/tenants/acme", Some(&resume)).status, 200);
    assert_eq!(runs(second).status, 200);
    let own = json!({"suspended": true});
    assert_eq!(server.admin("PATCH", "/tenants/local", Some(&own)).status, 400);
    // All of it is in the trail: whole for the operator, his own part for the tenant.
    let check = server.admin("GET", "/audit/verify", None).json();
    assert_eq!(check["intact"], true, "{check}");
    let noted = format!("/audit/verify?after={}&hash={}", check["seq"], "00".repeat(32));
    assert_eq!(server.admin("GET", &noted, None).json()["intact"], false);
    let trail = server.ask("GET", "/audit?limit=3", Some(acme), None).json();
    let first = &trail["items"][0];
    assert_eq!((&first["action"], &first["actor"]), (&json!("tenant.resumed"), &json!("operator")));
    assert!(first["seq"].is_null() && first["hash"].is_null() && first["keyId"].is_null());
    let cursor = trail["nextCursor"].as_str().unwrap();
    let rest = server.ask("GET", &format!("/audit?cursor={cursor}"), Some(acme), None).json();
    let rotated = rest["items"].as_array().unwrap().iter().find(|it| it["action"] == "key.rotated");
    assert_eq!(rotated.unwrap()["actor"], "key");
    let stolen = server.admin("GET", &format!("/audit?cursor={cursor}"), None);
    assert_eq!(stolen.json()["field"], "cursor");
    let lines = server.admin("GET", "/audit/export", None).body;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&last["seq"], &last["hash"]), (&check["seq"], &check["hash"]));
    assert!(!lines.contains(second), "no key is in the trail");
}
