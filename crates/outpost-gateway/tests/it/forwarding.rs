//! Calls that pass: the key is swapped, bytes stream, nothing is lost, and it ends when it should.

use std::sync::Arc;

use outpost_gateway::gateway::GatewayEvent;
use outpost_scripted::{KeySeen, SCRIPTED_KEY};
use tokio::sync::Notify;

use crate::shapes::Shape;
use crate::support::{Open, Raw, RawUpstream, SOON, client, open, scripted};

const TEXT: &str =
    "[[rule]]\nsteps = [{ say = 'hello from the model' }]\nstream = { chunk_chars = 3 }";

async fn send(open: &Open, shape: Shape, key: &str, task: &str) -> reqwest::Response {
    let call = client().post(open.url(&format!("{}{}", shape.route(), shape.path())));
    shape.with_key(call.json(&shape.request(task, &[])), key).send().await.unwrap()
}

#[tokio::test]
async fn the_handle_is_swapped_for_the_real_key() {
    let provider = scripted(TEXT).await;
    let mut open = open(&provider.url()).await;
    for shape in Shape::ALL {
        let answer = send(&open, shape, &open.handle, "x").await;
        assert_eq!(answer.status(), 200, "{shape:?}");
        assert_eq!(shape.text_in(&answer.text().await.unwrap()), "hello from the model");
        let GatewayEvent::Call { status, model, complete, request_bytes, response_bytes, .. } =
            open.event().await
        else {
            panic!("not a call");
        };
        assert_eq!((status, complete), (200, true));
        assert!(model.is_some(), "{shape:?}");
        assert!(request_bytes > 100 && response_bytes > 100);
    }
    // Google's clients may put the key into the query instead.
    let shape = Shape::Gemini;
    let url = open.url(&format!("/google{}&key={}", shape.path(), open.handle));
    let answer = client().post(url).json(&shape.request("x", &[])).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let journal = provider.journal();
    assert_eq!(journal.len(), Shape::ALL.len() + 1);
    assert!(journal.iter().all(|entry| entry.key == KeySeen::Ok));
    assert_eq!(open.session.stats().denials, 0);
}

