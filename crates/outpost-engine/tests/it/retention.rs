//! What had its time goes, in its order, and nothing of what is not over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use outpost_engine::Removed;
use outpost_types::{
    Api as _, ApiError, Caller, DispatchId, DispatchRequest, DispatchStatus, ErrorCode, KeyId,
    LogQuery, Scope, Timestamp,
};

use crate::world::{Scene, first, request};

const DAY_MILLIS: u64 = 86_400_000;
const TTL: Duration = Duration::from_secs(60);

/// A completed dispatch with a kept file of each kind.
async fn completed(scene: &Scene) -> DispatchId {
    let id = scene.dispatch().await.dispatch_id;
    scene.puppet.release(first(id));
    scene.until(id, DispatchStatus::Completed).await;
    let dir = kept(scene, id);
    std::fs::create_dir_all(dir.join("artifacts/deep")).unwrap();
    std::fs::write(dir.join("artifacts/deep/a.txt"), "a").unwrap();
    std::fs::write(dir.join("diff.patch"), "diff").unwrap();
    std::fs::write(dir.join("context.json"), "{}").unwrap();
    id
}

fn kept(scene: &Scene, id: DispatchId) -> PathBuf {
    scene.data_dir().join("dispatches").join(id.to_string())
}

/// Sets the clock to so many days after the dispatch ended.
async fn days_after(scene: &Scene, id: DispatchId, days: u64) {
    let ended = scene.api.get_dispatch(id, None, None).await.unwrap().completed_at.unwrap();
    scene.clock.set(ended.plus_millis(days * DAY_MILLIS));
}

async fn look(scene: &Scene) -> Removed {
    let removed = scene.engine.remove_expired().await.unwrap();
    assert!(!removed.more);
    removed
}

async fn logs(scene: &Scene, id: DispatchId) -> Result<(), ApiError> {
    scene.api.logs(id, LogQuery::default()).await.map(drop)
}

fn code<T>(answer: Result<T, ApiError>) -> Option<ErrorCode> {
    answer.err().map(|error| error.code)
}

