//! Who gets a slot, as tenants are suspended and their quotas change.

use std::sync::Arc;

use outpost_engine::EngineApi;
use outpost_types::{
    Api as _, Caller, CreateTenant, DispatchId, DispatchStatus, DispatchView, KeyId, Scope,
    TenantQuotas, TenantsApi as _, UpdateTenant,
};

use crate::world::{Scene, first, request};

const TENANT: &str = "acme";

/// What the tenant sees.
fn acme(scene: &Scene) -> EngineApi {
    let tenant = TENANT.parse().unwrap();
    let caller = Caller { tenant, key: KeyId::from_parts(1, 2), scopes: [Scope::Admin].into() };
    scene.engine.api(Arc::new(caller))
}

async fn dispatch(scene: &Scene) -> DispatchId {
    acme(scene).create_dispatch(request(), None).await.unwrap().dispatch.dispatch_id
}

async fn view(scene: &Scene, id: DispatchId) -> DispatchView {
    acme(scene).get_dispatch(id, None, None).await.unwrap()
}

/// Waits until the tenant's dispatch is there.
async fn until(scene: &Scene, id: DispatchId, status: DispatchStatus) -> DispatchView {
    let waiting = async {
        let mut generation = 0;
        loop {
            let wait = Some(std::time::Duration::from_secs(1));
            let view = acme(scene).get_dispatch(id, wait, Some(generation)).await.unwrap();
            if view.status == status {
                return view;
            }
            generation = view.generation;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.unwrap()
}

/// Waits until the placer looked at all that waits: a later dispatch of another tenant has its slot.
async fn until_looked(scene: &Scene) {
    let later = scene.dispatch().await.dispatch_id;
    scene.until(later, DispatchStatus::Running).await;
    scene.puppet.release(first(later));
    scene.until(later, DispatchStatus::Completed).await;
}

async fn make(scene: &Scene, quotas: TenantQuotas) {
    let request = CreateTenant { id: TENANT.parse().unwrap(), name: None, quotas: Some(quotas) };
    scene.api.create_tenant(request).await.unwrap();
}

async fn change(scene: &Scene, change: UpdateTenant) {
    scene.api.update_tenant(TENANT.parse().unwrap(), change).await.unwrap();
}

fn at_once(count: u32) -> TenantQuotas {
    TenantQuotas { concurrent_dispatches: Some(count), ..TenantQuotas::default() }
}

#[tokio::test]
async fn nothing_of_a_suspended_tenant_is_placed_until_it_resumes_also_after_a_restart() {
    let scene = Scene::new(9).await;
    make(&scene, TenantQuotas::default()).await;
    let runs = dispatch(&scene).await;
    until(&scene, runs, DispatchStatus::Running).await;
    change(&scene, UpdateTenant { suspended: Some(true), ..UpdateTenant::default() }).await;
    let waits = dispatch(&scene).await;
    until_looked(&scene).await;
    let held = until(&scene, waits, DispatchStatus::Queued).await;
    assert_eq!(held.attempt, 0);
    assert!(held.queue_reason.unwrap().contains("tenant"));
    // What runs goes on to its end.
    scene.puppet.release(first(runs));
    until(&scene, runs, DispatchStatus::Completed).await;
    until_looked(&scene).await;
    assert_eq!(view(&scene, waits).await.status, DispatchStatus::Queued);

    let scene = scene.next().await;
    until_looked(&scene).await;
    assert_eq!(view(&scene, waits).await.status, DispatchStatus::Queued);
    assert!(!scene.puppet.attempts().contains(&first(waits)));
    change(&scene, UpdateTenant { suspended: Some(false), ..UpdateTenant::default() }).await;
    until(&scene, waits, DispatchStatus::Running).await;
    scene.puppet.release(first(waits));
    until(&scene, waits, DispatchStatus::Completed).await;
}

#[tokio::test]
async fn a_changed_quota_changes_who_is_placed() {
    let scene = Scene::new(9).await;
    make(&scene, at_once(1)).await;
    let [one, two, three] =
        [dispatch(&scene).await, dispatch(&scene).await, dispatch(&scene).await];
    until(&scene, one, DispatchStatus::Running).await;
    until_looked(&scene).await;
    assert_eq!(view(&scene, two).await.attempt, 0);
    // More: the next one starts at once, without any other event.
    change(&scene, UpdateTenant { quotas: Some(at_once(2)), ..UpdateTenant::default() }).await;
    until(&scene, two, DispatchStatus::Running).await;
    until_looked(&scene).await;
    assert_eq!(view(&scene, three).await.attempt, 0);
    // Less: what runs goes on, and a slot that gets free is one too many.
    change(&scene, UpdateTenant { quotas: Some(at_once(1)), ..UpdateTenant::default() }).await;
    scene.puppet.release(first(one));
    until(&scene, one, DispatchStatus::Completed).await;
    until_looked(&scene).await;
    assert_eq!(view(&scene, three).await.attempt, 0);
    scene.puppet.release(first(two));
    until(&scene, three, DispatchStatus::Running).await;
    scene.puppet.release(first(three));
    until(&scene, three, DispatchStatus::Completed).await;
}
