//! The public suite, as this user and as an ordinary one.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;

use outpost_sandbox::conformance::{Outcome, Target, cases};

use crate::{Bed, LAUNCHER_VARIABLE};

/// Nobody, on every Linux system.
const ORDINARY_ID: u32 = 65_534;

#[tokio::test(flavor = "multi_thread")]
async fn suite() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let target = Arc::new(Target::new(sandbox.clone(), bed.scratch()));
    let mut failed = Vec::new();
    for case in cases() {
        let started = std::time::Instant::now();
        match case.run(Arc::clone(&target)).await {
            Ok(Outcome::Passed) => println!("passed  {} ({:?})", case.name, started.elapsed()),
            Ok(Outcome::Skipped(why)) => println!("SKIPPED {}: {why}", case.name),
            Err(problem) => failed.push(format!("{}: {problem}", case.name)),
        }
    }
    sandbox.shut_down().await.unwrap();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// Runs `suite` again in a process of an ordinary user; when the tests run as one, `suite` is that already.
#[test]
fn as_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: this is an ordinary user, the suite itself covers it");
        return;
    }
    // The build directory may be closed to others, so the two programs are copied.
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o755);
    let copy = |from: &std::path::Path, name: &str| {
        let to = dir.path().join(name);
        // By another process: a descriptor open for writing here could be inherited by a program that another test
        // is just starting, and then the copy could not be executed.
        assert!(Command::new("cp").arg(from).arg(&to).status().unwrap().success());
        open(&to, 0o755);
        to
    };
    let this = copy(&std::env::current_exe().unwrap(), "it");
    let launcher = copy(env!("CARGO_BIN_EXE_outpost-launcher").as_ref(), "launcher");
    let work = dir.path().join("tmp");
    std::fs::create_dir(&work).unwrap();
    open(&work, 0o777);
    let output = Command::new(this)
        .args(["--nocapture", "--test-threads=2", "conformance::suite", "lifetime::", "disk::"])
        .env(LAUNCHER_VARIABLE, launcher)
        .env("TMPDIR", &work)
        .current_dir("/")
        .uid(ORDINARY_ID)
        .gid(ORDINARY_ID)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "as an ordinary user: {}", output.status);
    assert!(said.contains("passed  twenty sandboxes at once"), "the suite did not run");
}
