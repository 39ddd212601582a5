//! The audit trail.

use outpost_core::Event;

use super::sample::{self, accept, after, claim};
use crate::{AuditHead, AuditRange, Store};

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
