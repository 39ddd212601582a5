//! The audit trail.

use outpost_core::Event;
use outpost_types::Timestamp;

use super::sample::{self, accept, after, claim};
use crate::{AuditFilter, AuditHead, AuditRange, Store, StoreError};

const ALL: AuditRange = AuditRange { after: 0, limit: u32::MAX };

pub(super) async fn every_change_leaves_one_row(store: &dyn Store) {
    let first = accept(1);
    store.accept(first.clone()).await.unwrap();
    let next = after(&first.dispatch, &Event::Placed);
    let placed = sample::audit(&next, "dispatch.placed");
    store.update(&next, 1, placed.clone()).await.unwrap();
    let rows = store.audit(ALL).await.unwrap();
    assert_eq!(rows.len(), 2);
    for (row, entry) in rows.iter().zip([first.audit, placed]) {
        assert_eq!((row.at, &row.tenant, row.actor), (entry.at, &entry.tenant, entry.actor));
        assert_eq!((row.action.as_str(), &row.subject), (entry.action, &entry.subject));
        assert_eq!(row.detail, entry.detail.to_string());
    }
}

pub(super) async fn refused_changes_leave_none(store: &dyn Store) {
    let mut first = accept(1);
    first.idempotency = Some(claim("k", "a", 1_000));
    store.accept(first.clone()).await.unwrap();
    let head = store.verify_audit().await.unwrap().unwrap();
    // Taken id, replay, conflict, stale update.
    store.accept(accept(1)).await.unwrap_err();
    store.accept(first.clone()).await.unwrap();
    first.idempotency = Some(claim("k", "b", 1_000));
    store.accept(first.clone()).await.unwrap();
    let mut ahead = after(&first.dispatch, &Event::Placed);
    ahead.generation = 6;
    let audit = sample::audit(&ahead, "dispatch.placed");
    store.update(&ahead, 5, audit).await.unwrap_err();
    assert_eq!(store.verify_audit().await.unwrap(), Ok(head));
    assert_eq!(head.count, 1);
}

pub(super) async fn the_chain_holds(store: &dyn Store) {
    let empty = AuditHead { count: 0, hash: [0; 32] };
    assert_eq!(store.verify_audit().await.unwrap(), Ok(empty));
    for serial in 1..=30 {
        store.accept(accept(serial)).await.unwrap();
    }
    let rows = store.audit(ALL).await.unwrap();
    let mut prev = [0; 32];
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row.seq, index as u64 + 1);
        assert_eq!(row.prev_hash, prev);
        prev = row.hash;
    }
    let head = AuditHead { count: 30, hash: prev };
    assert_eq!(store.verify_audit().await.unwrap(), Ok(head));
    let part = AuditRange { after: 10, limit: 5 };
    assert_eq!(store.audit(part).await.unwrap(), rows[10..15]);
    let beyond = AuditRange { after: u64::MAX, limit: 5 };
    assert_eq!(store.audit(beyond).await.unwrap(), []);
}

/// The numbers of all rows of a filter, page by page.
async fn numbers(store: &dyn Store, filter: &AuditFilter) -> Vec<u64> {
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let page = AuditFilter { before, limit: 3, ..filter.clone() };
        let page = store.audit_page(page).await.unwrap();
        assert!(page.rows.len() <= 3);
        found.extend(page.rows.iter().map(|row| row.seq));
        assert!(found.len() <= 30, "pages repeat");
        before = page.next;
        if before.is_none() {
            return found;
        }
    }
}

pub(super) async fn filters_and_pages_meet(store: &dyn Store) {
    // Entry `n` is of millisecond n + 1.
    for serial in 1..=12 {
        let owner = if serial % 3 == 0 { "other" } else { "local" };
        let mut accept = sample::accept_of(sample::dispatch(serial, owner, sample::request()));
        if serial % 2 == 0 {
            accept.audit.action = "dispatch.changed";
        }
        store.accept(accept).await.unwrap();
    }
    let all = AuditFilter::default();
    assert_eq!(numbers(store, &all).await, (1..=12).rev().collect::<Vec<u64>>());
    let of = |tenant: &str| AuditFilter { tenant: Some(sample::tenant(tenant)), ..all.clone() };
    assert_eq!(numbers(store, &of("other")).await, [12, 9, 6, 3]);
    assert_eq!(numbers(store, &of("nobody")).await, [0; 0]);
    let action = |action: &str| AuditFilter { action: Some(action.into()), ..of("other") };
    assert_eq!(numbers(store, &action("dispatch.changed")).await, [12, 6]);
    assert_eq!(numbers(store, &action("dispatch.")).await, [12, 9, 6, 3]);
    assert_eq!(numbers(store, &action("dispatch")).await, [0; 0]);
    let at = |millis| Some(Timestamp::from_millis(millis));
    let between = AuditFilter { since: at(5), until: at(9), ..all };
    assert_eq!(numbers(store, &between).await, [7, 6, 5, 4]);
}

pub(super) async fn parts_are_checked(store: &dyn Store) {
    let nothing = store.verify_audit_part(0, 10).await.unwrap();
    assert_eq!((nothing.end.count, nothing.broken, nothing.more), (0, None, false));
    for serial in 1..=12 {
        store.accept(accept(serial)).await.unwrap();
    }
    let rows = store.audit(ALL).await.unwrap();
    let head = |seq: usize| AuditHead { count: seq as u64, hash: rows[seq - 1].hash };
    for (after, limit, end, more) in [(4, 5, 9, true), (4, 8, 12, false), (4, 100, 12, false)] {
        let part = store.verify_audit_part(after as u64, limit).await.unwrap();
        assert_eq!((part.start, part.end), (head(after), head(end)));
        assert_eq!((part.broken, part.more), (None, more));
    }
    let whole = store.verify_audit_part(0, 100).await.unwrap();
    assert_eq!(Ok(whole.end), store.verify_audit().await.unwrap());
    let error = store.verify_audit_part(13, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
}
