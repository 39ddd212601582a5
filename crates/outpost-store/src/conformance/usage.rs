//! Sums of what was used.

use outpost_core::{Dispatch, Event, Nanodollars, Spend, Tokens};

use super::sample::{self, accept_of, after, good_run, request};
use crate::{Store, UsageTotal};

/// Runs a dispatch of this tenant to its end; it spent `spend`.
async fn run(store: &dyn Store, serial: u64, tenant: &str, spend: Spend) -> Dispatch {
    let mut record = sample::dispatch(serial, tenant, request());
    store.accept(accept_of(record.clone())).await.unwrap();
    for mut event in good_run(record.id) {
        if let Event::Collected { results, .. } = &mut event {
            results.spend = Some(spend.clone());
        }
        let next = after(&record, &event);
        store.update(&next, record.generation, sample::audit(&next, "step")).await.unwrap();
        record = next;
    }
    record
}

fn spend(nanodollars: u64) -> Spend {
    Spend {
        tokens: Tokens { input: 10, cached: 20, cache_write: 30, output: 40, thinking: 5 },
        searches: 6,
        cost: Nanodollars(nanodollars),
        assumed: Nanodollars(7),
        calls: 3,
        calls_unpriced: 1,
        calls_estimated: 2,
        ..Spend::default()
    }
}

pub(super) async fn what_ended_is_summed_up_once(store: &dyn Store) {
    const DAY_MILLIS: u64 = 86_400_000;
    let first = run(store, 1, "a", spend(100)).await;
    run(store, 2, "a", spend(50)).await;
    run(store, 3, "b", spend(u64::MAX)).await;
    run(store, 4, "b", spend(u64::MAX)).await;
    run(store, DAY_MILLIS, "a", spend(1)).await;
    // Never started, or not over: nothing was used.
    let waits = sample::dispatch(5, "a", request());
    store.accept(accept_of(waits.clone())).await.unwrap();
    let gone = after(&waits, &Event::CancelRequested { reason: None });
    store.update(&gone, 1, sample::audit(&gone, "cancel")).await.unwrap();
    // Noted on after its end.
    let mut noted = first.clone();
    noted.generation += 1;
    store.update(&noted, first.generation, sample::audit(&noted, "note")).await.unwrap();

    let a = first.tenant.clone();
    let rows = store.usage(Some(&a), 0..=0).await.unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(
        (row.day, &row.agent),
        (outpost_types::Day::of(first.created_at).number(), &first.spec.agent.to_string())
    );
    let run_millis = first.facts.timings.agent_millis.unwrap();
    let expected = UsageTotal {
        dispatches: 2,
        agent_millis: 2 * run_millis,
        tokens: Tokens { input: 20, cached: 40, cache_write: 60, output: 80, thinking: 10 },
        searches: 12,
        cost: Nanodollars(150),
        assumed: Nanodollars(14),
        calls: 6,
        calls_unpriced: 2,
        calls_estimated: 4,
    };
    assert_eq!(row.total, expected);
    let both = store.usage(Some(&a), 0..=1).await.unwrap();
    assert_eq!(both.iter().map(|row| row.day).collect::<Vec<_>>(), [1, 0]);
    let all = store.usage(None, 0..=0).await.unwrap();
    assert_eq!(all.iter().map(|row| row.tenant.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    // Sums end at what a column holds.
    assert_eq!(all[1].total.cost, Nanodollars(i64::MAX as u64));
    assert_eq!(store.usage(None, 2..=u64::MAX).await.unwrap(), []);
}
