//! Tokens and cost of every dialect, streamed and not, as the provider tells them.

use std::sync::Arc;

use outpost_core::{Nanodollars, Tokens};
use outpost_gateway::gateway::GatewayEvent;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::shapes::Shape;
use crate::support::{Open, Raw, RawUpstream, client, open, scripted};

const COUNTED: &str = "[[rule]]\nsteps = [{ say = 'hello from the model' }]\nusage = { input_tokens = 1000, cached_input_tokens = 400, output_tokens = 50 }\nstream = { chunk_chars = 3 }";

/// What a call took, as its event tells it.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) model: Option<String>,
    pub(crate) usage: Option<Tokens>,
    pub(crate) cost: Option<Nanodollars>,
    pub(crate) estimated: bool,
}

pub(crate) async fn told(open: &mut Open) -> Told {
    loop {
        if let GatewayEvent::Call { model, usage, cost, estimated, .. } = open.event().await {
            return Told { model, usage, cost, estimated };
        }
    }
}

pub(crate) fn call(open: &Open, shape: Shape, path: &str, body: &Value) -> reqwest::RequestBuilder {
    let call = client().post(open.url(&format!("{}{path}", shape.route()))).json(body);
    shape.with_key(call, &open.handle)
}

#[tokio::test]
async fn every_dialect_is_counted_and_priced() {
    let provider = scripted(COUNTED).await;
    let mut open = open(&provider.url()).await;
    // 600 read, 400 from the cache, 50 written.
    let models = [
        (Shape::Claude, "claude-opus-4-5", 600 * 5000 + 400 * 500 + 50 * 25_000),
        (Shape::CodexClassic, "gpt-5.2-codex", 600 * 1750 + 400 * 175 + 50 * 14_000),
        (Shape::CodexCodeMode, "gpt-5.2", 600 * 1750 + 400 * 175 + 50 * 14_000),
        (Shape::Grok, "grok-code-fast-1", 600 * 200 + 400 * 20 + 50 * 1500),
        (Shape::GrokChat, "deepseek-chat", 600 * 280 + 400 * 28 + 50 * 420),
        (Shape::Gemini, "gemini-2.5-pro", 600 * 1250 + 400 * 125 + 50 * 10_000),
    ];
    let tokens = Tokens { input: 600, cached: 400, output: 50, ..Tokens::default() };
    let mut total = Nanodollars::ZERO;
    for (shape, model, cost) in models {
        let mut request = shape.request("x", &[]);
        request["model"] = json!(model);
        let paths = match shape {
            Shape::Gemini => [
                "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
                "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
                "/v1beta/models/gemini-2.5-pro:generateContent?fields=candidates&alt=json",
            ],
            _ => [shape.path(); 3],
        };
        for (index, path) in paths.into_iter().enumerate() {
            request["stream"] = json!(index == 0);
            let answer = call(&open, shape, path, &request).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{shape:?}");
            answer.bytes().await.unwrap();
            let expected = Told {
                model: Some(model.to_owned()),
                usage: Some(tokens),
                cost: Some(Nanodollars(cost)),
                estimated: false,
            };
            assert_eq!(told(&mut open).await, expected, "{shape:?} {index}");
            total = total.plus(Nanodollars(cost));
        }
    }
    let spend = open.session.spend();
    assert_eq!((spend.cost, spend.calls, spend.known_cost()), (total, 18, Some(total)));
    assert_eq!(spend.tokens.output, 18 * 50);
    let after = open.session.shutdown().await;
    assert_eq!(after, spend);
}

#[tokio::test]
async fn counting_and_listing_is_free_and_so_is_an_error() {
    let provider = scripted("[[rule]]\nfault = { status = 500 }").await;
    let mut open = open(&provider.url()).await;
    let shape = Shape::Claude;
    let request = shape.request("x", &[]);
    let counted = call(&open, shape, "/v1/messages/count_tokens", &request).send().await.unwrap();
    assert_eq!(counted.status(), 200);
    counted.bytes().await.unwrap();
    let failed = call(&open, shape, "/v1/messages", &request).send().await.unwrap();
    assert_eq!(failed.status(), 500);
    failed.bytes().await.unwrap();
    for _ in 0..2 {
        let told = told(&mut open).await;
        assert_eq!((told.usage, told.cost, told.estimated), (None, None, false));
    }
    assert_eq!(open.session.spend(), outpost_core::Spend::default());
}

