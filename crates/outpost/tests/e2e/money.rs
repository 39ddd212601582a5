//! Money: what model calls cost is counted by the gateway, whatever a CLI says, and a budget ends it.

use std::time::Duration;

use outpost_types::{
    Api as _, BudgetScope, DispatchStatus, DispatchView, EventData, EventEnvelope, FailureCode,
};
use rustix::process::Signal;

use crate::harness::{Repo, Server, assert_status, has_cli, request};

/// A dollar for a thousand tokens: each answer of the situation `spend` costs 1.10 dollars.
const PRICED: &str = "[[prices]]\nmodel = \"*\"\ninput = 1000\noutput = 1000\n";
const CALL_USD: f64 = 1.1;

fn thresholds(events: &[EventEnvelope]) -> Vec<(BudgetScope, f64, f64)> {
    let of = |event: &EventEnvelope| match &event.data {
        EventData::BudgetThreshold { scope, spent_usd, budget_usd } => {
            Some((*scope, *spent_usd, *budget_usd))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

fn cost(view: &DispatchView) -> f64 {
    view.usage.as_ref().unwrap().cost_usd.unwrap()
}

/// With a budget for two calls and a bit: the third passes 80 % and the end at once.
async fn is_stopped_by_its_budget(agent: &str) {
    if !has_cli(agent) {
        return;
    }
    let (server, repo) = (Server::start_with(&[], PRICED).await, Repo::new());
    let mut request = request(agent, "spend", &repo);
    request.budget_usd = Some(2.0 * CALL_USD + 0.5);
    let view = server.run(request).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.as_ref().unwrap();
    assert_eq!(failure.code, FailureCode::BudgetExceeded, "{failure:?}");
    assert!(failure.message.contains("$2.7000") && failure.hint.is_some(), "{failure:?}");
    let spent = cost(&view);
    // Calls that run side by side may end after the budget did; each is counted.
    assert!(spent > 2.7 && spent < 2.7 + 4.0 * CALL_USD, "{spent}");
    let told = thresholds(&server.events(view.dispatch_id).await);
    assert_eq!(told.len(), 2, "80 % and all of it: {told:?}");
    assert!(told.iter().all(|(scope, _, budget)| {
        *scope == BudgetScope::Dispatch && (*budget - 2.7).abs() < 1e-9
    }));
    assert!(server.diff(view.dispatch_id).await.contains("spent.txt"), "what was done is kept");
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_is_stopped_by_its_budget() {
    is_stopped_by_its_budget("claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_is_stopped_by_its_budget() {
    is_stopped_by_its_budget("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_is_stopped_by_its_budget() {
    is_stopped_by_its_budget("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grok_is_stopped_by_its_budget() {
    is_stopped_by_its_budget("grok").await;
}

/// Aider makes one call and is done: it is counted, and nothing had to be refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_done_when_its_budget_is_used_up_has_completed() {
    if !has_cli("aider") {
        return;
    }
    let (server, repo) = (Server::start_with(&[], PRICED).await, Repo::new());
    let mut request = request("aider", "spend", &repo);
    request.budget_usd = Some(CALL_USD);
    let view = server.run(request).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert!((cost(&view) - CALL_USD).abs() < 1e-9, "{}", cost(&view));
    assert_eq!(view.budget_usd, Some(CALL_USD));
}

/// The day of a tenant is shared by its runs, and outlives the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_day_is_counted_across_runs_and_servers() {
    if !has_cli("codex") {
        return;
    }
    let config = format!("{PRICED}[budget]\ntenant_day_usd = 2.0\n");
    let (server, repo) = (Server::start_with(&[], &config).await, Repo::new());
    let view = server.run(request("codex", "pay once", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let server = server.replace(Signal::KILL).await;
    // The second one passes the day's end with its call, the third makes none.
    let view = server.run(request("codex", "pay once", &repo)).await;
    let told = thresholds(&server.events(view.dispatch_id).await);
    assert!(told.iter().any(|(scope, ..)| *scope == BudgetScope::TenantDay), "{told:?}");
    let view = server.run(request("codex", "pay once", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.unwrap();
    assert_eq!(failure.code, FailureCode::BudgetExceeded, "{failure:?}");
    assert!(failure.message.contains("day"), "{failure:?}");
}

/// What was spent before a server was killed is spent.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_survives_the_server() {
    if !has_cli("codex") {
        return;
    }
    let (server, repo) = (Server::start_with(&[], PRICED).await, Repo::new());
    let mut request = request("codex", "spend slowly", &repo);
    request.budget_usd = Some(2.0 * CALL_USD - 0.5);
    let id = server.api.create_dispatch(request, None).await.unwrap().dispatch.dispatch_id;
    // Its first call is over when its tool runs.
    let is_slow = |data: &EventData| match data {
        EventData::Tool { summary: Some(summary), .. } => summary.contains("tick"),
        _ => false,
    };
    server.event(id, |event| is_slow(&event.data)).await;
    let server = server.replace(Signal::KILL).await;
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    assert_eq!(view.failure.as_ref().unwrap().code, FailureCode::BudgetExceeded);
    assert!(cost(&view) > CALL_USD, "the call under the first server is counted");
}

/// While the provider serves nobody the agent waits at the gateway, says so, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_parks_the_dispatch_and_it_goes_on() {
    for agent in ["codex", "gemini", "grok", "aider"] {
        if !has_cli(agent) {
            continue;
        }
        let (server, repo) = (Server::start().await, Repo::new());
        let view = server.run(request(agent, "limited once", &repo)).await;
        assert_status(&server, &view, DispatchStatus::Completed).await;
        let events = server.events(view.dispatch_id).await;
        let parked = events.iter().any(|event| match &event.data {
            EventData::Attention(attention) => attention.code == "rate_limited",
            _ => false,
        });
        assert!(parked, "{agent}: {events:#?}");
        assert_eq!(view.attempt, 1);
    }
}

/// A model without a price is reported as such, never as free.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_price_is_unknown() {
    if !has_cli("aider") {
        return;
    }
    // With the real list; the model answers from a script all the same.
    let scripted = outpost_scripted::Script::demo().unwrap();
    let provider = outpost_scripted::ScriptedProvider::new(scripted)
        .start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let config = format!(
        "[providers.deepseek]\nbase_url = \"{}\"\nkey_env = \"OUTPOST_E2E_KEY\"\n",
        provider.url()
    );
    let key = ("OUTPOST_E2E_KEY", outpost_scripted::SCRIPTED_KEY);
    let (server, repo) = (Server::start_real(&config, &[key]).await, Repo::new());
    let mut request = request("aider", "nothing", &repo);
    request.model_id = Some("deepseek/never-heard-of".to_owned());
    let view = server.run(request).await;
    let usage = view.usage.as_ref().unwrap();
    assert_eq!(usage.cost_usd, None, "{usage:?}");
    assert!(usage.calls > 0 && usage.unpriced_models.iter().any(|m| m.contains("never-heard-of")));
    drop(server);
    tokio::time::timeout(Duration::from_secs(20), provider.shutdown()).await.unwrap();
}
