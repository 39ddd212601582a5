//! Request ids, hosts, panics, unknown addresses, rate limits, health.

use std::num::NonZeroU32;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, problem};

#[tokio::test]
async fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let server = Server::start().await;
    let ask = |id: &str| {
        let value = reqwest::header::HeaderValue::from_bytes(id.as_bytes()).unwrap();
        server.bare(Method::GET, "/dispatch/x").header("X-Request-Id", value).send()
    };
    let kept = problem(ask("a-B_9.z").await.unwrap(), 401, "unauthorized").await;
    assert_eq!(kept["requestId"], "a-B_9.z");
    let mut made = std::collections::BTreeSet::new();
    for bad in ["", "a b", "<x>", "é", &"x".repeat(129)] {
        let document = problem(ask(bad).await.unwrap(), 401, "unauthorized").await;
        let id = document["requestId"].as_str().unwrap().to_owned();
        assert_ne!(id, bad);
        assert!(made.insert(id), "ids are unique");
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_everywhere() {
    let server = Server::configured(|config| config.allowed_hosts = vec!["box.test".into()]).await;
    for path in ["/health", "/openapi.json", "/runs", "/nowhere"] {
        for host in ["evil.test", "evil.test:80", "localhost.evil.test"] {
            let request = server.request(Method::GET, path).header("Host", host);
            let document = problem(request.send().await.unwrap(), 403, "forbidden").await;
            assert!(document["detail"].as_str().unwrap().contains("Host"));
        }
    }
    for host in ["localhost", "LocalHost:1", "[::1]:1", "box.test"] {
        let request = server.bare(Method::GET, "/health").header("Host", host);
        assert_eq!(request.send().await.unwrap().status(), 200, "{host}");
    }
}

#[tokio::test]
async fn a_panic_is_one_internal_error_and_tells_nothing() {
    let server = Server::start().await;
    for task in ["panic", "internal"] {
        let response = server.create(&json!({"agent": "a", "task": task})).await;
        let document = problem(response, 500, "internal").await;
        assert!(!document.to_string().contains("asked for it"));
    }
    assert_eq!(server.get("/runs").await.status(), 200);
}

#[tokio::test]
async fn unknown_addresses_are_problems() {
    let server = Server::start().await;
    for path in [
        "/",
        "/dispatch/",
        "/dispatch/a/b",
        "/DISPATCH",
        "/runs/",
        "/artifacts",
        "/%00",
        "/health/x",
    ] {
        problem(server.get(path).await, 404, "not_found").await;
    }
}

#[tokio::test]
async fn errors_point_at_the_published_pages_when_there_are_some() {
    let server = Server::configured(|config| {
        config.docs_url = Some("https://docs.test/errors".into());
        config.public_url = Some("https://out.test/base".into());
    })
    .await;
    let document: Value =
        server.bare(Method::GET, "/runs").send().await.unwrap().json().await.unwrap();
    assert_eq!(document["type"], "https://docs.test/errors/unauthorized");
    let response = server.create(&json!({"agent": "a", "task": "t"})).await;
    let location = response.headers()["location"].to_str().unwrap();
    assert!(location.starts_with("https://out.test/base/dispatch/"));
}

#[tokio::test]
async fn a_key_over_its_limit_waits_and_others_do_not() {
    let limit = NonZeroU32::new(3);
    let server = Server::configured(|config| config.rate_limit_per_minute = limit).await;
    for left in ["2", "1", "0"] {
        // A fault counts as well, and tells where the key stands.
        let response = server.get("/runs?nonsense=1").await;
        assert_eq!(response.headers()["ratelimit-limit"], "3");
        assert_eq!(response.headers()["ratelimit-remaining"], left);
        problem(response, 400, "invalid_field").await;
    }
    let response = server.get("/runs").await;
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(response.headers()["ratelimit-remaining"], "0");
    problem(response, 429, "rate_limited").await;
    let other = server.bare(Method::GET, "/runs").bearer_auth("other");
    assert_eq!(other.send().await.unwrap().status(), 200);
    assert_eq!(server.get("/health").await.status(), 200, "health is not limited");
}

#[tokio::test]
async fn keys_travel_in_either_header() {
    let server = Server::start().await;
    for (name, value, status) in [
        ("X-API-Key", "admin", 200),
        ("Authorization", "Bearer admin", 200),
        ("Authorization", "bearer admin", 200),
        ("Authorization", "Basic admin", 401),
        ("Authorization", "admin", 401),
        ("Cookie", "key=admin", 401),
    ] {
        let request = server.bare(Method::GET, "/fleet").header(name, value);
        assert_eq!(request.send().await.unwrap().status(), status, "{name}: {value}");
    }
    let in_query = server.bare(Method::GET, "/fleet?key=admin").send().await.unwrap();
    problem(in_query, 401, "unauthorized").await;
    let long = server.bare(Method::GET, "/fleet").header("X-API-Key", "x".repeat(10_000));
    problem(long.send().await.unwrap(), 401, "unauthorized").await;
}

#[tokio::test]
async fn health_says_what_it_knows() {
    let server = Server::start().await;
    for path in ["/health", "/health/live", "/health/ready"] {
        let health: Value =
            server.bare(Method::GET, path).send().await.unwrap().json().await.unwrap();
        assert_eq!(health, json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));
    }
    server.memory.set_unready(Some("The store is being migrated."));
    let response = server.bare(Method::GET, "/health/ready").send().await.unwrap();
    assert_eq!(response.status(), 503);
    let health: Value = response.json().await.unwrap();
    assert_eq!(health["status"], "unavailable");
    assert_eq!(health["reason"], "The store is being migrated.");
    assert_eq!(server.get("/health/live").await.status(), 200);
    let document: Value =
        server.bare(Method::GET, "/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let (fleet, same) = tokio::join!(server.get("/fleet"), server.get("/health/fleet"));
    let (fleet, same): (Value, Value) = (fleet.json().await.unwrap(), same.json().await.unwrap());
    assert_eq!(fleet, same);
    assert_eq!(fleet["agents"][0]["availability"]["reason"], "not installed");
}
