//! Promotions: compared and set, one for each dispatch, the open ones found again.

use outpost_core::{Promotion, PromotionEvent, PromotionPlan, promote_step};
use outpost_types::{DispatchId, ErrorCode, KeyId, PromotionFailure, PromotionStatus, Timestamp};

use crate::{AuditEntry, AuditRange, Store, StoreError};

fn begun(serial: u64, tenant: &str) -> Promotion {
    let plan = PromotionPlan {
        repo: "https://github.com/o/r.git".into(),
        target: None,
        base_commit: "b".repeat(40),
        branch: "outpost/é".into(),
        title: "A \"title\"\u{1F600}".into(),
        body: Some("\u{0}\n\\".into()),
        draft: true,
        allow_protected: false,
        allow_secrets: false,
        feedback: None,
    };
    let id = DispatchId::from_parts(serial, u128::from(serial));
    let (tenant, key) = (tenant.parse().unwrap(), KeyId::from_parts(1, 1));
    Promotion::new(id, tenant, key, plan, Timestamp::from_millis(serial))
}

fn audit(promotion: &Promotion) -> AuditEntry {
    AuditEntry {
        at: promotion.updated_at,
        tenant: promotion.tenant.clone(),
        actor: None,
        action: "promotion.changed",
        subject: promotion.dispatch.to_string(),
        detail: serde_json::json!({ "to": promotion.status() }),
    }
}

fn after(promotion: &Promotion, event: PromotionEvent) -> Promotion {
    promote_step(promotion, event, None, Timestamp::from_millis(99)).unwrap()
}

fn failed(promotion: &Promotion) -> Promotion {
    let failure = PromotionFailure::new(ErrorCode::BranchExists, "It has other commits.");
    after(promotion, PromotionEvent::Failed(failure))
}

pub(super) async fn promotions_compare_and_set(store: &dyn Store) {
    let first = begun(1, "a");
    assert_eq!(store.promotion(first.dispatch).await.unwrap(), None);
    store.put_promotion(&first, 0, audit(&first), &[]).await.unwrap();
    assert_eq!(store.promotion(first.dispatch).await.unwrap(), Some(first.clone()));
    let again = store.put_promotion(&first, 0, audit(&first), &[]).await;
    assert!(matches!(again, Err(StoreError::Stale { found: 1 })), "{again:?}");
    let second = after(&first, PromotionEvent::TakenUp);
    store.put_promotion(&second, 1, audit(&second), &[]).await.unwrap();
    let other = after(&first, PromotionEvent::Credential { source: "tenant".into() });
    let late = store.put_promotion(&other, 1, audit(&other), &[]).await;
    assert!(matches!(late, Err(StoreError::Stale { found: 2 })), "{late:?}");
    assert_eq!(store.promotion(first.dispatch).await.unwrap(), Some(second.clone()));
    // Nobody takes another tenant's over, and no generation is skipped.
    let mut foreign = after(&second, PromotionEvent::TakenUp);
    foreign.tenant = "b".parse().unwrap();
    let refused = store.put_promotion(&foreign, 2, audit(&foreign), &[]).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    let skipped = store.put_promotion(&second, 2, audit(&second), &[]).await;
    assert!(matches!(skipped, Err(StoreError::Invalid { field: "generation", .. })), "{skipped:?}");
    // Only what was written is in the trail.
    let trail = store.audit(AuditRange { after: 0, limit: 10 }).await.unwrap();
    assert_eq!(trail.len(), 2);
    assert_eq!(trail[1].subject, first.dispatch.to_string());
}

pub(super) async fn open_promotions_are_found_again(store: &dyn Store) {
    let all: Vec<_> = (1..=5).map(|serial| begun(serial, "a")).collect();
    for promotion in &all {
        store.put_promotion(promotion, 0, audit(promotion), &[]).await.unwrap();
    }
    let over = failed(&all[1]);
    store.put_promotion(&over, 1, audit(&over), &[]).await.unwrap();
    let ids = |found: Vec<Promotion>| found.iter().map(|it| it.dispatch).collect::<Vec<_>>();
    let open = ids(store.open_promotions(None, 100).await.unwrap());
    assert_eq!(open, [0, 2, 3, 4].map(|at: usize| all[at].dispatch));
    let page = ids(store.open_promotions(Some(all[0].dispatch), 2).await.unwrap());
    assert_eq!(page, [2, 3].map(|at: usize| all[at].dispatch));
    // Asked for again, it is open again.
    let event = PromotionEvent::Again { plan: over.plan.clone(), by: KeyId::from_parts(2, 2) };
    let reopened = after(&over, event);
    assert_eq!(reopened.status(), PromotionStatus::Requested);
    store.put_promotion(&reopened, 2, audit(&reopened), &[]).await.unwrap();
    assert_eq!(store.open_promotions(None, 100).await.unwrap().len(), 5);
}
