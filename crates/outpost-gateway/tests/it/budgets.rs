//! A budget cannot be passed by more than the calls that run, whatever an agent does.

use std::sync::Arc;

use outpost_core::{Nanodollars, Spend};
use outpost_gateway::gateway::{
    BudgetGrant, BudgetScope, DenialReason, GatewayEvent, IN_FLIGHT_MAX, TenantLedger,
};
use outpost_types::TenantId;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::metering::{call, chunk, told};
use crate::shapes::Shape;
use crate::support::{Open, Raw, RawUpstream, SOON, client, open_with, scripted};

/// With `claude-opus-4-5` a call of 1000 read and 50 written tokens costs 0.00625 dollars.
const COUNTED: &str = "[[rule]]\nsteps = [{ say = 'hello from the model' }]\nusage = { input_tokens = 1000, output_tokens = 50 }";
const COST: u64 = 6_250_000;

async fn limited(upstream: &str, limit: u64) -> Open {
    let budget = BudgetGrant { limit: Some(Nanodollars(limit)), ..BudgetGrant::default() };
    open_with(upstream, |grant| grant.with_budget(budget)).await
}

async fn ask(open: &Open) -> (u16, String) {
    let shape = Shape::Claude;
    let answer = call(open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_threshold_is_told_and_then_it_stops() {
    let provider = scripted(COUNTED).await;
    let mut open = limited(&provider.url(), 5 * COST).await;
    for _ in 0..5 {
        assert_eq!(ask(&open).await.0, 200);
    }
    let limit = Nanodollars(5 * COST);
    let mut notices = Vec::new();
    for _ in 0..7 {
        match open.event().await {
            GatewayEvent::Call { cost, .. } => assert_eq!(cost, Some(Nanodollars(COST))),
            notice => notices.push(notice),
        }
    }
    let spent = Nanodollars(4 * COST);
    let scope = BudgetScope::Attempt;
    let expected = [
        GatewayEvent::BudgetThreshold { spent, limit },
        GatewayEvent::BudgetExhausted { spent: limit, limit, scope },
    ];
    assert_eq!(notices, expected);
    for shape in Shape::ALL {
        let answer =
            call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
        assert_eq!(answer.status(), 402, "{shape:?}");
        let text = answer.text().await.unwrap();
        for part in ["budget_exceeded", "$0.0312 of $0.0312", "budgetUsd"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    assert_eq!(provider.journal().len(), 5);
    // What costs nothing goes on.
    let free = call(&open, Shape::Claude, "/v1/messages/count_tokens", &json!({"messages": []}));
    assert_eq!(free.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_was_spent_before_counts() {
    let provider = scripted(COUNTED).await;
    let spent = Spend { cost: Nanodollars(COST), calls: 3, ..Spend::default() };
    let budget = BudgetGrant { limit: Some(Nanodollars(COST)), spent, ..BudgetGrant::default() };
    let mut open = open_with(&provider.url(), |grant| grant.with_budget(budget)).await;
    assert!(matches!(open.event().await, GatewayEvent::BudgetExhausted { .. }));
    assert_eq!(ask(&open).await.0, 402);
    assert_eq!(open.session.spend().calls, 3);
}

#[tokio::test]
async fn calls_at_once_pass_the_limit_by_those_that_run_at_most() {
    let provider = scripted(&format!("{COUNTED}\nfault = {{ hang = true }}")).await;
    let mut open = limited(&provider.url(), COST).await;
    let mut calls = tokio::task::JoinSet::new();
    let shape = Shape::Claude;
    for _ in 0..40 {
        let call = call(&open, shape, shape.path(), &shape.request("x", &[]));
        // Those that run are cut as soon as they have cost too much together.
        calls.spawn(async move { call.send().await.map_or(0, |answer| answer.status().as_u16()) });
    }
    let full = provider.journal_until(SOON, |entries| entries.len() == IN_FLIGHT_MAX).await;
    assert!(full.is_some());
    let mut refused = 0;
    let release = async {
        loop {
            provider.release_hangs();
            tokio::task::yield_now().await;
        }
    };
    let all = async {
        while let Some(status) = calls.join_next().await {
            let status = status.unwrap();
            assert!(matches!(status, 0 | 200 | 402), "{status}");
            refused += usize::from(status == 402);
        }
    };
    tokio::select! {
        () = all => {}
        () = release => unreachable!(),
    }
    let sent = provider.journal().len();
    assert_eq!(sent + refused, 40);
    for _ in 0..sent {
        told(&mut open).await;
    }
    // Beyond the limit went at most what ran at that moment.
    let spent = open.session.spend().cost;
    assert!(spent >= Nanodollars(COST), "{spent:?}");
    assert!(spent <= Nanodollars((1 + IN_FLIGHT_MAX as u64) * COST), "{spent:?}");
}

#[tokio::test]
async fn a_stream_is_cut_when_it_passes_the_limit() {
    let gate = Arc::new(Notify::new());
    let text = "word ".repeat(4000);
    let delta =
        format!("data: {{\"type\":\"content_block_delta\",\"delta\":{{\"text\":\"{text}\"}}}}\n\n");
    let upstream = RawUpstream::start(vec![
        Raw::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()),
        Raw::Send(chunk("data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-opus-4-5\",\"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n")),
        Raw::Send(chunk(&delta)),
        Raw::Send(chunk(&delta)),
        Raw::Wait(gate),
    ])
    .await;
    // 5,000 tokens of text cost 0.125 dollars: the first piece passes, the second does not.
    let mut open = limited(&upstream.url, 200_000_000).await;
    let shape = Shape::Claude;
    let answer = call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    assert!(answer.bytes().await.is_err());
    let told = told(&mut open).await;
    assert!(told.estimated && told.cost.unwrap() > Nanodollars(200_000_000), "{told:?}");
    assert_eq!(ask(&open).await.0, 402);
}

#[tokio::test]
async fn the_day_of_a_tenant_is_shared_by_its_attempts() {
    let provider = scripted(COUNTED).await;
    let ledger = TenantLedger::default();
    let tenant: TenantId = "acme".parse().unwrap();
    let grant = || BudgetGrant {
        tenant: Some(ledger.share(&tenant, Some(Nanodollars(3 * COST))).unwrap()),
        ..BudgetGrant::default()
    };
    let mut first = open_with(&provider.url(), |it| it.with_budget(grant())).await;
    let mut second = open_with(&provider.url(), |it| it.with_budget(grant())).await;
    assert_eq!((ask(&first).await.0, ask(&second).await.0, ask(&second).await.0), (200, 200, 200));
    let (status, text) = ask(&first).await;
    assert_eq!(status, 402);
    assert!(text.contains("of this tenant for today") && text.contains("00:00 UTC"), "{text}");
    for open in [&mut first, &mut second] {
        let scope = loop {
            if let GatewayEvent::BudgetExhausted { scope, .. } = open.event().await {
                break scope;
            }
        };
        assert_eq!(scope, BudgetScope::TenantDay);
    }
    assert_eq!(ledger.spent_today(&tenant).1, Nanodollars(3 * COST));
}

#[tokio::test]
async fn an_event_about_a_budget_finds_room_when_nobody_reads() {
    let provider = scripted(COUNTED).await;
    let mut open = limited(&provider.url(), COST).await;
    for _ in 0..300 {
        client().get(open.url("/nowhere")).send().await.unwrap();
    }
    assert_eq!(ask(&open).await.0, 200);
    open.session.shutdown().await;
    let mut notices = 0;
    while let Some(event) = open.events.recv().await {
        notices += usize::from(!matches!(event, GatewayEvent::Denied { .. }));
    }
    assert_eq!(notices, 2);
}

#[tokio::test]
async fn an_unlisted_model_is_no_way_around() {
    let provider = scripted(COUNTED).await;
    let mut open = limited(&provider.url(), COST).await;
    let mut request = Shape::Claude.request("x", &[]);
    request["model"] = json!("claude-secret");
    // What it read is too much already, so the answer is cut.
    let answer = call(&open, Shape::Claude, "/v1/messages", &request).send().await;
    assert!(match answer {
        Ok(answer) => answer.bytes().await.is_err(),
        Err(_) => true,
    });
    told(&mut open).await;
    let (status, text) = ask(&open).await;
    assert_eq!(status, 402);
    assert!(text.contains("assumed for models without a known price"), "{text}");
}

#[tokio::test]
async fn calls_whose_cost_could_not_be_told_do_not_reach_the_provider() {
    let provider = scripted(COUNTED).await;
    let mut open = limited(&provider.url(), 100 * COST).await;
    let chat =
        |more: &str| format!("{{\"model\":\"gpt-5.2\",\"stream\":true,\"messages\":[]{more}}}");
    let bodies = [
        ("/openai/v1/responses", br#"{"model":"gpt-5.2","input":"x","background":true}"#.to_vec()),
        ("/openai/v1/responses", br#"{"model":"gpt-5.2","Model":"o1-pro"}"#.to_vec()),
        (
            "/openai/v1/responses",
            "{\"model\":\"o1-pro\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        ("/openai/v1/responses", b"{\"model\":\"gpt-5.2\"".to_vec()),
        (
            "/openai/v1/chat/completions",
            chat(",\"stream_options\":{\"include_usage\":false}").into_bytes(),
        ),
        ("/openai/v1/chat/completions", chat(",\"stre\\u0061m_options\":null").into_bytes()),
    ];
    for (path, body) in &bodies {
        let call = client().post(open.url(path)).bearer_auth(&open.handle).body(body.clone());
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 400, "{}", String::from_utf8_lossy(body));
        assert!(answer.text().await.unwrap().contains("not_countable"));
    }
    let packed = client().post(open.url("/openai/v1/responses")).bearer_auth(&open.handle);
    let packed = packed.header("content-encoding", "gzip").body("x").send().await.unwrap();
    assert_eq!(packed.status(), 400);
    let mut denials = 0;
    while denials < bodies.len() + 1 {
        if let GatewayEvent::Denied { reason, .. } = open.event().await {
            assert_eq!(reason, DenialReason::NotCountable);
            denials += 1;
        }
    }
    assert!(provider.journal().is_empty(), "{:?}", provider.journal());
    assert_eq!(open.session.spend(), Spend::default());
}

#[tokio::test]
async fn a_chat_that_streams_is_asked_to_count() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    let upstream = RawUpstream::start(vec![Raw::Send(head.to_vec()), Raw::Echo]).await;
    let open = limited(&upstream.url, 100 * COST).await;
    let sent = |body: Value| {
        let call = client().post(open.url("/openai/v1/chat/completions"));
        let call = call.bearer_auth(&open.handle).json(&body);
        async move { call.send().await.unwrap().text().await.unwrap() }
    };
    // The upstream echoes what came; a request of unknown length comes in chunks, which it does not read.
    let plain = json!({"model": "gpt-5.2", "messages": []});
    assert!(!sent(plain).await.contains("stream_options"));
    let heads = upstream.heads();
    assert!(heads[0].contains("transfer-encoding: chunked"), "{heads:?}");
    let provider = scripted(COUNTED).await;
    let open = limited(&provider.url(), 100 * COST).await;
    let shape = Shape::GrokChat;
    let answer = call(&open, shape, shape.path(), &shape.request("x", &[])).send().await.unwrap();
    assert_eq!(shape.text_in(&answer.text().await.unwrap()), "hello from the model");
    assert_eq!(provider.journal().len(), 1);
}
