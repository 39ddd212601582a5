//! Secrets.

use std::sync::Arc;

use outpost_types::limits::SECRETS_COUNT_MAX;
use outpost_types::{SecretKind, SecretName, Timestamp};

use super::sample;
use crate::{
    AuditEntry, Envelope, Reseal, SECRET_ENVELOPE_BYTES_MAX, SECRET_USES_MAX, SECRET_VERSIONS_MAX,
    SealedSecret, SecretOwner, SecretRecord, SecretUse, Store, StoreError,
};

fn owner(name: &str) -> SecretOwner {
    if name == "*" { SecretOwner::Platform } else { SecretOwner::Tenant(sample::tenant(name)) }
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn record(whose: &str, text: &str, version: u64) -> SecretRecord {
    SecretRecord {
        owner: owner(whose),
        name: name(text),
        kind: if version % 2 == 1 { SecretKind::Injected } else { SecretKind::Exposed },
        version,
        created_at: Timestamp::from_millis(7),
        updated_at: Timestamp::from_millis(7 + version),
        last_used_at: None,
        use_count: 0,
    }
}

fn envelope(key: u8, content: &str) -> Envelope {
    Envelope { key_id: [key; 8], bytes: content.as_bytes().to_vec() }
}

fn audit(at: u64, action: &'static str) -> AuditEntry {
    AuditEntry {
        at: Timestamp::from_millis(at),
        tenant: sample::tenant("local"),
        actor: None,
        action,
        subject: "A".to_owned(),
        detail: serde_json::json!({}),
    }
}

async fn put(store: &dyn Store, record: SecretRecord, content: &str) -> Result<(), StoreError> {
    store.put_secret(record, envelope(1, content), audit(5, "secret.set")).await
}

async fn rows(store: &dyn Store) -> u64 {
    store.verify_audit().await.unwrap().unwrap().count
}

pub(super) async fn versions_follow_each_other(store: &dyn Store) {
    let (local, a) = (owner("local"), name("A"));
    assert_eq!(store.secret(&local, &a).await.unwrap(), None);
    assert_eq!(store.sealed_secret(&local, &a, None).await.unwrap(), None);
    for version in 1..=SECRET_VERSIONS_MAX + 2 {
        put(store, record("local", "A", version), &format!("v{version}")).await.unwrap();
        let (found, sealed) = store.sealed_secret(&local, &a, None).await.unwrap().unwrap();
        assert_eq!(found, record("local", "A", version));
        let expected = SealedSecret {
            owner: local.clone(),
            name: a.clone(),
            version,
            kind: found.kind,
            created_at: found.created_at,
            envelope: envelope(1, &format!("v{version}")),
        };
        assert_eq!(sealed, expected);
    }
    for version in 1..=SECRET_VERSIONS_MAX + 3 {
        let kept = (3..=SECRET_VERSIONS_MAX + 2).contains(&version);
        let found = store.sealed_secret(&local, &a, Some(version)).await.unwrap();
        assert_eq!(found.map(|(_, sealed)| sealed.version), kept.then_some(version));
    }
    assert_eq!(rows(store).await, SECRET_VERSIONS_MAX + 2);
    let newest = SECRET_VERSIONS_MAX + 2;
    let mut other = record("local", "A", newest + 1);
    other.created_at = Timestamp::from_millis(8);
    let wrong = [record("local", "A", newest), record("local", "A", newest + 2), other];
    for wrong in wrong {
        let error = put(store, wrong, "x").await.unwrap_err();
        assert!(matches!(error, StoreError::Stale { found } if found == newest), "{error:?}");
    }
    let error = put(store, record("local", "B", 2), "x").await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 0 }), "{error:?}");
    assert_eq!(rows(store).await, newest);
}

pub(super) async fn owners_are_apart(store: &dyn Store) {
    for whose in ["local", "other", "*"] {
        for text in ["B", "A"] {
            put(store, record(whose, text, 1), &format!("{whose} {text}")).await.unwrap();
        }
    }
    for whose in ["local", "other", "*"] {
        let names: Vec<_> = store.secrets(&owner(whose)).await.unwrap();
        assert_eq!(names, [record(whose, "A", 1), record(whose, "B", 1)]);
        let found = store.sealed_secret(&owner(whose), &name("B"), None).await.unwrap().unwrap();
        assert_eq!(found.1.envelope, envelope(1, &format!("{whose} B")));
    }
    let (other, a) = (owner("other"), name("A"));
    for expected in [Some(record("other", "A", 1)), None] {
        let removed = store.delete_secret(&other, &a, audit(6, "secret.deleted")).await;
        assert_eq!(removed.unwrap(), expected);
    }
    assert_eq!(rows(store).await, 7);
    assert_eq!(store.sealed_secret(&owner("other"), &name("A"), Some(1)).await.unwrap(), None);
    assert_eq!(store.secrets(&owner("other")).await.unwrap().len(), 1);
    assert_eq!(store.secrets(&owner("*")).await.unwrap().len(), 2);
    // What was removed begins anew.
    put(store, record("other", "A", 1), "anew").await.unwrap();
}

