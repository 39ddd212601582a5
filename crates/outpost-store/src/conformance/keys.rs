//! API keys.

use outpost_types::{ApiKeyStatus, KeyId, Scope, Timestamp};

use super::sample;
use crate::{ApiKey, ApiKeyRecord, AuditEntry, KEY_TOUCHES_MAX, KeyTouch, Store, StoreError};

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
