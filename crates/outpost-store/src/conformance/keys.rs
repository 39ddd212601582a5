//! API keys.

use outpost_types::{ApiKeyStatus, KeyId, Scope, Timestamp};

use super::sample;
use crate::{
    ApiKey, ApiKeyRecord, AuditEntry, KEY_TOUCHES_MAX, KeyTouch, ReplaceKey, Store, StoreError,
};

pub(super) fn record(serial: u64, owner: &str) -> ApiKeyRecord {
    let mut random = [0; 32];
    random[..8].copy_from_slice(&serial.to_be_bytes());
    ApiKeyRecord::new(
        KeyId::from_parts(serial, 0),
        sample::tenant(owner),
        &ApiKey::generate(random),
        [Scope::Dispatch, Scope::List].into(),
        Timestamp::from_millis(serial),
        Some(Timestamp::from_millis(1_000)),
    )
}

fn audit(action: &'static str) -> AuditEntry {
    AuditEntry {
        at: Timestamp::from_millis(5),
        tenant: sample::tenant("local"),
        actor: None,
        action,
        subject: "key".to_owned(),
        detail: serde_json::json!({}),
    }
}

pub(super) async fn keys_are_found_and_taken_back(store: &dyn Store) {
    let mut key = record(1, "local");
    assert_eq!(store.key_by_hash(&key.hash).await.unwrap(), None);
    store.insert_key(key.clone(), audit("key.created")).await.unwrap();
    assert_eq!(store.key_by_hash(&key.hash).await.unwrap().as_ref(), Some(&key));
    assert_eq!(store.key(key.id).await.unwrap().as_ref(), Some(&key));

    let mut same_hash = record(2, "local");
    same_hash.hash = key.hash;
    for taken in [key.clone(), same_hash] {
        let error = store.insert_key(taken, audit("key.created")).await.unwrap_err();
        assert!(matches!(error, StoreError::Duplicate), "{error:?}");
    }

    let set = async |id, status| store.set_key_status(id, status, audit("key.status")).await;
    assert!(set(key.id, ApiKeyStatus::Revoked).await.unwrap());
    assert!(!set(key.id, ApiKeyStatus::Revoked).await.unwrap());
    let error = set(key.id, ApiKeyStatus::Active).await.unwrap_err();
    assert!(matches!(error, StoreError::Final { status: "revoked" }), "{error:?}");
    let error = set(KeyId::from_parts(9, 9), ApiKeyStatus::Revoked).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
    key.status = ApiKeyStatus::Revoked;
    assert_eq!(store.key_by_hash(&key.hash).await.unwrap(), Some(key));
    assert_eq!(store.verify_audit().await.unwrap().unwrap().count, 2);
}

pub(super) async fn keys_are_paged(store: &dyn Store) {
    for serial in 1..=20 {
        let owner = if serial % 3 == 0 { "other" } else { "local" };
        store.insert_key(record(serial, owner), audit("key.created")).await.unwrap();
    }
    for (owner, expected) in [
        (None, (1..=20).rev().collect::<Vec<u64>>()),
        (Some(sample::tenant("other")), vec![18, 15, 12, 9, 6, 3]),
        (Some(sample::tenant("nobody")), vec![]),
    ] {
        let mut found = Vec::new();
        let mut before = None;
        while let page = store.keys(owner.as_ref(), before, 4).await.unwrap()
            && let Some(last) = page.last()
        {
            before = Some(last.id);
            found.extend(page.iter().map(|key| key.id.millis()));
            assert!(found.len() <= expected.len(), "pages repeat");
        }
        assert_eq!(found, expected);
    }
}

