//! Event streams and logs: order, resume, backpressure, heartbeat.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use outpost_types::{DispatchId, DispatchStatus};
use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::harness::{DEADLINE, Server, problem};

/// One event as it was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) id: Option<u64>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// Reads a whole stream, or up to `count` events.
pub(crate) async fn read(response: reqwest::Response, count: usize) -> Vec<Sent> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.bytes_stream();
    let (mut buffer, mut events) = (Vec::new(), Vec::new());
    while events.len() < count {
        let next = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap();
        let Some(piece) = next else { break };
        buffer.extend_from_slice(&piece.unwrap());
        while let Some(at) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block = String::from_utf8(buffer.drain(..at + 2).collect()).unwrap();
            let line = |name: &str| block.lines().find_map(|l| l.strip_prefix(name));
            if let Some(data) = line("data: ") {
                events.push(Sent {
                    id: line("id: ").map(|id| id.parse().unwrap()),
                    kind: line("event: ").unwrap().to_owned(),
                    data: serde_json::from_str(data).unwrap(),
                });
            }
        }
    }
    events
}

async fn follow(server: &Server, id: DispatchId, query: &str) -> reqwest::Response {
    server.get(&format!("/dispatch/{id}/events{query}")).await
}

#[tokio::test]
async fn events_arrive_in_order_as_they_happen_and_end() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    let nasty = "a\r\nb\n\ndata: x\u{2028}\u{0}é";
    let response = follow(&server, id, "").await;
    let reading = tokio::spawn(read(response, usize::MAX));
    server.memory.say(id, nasty);
    server.memory.reach(id, DispatchStatus::Completed);
    let events = tokio::time::timeout(DEADLINE, reading).await.unwrap().unwrap();
    let ids: Vec<_> = events.iter().map(|event| event.id.unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!((events[1].kind.as_str(), &events[1].data["data"]["text"]), ("log", &nasty.into()));
    assert_eq!(events[1].data["seq"], 2);
    assert_eq!(events[2].data["data"]["status"], "COMPLETED");
}

#[tokio::test]
async fn a_reader_resumes_without_gap_or_repeat() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    for number in 2..=50 {
        server.memory.say(id, &format!("{number}"));
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        let last = seen.last().copied().unwrap_or(0u64);
        // The header wins over the parameter: a browser repeats the address it began with.
        let request = server.request(Method::GET, &format!("/dispatch/{id}/events?after=0"));
        let response = request.header("Last-Event-ID", last).send().await.unwrap();
        let count = 7.min(50 - seen.len());
        let events = read(response, count).await;
        seen.extend(events.iter().take(count).map(|event| event.id.unwrap()));
    }
    assert_eq!(seen, (1..=50).collect::<Vec<u64>>());
    let rest = read(follow(&server, id, "?after=48").await, 2).await;
    assert_eq!(rest[0].id, Some(49));
    // Whoever comes back after the end is told to stay away.
    server.memory.reach(id, DispatchStatus::Failed);
    assert_eq!(follow(&server, id, "?after=51").await.status(), 204);
    assert_eq!(read(follow(&server, id, "?after=50").await, 9).await.len(), 1);
}

#[tokio::test]
async fn a_silent_stream_beats() {
    let short = Duration::from_millis(20);
    let server = Server::configured(|config| config.heartbeat = short).await;
    let id = server.memory.add("local");
    let mut stream = follow(&server, id, "?after=1").await.bytes_stream();
    let mut text = String::new();
    while text.matches(": heartbeat\n\n").count() < 3 {
        let piece = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap();
        text.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
    assert!(text.starts_with("retry: 1000\n\n"), "{text}");
    server.memory.reach(id, DispatchStatus::Completed);
    let rest = tokio::time::timeout(DEADLINE, stream.count()).await;
    assert!(rest.is_ok(), "the stream ends");
}

#[tokio::test]
async fn a_slow_reader_holds_little_and_slows_nobody() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    let count = 500u64;
    server.memory.flood(id, count);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut slow = socket.connect(server.address).await.unwrap();
    let head = format!(
        "GET /dispatch/{id}/events HTTP/1.1\r\nHost: localhost\r\nX-API-Key: admin\r\nConnection: close\r\n\r\n"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.readable().await.unwrap();
    // The slow reader now has an answer and takes none of it.
    let fast = read(follow(&server, id, "").await, usize::MAX).await;
    let ids: Vec<_> = fast.iter().map(|event| event.id.unwrap()).collect();
    assert_eq!(ids, (1..=count + 1).collect::<Vec<_>>());
    let taken = server.memory.flooded.load(Ordering::Relaxed) - (count + 1);
    assert!(taken < count, "{taken} events left the source for a reader that took none");
    // Once it reads, it gets everything.
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut slow, &mut rest);
    tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
    let text = String::from_utf8(rest).unwrap();
    assert_eq!(text.matches("\nid: ").count() as u64, count + 1);
}

#[tokio::test]
async fn logs_are_bytes_from_an_offset() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    let printed = b"\xff\x00\x1b[31mfirst\r\nsecond\n";
    server.memory.print(id, printed);
    for after in [0usize, 5, printed.len(), printed.len() + 9] {
        let response = server.get(&format!("/dispatch/{id}/logs?after={after}")).await;
        assert_eq!(response.headers()["x-outpost-log-offset"], after.to_string());
        let expected = printed.get(after..).unwrap_or_default();
        assert_eq!(response.bytes().await.unwrap(), expected);
    }
    let following = server.get(&format!("/dispatch/{id}/logs?after=2&follow=true")).await;
    let reading = tokio::spawn(following.bytes());
    server.memory.print(id, b"third");
    server.memory.reach(id, DispatchStatus::Completed);
    let bytes = tokio::time::timeout(DEADLINE, reading).await.unwrap().unwrap().unwrap();
    assert_eq!(bytes, [&printed[2..], b"third"].concat());
}

#[tokio::test]
async fn a_diff_is_empty_until_there_is_one() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    let path = format!("/dispatch/{id}/diff");
    assert!(server.get(&path).await.bytes().await.unwrap().is_empty());
    server.memory.keep(id, "diff.patch", b"--- a\n+++ b\n");
    assert_eq!(server.get(&path).await.text().await.unwrap(), "--- a\n+++ b\n");
    problem(server.get("/dispatch/none/diff").await, 404, "not_found").await;
}
