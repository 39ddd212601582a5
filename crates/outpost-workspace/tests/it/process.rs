//! The git processes themselves, seen by a program that stands in for git.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use outpost_workspace::{OpenError, PrepareError, Secret, Workspaces, WorkspacesConfig};

use crate::world::{World, config, stand_in};

const TOKEN: &str = "ghp_verysecrettoken";

async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_dropped_prepare_leaves_no_process_and_no_directory() {
    let world = World::new();
    let source = world.source();
    let pids = world.path("pids");
    // The child stands for git's helpers: it must go with its parent.
    let lines = format!(
        "if [ \"$1\" = clone ]; then sleep 1000 & echo $$ $! > '{0}.part'; mv '{0}.part' '{0}'; wait; fi",
        pids.display()
    );
    let git = stand_in(world.dir.path(), &lines);
    let workspaces = Workspaces::new(WorkspacesConfig { git, ..config(world.dir.path()) }).unwrap();
    let request = world.request("a1", Some(&source));
    let task = tokio::spawn(async move { workspaces.prepare(request).await });
    until("git did not start", || pids.exists()).await;
    let pids = std::fs::read_to_string(&pids).unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    for pid in pids.split_whitespace() {
        // A helper whose parent is gone is reaped by whoever is init here, so a dead one may stay listed.
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !(stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
        };
        until("a process of git lives on", || !alive()).await;
    }
    assert_eq!(std::fs::read_dir(world.path("cache/tmp")).unwrap().count(), 0);
    assert!(world.prepare("a2", Some(&source)).await.is_ok());
}

#[tokio::test]
async fn the_token_is_in_no_argument_and_no_message() {
    let world = World::new();
    let seen = world.path("seen");
    let lines = format!(
        "if [ \"$1\" = ls-remote ]; then echo \"$@\" > '{0}'; env > '{0}.env'; env | grep Authorization >&2; echo boom >&2; exit 128; fi",
        seen.display()
    );
    let config = WorkspacesConfig {
        git: stand_in(world.dir.path(), &lines),
        token: Some(Secret::new(TOKEN)),
        ..config(world.dir.path())
    };
    assert!(!format!("{config:?}").contains(TOKEN));
    let workspaces = Workspaces::new(config).unwrap();
    let mut request = world.request("a1", None);
    request.source = Some(workspaces.parse_source("octo/private").unwrap());
    let error = workspaces.prepare(request).await.unwrap_err();
    let PrepareError::Network { why, .. } = &error else { panic!("{error:?}") };
    assert!(why.contains("boom"), "{why}");
    let encoded = "eC1hY2Nlc3MtdG9rZW46Z2hwX3ZlcnlzZWNyZXR0b2tlbg==";
    let arguments = std::fs::read_to_string(&seen).unwrap();
    let environment = std::fs::read_to_string(seen.with_extension("env")).unwrap();
    assert!(
        environment.contains(encoded)
            && environment.contains("http.https://github.invalid/.extraHeader")
    );
    for text in [arguments, format!("{error:?} {error}"), format!("{workspaces:?}")] {
        assert!(!text.contains(TOKEN) && !text.contains(encoded), "{text}");
    }
    // Nothing of this process's own environment gets in.
    assert!(!environment.contains("CARGO") && environment.contains("GIT_CONFIG_GLOBAL=/dev/null"));
}

#[tokio::test]
async fn a_missing_or_old_git_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for git in [dir.path().join("none"), stand_in(dir.path(), "echo git version 2.20.1; exit 0")] {
        let error = Workspaces::new(WorkspacesConfig { git, ..config(dir.path()) }).unwrap_err();
        assert!(
            matches!(error, OpenError::Git { .. }) && error.to_string().contains("2.38"),
            "{error}"
        );
    }
    let mode = std::fs::metadata(dir.path().join("cache")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
