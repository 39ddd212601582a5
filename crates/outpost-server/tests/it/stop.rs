//! A graceful stop: streams end, polls answer, followed logs break off so that readers resume.

use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::{DEADLINE, Server};
use crate::streams::read;

#[tokio::test]
async fn everything_long_ends_and_nothing_is_cut() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    server.memory.print(id, b"begun");
    let events = server.get(&format!("/dispatch/{id}/events")).await;
    let log = server.get(&format!("/dispatch/{id}/logs?follow=true")).await;
    let poll = server.request(reqwest::Method::GET, &format!("/dispatch/{id}?wait=60"));
    let poll = tokio::spawn(poll.send());
    let idle = TcpStream::connect(server.address).await.unwrap();
    server.memory.until_waiting(3).await;
    let address = server.address;
    let end = server.stop().await;
    assert_eq!(end.connections_cut, 0);
    let events = read(events, usize::MAX).await;
    assert_eq!(events.len(), 1, "the stream ended after what there was");
    assert!(log.bytes().await.is_err(), "a followed log does not end as if it were whole");
    let answer = tokio::time::timeout(DEADLINE, poll).await.unwrap().unwrap();
    let view: Value = answer.unwrap().json().await.unwrap();
    assert_eq!(view["generation"], 1, "a poll answers with what there is");
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}
