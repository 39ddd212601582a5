//! What others are told of: the events that follow from a record, and when a delivery is tried again.
//!
//! The name of an event follows from what it tells of, so that telling of the same thing twice is one event.

use outpost_types::limits::WEBHOOK_TRIES_MAX;
use outpost_types::{
    BudgetReached, BudgetScope, CostRecorded, DispatchEnded, DispatchId, PromotionStatus,
    PromotionTold, TenantId, Timestamp, WebhookData, WebhookEvent, WebhookId,
};

use crate::{Dispatch, Promotion};

/// Longest name of an event, bytes.
pub const NOTICE_ID_BYTES_MAX: usize = 96;
/// Waits before the next try of a delivery, by the number of tries made, seconds.
const WAIT_SECONDS: [u64; WEBHOOK_TRIES_MAX as usize - 1] = [5, 30, 120, 600, 1_800, 7_200, 21_600];

/// One event, and what it is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Its name: the same for the same event.
    pub id: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is told.
    pub event: WebhookEvent,
}

/// What is told of a record that reached its terminal state; nothing of another one.
#[must_use]
pub fn notices_of_end(record: &Dispatch) -> Vec<Notice> {
    let Some(at) = record.completed_at else { return Vec::new() };
    let notice = |name: &str, data: WebhookData| Notice {
        id: format!("{name}-{}", record.id),
        tenant: record.tenant.clone(),
        event: WebhookEvent { timestamp: at, data },
    };
    let ended = notice("ended", WebhookData::DispatchEnded(Box::new(ended(record, at))));
    let cost = cost(record, at).map(|cost| WebhookData::CostRecorded(Box::new(cost)));
    let cost = cost.map(|data| notice("cost", data));
    std::iter::once(ended).chain(cost).collect()
}

fn ended(record: &Dispatch, at: Timestamp) -> DispatchEnded {
    let spec = &record.spec;
    DispatchEnded {
        dispatch_id: record.id,
        tenant_id: record.tenant.to_string(),
        user_id: spec.user_id.clone(),
        agent: spec.agent.to_string(),
        repo: spec.repo.clone(),
        tags: spec.tags.clone(),
        status: record.status(),
        failure: record.failure().cloned(),
        exit_code: record.facts.exit_code,
        files_changed: record.facts.files_changed,
        created_at: record.created_at,
        completed_at: at,
    }
}

fn cost(record: &Dispatch, at: Timestamp) -> Option<CostRecorded> {
    let spend = record.facts.spend.clone().unwrap_or_default();
    let priced = spend.calls > spend.calls_unpriced;
    Some(CostRecorded {
        dispatch_id: record.id,
        tenant_id: record.tenant.to_string(),
        user_id: record.spec.user_id.clone(),
        agent: record.spec.agent.to_string(),
        model_id: record.spec.model_id.clone(),
        repo: record.spec.repo.clone(),
        tags: record.spec.tags.clone(),
        status: record.status(),
        started_at: record.started_at?,
        completed_at: at,
        agent_millis: record.agent_millis(),
        agent_minutes: outpost_types::minutes(record.agent_millis()),
        input_tokens: spend.tokens.input,
        cached_input_tokens: spend.tokens.cached,
        cache_write_tokens: spend.tokens.cache_write,
        output_tokens: spend.tokens.output,
        thinking_tokens: spend.tokens.thinking,
        searches: spend.searches,
        cost_usd: priced.then(|| spend.cost.to_usd()),
        calls: spend.calls,
        unpriced_calls: spend.calls_unpriced,
        estimated_calls: spend.calls_estimated,
    })
}

/// What is told when so much of a budget is spent. Each threshold of a dispatch's budget is told once, and each of
/// a tenant's day once a day.
#[must_use]
pub fn budget_notice(
    dispatch: DispatchId,
    tenant: &TenantId,
    (scope, spent_usd, budget_usd): (BudgetScope, f64, f64),
    at: Timestamp,
) -> Notice {
    let threshold = if spent_usd >= budget_usd { "all" } else { "near" };
    let id = match scope {
        BudgetScope::Dispatch => format!("budget-{dispatch}-{threshold}"),
        BudgetScope::TenantDay => {
            format!("budget-{tenant}-{}-{threshold}", outpost_types::Day::of(at))
        }
    };
    let data = BudgetReached {
        dispatch_id: dispatch,
        tenant_id: tenant.to_string(),
        scope,
        spent_usd,
        budget_usd,
    };
    let event = WebhookEvent { timestamp: at, data: WebhookData::BudgetThreshold(data) };
    Notice { id, tenant: tenant.clone(), event }
}

