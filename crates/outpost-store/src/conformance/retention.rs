//! What goes when its time is over.

use outpost_core::{Dispatch, Event, Nanodollars, Spend};
use outpost_types::{DispatchId, Timestamp};

use super::sample::{self, accept_of, after, good_run, request};
use crate::{
    AuditRange, EndedRange, ListFilter, PURGE_ROWS_MAX, Purge, Store, StoreError, USAGE_ROWS_MAX,
};

const ALL: EndedRange =
    EndedRange { after: None, until: Timestamp::from_millis(u64::MAX), limit: u32::MAX };

/// A dispatch of this tenant that completed.
pub(super) async fn completed(store: &dyn Store, serial: u64, tenant: &str) -> Dispatch {
    let asked = outpost_types::DispatchRequest { tags: vec!["t".to_owned()], ..request() };
    let mut record = sample::dispatch(serial, tenant, asked);
    store.accept(accept_of(record.clone())).await.unwrap();
    for mut event in good_run(record.id) {
        if let Event::Collected { results, .. } = &mut event {
            let spend = Spend { calls: 1, cost: Nanodollars(250_000_000), ..Spend::default() };
            results.spend = Some(spend);
        }
        let next = after(&record, &event);
        store.update(&next, record.generation, sample::audit(&next, "step")).await.unwrap();
        record = next;
    }
    record
}

async fn waiting(store: &dyn Store, serial: u64) -> Dispatch {
    let record = sample::dispatch(serial, "a", request());
    store.accept(accept_of(record.clone())).await.unwrap();
    record
}

async fn ids(store: &dyn Store, range: EndedRange) -> Vec<DispatchId> {
    store.ended(range).await.unwrap().into_iter().map(|ended| ended.id).collect()
}

pub(super) async fn what_is_over_is_paged_by_its_end(store: &dyn Store) {
    waiting(store, 1).await;
    let mut records = Vec::new();
    // Later ids that ended at the same time, and one that ended before them.
    for serial in [50, 40, 60] {
        records.push(completed(store, serial, "a").await);
    }
    records.sort_by_key(|record| (record.completed_at, record.id));
    let expected: Vec<_> = records.iter().map(|record| record.id).collect();
    assert_eq!(ids(store, ALL).await, expected);
    let mut paged = Vec::new();
    let mut range = EndedRange { limit: 1, ..ALL };
    while let [ended] = store.ended(range).await.unwrap().as_slice() {
        paged.push(ended.id);
        range.after = Some((ended.ended_at, ended.id));
    }
    assert_eq!(paged, expected);
    let until = records[1].completed_at.unwrap();
    assert_eq!(ids(store, EndedRange { until, ..ALL }).await, expected[..2]);
    let before = Timestamp::from_millis(records[0].completed_at.unwrap().as_millis() - 1);
    assert_eq!(ids(store, EndedRange { until: before, ..ALL }).await, []);
    assert_eq!(ids(store, EndedRange { limit: 0, ..ALL }).await, []);
}

pub(super) async fn forgotten_records_leave_a_note_of_their_files(store: &dyn Store) {
    let (over, other) = (completed(store, 1, "a").await, completed(store, 2, "b").await);
    let live = waiting(store, 3).await;
    let entry = |record: &Dispatch| (record.id, sample::audit(record, "dispatch.forgotten"));
    let rows = |seen: &[crate::AuditRow]| {
        seen.iter().filter(|row| row.action == "dispatch.forgotten").count()
    };
    let audited = async || store.audit(AuditRange { after: 0, limit: 1_000 }).await.unwrap();
    let unknown = sample::dispatch(99, "a", request());
    let asked = vec![entry(&live), entry(&over), entry(&unknown)];
    assert_eq!(store.forget(asked.clone()).await.unwrap(), 1);
    assert_eq!(store.forget(asked).await.unwrap(), 0);
    assert_eq!(rows(&audited().await), 1);
    assert!(store.verify_audit().await.unwrap().is_ok());

    assert_eq!(store.get(over.id).await.unwrap(), None);
    assert_eq!(store.attempts(over.id).await.unwrap(), []);
    assert!(store.get(live.id).await.unwrap().is_some());
    assert_eq!(ids(store, ALL).await, [other.id]);
    let tagged = ListFilter { tag: Some("t".to_owned()), ..ListFilter::of(over.tenant.clone()) };
    assert_eq!(store.list(&tagged).await.unwrap().dispatches, []);

    let left = store.leftovers(ALL).await.unwrap();
    let [left] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!((left.id, &left.tenant), (over.id, &over.tenant));
    assert_eq!(Some(left.ended_at), over.completed_at);
    assert_eq!(store.leftover(over.id).await.unwrap().as_ref(), Some(left));
    assert_eq!(store.leftover(other.id).await.unwrap(), None);
    let passed = EndedRange { after: Some((left.ended_at, left.id)), ..ALL };
    assert_eq!(store.leftovers(passed).await.unwrap(), []);
    assert_eq!(store.drop_leftovers(&[over.id, live.id]).await.unwrap(), 1);
    assert_eq!(store.drop_leftovers(&[over.id]).await.unwrap(), 0);
    assert_eq!(store.leftover(over.id).await.unwrap(), None);
}

pub(super) async fn retention_is_bounded(store: &dyn Store) {
    let record = sample::dispatch(1, "a", request());
    let entry = (record.id, sample::audit(&record, "x"));
    let many = vec![entry; crate::ENDED_ROWS_MAX as usize + 1];
    let ids: Vec<_> = many.iter().map(|(id, _)| *id).collect();
    for refused in [store.forget(many).await, store.drop_leftovers(&ids).await] {
        assert!(matches!(refused, Err(StoreError::Invalid { field: "ended", .. })), "{refused:?}");
    }
}

pub(super) async fn expired_keys_and_old_sums_are_purged(store: &dyn Store) {
    for (serial, expires) in [(1, Some(10)), (2, Some(20)), (3, None)] {
        let mut key = super::keys::record(serial, "a");
        key.expires_at = expires.map(Timestamp::from_millis);
        let entry = sample::audit(&sample::dispatch(serial, "a", request()), "key.created");
        store.insert_key(key, entry).await.unwrap();
    }
    let keys = async || store.keys(None, None, 9).await.unwrap().len();
    assert_eq!(store.purge(Purge::ExpiredKeys(Timestamp::from_millis(9))).await.unwrap(), 0);
    assert_eq!(store.purge(Purge::ExpiredKeys(Timestamp::from_millis(10))).await.unwrap(), 1);
    assert_eq!(store.purge(Purge::ExpiredKeys(Timestamp::from_millis(u64::MAX))).await.unwrap(), 1);
    assert_eq!(keys().await, 1);

    const DAY_MILLIS: u64 = 86_400_000;
    completed(store, 1, "a").await;
    completed(store, 3 * DAY_MILLIS, "a").await;
    let days = async || {
        let rows = store.usage(None, 0..=u64::MAX).await.unwrap();
        assert!(rows.len() <= USAGE_ROWS_MAX as usize && PURGE_ROWS_MAX > 0);
        rows.iter().map(|row| row.day).collect::<Vec<_>>()
    };
    assert_eq!(store.purge(Purge::UsageBefore(0)).await.unwrap(), 0);
    assert_eq!(store.purge(Purge::UsageBefore(3)).await.unwrap(), 1);
    assert_eq!(days().await, [3]);
}
