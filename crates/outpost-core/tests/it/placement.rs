//! Slots are never given beyond a limit, and never left empty while somebody could use one.

use std::collections::BTreeMap;

use outpost_core::{Candidate, Decision, Dispatch, Event, Limits, QueueReason, Slots, place, step};
use outpost_types::Timestamp;
use proptest::prelude::*;

use crate::lifecycle::dispatch;

const AGENTS: [&str; 3] = ["claude", "codex", "own"];
const TENANTS: [&str; 2] = ["a", "b"];

fn limits() -> impl Strategy<Value = Limits> {
    (0..6u32, proptest::option::of(0..4u32), 0..4u32, 0..4u32).prop_map(
        |(host, tenant, default, codex)| Limits {
            host_attempts_max: host,
            tenant_attempts_max: tenant,
            agent_attempts_max_default: default,
            agent_attempts_max: BTreeMap::from([("codex".parse().unwrap(), codex)]),
        },
    )
}

fn population() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    proptest::collection::vec((0..AGENTS.len(), 0..TENANTS.len(), any::<bool>()), 0..20)
}

fn count(records: &[Dispatch], chosen: impl Fn(&Dispatch) -> bool) -> u32 {
    u32::try_from(records.iter().filter(|r| r.holds_slot() && chosen(r)).count()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn limits_hold_and_no_slot_is_wasted(population in population(), limits in limits()) {
        let now = Timestamp::from_millis(1_000);
        let mut records: Vec<Dispatch> = population
            .iter()
            .zip(1..)
            .map(|((agent, tenant, _), serial)| dispatch(AGENTS[*agent], TENANTS[*tenant], serial))
            .collect();
        for (record, (_, _, running)) in records.iter_mut().zip(&population) {
            if *running {
                *record = step(record, &Event::Placed, now).unwrap().next;
            }
        }
        let before = records.clone();
        let candidates: Vec<_> = before.iter().filter_map(Candidate::of).collect();
        let decisions = place(&candidates, Slots::count(&before), &limits, now);
        prop_assert_eq!(decisions.len(), candidates.len(), "everybody gets an answer");
        for decision in &decisions {
            let Decision::Place(id) = decision else { continue };
            let record = records.iter_mut().find(|record| record.id == *id).unwrap();
            *record = step(record, &Event::Placed, now).unwrap().next;
            let (agent, tenant) = (record.spec.agent.clone(), record.tenant.clone());
            prop_assert!(count(&records, |_| true) <= limits.host_attempts_max);
            prop_assert!(count(&records, |r| r.spec.agent == agent) <= limits.of_agent(&agent));
            let of_tenant = count(&records, |r| r.tenant == tenant);
            prop_assert!(limits.tenant_attempts_max.is_none_or(|max| of_tenant <= max));
        }
        for decision in &decisions {
            let Decision::Wait(id, reason) = decision else { continue };
            let record = records.iter().find(|record| record.id == *id).unwrap();
            let full = match reason {
                QueueReason::HostLimit => count(&records, |_| true) >= limits.host_attempts_max,
                QueueReason::TenantLimit => limits.tenant_attempts_max.is_some_and(|max| {
                    count(&records, |r| r.tenant == record.tenant) >= max
                }),
                QueueReason::AgentLimit => {
                    count(&records, |r| r.spec.agent == record.spec.agent)
                        >= limits.of_agent(&record.spec.agent)
                }
                QueueReason::Retry => false,
            };
            prop_assert!(full, "{reason:?} is not true");
        }
    }
}