pub(super) async fn secrets_are_bounded(store: &dyn Store) {
    let longest = vec![7; SECRET_ENVELOPE_BYTES_MAX];
    let with = |bytes| Envelope { key_id: [0; 8], bytes };
    for (bytes, fits) in
        [(vec![], false), (longest.clone(), true), ([longest, vec![7]].concat(), false)]
    {
        let outcome =
            store.put_secret(record("local", "L", 1), with(bytes), audit(1, "secret.set")).await;
        assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
    }
    for index in 1..SECRETS_COUNT_MAX {
        put(store, record("local", &format!("N{index}"), 1), "x").await.unwrap();
    }
    let error = put(store, record("local", "ONE_MORE", 1), "x").await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { field: "name", .. }), "{error:?}");
    assert_eq!(store.secrets(&owner("local")).await.unwrap().len(), SECRETS_COUNT_MAX);
    // Neither a next version nor another owner is bound by that.
    put(store, record("local", "N1", 2), "x").await.unwrap();
    put(store, record("other", "ONE_MORE", 1), "x").await.unwrap();
}

pub(super) async fn secret_uses_are_counted_and_audited(store: &dyn Store) {
    for text in ["A", "B"] {
        put(store, record("local", text, 1), "x").await.unwrap();
    }
    let used = |text: &str, version, at| SecretUse {
        owner: owner("local"),
        name: name(text),
        version,
        audit: audit(at, "secret.used"),
    };
    store
        .note_secret_uses(vec![used("A", 1, 50), used("B", 1, 50), used("A", 1, 40)])
        .await
        .unwrap();
    for gone in [used("A", 2, 60), used("C", 1, 60)] {
        let error = store.note_secret_uses(vec![used("B", 1, 60), gone]).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound), "{error:?}");
    }
    let many = vec![used("A", 1, 60); SECRET_USES_MAX + 1];
    let error = store.note_secret_uses(many).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { field: "uses", .. }), "{error:?}");
    let of = async |text: &str| {
        let found = store.secret(&owner("local"), &name(text)).await.unwrap().unwrap();
        (found.last_used_at.map(Timestamp::as_millis), found.use_count)
    };
    assert_eq!((of("A").await, of("B").await), ((Some(50), 2), (Some(50), 1)));
    assert_eq!(rows(store).await, 5);
    // A next version goes on counting.
    put(store, record("local", "A", 2), "y").await.unwrap();
    assert_eq!(of("A").await, (Some(50), 2));
    store.note_secret_uses(vec![used("A", 1, 70), used("A", 2, 71)]).await.unwrap();
    assert_eq!(of("A").await, (Some(71), 4));
}

pub(super) async fn all_are_resealed_or_none(store: &dyn Store) {
    // More than one page of any store.
    for index in 0..90 {
        put(store, record("local", &format!("N{index}"), 1), &format!("{index}")).await.unwrap();
    }
    put(store, record("local", "N5", 2), "five").await.unwrap();
    put(store, record("*", "P", 1), "platform").await.unwrap();
    assert_eq!(store.secret_key_ids().await.unwrap(), [[1; 8]]);
    let before = rows(store).await;
    let broken = Reseal(Arc::new(|sealed: &SealedSecret| {
        if sealed.name.as_str() == "N77" {
            Err("N77 is broken".to_owned())
        } else {
            Ok(Some(envelope(2, "x")))
        }
    }));
    let error = store.reseal_secrets(broken, audit(9, "secret.rekeyed")).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Invalid { message, .. } if message == "N77 is broken"),
        "{error:?}"
    );
    assert_eq!(store.secret_key_ids().await.unwrap(), [[1; 8]]);
    assert_eq!(rows(store).await, before);

    let reseal = Reseal(Arc::new(|sealed: &SealedSecret| {
        let content = String::from_utf8(sealed.envelope.bytes.clone()).unwrap();
        let stays = sealed.envelope.key_id == [2; 8] || content == "7";
        Ok((!stays).then(|| envelope(2, &format!("{content} {} {}", sealed.name, sealed.version))))
    }));
    let written = store.reseal_secrets(reseal.clone(), audit(9, "secret.rekeyed")).await.unwrap();
    assert_eq!(written, 91);
    assert_eq!(store.secret_key_ids().await.unwrap(), [[1; 8], [2; 8]]);
    let at = async |whose: &str, text: &str, version| {
        let found =
            store.sealed_secret(&owner(whose), &name(text), version).await.unwrap().unwrap();
        String::from_utf8(found.1.envelope.bytes).unwrap()
    };
    assert_eq!(at("local", "N5", Some(1)).await, "5 N5 1");
    assert_eq!(at("local", "N5", None).await, "five N5 2");
    assert_eq!(at("local", "N7", None).await, "7");
    assert_eq!(at("*", "P", None).await, "platform P 1");
    assert_eq!(store.reseal_secrets(reseal, audit(9, "secret.rekeyed")).await.unwrap(), 0);
    assert_eq!(rows(store).await, before + 2);
}
