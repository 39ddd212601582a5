//! Servers that are none of ours, or of another version: clear errors, bounded reading, no key for
//! anyone else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use outpost_client::{ANSWER_BYTES_MAX, ApiKey, ClientConfig, HttpApi, RetryPolicy};
use outpost_types::{Api, DispatchId, ErrorCode, LogQuery};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{DEADLINE, client};

/// Answers every connection with the same bytes and closes it; keeps what it was asked.
async fn stranger(answer: impl Into<Vec<u8>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let answer: Arc<Vec<u8>> = Arc::new(answer.into());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).await {
                        Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
                        _ => return,
                    }
                }
                seen.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                // Reads until the client closes, so that what was sent is not lost to a reset.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    (address, asked)
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// A client that gives up soon.
fn impatient(address: SocketAddr) -> HttpApi {
    let mut config = ClientConfig::new(format!("http://{address}"), Some(ApiKey::new("secret")));
    config.retry = RetryPolicy {
        tries_max: 2,
        pause_first: std::time::Duration::from_millis(1),
        pause_max: std::time::Duration::from_millis(1),
    };
    HttpApi::new(config).unwrap()
}

#[tokio::test]
async fn answers_that_are_no_problem_documents_are_named_by_their_status() {
    for (status, code) in [
        ("502 Bad Gateway", ErrorCode::Unavailable),
        ("401 Unauthorized", ErrorCode::Unauthorized),
        ("404 Not Found", ErrorCode::NotFound),
        ("418 Teapot", ErrorCode::Internal),
        ("302 Found", ErrorCode::Internal),
    ] {
        let (address, _) = stranger(answer(status, "text/html", "<html>no</html>")).await;
        let error = client(address, "k").fleet().await.unwrap_err();
        assert_eq!(error.code, code, "{status}");
        assert!(error.message.contains(&status[..3]), "{error:?}");
        assert!(error.hint.unwrap().contains("Outpost server"));
    }
    for body in ["", "{}", "<html>", "[1]"] {
        let (address, _) = stranger(answer("200 OK", "application/json", body)).await;
        let error = client(address, "k").fleet().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Internal, "{body}");
    }
}

#[tokio::test]
async fn a_code_of_a_newer_server_keeps_its_text() {
    let body = r#"{"type":"urn:x","title":"T","status":429,"detail":"Too fast.","code":"new_code","requestId":"r","hint":"Slow down.","field":"f"}"#;
    let (address, _) =
        stranger(answer("429 Too Many Requests", "application/problem+json", body)).await;
    let error = client(address, "k").fleet().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::RateLimited);
    assert_eq!(
        (error.message.as_str(), error.hint.as_deref(), error.field.as_deref()),
        ("Too fast.", Some("Slow down."), Some("f"))
    );
}

#[tokio::test]
async fn a_key_goes_to_one_place_only() {
    let (elsewhere, asked_there) = stranger(answer("200 OK", "application/json", "{}")).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{elsewhere}/fleet\r\ncontent-length: 0\r\n\r\n"
    );
    let (address, asked_here) = stranger(redirect).await;
    client(address, "secret").fleet().await.unwrap_err();
    assert!(asked_here.lock().unwrap()[0].contains("x-api-key: secret"));
    assert!(asked_there.lock().unwrap().is_empty());
}

#[tokio::test]
async fn endless_answers_are_not_read() {
    let endless = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\"{}",
        "x".repeat(ANSWER_BYTES_MAX + 1)
    );
    let (address, _) = stranger(endless).await;
    let error = client(address, "k").fleet().await.unwrap_err();
    assert!(error.message.contains("too long"), "{error:?}");
    let line = "x".repeat(9 * 1024 * 1024);
    let (address, _) =
        stranger(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: {line}")).await;
    let mut events = impatient(address).events(DispatchId::from_parts(1, 1), 0).await.unwrap();
    let error = tokio::time::timeout(DEADLINE, events.next()).await.unwrap();
    assert_eq!(error.unwrap().unwrap_err().code, ErrorCode::Internal);
}

fn event(seq: u64, kind: &str, data: &str) -> String {
    let id = DispatchId::from_parts(1, 1);
    format!(
        "id: {seq}\nevent: {kind}\ndata: {{\"seq\":{seq},\"at\":\"2026-01-01T00:00:00Z\",\"dispatchId\":\"{id}\",\"type\":\"{kind}\",\"data\":{data}}}\n\n"
    )
}

async fn followed(body: &str) -> (Vec<u64>, Option<ErrorCode>, usize) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let (address, asked) = stranger(format!("{head}{body}")).await;
    let mut events = impatient(address).events(DispatchId::from_parts(1, 1), 0).await.unwrap();
    let (mut seen, mut fault) = (Vec::new(), None);
    while let Some(event) = tokio::time::timeout(DEADLINE, events.next()).await.unwrap() {
        match event {
            Ok(event) => seen.push(event.seq),
            Err(error) => fault = Some(error.code),
        }
    }
    let tries = asked.lock().unwrap().len();
    (seen, fault, tries)
}

#[tokio::test]
async fn repeats_are_dropped_gaps_are_not_passed_on_and_unknown_kinds_are() {
    let line = r#"{"stream":"stdout","text":"x"}"#;
    let end = r#"{"status":"COMPLETED"}"#;
    let log = |seq| event(seq, "log", line);
    let repeat = [log(1), log(1), log(2), log(1), event(3, "dispatch.status", end)].concat();
    assert_eq!(followed(&repeat).await, (vec![1, 2, 3], None, 1));
    let unknown =
        [log(1), event(2, "news", "{\"x\":1}"), event(3, "dispatch.status", end), log(4)].concat();
    assert_eq!(followed(&unknown).await, (vec![1, 3], None, 1));
    // A gap that stays is an error after the tries, and what follows it is never handed out.
    let gap = [log(1), log(3)].concat();
    assert_eq!(followed(&gap).await, (vec![1], Some(ErrorCode::Unavailable), 3));
    let broken = [log(1), "data: nonsense\n\n".to_owned()].concat();
    assert_eq!(followed(&broken).await, (vec![1], Some(ErrorCode::Internal), 1));
}

#[tokio::test]
async fn an_error_in_a_stream_arrives_whole() {
    let problem = r#"{"type":"urn:x","title":"T","status":404,"detail":"Gone.","code":"not_found","requestId":"r"}"#;
    let body = format!("event: error\ndata: {problem}\n\n");
    assert_eq!(followed(&body).await, (vec![], Some(ErrorCode::NotFound), 1));
}

#[tokio::test]
async fn another_part_of_the_log_is_not_passed_on() {
    let other = "HTTP/1.1 200 OK\r\nx-outpost-log-offset: 7\r\ncontent-length: 1\r\n\r\nx";
    let (address, _) = stranger(other).await;
    let query = LogQuery { after: 5, follow: false };
    let error = impatient(address).logs(DispatchId::from_parts(1, 1), query).await;
    assert_eq!(error.map(drop).unwrap_err().code, ErrorCode::Internal);
}