#[tokio::test]
async fn each_kind_goes_on_its_day_and_is_refused_from_then_on() {
    let scene = Scene::new(1).await;
    let id = completed(&scene).await;
    let dir = kept(&scene, id);
    days_after(&scene, id, 13).await;
    assert_eq!(look(&scene).await, Removed::default());
    logs(&scene, id).await.unwrap();

    days_after(&scene, id, 14).await;
    // Before it is gone: an answer does not depend on when somebody looked.
    assert_eq!(code(logs(&scene, id).await), Some(ErrorCode::Expired));
    assert_eq!(look(&scene).await.files, 2);
    assert!(!dir.join("events.jsonl").exists() && !dir.join("output.log").exists());
    assert_eq!(code(logs(&scene, id).await), Some(ErrorCode::Expired));
    assert_eq!(code(scene.api.events(id, 0).await), Some(ErrorCode::Expired));
    assert!(!dir.join("events.jsonl").exists(), "whoever asks makes no new one");
    assert_eq!(code(scene.api.artifact(id, "output.log").await), Some(ErrorCode::Expired));
    scene.api.get_dispatch(id, None, None).await.unwrap();
    assert_eq!(look(&scene).await, Removed::default());

    days_after(&scene, id, 30).await;
    let removed = look(&scene).await;
    assert_eq!((removed.records, removed.files), (1, 1), "the record and its context");
    assert_eq!(code(scene.api.get_dispatch(id, None, None).await), Some(ErrorCode::NotFound));
    // The artifacts have their own time, and are still found.
    let names = scene.api.artifacts(id, TTL).await.unwrap();
    let names: Vec<_> = names.into_iter().map(|view| view.name).collect();
    assert_eq!(names, ["artifacts/deep/a.txt", "diff.patch", "result.json"]);
    let mut diff = scene.api.diff(id).await.unwrap();
    assert_eq!(diff.next().await.unwrap().unwrap(), "diff");
    let stranger = Caller {
        tenant: "acme".parse().unwrap(),
        key: KeyId::from_parts(1, 2),
        scopes: [Scope::Admin].into(),
    };
    let stranger = scene.engine.api(Arc::new(stranger));
    assert_eq!(code(stranger.artifacts(id, TTL).await), Some(ErrorCode::NotFound));
    assert_eq!(code(stranger.diff(id).await), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn the_last_files_go_with_their_directory_and_leave_nothing() {
    let scene = Scene::new(1).await;
    let id = completed(&scene).await;
    days_after(&scene, id, 90).await;
    let removed = look(&scene).await;
    assert_eq!((removed.records, removed.directories), (1, 1));
    assert!(!kept(&scene, id).exists());
    let left = std::fs::read_dir(scene.data_dir().join("removed")).unwrap().count();
    assert_eq!(left, 0);
    assert_eq!(code(scene.api.diff(id).await), Some(ErrorCode::NotFound));
    assert_eq!(look(&scene).await, Removed::default());
}

#[tokio::test]
async fn what_is_not_over_stays_however_old_it_is() {
    let scene = Scene::new(1).await;
    let running = scene.dispatch().await.dispatch_id;
    scene.until(running, DispatchStatus::Running).await;
    let waits = scene.dispatch().await.dispatch_id;
    let now = scene.engine.now();
    scene.clock.set(Timestamp::from_millis(now.as_millis() + 60_000));
    let (records, files) =
        (scene.api.list_runs(outpost_types::ListQuery::default()), kept(&scene, running));
    assert_eq!(records.await.unwrap().items.len(), 2);
    // One leap: their deadlines pass with it, so by a second one they would be over, and old.
    scene.clock.set(now.plus_millis(3 * 365 * DAY_MILLIS));
    let removed = scene.engine.remove_expired().await.unwrap();
    assert_eq!((removed.records, removed.files, removed.directories), (0, 0, 0));
    assert!(files.join("events.jsonl").exists());
    scene.api.get_dispatch(waits, None, None).await.unwrap();
}

#[tokio::test]
async fn a_parent_stays_while_its_child_is_live() {
    let scene = Scene::new(1).await;
    let id = completed(&scene).await;
    let goes_on = DispatchRequest { continue_from: Some(id.to_string()), ..request() };
    let child = scene.api.create_dispatch(goes_on, None).await.unwrap().dispatch.dispatch_id;
    scene.until(child, DispatchStatus::Running).await;
    let now = scene.engine.now();
    days_after(&scene, id, 100).await;
    let removed = scene.engine.remove_expired().await.unwrap();
    scene.clock.set(now);
    assert_eq!((removed.records, removed.files, removed.directories), (0, 0, 0));
    assert!(kept(&scene, id).join("diff.patch").exists());
    scene.puppet.release(first(child));
    scene.until(child, DispatchStatus::Completed).await;
    days_after(&scene, child, 100).await;
    assert_eq!(look(&scene).await.directories, 2);
}

#[tokio::test]
async fn a_crash_between_files_and_record_is_made_good_by_the_next_look() {
    let scene = Scene::new(1).await;
    let id = completed(&scene).await;
    days_after(&scene, id, 90).await;
    // The files of their kinds went, the record could not.
    scene.store.stay(true);
    scene.engine.remove_expired().await.unwrap_err();
    assert!(scene.api.get_dispatch(id, None, None).await.is_ok());
    assert_eq!(code(scene.api.diff(id).await), Some(ErrorCode::Expired));
    // Another server; its directory is moved away, and its note stays.
    let scene = scene.next().await;
    scene.store.stay(false);
    let moved = scene.data_dir().join("removed").join(id.to_string());
    std::fs::create_dir_all(moved.join("artifacts")).unwrap();
    let removed = look(&scene).await;
    assert_eq!((removed.records, removed.directories), (1, 1));
    assert!(!moved.exists() && !kept(&scene, id).exists());
    assert_eq!(look(&scene).await, Removed::default());
}

#[tokio::test]
async fn idempotency_keys_are_free_again_after_a_day() {
    let scene = Scene::new(1).await;
    let keyed = scene.api.create_dispatch(request(), Some("k".into())).await.unwrap().dispatch;
    scene.puppet.release(first(keyed.dispatch_id));
    scene.until(keyed.dispatch_id, DispatchStatus::Completed).await;
    days_after(&scene, keyed.dispatch_id, 1).await;
    assert_eq!(look(&scene).await.rows, 1);
    let again = scene.api.create_dispatch(request(), Some("k".into())).await.unwrap();
    assert!(!again.replayed && again.dispatch.dispatch_id != keyed.dispatch_id);
}
