//! Rules that are one number each: said here as numbers, not as the formula they are written as.

use std::collections::BTreeMap;

use outpost_core::{Limits, Spend, budget_notice, retry_wait_millis};
use outpost_types::limits::WEBHOOK_TRIES_MAX;
use outpost_types::{BudgetScope, DispatchId, TenantId, Timestamp};

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

#[test]
fn a_failed_delivery_waits_between_half_and_all_of_the_time_for_its_try() {
    let all = [5_000, 30_000, 120_000, 600_000, 1_800_000, 7_200_000, 21_600_000];
    for (tries, all) in (1..WEBHOOK_TRIES_MAX).zip(all) {
        let half = all / 2;
        assert_eq!(retry_wait_millis(tries, 0), Some(half));
        assert_eq!(retry_wait_millis(tries, 1), Some(half + 1));
        assert_eq!(retry_wait_millis(tries, half), Some(all));
        assert_eq!(retry_wait_millis(tries, half + 1), Some(half), "it begins again");
    }
    assert_eq!(retry_wait_millis(WEBHOOK_TRIES_MAX, 0), None);
}

#[test]
fn a_budget_is_told_as_all_spent_from_its_last_cent_on() {
    let dispatch: DispatchId = "01JZZZZZZZZZZZZZZZZZZZZZZZ".parse().unwrap();
    let name = |spent| {
        let told = (BudgetScope::Dispatch, spent, 10.0);
        budget_notice(dispatch, &tenant("a"), told, Timestamp::from_millis(0)).id
    };
    assert_eq!(name(8.0), format!("budget-{dispatch}-near"));
    assert_eq!(name(10.0), format!("budget-{dispatch}-all"));
    assert_eq!(name(12.5), format!("budget-{dispatch}-all"));
}

#[test]
fn a_quota_of_a_tenants_own_goes_before_the_one_for_all() {
    let limits = Limits {
        host_attempts_max: 9,
        tenant_attempts_max: Some(3),
        tenant_attempts_max_of: BTreeMap::from([(tenant("own"), 5)]),
        agent_attempts_max_default: 4,
        agent_attempts_max: BTreeMap::from([("codex".parse().unwrap(), 2)]),
    };
    assert_eq!(limits.of_tenant(&tenant("own")), Some(5));
    assert_eq!(limits.of_tenant(&tenant("other")), Some(3));
    assert_eq!(limits.of_agent(&"codex".parse().unwrap()), 2);
    assert_eq!(limits.of_agent(&"claude".parse().unwrap()), 4);
}

#[test]
fn a_record_of_spending_says_only_what_there_was() {
    let text = |searches| serde_json::to_value(Spend { searches, ..Spend::default() }).unwrap();
    assert!(text(0).get("searches").is_none());
    assert_eq!(text(2)["searches"], 2);
}