pub(super) async fn uses_add_up(store: &dyn Store) {
    let key = record(1, "local");
    store.insert_key(key.clone(), audit("key.created")).await.unwrap();
    let touch = |id, at, count| KeyTouch { id, last_used: Timestamp::from_millis(at), count };
    let unknown = KeyId::from_parts(9, 9);
    let touches = [touch(key.id, 50, 2), touch(unknown, 60, 1), touch(key.id, 40, 3)];
    store.touch_keys(&touches).await.unwrap();
    let found = store.key(key.id).await.unwrap().unwrap();
    let used = (found.last_used_at, found.usage_count);
    assert_eq!(used, (Some(Timestamp::from_millis(50)), 5));
    // A counter that is full stays full.
    store.touch_keys(&[touch(key.id, 51, u64::MAX)]).await.unwrap();
    store.touch_keys(&[touch(key.id, 52, 1)]).await.unwrap();
    let found = store.key(key.id).await.unwrap().unwrap();
    assert_eq!(found.usage_count, u64::MAX / 2);
    store.touch_keys(&[]).await.unwrap();
    let many = vec![touch(key.id, 1, 1); KEY_TOUCHES_MAX + 1];
    let error = store.touch_keys(&many).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { field: "touches", .. }), "{error:?}");
}

fn replace(old: &ApiKeyRecord, serial: u64, until: Option<u64>) -> ReplaceKey {
    ReplaceKey {
        old: old.id,
        until: until.map(Timestamp::from_millis),
        next: record(serial, old.tenant.as_str()).named("ci"),
        audit: audit("key.rotated"),
    }
}

pub(super) async fn a_key_takes_the_place_of_another(store: &dyn Store) {
    let first = record(1, "local").named("ci");
    store.insert_key(first.clone(), audit("key.created")).await.unwrap();
    assert_eq!(store.key(first.id).await.unwrap().unwrap().name, "ci");
    // It goes on working for a while, and then not longer than it would have.
    let overlapping = replace(&first, 2, Some(500));
    store.replace_key(overlapping.clone()).await.unwrap();
    let old = store.key(first.id).await.unwrap().unwrap();
    assert_eq!(old.expires_at, Some(Timestamp::from_millis(500)));
    assert!(
        old.works_at(Timestamp::from_millis(499)) && !old.works_at(Timestamp::from_millis(500))
    );
    let found = store.key_by_hash(&overlapping.next.hash).await.unwrap();
    assert_eq!(found.as_ref(), Some(&overlapping.next));
    let later = replace(&overlapping.next, 3, Some(5_000));
    store.replace_key(later.clone()).await.unwrap();
    let old = store.key(overlapping.next.id).await.unwrap().unwrap();
    assert_eq!(old.expires_at, Some(Timestamp::from_millis(1_000)));
    // Or not at all.
    store.replace_key(replace(&later.next, 4, None)).await.unwrap();
    let old = store.key(later.next.id).await.unwrap().unwrap();
    assert_eq!(old.status, ApiKeyStatus::Revoked);
    assert_eq!(store.verify_audit().await.unwrap().unwrap().count, 4);
}

pub(super) async fn what_does_not_work_is_not_replaced(store: &dyn Store) {
    let key = record(1, "local");
    store.insert_key(key.clone(), audit("key.created")).await.unwrap();
    let error = store.replace_key(replace(&record(9, "local"), 2, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
    let mut foreign = replace(&key, 2, None);
    foreign.next = record(2, "other");
    let error = store.replace_key(foreign).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
    let error = store.replace_key(replace(&key, 1, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate), "{error:?}");
    let mut late = replace(&key, 2, None);
    late.next.created_at = Timestamp::from_millis(1_000);
    let error = store.replace_key(late).await.unwrap_err();
    assert!(matches!(error, StoreError::Final { status: "expired" }), "{error:?}");
    assert_eq!(store.key(key.id).await.unwrap(), Some(key.clone()), "a refusal changes nothing");
    store.set_key_status(key.id, ApiKeyStatus::Revoked, audit("key.revoked")).await.unwrap();
    let error = store.replace_key(replace(&key, 2, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Final { status: "revoked" }), "{error:?}");
    let long = record(3, "local").named("x".repeat(1_000));
    let error = store.insert_key(long, audit("key.created")).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { field: "key.name", .. }), "{error:?}");
    assert_eq!(store.keys(None, None, 9).await.unwrap().len(), 1);
}
