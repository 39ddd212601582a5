//! Open streams end when their key does.

use std::time::Duration;

use futures_util::StreamExt as _;
use outpost_store::ApiKey;
use outpost_types::{
    Api as _, ApiError, CreateTenant, DispatchId, ErrorCode, EventStream, KeysApi as _, LogQuery,
    LogStream, Scope, TenantId, TenantsApi as _, UpdateTenant,
};

use crate::world::{Scene, first, request};

/// Longest wait for the end of a stream, seconds: it bounds a hang.
const PATIENCE_SECONDS: u64 = 30;

/// An events stream and a followed log of a dispatch that runs, opened with one key of this tenant.
struct Opened {
    dispatch: DispatchId,
    id: outpost_types::KeyId,
    events: EventStream,
    log: LogStream,
}

async fn open(scene: &Scene, tenant: &TenantId, number: u8) -> Opened {
    let key = ApiKey::generate([number; 32]);
    let scopes = [Scope::Dispatch, Scope::Status];
    scene.engine.insert_key(&key, tenant.clone(), scopes).await.unwrap();
    let caller = scene.engine.caller_of(key.expose()).unwrap();
    let id = caller.key;
    let api = scene.engine.api(caller);
    let dispatch = api.create_dispatch(request(), None).await.unwrap().dispatch.dispatch_id;
    let events = api.events(dispatch, 0).await.unwrap();
    let follow = LogQuery { after: 0, follow: true };
    let log = api.logs(dispatch, follow).await.unwrap();
    Opened { dispatch, id, events, log }
}

/// The last thing both streams say.
async fn until_ended(opened: Opened) -> [ApiError; 2] {
    let Opened { events, log, .. } = opened;
    let waiting = async {
        let events: Vec<_> = events.filter_map(async |item| item.err()).collect().await;
        let log: Vec<_> = log.filter_map(async |item| item.err()).collect().await;
        [events, log].map(|errors| errors.last().cloned().expect("a reason"))
    };
    let patience = Duration::from_secs(PATIENCE_SECONDS);
    tokio::time::timeout(patience, waiting).await.unwrap()
}

#[tokio::test]
async fn an_open_stream_ends_with_its_key_and_others_go_on() {
    let scene = Scene::new(9).await;
    let local = TenantId::local();
    let (gone, mut stays) = (open(&scene, &local, 1).await, open(&scene, &local, 2).await);
    let id = gone.id;
    assert!(stays.events.next().await.unwrap().is_ok(), "a stream of a key that works");
    scene.api.revoke_key(id).await.unwrap();
    for error in until_ended(gone).await {
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::Unauthorized, "This key was revoked.")
        );
    }
    scene.puppet.release(first(stays.dispatch));
    let rest: Vec<_> = stays.events.collect().await;
    let last = rest.last().unwrap().as_ref().unwrap();
    assert!(rest.iter().all(Result::is_ok) && last.data.is_terminal(), "{last:?}");
}

#[tokio::test]
async fn an_open_stream_ends_with_its_tenant() {
    let scene = Scene::new(9).await;
    let acme: TenantId = "acme".parse().unwrap();
    let request = CreateTenant { id: acme.clone(), name: None, quotas: None };
    scene.api.create_tenant(request).await.unwrap();
    let opened = open(&scene, &acme, 1).await;
    let suspend = UpdateTenant { suspended: Some(true), ..UpdateTenant::default() };
    scene.api.update_tenant(acme, suspend).await.unwrap();
    for error in until_ended(opened).await {
        assert_eq!(error.code, ErrorCode::TenantSuspended);
    }
}

#[tokio::test]
async fn an_open_stream_ends_when_the_time_of_its_key_is_over() {
    let scene = Scene::new(9).await;
    let opened = open(&scene, &TenantId::local(), 1).await;
    let overlap = outpost_types::RotateKey { overlap_seconds: Some(60) };
    scene.api.rotate_key(opened.id, overlap).await.unwrap();
    // The clock is set, and a change of another key makes every stream look at it.
    scene.clock.set(outpost_engine::World::now(&*scene.clock).plus_millis(60_000));
    let other = ApiKey::generate([7; 32]);
    scene.engine.insert_key(&other, TenantId::local(), [Scope::List]).await.unwrap();
    for error in until_ended(opened).await {
        assert_eq!(error.message, "This key has expired.");
    }
}
