//! When a provider wants no calls for now: another credential, or a wait, and never for ever.

use std::time::Duration;

use outpost_gateway::gateway::{AuthStyle, Credential, GatewayEvent};
use outpost_scripted::{SCRIPTED_KEY, Script, ScriptedProvider};

use crate::metering::call;
use crate::shapes::Shape;
use crate::support::{
    Open, Raw, RawUpstream, SOON, client, loopback, open_routes, open_with, route, scripted,
};

const LIMITED_TWICE: &str = "[[rule]]\nfault = { status = 429, times = 2, retry_after_seconds = 0 }\nsteps = [{ say = 'hello' }]";

async fn limits(open: &mut Open) -> Vec<(u64, bool)> {
    let mut limits = Vec::new();
    loop {
        match open.event().await {
            GatewayEvent::RateLimited { provider, until_millis_from_now, held } => {
                assert!(!provider.is_empty());
                limits.push((until_millis_from_now, held));
            }
            GatewayEvent::Call { status: 429, usage: None, .. } => {}
            GatewayEvent::Call { .. } => return limits,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_call_is_held_and_sent_again() {
    let provider = scripted(LIMITED_TWICE).await;
    let mut open = open_with(&provider.url(), |grant| grant).await;
    for shape in Shape::ALL {
        let request = shape.request(&format!("{shape:?}"), &[]);
        let answer = call(&open, shape, shape.path(), &request).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{shape:?}");
        assert_eq!(shape.text_in(&answer.text().await.unwrap()), "hello");
        assert_eq!(limits(&mut open).await, [(0, true), (0, true)]);
    }
    assert_eq!(provider.journal().len(), 3 * Shape::ALL.len());
}

#[tokio::test]
async fn tries_are_bounded_and_the_last_answer_is_passed_on() {
    let provider = scripted("[[rule]]\nfault = { status = 529, retry_after_seconds = 0 }").await;
    let mut open = open_with(&provider.url(), |grant| grant).await;
    let shape = Shape::Claude;
    let answer = call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (529, &"0".parse().unwrap())
    );
    assert!(answer.text().await.unwrap().contains("overloaded_error"));
    assert_eq!(provider.journal().len(), 5);
    let mut held = Vec::new();
    while held.len() < 5 {
        if let GatewayEvent::RateLimited { held: this, .. } = open.event().await {
            held.push(this);
        }
    }
    assert_eq!(held, [true, true, true, true, false]);
}

#[tokio::test]
async fn a_wait_beyond_the_bound_is_not_begun() {
    let provider = scripted("[[rule]]\nfault = { status = 429, retry_after_seconds = 60 }").await;
    let wait = Duration::from_millis(50);
    let mut open = open_with(&provider.url(), |grant| grant.with_rate_limit_wait(wait)).await;
    let shape = Shape::Claude;
    let answer = call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    let event = open.event().await;
    assert!(
        matches!(
            event,
            GatewayEvent::RateLimited { until_millis_from_now: 60_000, held: false, .. }
        ),
        "{event:?}"
    );
    assert_eq!(provider.journal().len(), 1);
}

#[tokio::test]
async fn another_credential_is_tried_first() {
    let body = "HTTP/1.1 429 No\r\nretry-after: 600\r\ncontent-length: 0\r\n\r\n";
    let limited = RawUpstream::start(vec![Raw::Send(body.as_bytes().to_vec())]).await;
    let own = Credential::new("x", "tenants-own-key").unwrap();
    let both = route("anthropic", &limited.url, AuthStyle::XApiKey).with_fallback(own).unwrap();
    let open = open_routes(vec![both], |grant| grant.with_rate_limit_wait(Duration::ZERO)).await;
    let shape = Shape::Claude;
    let answer = call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    let heads = limited.heads();
    assert_eq!(heads.len(), 2);
    assert!(heads[0].contains(SCRIPTED_KEY) && heads[1].contains("tenants-own-key"), "{heads:?}");
    assert!(!heads[1].contains(SCRIPTED_KEY));
}

#[tokio::test]
async fn a_held_call_is_gone_when_the_agent_hangs_up_or_the_session_ends() {
    let provider = scripted("[[rule]]\nfault = { status = 429, retry_after_seconds = 600 }").await;
    let mut open = open_with(&provider.url(), |grant| grant).await;
    let shape = Shape::Claude;
    for round in 0..2 {
        let sending = call(&open, shape, shape.path(), &shape.request("x", &[])).send();
        let held = async {
            loop {
                if let GatewayEvent::RateLimited { held, .. } = open.event().await {
                    return held;
                }
            }
        };
        tokio::select! {
            _ = sending => panic!("it answered"),
            held = held => assert!(held),
        }
        assert_eq!(provider.journal().len(), round + 1);
    }
    let call = call(&open, shape, shape.path(), &shape.request("x", &[]));
    let waiting = tokio::spawn(async move { call.send().await.is_err() });
    while !matches!(open.event().await, GatewayEvent::RateLimited { .. }) {}
    open.session.shutdown().await;
    assert!(tokio::time::timeout(SOON, waiting).await.unwrap().unwrap());
    // Every held call is gone, so nobody holds on to the channel.
    let end = async { while open.events.recv().await.is_some() {} };
    tokio::time::timeout(SOON, end).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_too_large_to_be_kept_is_not_held() {
    let script = Script::parse(LIMITED_TWICE).unwrap();
    let provider = ScriptedProvider::new(script).start(loopback()).await.unwrap();
    let open = open_with(&provider.url(), |grant| grant).await;
    let mut request = Shape::Claude.request("x", &[]);
    request["metadata"] = serde_json::json!("x".repeat(9 * 1024 * 1024));
    let call = client().post(open.url("/anthropic/v1/messages")).json(&request);
    let answer = Shape::Claude.with_key(call, &open.handle).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(provider.journal().len(), 1);
}

#[tokio::test]
async fn an_account_without_money_is_told_at_once() {
    let body =
        r#"{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}"#;
    let head =
        format!("HTTP/1.1 429 No\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n", body.len());
    let upstream = RawUpstream::start(vec![Raw::Send(format!("{head}{body}").into_bytes())]).await;
    let open = open_with(&upstream.url, |grant| grant).await;
    let shape = Shape::Grok;
    let answer = call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (429, body));
    assert_eq!(upstream.heads().len(), 1);
}
