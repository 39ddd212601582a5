//! What a provider would reach for an attempt that may reach nothing.

use outpost_gateway::egress::{EgressFloor, EgressGrant, EgressLevel, EgressPolicy};
use outpost_gateway::gateway::{DenialReason, GatewayEvent};
use serde_json::{Value, json};

use crate::shapes::Shape;
use crate::support::{Open, client, open, open_with, scripted};

const TEXT: &str = "[[rule]]\nsteps = [{ say = 'hello' }]";

fn policy(level: EgressLevel) -> EgressPolicy {
    EgressPolicy { level, ..EgressPolicy::default() }
}

async fn status(open: &Open, shape: Shape, path: &str, body: &Value) -> (u16, String) {
    let call = client().post(open.url(&format!("{}{path}", shape.route()))).json(body);
    let answer = shape.with_key(call, &open.handle).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// One call of each dialect that asks for a tool of the provider, and what it asks for.
fn asking() -> [(Shape, &'static str, Value, &'static str); 4] {
    let with = |shape: Shape, field: &str, value: Value| {
        let mut body = shape.request("x", &[]);
        body[field] = value;
        body
    };
    let search = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]);
    [
        (
            Shape::Claude,
            "/v1/messages",
            with(Shape::Claude, "tools", search),
            "web_search_20250305",
        ),
        (
            Shape::CodexClassic,
            "/v1/responses",
            with(Shape::CodexClassic, "tools", json!([{"type": "web_search"}])),
            "web_search",
        ),
        (
            Shape::GrokChat,
            "/v1/chat/completions",
            with(Shape::GrokChat, "search_parameters", json!({"mode": "on"})),
            "a tool of the provider",
        ),
        (
            Shape::Gemini,
            "/v1beta/models/gemini-2.5-pro:generateContent",
            with(Shape::Gemini, "tools", json!([{"googleSearch": {}}])),
            "googleSearch",
        ),
    ]
}

#[tokio::test]
async fn a_provider_reaches_nothing_for_who_may_reach_nothing() {
    let provider = scripted(TEXT).await;
    let mut open = open(&provider.url()).await;
    for (shape, path, body, what) in asking() {
        let (status, text) = status(&open, shape, path, &body).await;
        assert_eq!(status, 403, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["error"]["type"], "provider_tool");
        assert!(answer["error"]["message"].as_str().unwrap().contains("outpost network"));
        let (path, reason) = loop {
            if let GatewayEvent::Denied { path, reason, .. } = open.event().await {
                break (path, reason);
            }
        };
        assert_eq!(reason, DenialReason::ProviderTool);
        assert!(path.ends_with(&format!("({what})")), "{path}");
    }
    // What cannot be read could ask for anything.
    let url = open.url("/openai/v1/responses");
    for call in [
        client().post(&url).body("{\"tools\":"),
        client().post(&url).body("{\"tools\":[]} {}"),
        client().post(&url).header("content-encoding", "zstd").body("x"),
    ] {
        let answer = call.bearer_auth(&open.handle).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        assert!(answer.text().await.unwrap().contains("not_readable"));
    }
    let search = json!({"model": "gpt-4o-search-preview", "messages": []});
    let answer = status(&open, Shape::GrokChat, "/v1/chat/completions", &search).await;
    assert_eq!(answer.0, 403, "{answer:?}");
    assert!(provider.journal().is_empty(), "{:?}", provider.journal());
}

#[tokio::test]
async fn with_a_network_a_provider_reaches_what_it_is_asked_to_until_it_is_taken_away() {
    let provider = scripted(TEXT).await;
    let none = EgressGrant::new(policy(EgressLevel::None), EgressFloor::default());
    let open = open_with(&provider.url(), |grant| grant.with_egress(none)).await;
    for (level, wanted) in
        [(EgressLevel::None, 403), (EgressLevel::Trusted, 200), (EgressLevel::Custom, 403)]
    {
        open.session.set_egress(policy(level));
        for (shape, path, body, _) in asking() {
            let (status, text) = status(&open, shape, path, &body).await;
            assert_eq!(status, wanted, "{level:?} {path}: {text}");
        }
    }
    // The agents' own tools pass at any time.
    let own = Shape::CodexClassic.request("x", &[]);
    assert_eq!(status(&open, Shape::CodexClassic, "/v1/responses", &own).await.0, 200);
}
