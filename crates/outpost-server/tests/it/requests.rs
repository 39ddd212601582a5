//! Creating, reading, cancelling, listing: bodies of all shapes and sizes.

use std::time::Duration;

use outpost_types::DispatchStatus;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{DEADLINE, Server, problem};

/// Text that breaks careless code: quotes, line ends, controls, right-to-left, astral, separators.
const NASTY: &str = "é\r\n\t\"'\\ \u{0} \u{1b}[31m \u{202e} \u{1F600} \u{2028} </script> %0a &=+;";

#[tokio::test]
async fn a_dispatch_comes_back_as_it_was_sent() {
    let server = Server::start().await;
    let sent = json!({
        "agent": "claude", "task": NASTY, "modelId": NASTY, "repo": NASTY, "branch": NASTY,
        "userId": NASTY, "tags": [NASTY, "b"], "checks": [NASTY], "setup": [NASTY], "timeoutSeconds": 30,
        "contextLevel": "full", "workspaceMode": "persistent", "tier": "flagship", "network": "none",
    });
    let response = server.create(&sent).await;
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(!response.headers().contains_key("idempotency-replayed"));
    let created: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/dispatch/{}", created["dispatchId"].as_str().unwrap()));
    let read: Value = server.get(&location).await.json().await.unwrap();
    assert_eq!(read, created);
    for field in [
        "agent",
        "task",
        "modelId",
        "repo",
        "branch",
        "userId",
        "tags",
        "timeoutSeconds",
        "contextLevel",
        "workspaceMode",
        "tier",
    ] {
        assert_eq!(read[field], sent[field], "{field}");
    }
    let list: Value = server.get("/runs?limit=1").await.json().await.unwrap();
    assert_eq!(list["items"][0], created);
}

#[tokio::test]
async fn forms_say_the_same_as_json() {
    let server = Server::start().await;
    let form = [
        ("agent", "claude"),
        ("task", NASTY),
        ("timeoutSeconds", "45"),
        ("tags", "a"),
        ("tags[]", NASTY),
        ("checks", "make test"),
        ("setup", "npm ci"),
        ("tier", "fast"),
    ];
    let body: String = form
        .iter()
        .map(|(name, value)| {
            let escape = |text| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                    .to_string()
            };
            format!("{}={}&", escape(name), escape(value))
        })
        .collect();
    let send = |body: String| {
        let request = server.request(Method::POST, "/dispatch");
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send()
    };
    let response = send(body.clone()).await.unwrap();
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    assert_eq!(created["task"], NASTY);
    assert_eq!(created["timeoutSeconds"], 45);
    assert_eq!(created["tags"], json!(["a", NASTY]));
    for (more, field) in [
        ("timeoutSeconds=x", "timeoutSeconds"),
        ("nonsense=1", "nonsense"),
        ("tier=huge", "tier"),
        ("agent=codex", "agent"),
    ] {
        let body = if field == "agent" || field == "nonsense" {
            format!("{body}{more}")
        } else {
            format!("agent=a&task=t&{more}")
        };
        let document = problem(send(body).await.unwrap(), 400, "invalid_field").await;
        assert_eq!(document["field"], field);
    }
    problem(send("agent=%ff".into()).await.unwrap(), 400, "malformed_body").await;
    let confused =
        problem(send("{\"agent\":1}".into()).await.unwrap(), 415, "unsupported_media_type").await;
    assert!(confused["hint"].as_str().unwrap().contains("application/json"));
}

#[tokio::test]
async fn malformed_bodies_say_where() {
    let server = Server::start().await;
    let send = |kind: &'static str, body: &'static [u8]| {
        let request = server.request(Method::POST, "/dispatch");
        request.header("content-type", kind).body(body).send()
    };
    let json = "application/json";
    let document =
        problem(send(json, b"{\n \"agent\": }").await.unwrap(), 400, "malformed_body").await;
    assert!(document["detail"].as_str().unwrap().contains("line 2, column 11"), "{document}");
    for body in [
        &b"{"[..],
        b"",
        b"[]",
        b"nul",
        b"\xff\xfe",
        b"{\"agent\":\"\xff\"}",
        b"{\"agent\":\"a\",\"task\":\"t\"}{}",
    ] {
        problem(send(json, body).await.unwrap(), 400, "malformed_body").await;
    }
    for kind in [
        "text/plain",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
        "nonsense",
    ] {
        let refused = send(kind, b"{\"agent\":\"a\",\"task\":\"t\"}").await.unwrap();
        problem(refused, 415, "unsupported_media_type").await;
    }
    let request = server.request(Method::POST, "/dispatch").body("{}");
    problem(request.send().await.unwrap(), 415, "unsupported_media_type").await;
}

#[tokio::test]
async fn a_task_of_the_largest_size_passes_and_one_byte_more_does_not() {
    let server = Server::start().await;
    let task = "é".repeat(51_200 / 2);
    let response = server.create(&json!({"agent": "a", "task": task})).await;
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    assert_eq!(created["task"].as_str().unwrap().len(), 51_200);
    let response = server.create(&json!({"agent": "a", "task": format!("{task}x")})).await;
    assert_eq!(problem(response, 400, "invalid_field").await["field"], "task");
    for blank in ["", " \n\t"] {
        let response = server.create(&json!({"agent": "a", "task": blank})).await;
        assert_eq!(problem(response, 400, "invalid_field").await["field"], "task");
    }
}

