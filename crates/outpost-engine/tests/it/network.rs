//! What a sandbox may reach is changed while it waits, while it runs, and over a restart.

use futures_util::TryStreamExt as _;
use outpost_store::{AuditRange, Audits as _};
use outpost_types::{
    Api as _, CancelRequest, DispatchId, DispatchStatus, ErrorCode, EventData, Network,
    NetworkLevel, NetworkRequest,
};

use crate::world::{Fault, Scene, first};

fn custom(hosts: &[&str]) -> Network {
    let allow_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    Network { level: NetworkLevel::Custom, allow_hosts }
}

fn to(network: &Network) -> NetworkRequest {
    let allow_hosts = Some(network.allow_hosts.clone());
    NetworkRequest { network: Some(network.level), allow_hosts }
}

/// The changes that the events of a dispatch that ended tell of.
async fn told(scene: &Scene, id: DispatchId) -> Vec<(Network, Network)> {
    let events: Vec<_> = scene.api.events(id, 0).await.unwrap().try_collect().await.unwrap();
    let change = |data| match data {
        EventData::Network { from, to } => Some((from, to)),
        _ => None,
    };
    events.into_iter().filter_map(|event| change(event.data)).collect()
}

#[tokio::test]
async fn a_change_reaches_the_runner_the_record_the_events_and_the_audit() {
    let scene = Scene::new(1).await;
    let (runs, waits) = (scene.dispatch().await.dispatch_id, scene.dispatch().await.dispatch_id);
    scene.until(runs, DispatchStatus::Running).await;
    scene.until(waits, DispatchStatus::Queued).await;
    let open = custom(&["example.com"]);
    for id in [runs, waits] {
        let view = scene.api.change_network(id, to(&open)).await.unwrap();
        assert_eq!((view.network, &view.allow_hosts), (open.level, &open.allow_hosts));
        // Once more is the same, and no change.
        let again = scene.api.change_network(id, to(&open)).await.unwrap();
        assert_eq!(again.generation, view.generation);
    }
    scene.puppet.until(first(runs), |seen| seen.network == open).await;
    let closed = Network::default();
    scene.api.change_network(runs, to(&closed)).await.unwrap();
    scene.puppet.until(first(runs), |seen| seen.network == closed).await;
    scene.puppet.release(first(runs));
    scene.until(runs, DispatchStatus::Completed).await;
    // It begins with what it was changed to while it waited.
    scene.puppet.until(first(waits), |seen| seen.network == open).await;
    scene.puppet.release(first(waits));
    scene.until(waits, DispatchStatus::Completed).await;
    let opened = (closed.clone(), open.clone());
    assert_eq!(told(&scene, runs).await, [opened.clone(), (open, closed)]);
    assert_eq!(told(&scene, waits).await, [opened]);
    let error = scene.api.change_network(runs, to(&custom(&[]))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AlreadyFinished);
    let rows = scene.store.inner.audit(AuditRange { after: 0, limit: 100 }).await.unwrap();
    let changes: Vec<_> = rows.iter().filter(|row| row.action == "dispatch.network").collect();
    assert_eq!(changes.len(), 3);
    assert!(changes.iter().all(|row| row.actor.is_some()));
}

#[tokio::test]
async fn a_restart_keeps_the_change_and_what_was_not_recorded_is_not_in_force() {
    let scene = Scene::new(1).await;
    let id = scene.dispatch().await.dispatch_id;
    scene.until(id, DispatchStatus::Running).await;
    let open = custom(&["example.com"]);
    scene.store.then(&[Fault::Lost]);
    let error = scene.api.change_network(id, to(&open)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    let seen = scene.puppet.until(first(id), |seen| !seen.runs.is_empty()).await;
    assert_eq!(seen.network, Network::default());
    scene.api.change_network(id, to(&open)).await.unwrap();
    let scene = scene.next().await;
    let seen = scene.puppet.until(first(id), |seen| seen.network == open).await;
    assert!(seen.runs[0].is_some(), "it was taken up again");
    assert_eq!(scene.api.get_dispatch(id, None, None).await.unwrap().allow_hosts, ["example.com"]);
    scene.api.cancel_dispatch(id, CancelRequest::default()).await.unwrap();
}

#[tokio::test]
async fn clients_that_change_it_at_once_lose_no_change() {
    let scene = Scene::new(1).await;
    let id = scene.dispatch().await.dispatch_id;
    scene.until(id, DispatchStatus::Running).await;
    scene.api.change_network(id, to(&custom(&["a.example"]))).await.unwrap();
    let close = NetworkRequest { network: Some(NetworkLevel::None), allow_hosts: None };
    let hosts = NetworkRequest { network: None, allow_hosts: Some(vec!["b.example".into()]) };
    let (closed, named) =
        tokio::join!(scene.api.change_network(id, close), scene.api.change_network(id, hosts));
    assert_eq!(closed.unwrap().network, NetworkLevel::None);
    // Either it came first, or there was nothing any more that hosts could be named for.
    let refused = named.err().and_then(|error| error.field);
    assert!(refused.is_none_or(|field| field == "allowHosts"));
    let view = scene.api.get_dispatch(id, None, None).await.unwrap();
    assert_eq!((view.network, view.allow_hosts), (NetworkLevel::None, Vec::new()));
    let bad = scene.api.change_network(id, to(&custom(&["http://x/"]))).await.unwrap_err();
    assert_eq!(bad.field.as_deref(), Some("allowHosts"));
    let nothing = scene.api.change_network(id, NetworkRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code, ErrorCode::InvalidField);
}
