//! What the server's own log says about a request, and what it never says.

use std::io::Write;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::harness::Server;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn one_span_per_request_without_secrets() {
    let log = Log::default();
    // For the whole process: a subscriber of one thread is missed by what another thread met first.
    // So the other tests write here too, and the requests of this one are told by their ids.
    tracing_subscriber::fmt()
        .json()
        .with_env_filter("outpost_server=trace")
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(log.clone())
        .init();
    let server = Server::start().await;
    server.memory.key("otp_topsecret", "local", &["admin".parse().unwrap()]);
    let id = server.memory.add("local");
    server.memory.keep(id, "x.txt", b"kept");
    let ask = |method: Method, path: &str, number: u32| {
        let request = server.bare(method, path);
        request.header("X-Request-Id", format!("logs-{number}"))
    };
    let request = ask(Method::GET, &format!("/artifacts/{id}"), 1);
    let request = request.header("X-API-Key", "otp_topsecret");
    let list: Value = request.send().await.unwrap().json().await.unwrap();
    let url = list["items"][0]["url"].as_str().unwrap();
    ask(Method::GET, url, 2).send().await.unwrap();
    let wrong = json!({"agent": "claude", "task": "tasksecret", "tier": "fieldsecret"});
    let panics = json!({"agent": "a", "task": "panic"});
    for (number, body) in [(3, wrong), (4, panics)] {
        let request = ask(Method::POST, "/dispatch", number).bearer_auth("otp_topsecret");
        request.json(&body).send().await.unwrap();
    }
    server.stop().await;

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let signature = url.rsplit_once("sig=").unwrap().1;
    for secret in ["topsecret", "tasksecret", "fieldsecret", signature] {
        assert!(!text.contains(secret), "{text}");
    }
    let closed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["fields"]["message"] == "close" && line["span"]["name"] == "request")
        .map(|line| line["span"].clone())
        .filter(|span| span["request_id"].as_str().unwrap().starts_with("logs-"))
        .collect();
    let statuses: Vec<_> = closed.iter().map(|span| span["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 400, 500]);
    assert_eq!(closed[0]["route"], "/artifacts/{id}");
    assert_eq!(closed[0]["tenant"], "local");
    assert_eq!(closed[0]["dispatch_id"], id.to_string());
    assert_eq!(closed[1]["route"], "/artifacts/{id}/{*name}");
    assert!(text.contains("a handler panicked"), "{text}");
}