#[tokio::test]
async fn an_unknown_model_is_told_as_unknown_and_never_as_free() {
    let provider = scripted(COUNTED).await;
    let mut open = open(&provider.url()).await;
    let mut request = Shape::CodexClassic.request("x", &[]);
    request["model"] = json!("gpt-99");
    let answer = call(&open, Shape::CodexClassic, "/v1/responses", &request).send().await.unwrap();
    answer.bytes().await.unwrap();
    let told = told(&mut open).await;
    assert_eq!((told.model.as_deref(), told.cost), (Some("gpt-99"), None));
    assert!(told.usage.is_some());
    let spend = open.session.spend();
    assert_eq!((spend.calls_unpriced, spend.known_cost()), (1, None));
    assert_eq!(spend.models_unpriced, ["gpt-99"]);
    assert_eq!(spend.cost, Nanodollars::ZERO);
    assert!(spend.assumed > Nanodollars::ZERO);
}

#[tokio::test]
async fn an_agent_that_hangs_up_is_counted_to_the_end() {
    let provider = scripted(
        "[[rule]]\nfault = { hang_after_events = 4 }\nsteps = [{ say = 'hello from the model' }]\nusage = { input_tokens = 1000, cached_input_tokens = 400, output_tokens = 5000 }\nstream = { chunk_chars = 3 }",
    )
    .await;
    let mut open = open(&provider.url()).await;
    for shape in [Shape::Claude, Shape::Grok, Shape::GrokChat, Shape::Gemini] {
        let mut answer =
            call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
        answer.chunk().await.unwrap().unwrap();
        drop(answer);
        provider.release_hangs();
        let released = told_after_release(&mut open, &provider).await;
        assert_eq!(released.usage.unwrap().output, 5000, "{shape:?}");
        assert!(!released.estimated, "{shape:?}");
    }
    assert_eq!(open.session.spend().calls_estimated, 0);
}

/// The event of a call; a hang that begins only now is released, too.
async fn told_after_release(open: &mut Open, provider: &outpost_scripted::ScriptedHandle) -> Told {
    let until = async {
        loop {
            provider.release_hangs();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        told = told(open) => told,
        () = until => unreachable!(),
    }
}

#[tokio::test]
async fn an_agent_that_hangs_up_before_the_answer_is_counted_as_well() {
    let provider = scripted(
        "[[rule]]\nfault = { hang = true }\nsteps = [{ say = 'hello' }]\nusage = { input_tokens = 10, output_tokens = 5000 }",
    )
    .await;
    let mut open = open(&provider.url()).await;
    let shape = Shape::Claude;
    let sending = call(&open, shape, shape.path(), &shape.request("x", &[])).send();
    let asked = provider.journal_until(crate::support::SOON, |entries| entries.len() == 1);
    tokio::select! {
        _ = sending => panic!("it answered"),
        asked = asked => assert!(asked.is_some()),
    }
    let told = told_after_release(&mut open, &provider).await;
    assert_eq!((told.usage.unwrap().output, told.estimated), (5000, false));
}

#[tokio::test]
async fn what_the_end_of_the_session_cuts_is_estimated() {
    let gate = Arc::new(Notify::new());
    let upstream = RawUpstream::start(vec![
        Raw::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()),
        Raw::Send(chunk("data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-opus-4-5\",\"usage\":{\"input_tokens\":70,\"output_tokens\":1}}}\n\n")),
        Raw::Send(chunk("data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"123456789\"}}\n\n")),
        Raw::Wait(Arc::clone(&gate)),
    ])
    .await;
    let open = open(&upstream.url).await;
    let shape = Shape::Claude;
    let mut answer =
        call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).contains("123456789") {
        received.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
    }
    let spend = open.session.shutdown().await;
    assert_eq!((spend.calls, spend.calls_estimated), (1, 1));
    assert_eq!((spend.tokens.input, spend.tokens.output), (70, 3));
}

pub(crate) fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