#[tokio::test]
async fn bodies_over_ten_megabytes_are_refused_with_and_without_a_length() {
    let server = Server::start().await;
    let large = 10 * 1024 * 1024 + 1;
    let send = |body: Body| {
        let request = server.request(Method::POST, "/dispatch");
        request.header("content-type", "application/json").body(body).send()
    };
    let with_length = send(Body::from(vec![b' '; large])).await.unwrap();
    problem(with_length, 413, "payload_too_large").await;
    let pieces = (0..11).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024]));
    let chunked = send(Body::wrap_stream(futures_util::stream::iter(pieces))).await.unwrap();
    problem(chunked, 413, "payload_too_large").await;
    // The largest allowed one is read as a whole, and only then found empty.
    let allowed = send(Body::from(vec![b' '; large - 1])).await.unwrap();
    problem(allowed, 400, "malformed_body").await;
    // The server still works, and so does a refused key with a large body.
    let request = server.bare(Method::POST, "/dispatch").body(vec![b' '; 4 * 1024 * 1024]);
    problem(request.send().await.unwrap(), 401, "unauthorized").await;
    assert_eq!(server.get("/health").await.status(), 200);
}

#[tokio::test]
async fn an_idempotency_key_makes_a_create_repeatable() {
    let server = Server::start().await;
    let body = json!({"agent": "a", "task": "t"});
    let send = |body: &Value, key: &str| {
        let request = server.request(Method::POST, "/dispatch");
        request.header("Idempotency-Key", key).json(body).send()
    };
    let first = send(&body, "k~1").await.unwrap();
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let first: Value = first.json().await.unwrap();
    let second = send(&body, "k~1").await.unwrap();
    assert_eq!(second.status(), 201);
    assert_eq!(second.headers()["idempotency-replayed"], "true");
    let location = second.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.ends_with(first["dispatchId"].as_str().unwrap()));
    assert_eq!(second.json::<Value>().await.unwrap(), first);
    let other = json!({"agent": "a", "task": "other"});
    problem(send(&other, "k~1").await.unwrap(), 409, "idempotency_conflict").await;
    let twice = server.request(Method::POST, "/dispatch").json(&body);
    let twice = twice.header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    problem(twice.send().await.unwrap(), 400, "invalid_field").await;
}

#[tokio::test]
async fn cancel_takes_a_reason_or_nothing() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    let path = format!("/dispatch/{id}");
    let request = server.request(Method::DELETE, &path).json(&json!({"reason": NASTY}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 202);
    let view: Value = response.json().await.unwrap();
    assert_eq!((&view["status"], &view["summary"]), (&json!("CANCELLED"), &json!(NASTY)));
    let again = server.request(Method::DELETE, &path).send().await.unwrap();
    problem(again, 409, "already_finished").await;
    let path = format!("/dispatch/{}", server.memory.add("local"));
    let plain = server.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(plain.status(), 202);
}

#[tokio::test]
async fn pages_follow_each_other_and_tenants_do_not_mix() {
    let server = Server::start().await;
    let ids: Vec<_> = (0..5).map(|_| server.memory.add("local").to_string()).collect();
    server.memory.add("acme");
    let (mut seen, mut path) = (Vec::new(), "/runs?limit=2".to_owned());
    loop {
        let page: Value = server.get(&path).await.json().await.unwrap();
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["dispatchId"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/runs?limit=2&cursor={cursor}");
    }
    seen.reverse();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_long_poll_answers_at_the_change_and_not_before() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    let path = format!("/dispatch/{id}?wait=60&generation=1");
    let waiting = server.request(Method::GET, &path).send();
    let change = async {
        server.memory.until_waiting(1).await;
        server.memory.reach(id, DispatchStatus::Completing);
    };
    let (response, ()) = tokio::join!(tokio::time::timeout(DEADLINE, waiting), change);
    let view: Value = response.unwrap().unwrap().json().await.unwrap();
    assert_eq!((&view["status"], &view["generation"]), (&json!("COMPLETING"), &json!(2)));
    // An older generation answers at once, and so does a finished dispatch.
    let begun = std::time::Instant::now();
    server.get(&format!("/dispatch/{id}?wait=60&generation=1")).await;
    server.memory.reach(id, DispatchStatus::Completed);
    server.get(&format!("/dispatch/{id}?wait=60&generation=3")).await;
    assert!(begun.elapsed() < Duration::from_secs(50));
    // Without a change it answers when the time is over, with the same generation.
    let id = server.memory.add("local");
    let view: Value = server.get(&format!("/dispatch/{id}?wait=1")).await.json().await.unwrap();
    assert_eq!(view["generation"], 1);
}

#[tokio::test]
async fn two_hundred_connections_at_once() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(TcpStream::connect(server.address).await.unwrap());
    }
    let one = |(number, mut stream): (usize, TcpStream)| async move {
        let body = json!({"agent": "a", "task": format!("task {number}")}).to_string();
        let head = format!(
            "POST /dispatch HTTP/1.1\r\nHost: localhost\r\nX-API-Key: admin\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let view: Value = serde_json::from_str(json).unwrap();
        assert_eq!(view["task"], format!("task {number}"));
        view["dispatchId"].as_str().unwrap().to_owned()
    };
    let all = futures_util::future::join_all(streams.into_iter().enumerate().map(one));
    let ids = tokio::time::timeout(DEADLINE, all).await.unwrap();
    let unique: std::collections::BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(unique.len(), 200);
}