/// What is told of a change of a promotion; each step once, each push and each round of feedback.
#[must_use]
pub fn notices_of_promotion(before: Option<&Promotion>, after: &Promotion) -> Vec<Notice> {
    let told = |name: String, data: fn(Box<PromotionTold>) -> WebhookData| Notice {
        id: format!("{name}-{}", after.dispatch),
        tenant: after.tenant.clone(),
        event: WebhookEvent { timestamp: after.updated_at, data: data(Box::new(told_of(after))) },
    };
    let (generation, mut notices) = (after.generation, Vec::new());
    let pushed = |it: &Promotion| it.facts.pushed.then(|| holds(it)).flatten();
    if let Some(commit) = pushed(after).filter(|_| before.and_then(pushed) != pushed(after)) {
        notices.push(told(format!("pushed-{commit:.12}"), WebhookData::PromotionPushed));
    }
    let opened = |it: &Promotion| it.facts.pull_request.is_some();
    if opened(after) && !before.is_some_and(opened) {
        notices.push(told("opened".into(), WebhookData::PromotionOpened));
    }
    let failed = |it: &Promotion| it.status() == PromotionStatus::Failed;
    if failed(after) && !before.is_some_and(failed) {
        notices.push(told(format!("failed-{generation}"), WebhookData::PromotionFailed));
    }
    let follow =
        |it: &Promotion| it.follow.as_ref().map(|follow| (follow.rounds, follow.is_over()));
    let is_new = |now: (u32, bool)| now != (0, false) && before.and_then(follow) != Some(now);
    if follow(after).is_some_and(is_new) {
        notices.push(told(format!("followed-{generation}"), WebhookData::PromotionFollowed));
    }
    notices
}

/// The commit that a branch holds.
fn holds(promotion: &Promotion) -> Option<String> {
    let followed = promotion.follow.as_ref().map(|follow| follow.commit.clone());
    followed.or_else(|| promotion.facts.commit.clone())
}

fn told_of(promotion: &Promotion) -> PromotionTold {
    let view = promotion.view();
    PromotionTold {
        dispatch_id: view.dispatch_id,
        tenant_id: promotion.tenant.to_string(),
        status: view.status,
        repo: view.repo,
        branch: view.branch,
        commit: holds(promotion).filter(|_| promotion.facts.pushed),
        pull_request: view.pull_request,
        failure: view.failure,
        follow_up: view.follow_up,
    }
}

/// What is told for a test; `number` keeps tests apart.
#[must_use]
pub fn test_notice(webhook: WebhookId, tenant: &TenantId, number: u64, at: Timestamp) -> Notice {
    Notice {
        id: format!("test-{webhook}-{number:016x}"),
        tenant: tenant.clone(),
        event: WebhookEvent { timestamp: at, data: WebhookData::Test {} },
    }
}

/// How long to wait after `tries` failed ones, milliseconds; `None` to give up. `chance` is a random number: half
/// of the wait varies with it, so that receivers are not asked by everybody at once.
#[must_use]
pub fn retry_wait_millis(tries: u32, chance: u64) -> Option<u64> {
    let made = usize::try_from(tries).ok()?.checked_sub(1)?;
    let millis = WAIT_SECONDS.get(made)? * 1_000;
    Some(millis / 2 + chance % (millis / 2 + 1))
}

#[cfg(test)]
mod tests {
    use outpost_types::WebhookKind;

    use super::*;
    use crate::{AgentDefaults, DispatchSpec, Event, State, step};

    fn record() -> Dispatch {
        let request = outpost_types::DispatchRequest {
            agent: "claude".into(),
            task: "x".into(),
            tags: vec!["t".into()],
            ..Default::default()
        };
        let defaults = AgentDefaults {
            agent: "claude".parse().unwrap(),
            model_id: "m".into(),
            tier: outpost_types::Tier::Fast,
        };
        let spec = DispatchSpec::from_request(request, &defaults).unwrap();
        let id = DispatchId::from_parts(1, 1);
        let key = outpost_types::KeyId::from_parts(1, 1);
        Dispatch::accept(id, TenantId::local(), key, spec, Timestamp::from_millis(1))
    }

