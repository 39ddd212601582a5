//! Requests that are refused, and that say so.

use outpost_gateway::gateway::{DenialReason, GatewayEvent, Handle, REQUEST_BODY_BYTES_MAX};

use crate::shapes::Shape;
use crate::support::{Open, Raw, RawUpstream, client, open, raw_request, scripted};

const TEXT: &str = "[[rule]]\nsteps = [{ say = 'hello' }]";

async fn denied(open: &mut Open) -> (Option<String>, String, DenialReason) {
    match open.event().await {
        GatewayEvent::Denied { host, path, reason } => (host, path, reason),
        call => panic!("not a denial: {call:?}"),
    }
}

#[tokio::test]
async fn only_this_attempts_handle_opens_the_door() {
    let provider = scripted(TEXT).await;
    let mut open = open(&provider.url()).await;
    let other = crate::support::open(&provider.url()).await;
    let never_used = Handle::generate().unwrap();
    let shape = Shape::Claude;
    let url = open.url("/anthropic/v1/messages");
    let wrong = ["", "otph_", "scripted-real-key", other.handle.as_str(), never_used.expose()];
    for key in wrong {
        let call = client().post(&url).json(&shape.request("x", &[])).header("x-api-key", key);
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.text().await.unwrap().contains("wrong_handle"));
        assert_eq!(denied(&mut open).await.2, DenialReason::WrongHandle);
    }
    // The answer arrives also when much is still being sent.
    let large = client().post(&url).header("x-api-key", "wrong").body(vec![b' '; 900_000]);
    assert_eq!(large.send().await.unwrap().status(), 401);
    let none = client().post(&url).json(&shape.request("x", &[])).send().await.unwrap();
    assert_eq!(none.status(), 401);
    // The other attempt's own gateway takes its handle.
    let own = client().post(other.url("/anthropic/v1/messages")).header("x-api-key", &other.handle);
    assert_eq!(own.json(&shape.request("x", &[])).send().await.unwrap().status(), 200);
    assert_eq!(provider.journal().len(), 1);
    assert_eq!(open.session.stats().denials, 7);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_and_reported() {
    let provider = scripted(TEXT).await;
    let mut open = open(&provider.url()).await;
    let cases = [
        ("POST", "/anthropic/v1/files", 403, DenialReason::PathNotAllowed),
        ("GET", "/openai/v1/responses/resp_1", 403, DenialReason::PathNotAllowed),
        ("DELETE", "/anthropic/v1/messages", 405, DenialReason::MethodNotAllowed),
        ("POST", "/v1/messages", 404, DenialReason::UnknownRoute),
        ("POST", "/anthropicx/v1/messages", 404, DenialReason::UnknownRoute),
    ];
    for (method, path, status, reason) in cases {
        let call =
            client().request(method.parse().unwrap(), open.url(path)).bearer_auth(&open.handle);
        assert_eq!(call.send().await.unwrap().status(), status, "{path}");
        assert_eq!(denied(&mut open).await, (None, path.to_owned(), reason));
    }
    let dots = format!(
        "POST /anthropic/v1/%2e%2e/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\ncontent-length: 0\r\n\r\n",
        open.handle
    );
    let answer = raw_request(open.addr, &dots, "path_not_allowed").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(denied(&mut open).await.2, DenialReason::PathNotAllowed);
    // What CLIs look at when they start is answered quietly.
    let quiet = [
        ("HEAD", "/", 200),
        ("GET", "/", 404),
        ("HEAD", "/anthropic/api/hello", 200),
        ("GET", "/openai/v1/api-key", 404),
    ];
    for (method, path, status) in quiet {
        let call = client().request(method.parse().unwrap(), open.url(path));
        assert_eq!(call.send().await.unwrap().status(), status, "{method} {path}");
    }
    assert_eq!(open.session.stats().denials, 6);
    assert!(provider.journal().is_empty());
}

#[tokio::test]
async fn other_hosts_are_refused_by_name() {
    let provider = scripted(TEXT).await;
    let mut open = open(&provider.url()).await;
    let connect = "CONNECT user:pw@example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n";
    let absolute =
        "GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n";
    let cases = [(connect, "example.com:443"), (absolute, "169.254.169.254")];
    for (request, host) in cases {
        let answer = raw_request(open.addr, request, "policy_denied").await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("policy_denied"), "{answer}");
        let (asked, _, reason) = denied(&mut open).await;
        assert_eq!((asked.as_deref(), reason), (Some(host), DenialReason::PolicyDenied));
    }
    // Also for the provider itself, with the right handle.
    let through = format!(
        "POST {}/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\ncontent-length: 0\r\n\r\n",
        provider.url(),
        open.handle
    );
    assert!(raw_request(open.addr, &through, "policy_denied").await.starts_with("HTTP/1.1 403"));
    assert!(provider.journal().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = scripted(TEXT).await;
    let head = format!(
        "HTTP/1.1 307 Moved\r\nlocation: {}/v1/messages\r\ncontent-length: 0\r\n\r\n",
        other.url()
    );
    let upstream = RawUpstream::start(vec![Raw::Send(head.into_bytes())]).await;
    let mut open = open(&upstream.url).await;
    let call = client().post(open.url("/anthropic/v1/messages")).header("x-api-key", &open.handle);
    let answer = call.body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.headers().get("location").is_none());
    assert!(answer.text().await.unwrap().contains("upstream_redirect"));
    assert!(other.journal().is_empty());
    assert!(matches!(open.event().await, GatewayEvent::Call { status: 502, .. }));
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused() {
    let provider = scripted(TEXT).await;
    let mut open = open(&provider.url()).await;
    let announced = format!(
        "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
        open.handle,
        REQUEST_BODY_BYTES_MAX + 1
    );
    let answer = raw_request(open.addr, &announced, "body_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(denied(&mut open).await.2, DenialReason::BodyTooLarge);
    assert!(provider.journal().is_empty());
}

#[tokio::test]
async fn a_head_over_the_bound_is_refused() {
    let provider = scripted(TEXT).await;
    let open = open(&provider.url()).await;
    let request = format!(
        "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-long: {}\r\n\r\n",
        "x".repeat(300 * 1024)
    );
    let answer = raw_request(open.addr, &request, "\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn events_nobody_reads_are_counted_not_kept() {
    let provider = scripted(TEXT).await;
    let mut open = open(&provider.url()).await;
    let client = client();
    for _ in 0..300 {
        let refused = client.get(open.url("/nowhere")).send().await.unwrap();
        assert_eq!(refused.status(), 404);
    }
    let stats = open.session.stats();
    assert_eq!(stats.denials, 300);
    let dropped = usize::try_from(stats.events_dropped).unwrap();
    assert_eq!(dropped, 300 - 256);
    open.session.shutdown().await;
    let mut kept = 0;
    while open.events.recv().await.is_some() {
        kept += 1;
    }
    assert_eq!(kept, 256);
}
