//! Tenants.

use outpost_core::Drains;
use outpost_types::limits::{NAME_BYTES_MAX, QUOTA_REQUESTS_MAX};
use outpost_types::{TenantId, TenantQuotas, TenantStatus, Timestamp};

use super::sample;
use crate::{AuditEntry, Store, StoreError, TenantRecord};

fn record(id: &str) -> TenantRecord {
    TenantRecord {
        id: sample::tenant(id),
        name: sample::NASTY.chars().take(40).collect(),
        status: TenantStatus::Active,
        quotas: TenantQuotas { requests_per_minute: Some(60), concurrent_dispatches: None },
        generation: 1,
        created_at: Timestamp::from_millis(7),
    }
}

fn audit(tenant: &TenantRecord) -> AuditEntry {
    AuditEntry {
        at: Timestamp::from_millis(5),
        tenant: tenant.id.clone(),
        actor: None,
        action: "tenant.changed",
        subject: tenant.id.to_string(),
        detail: serde_json::json!({}),
    }
}

pub(super) async fn tenants_compare_and_set(store: &dyn Store) {
    let first = record("acme");
    let put = async |tenant: &TenantRecord, expected| {
        store.put_tenant(tenant.clone(), expected, audit(tenant)).await
    };
    assert_eq!(store.tenant(&first.id).await.unwrap(), None);
    put(&first, 0).await.unwrap();
    let error = put(&first, 0).await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 1 }), "{error:?}");
    let mut second = TenantRecord {
        status: TenantStatus::Suspended,
        quotas: TenantQuotas { requests_per_minute: None, concurrent_dispatches: Some(3) },
        generation: 2,
        created_at: Timestamp::from_millis(999),
        ..first.clone()
    };
    put(&second, 1).await.unwrap();
    second.created_at = first.created_at;
    assert_eq!(store.tenant(&first.id).await.unwrap(), Some(second.clone()));
    let error = put(&TenantRecord { generation: 2, ..first.clone() }, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 2 }), "{error:?}");
    let error = put(&TenantRecord { generation: 4, ..first.clone() }, 2).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { field: "generation", .. }), "{error:?}");
    let error = put(&TenantRecord { generation: 3, ..record("nobody") }, 2).await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 0 }), "{error:?}");
    // Only what was written left an entry.
    assert_eq!(store.verify_audit().await.unwrap().unwrap().count, 2);
}

pub(super) async fn tenants_are_paged_and_bounded(store: &dyn Store) {
    for id in ["b", "a", "d", "c", "A"] {
        store.put_tenant(record(id), 0, audit(&record(id))).await.unwrap();
    }
    let mut found = Vec::new();
    let mut after = None;
    while let page = store.tenants(after.as_ref(), 2).await.unwrap()
        && let Some(last) = page.last()
    {
        after = Some(last.id.clone());
        found.extend(page.into_iter().map(|tenant| tenant.id.to_string()));
        assert!(found.len() <= 5, "pages repeat");
    }
    assert_eq!(found, ["A", "a", "b", "c", "d"]);
    let long = TenantRecord { name: "x".repeat(NAME_BYTES_MAX + 1), ..record("long") };
    let error = store.put_tenant(long.clone(), 0, audit(&long)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { field: "tenant.name", .. }), "{error:?}");
    for requests in [0, QUOTA_REQUESTS_MAX + 1] {
        let mut much = record("much");
        much.quotas.requests_per_minute = Some(requests);
        let error = store.put_tenant(much.clone(), 0, audit(&much)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { field: "tenant.quotas", .. }), "{error:?}");
    }
}

pub(super) async fn what_is_drained_is_one_record(store: &dyn Store) {
    let audit = |action| AuditEntry {
        at: Timestamp::from_millis(7),
        tenant: TenantId::local(),
        actor: None,
        action,
        subject: "host".to_owned(),
        detail: serde_json::json!({}),
    };
    assert_eq!(store.drains().await.unwrap(), Drains::default());
    let mut drains = Drains::default();
    drains.begin(None, Some("new disk \u{e9}".to_owned()), Timestamp::from_millis(7));
    drains.begin(Some("claude".parse().unwrap()), None, Timestamp::from_millis(8));
    store.put_drains(drains.clone(), audit("fleet.drained")).await.unwrap();
    assert_eq!(store.drains().await.unwrap(), drains);
    let reason = Some("x".repeat(70_000));
    let mut long = Drains::default();
    long.begin(None, reason, Timestamp::from_millis(7));
    let error = store.put_drains(long, audit("fleet.drained")).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { field: "drains", .. }), "{error:?}");
    store.put_drains(Drains::default(), audit("fleet.resumed")).await.unwrap();
    assert_eq!(store.drains().await.unwrap(), Drains::default());
    assert_eq!(store.verify_audit().await.unwrap().unwrap().count, 2);
}