#[tokio::test]
async fn the_upstream_sees_the_key_and_no_trace_of_the_handle() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=b\r\nx-request-id: r1\r\nalt-svc: h3\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\r\n{}";
    let upstream = RawUpstream::start(vec![Raw::Send(answer.to_vec())]).await;
    let open = open(&upstream.url).await;
    let call = client()
        .post(open.url("/openai/v1/responses?a=b"))
        .bearer_auth(&open.handle)
        .header("x-api-key", "something else")
        .header("x-goog-api-key", &open.handle)
        .header("cookie", "c=d")
        .header("openai-organization", "another")
        .header("x-forwarded-for", "10.0.0.1")
        .header("accept-encoding", "gzip")
        .header("user-agent", "agent/1")
        .body("{}");
    let answer = call.send().await.unwrap();
    let names: Vec<&str> = answer.headers().keys().map(|name| name.as_str()).collect();
    assert!(names.contains(&"x-request-id"));
    for dropped in ["set-cookie", "alt-svc", "x-hop"] {
        assert!(!names.contains(&dropped), "{names:?}");
    }
    let head = upstream.heads().remove(0).to_lowercase();
    assert!(head.starts_with("post /v1/responses?a=b http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("authorization: bearer {SCRIPTED_KEY}\r\n")), "{head}");
    assert!(
        head.contains("accept-encoding: identity\r\n") && head.contains("user-agent: agent/1\r\n")
    );
    assert!(head.contains("content-length: 2\r\n"), "{head}");
    let host = upstream.url.trim_start_matches("http://");
    assert!(head.contains(&format!("host: {host}\r\n")), "{head}");
    for gone in ["otph_", "x-api-key", "x-goog", "cookie", "organization", "x-forwarded", "gzip"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

#[tokio::test]
async fn a_stream_is_not_buffered() {
    let provider = scripted(
        "[[rule]]\nfault = { hang_after_events = 4 }\nsteps = [{ say = 'hello from the model' }]\nstream = { chunk_chars = 3 }",
    )
    .await;
    let mut open = open(&provider.url()).await;
    let mut answer = send(&open, Shape::Claude, &open.handle, "x").await;
    let mut text = String::new();
    // Four events arrive while the provider has not finished.
    while text.matches("data: ").count() < 4 {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(open.session.stats().calls, 0);
    provider.release_hangs();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert_eq!(Shape::Claude.text_in(&text), "hello from the model");
    assert!(matches!(open.event().await, GatewayEvent::Call { complete: true, .. }));
}

#[tokio::test]
async fn a_request_is_not_buffered_either() {
    // The upstream answers before the request has ended.
    let gate = Arc::new(Notify::new());
    let upstream = RawUpstream::start(vec![
        Raw::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n".to_vec()),
        Raw::Wait(Arc::clone(&gate)),
        Raw::Send(b"0\r\n\r\n".to_vec()),
    ])
    .await;
    let open = open(&upstream.url).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    sender.send(Ok(b"{\"model\":\"m\"".to_vec())).await.unwrap();
    let call = client().post(open.url("/openai/v1/responses")).bearer_auth(&open.handle);
    let mut answer = call.body(reqwest::Body::wrap_stream(body)).send().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "early");
    sender.send(Ok(b"}".to_vec())).await.unwrap();
    drop(sender);
    gate.notify_one();
    assert!(answer.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let noise = (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    let noise = noise.map(|byte| b'a' + byte % 16);
    let body: Vec<u8> = b"{\"input\":\"".iter().copied().chain(noise).chain(*b"\"}").collect();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let upstream = RawUpstream::start(vec![Raw::Send(head.into_bytes()), Raw::Echo]).await;
    let mut open = open(&upstream.url).await;
    let call = client().post(open.url("/openai/v1/responses")).bearer_auth(&open.handle);
    let answer = call.body(body.clone()).send().await.unwrap();
    assert_eq!(answer.content_length(), Some(body.len() as u64));
    assert!(answer.bytes().await.unwrap() == body.as_slice());
    let GatewayEvent::Call { request_bytes, response_bytes, complete: true, .. } =
        open.event().await
    else {
        panic!("not a call");
    };
    assert_eq!((request_bytes, response_bytes), (body.len() as u64, body.len() as u64));
}

#[tokio::test]
async fn a_cut_upstream_is_a_cut_for_the_agent() {
    let provider = scripted(
        "[[rule]]\nfault = { cut_after_events = 3 }\nsteps = [{ say = 'hello from the model' }]",
    )
    .await;
    let mut open = open(&provider.url()).await;
    let answer = send(&open, Shape::Claude, &open.handle, "x").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    assert!(matches!(open.event().await, GatewayEvent::Call { complete: false, status: 200, .. }));
}

#[tokio::test]
async fn errors_of_the_provider_pass_with_their_headers() {
    let provider = scripted("[[rule]]\nfault = { status = 429, retry_after_seconds = 3 }").await;
    let mut open = open(&provider.url()).await;
    let answer = send(&open, Shape::Claude, &open.handle, "x").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &"3".parse().unwrap())
    );
    assert!(answer.text().await.unwrap().contains("rate_limit_error"));
    let event = open.event().await;
    assert!(matches!(event, GatewayEvent::RateLimited { held: false, .. }), "{event:?}");
    let event = open.event().await;
    assert!(matches!(event, GatewayEvent::Call { status: 429, complete: true, .. }), "{event:?}");
}

#[tokio::test]
async fn a_hundred_calls_at_once_all_succeed() {
    let provider = scripted(TEXT).await;
    let open = open(&provider.url()).await;
    let client = client();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let shape = Shape::ALL[number % Shape::ALL.len()];
        let call = client.post(open.url(&format!("{}{}", shape.route(), shape.path())));
        let call =
            shape.with_key(call.json(&shape.request(&format!("task {number}"), &[])), &open.handle);
        calls.spawn(async move {
            let answer = call.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            shape.text_in(&answer.text().await.unwrap())
        });
    }
    while let Some(text) = calls.join_next().await {
        assert_eq!(text.unwrap(), "hello from the model");
    }
    assert_eq!(provider.journal().len(), 100);
}

#[tokio::test]
async fn closing_kills_what_is_in_flight_and_the_handle() {
    let provider = scripted(
        "[[rule]]\nwhen = { task_contains = 'stream' }\nfault = { hang_after_events = 2 }\nsteps = [{ say = 'x' }]\n[[rule]]\nfault = { hang = true }",
    )
    .await;
    for dropped in [false, true] {
        let open = open(&provider.url()).await;
        let mut streaming = send(&open, Shape::Claude, &open.handle, "stream").await;
        streaming.chunk().await.unwrap().unwrap();
        let before = provider.journal().len();
        let url = open.url("/anthropic/v1/messages");
        let waiting = client().post(&url).header("x-api-key", &open.handle);
        let waiting = waiting.json(&Shape::Claude.request("wait", &[])).send();
        let waiting = tokio::spawn(waiting);
        provider.journal_until(SOON, |entries| entries.len() > before).await.unwrap();
        if dropped {
            drop(open.session);
        } else {
            open.session.shutdown().await;
        }
        let ended = async {
            assert!(waiting.await.unwrap().is_err());
            while let Ok(Some(_)) = streaming.chunk().await {}
        };
        tokio::time::timeout(SOON, ended).await.unwrap();
        // The session has ended, so its port refuses.
        let again = client().post(&url).header("x-api-key", &open.handle).body("{}").send().await;
        assert!(again.is_err_and(|error| error.is_connect()));
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_clear_error() {
    let gone = tokio::net::TcpListener::bind(crate::support::loopback()).await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let mut open = open(&url).await;
    let answer = send(&open, Shape::Claude, &open.handle, "x").await;
    assert_eq!(answer.status(), 502);
    let text = answer.text().await.unwrap();
    assert!(text.contains("upstream_unreachable") && text.contains("anthropic"), "{text}");
    assert!(matches!(open.event().await, GatewayEvent::Call { status: 502, complete: false, .. }));
}
