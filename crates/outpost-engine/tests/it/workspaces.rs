//! Persistent workspaces: who sees them, and who waits for whom.

use std::sync::Arc;

use outpost_engine::EngineApi;
use outpost_types::{
    Api as _, Caller, DispatchId, DispatchRequest, DispatchStatus, ErrorCode, KeyId, Scope,
    WorkspaceMode,
};

use crate::world::{Scene, first, request};

fn of_another_tenant(scene: &Scene) -> EngineApi {
    let (tenant, scopes) = ("acme".parse().unwrap(), [Scope::Admin].into());
    scene.engine.api(Arc::new(Caller { tenant, key: KeyId::from_parts(1, 2), scopes }))
}

async fn create(api: &EngineApi, user: &str, repo: &str) -> DispatchId {
    let request = DispatchRequest {
        workspace_mode: Some(WorkspaceMode::Persistent),
        user_id: Some(user.into()),
        repo: Some(repo.into()),
        ..request()
    };
    api.create_dispatch(request, None).await.unwrap().dispatch.dispatch_id
}

#[tokio::test]
async fn no_other_tenant_sees_or_deletes_one() {
    let scene = Scene::new(1).await;
    let other = of_another_tenant(&scene);
    let id = "a".repeat(32);
    let place = (outpost_types::TenantId::local(), id.clone());
    scene.puppet.workspaces.lock().unwrap().insert(place);
    assert!(other.list_workspaces().await.unwrap().is_empty());
    assert_eq!(other.get_workspace(&id).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(other.delete_workspace(&id).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(scene.api.list_workspaces().await.unwrap().len(), 1);
    assert_eq!(scene.api.get_workspace(&id).await.unwrap().id, id);
    scene.api.delete_workspace(&id).await.unwrap();
    assert_eq!(scene.api.get_workspace(&id).await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn one_at_a_time_works_in_a_workspace_however_its_repository_is_written() {
    let scene = Scene::new(9).await;
    let works = create(&scene.api, "ann", "r").await;
    scene.until(works, DispatchStatus::Running).await;
    let waits = create(&scene.api, "ann", "./r").await;
    let view = scene.until(waits, DispatchStatus::Queued).await;
    assert!(view.queue_reason.unwrap().contains("the same workspace"));
    // Who works elsewhere does not wait: another user, another repository, another tenant.
    let other = of_another_tenant(&scene);
    for (api, user, repo) in
        [(&scene.api, "bob", "r"), (&scene.api, "ann", "s"), (&other, "ann", "r")]
    {
        let id = create(api, user, repo).await;
        scene.puppet.until(first(id), |seen| !seen.runs.is_empty()).await;
    }
    assert_eq!(scene.api.get_dispatch(waits, None, None).await.unwrap().attempt, 0);
    scene.puppet.release(first(works));
    scene.until(works, DispatchStatus::Completed).await;
    scene.until(waits, DispatchStatus::Running).await;
    scene.puppet.release(first(waits));
    scene.until(waits, DispatchStatus::Completed).await;
}
