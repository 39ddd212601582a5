//! The real key never comes back through the gateway, however the upstream sends it.

use outpost_scripted::SCRIPTED_KEY;
use std::sync::Arc;
use tokio::sync::Notify;

use crate::support::{Raw, RawUpstream, client, open};

async fn ask(upstream: &RawUpstream) -> reqwest::Response {
    let open = open(&upstream.url).await;
    let call = client().post(open.url("/openai/v1/responses")).bearer_auth(&open.handle);
    let answer = call.body("{}").send().await.unwrap();
    // The session must outlive the body, so the body is read here.
    let status = answer.status();
    let headers = answer.headers().clone();
    let body = answer.bytes().await.unwrap();
    drop(open);
    let mut again = http::Response::new(body);
    *again.status_mut() = status;
    *again.headers_mut() = headers;
    again.into()
}

fn chunk(text: &str) -> Raw {
    Raw::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

#[tokio::test]
async fn an_echo_in_headers_and_an_error_body_is_masked() {
    let body =
        format!("{{\"error\":{{\"message\":\"Incorrect API key provided: {SCRIPTED_KEY}.\"}}}}");
    let answer = format!(
        "HTTP/1.1 401 No\r\nx-echo: Bearer {SCRIPTED_KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let upstream = RawUpstream::start(vec![Raw::Send(answer.into_bytes())]).await;
    let answer = ask(&upstream).await;
    let mask = "*".repeat(SCRIPTED_KEY.len());
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["x-echo"], format!("Bearer {mask}"));
    assert_eq!(answer.text().await.unwrap(), body.replace(SCRIPTED_KEY, &mask));
}

#[tokio::test]
async fn an_echo_split_over_pieces_of_a_stream_is_masked() {
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let text = format!(
        "data: one {SCRIPTED_KEY}\n\ndata: {SCRIPTED_KEY}{SCRIPTED_KEY} scripted-real-kex\n\n"
    );
    for size in [1, 2, 5, 16, 17, 18, 40] {
        let mut pieces = vec![Raw::Send(head.to_vec())];
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            pieces.push(chunk(piece));
            rest = tail;
        }
        pieces.push(Raw::Send(b"0\r\n\r\n".to_vec()));
        let upstream = RawUpstream::start(pieces).await;
        let received = ask(&upstream).await.text().await.unwrap();
        let expected = text.replace(SCRIPTED_KEY, &"*".repeat(SCRIPTED_KEY.len()));
        assert_eq!(received, expected, "pieces of {size}");
    }
}

#[tokio::test]
async fn the_beginning_of_a_key_is_held_until_it_is_known_not_to_be_one() {
    let gate = Arc::new(Notify::new());
    let upstream = RawUpstream::start(vec![
        Raw::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()),
        chunk("data: scripted-real"),
        Raw::Wait(Arc::clone(&gate)),
        chunk("ly?\n\n"),
        Raw::Send(b"0\r\n\r\n".to_vec()),
    ])
    .await;
    let open = open(&upstream.url).await;
    let call = client().post(open.url("/openai/v1/responses")).bearer_auth(&open.handle);
    let mut answer = call.body("{}").send().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: ");
    gate.notify_one();
    assert_eq!(answer.text().await.unwrap(), "scripted-really?\n\n");
}

#[tokio::test]
async fn a_compressed_answer_is_refused() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc";
    let upstream = RawUpstream::start(vec![Raw::Send(answer.to_vec())]).await;
    let answer = ask(&upstream).await;
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("upstream_encoding"));
}
