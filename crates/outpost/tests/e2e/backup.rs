//! A backup of a server at work, and a server on what was restored from it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outpost_types::{Api as _, DispatchId, DispatchStatus};

use crate::failures::CUSTOM;
use crate::harness::{Repo, Server, assert_status, request, within};

/// Dispatches that are acknowledged before the backup begins, beside those that are over.
const WAITING: usize = 6;

/// A command of the binary on a data directory.
async fn outpost(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outpost"));
    command
        .args(args)
        .env_remove("OUTPOST_URL")
        .env_remove("OUTPOST_API_KEY")
        .env("OUTPOST_DATA_DIR", dir.join("data"))
        .env("OUTPOST_CONFIG", dir.join("config.toml"))
        .env("OUTPOST_SECRETS_KEY_FILE", dir.join("secrets.key"));
    let output = within(tokio::task::spawn_blocking(move || command.output())).await;
    let output = output.unwrap().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_server_at_work_has_all_that_was_acknowledged() {
    let flags = ["--concurrency", "1"];
    let server = Arc::new(Server::start_with(&flags, CUSTOM).await);
    let repo = Repo::new();
    let over = server.run(request("shell", "x", &repo)).await;
    assert_status(&server, &over, DispatchStatus::Completed).await;
    let mut known: Vec<DispatchId> = Vec::new();
    for _ in 0..WAITING {
        let created = server.api.create_dispatch(request("shell", "x", &repo), None).await.unwrap();
        known.push(created.dispatch.dispatch_id);
    }
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("backup").display().to_string();

    // More is dispatched all the time while the backup is made.
    let enough = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (server, enough) = (Arc::clone(&server), Arc::clone(&enough));
        let request = request("shell", "x", &repo);
        async move {
            let mut made = 0;
            while made == 0 || !enough.load(Ordering::SeqCst) {
                server.api.create_dispatch(request.clone(), None).await.unwrap();
                made += 1;
            }
        }
    });
    let dir = server.data();
    outpost(dir.parent().unwrap(), &["backup", &backup]).await;
    enough.store(true, Ordering::SeqCst);
    within(load).await.unwrap();

    let restored = tempfile::tempdir().unwrap();
    std::fs::write(restored.path().join("config.toml"), CUSTOM).unwrap();
    outpost(restored.path(), &["restore", &backup]).await;
    let next = Server::start_in(restored, &flags).await;
    let again = next.api.get_dispatch(over.dispatch_id, None, None).await.unwrap();
    assert_eq!(again, over);
    assert_eq!(next.diff(over.dispatch_id).await, server.diff(over.dispatch_id).await);
    assert_eq!(next.log(over.dispatch_id).await, server.log(over.dispatch_id).await);
    assert_eq!(next.events(over.dispatch_id).await, server.events(over.dispatch_id).await);
    let kept = next.artifacts(over.dispatch_id).await;
    assert!(kept.len() > 3, "{kept:?}");
    assert_eq!(kept, server.artifacts(over.dispatch_id).await);
    for id in known {
        let view = next.api.get_dispatch(id, None, None).await.unwrap();
        assert_eq!(view.task, over.task, "{id}");
        // The restored server goes on from there: each has its end.
        next.until(id, |view| view.status.is_terminal()).await;
    }
    let dir = next.data();
    outpost(dir.parent().unwrap(), &["audit", "verify"]).await;
}