    #[test]
    fn nothing_is_told_of_what_goes_on() {
        assert_eq!(notices_of_end(&record()), []);
    }

    #[test]
    fn one_that_never_started_cost_nothing() {
        let cancel = Event::CancelRequested { reason: None };
        let gone = step(&record(), &cancel, Timestamp::from_millis(9)).unwrap().next;
        let told = notices_of_end(&gone);
        let kinds: Vec<_> = told.iter().map(|notice| notice.event.data.kind()).collect();
        assert_eq!(kinds, [WebhookKind::DispatchEnded]);
        assert!(told.iter().all(|notice| notice.id.len() <= NOTICE_ID_BYTES_MAX));
    }

    #[test]
    fn unknown_cost_is_absent_and_never_zero() {
        let mut record = record();
        record.started_at = Some(Timestamp::from_millis(2));
        record.completed_at = Some(Timestamp::from_millis(3));
        record.state = State::Completed;
        let spend = |calls, calls_unpriced| crate::Spend {
            calls,
            calls_unpriced,
            cost: crate::Nanodollars(5_000_000),
            ..crate::Spend::default()
        };
        let cost_of = |record: &Dispatch| match &notices_of_end(record)[1].event.data {
            WebhookData::CostRecorded(cost) => cost.cost_usd,
            other => panic!("{other:?}"),
        };
        assert_eq!(cost_of(&record), None);
        record.facts.spend = Some(spend(2, 2));
        assert_eq!(cost_of(&record), None);
        record.facts.spend = Some(spend(2, 1));
        assert_eq!(cost_of(&record), Some(0.005));
    }

    #[test]
    fn cost_is_told_in_minutes_of_the_agent_and_with_searches() {
        let mut record = record();
        record.started_at = Some(Timestamp::from_millis(30_000));
        record.completed_at = Some(Timestamp::from_millis(150_000));
        record.state = State::Completed;
        record.facts.spend = Some(crate::Spend { searches: 7, ..crate::Spend::default() });
        let told = |record: &Dispatch| match &notices_of_end(record)[1].event.data {
            WebhookData::CostRecorded(cost) => {
                (cost.agent_millis, cost.agent_minutes, cost.searches)
            }
            other => panic!("{other:?}"),
        };
        // Nobody saw it end.
        assert_eq!(told(&record), (120_000, 2.0, 7));
        record.facts.timings.agent_millis = Some(90_000);
        assert_eq!(told(&record), (90_000, 1.5, 7));
    }

    #[test]
    fn waits_grow_and_end() {
        let mut before = 0;
        for tries in 1..WEBHOOK_TRIES_MAX {
            let (least, most) = (retry_wait_millis(tries, 0), retry_wait_millis(tries, u64::MAX));
            let least = least.unwrap();
            assert!(least > before && most.unwrap() <= 2 * least + 1, "{tries}");
            before = least;
        }
        assert_eq!(retry_wait_millis(WEBHOOK_TRIES_MAX, 0), None);
        assert_eq!(retry_wait_millis(0, 0), None);
    }

    #[test]
    fn thresholds_of_a_day_are_told_once_a_day() {
        let (a, b) = (DispatchId::from_parts(1, 1), DispatchId::from_parts(2, 2));
        let (day, later) = (Timestamp::from_millis(5), Timestamp::from_millis(86_400_005));
        let tell = |id, scope, spent, at| {
            budget_notice(id, &TenantId::local(), (scope, spent, 10.0), at).id
        };
        let of_day = |id, at| tell(id, BudgetScope::TenantDay, 8.0, at);
        assert_eq!(of_day(a, day), of_day(b, day));
        assert_ne!(of_day(a, day), of_day(a, later));
        let own = |id, spent| tell(id, BudgetScope::Dispatch, spent, day);
        assert_ne!(own(a, 8.0), own(b, 8.0));
        assert_ne!(own(a, 8.0), own(a, 10.0));
    }
}
