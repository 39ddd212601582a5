//! The Linux sandbox against the real thing: as whoever runs the tests, and as an ordinary user when that is root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod claim;
mod conformance;
mod disk;
mod filter;
mod lifetime;
mod ordinary;
mod overlay;
mod programs;
mod versions;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outpost_sandbox::{
    LauncherOptions, LinuxSandbox, Payload, RunningSandbox, Sandbox, SandboxPolicy, SandboxSpec,
};

/// Tells a re-executed test where the launcher is; set only by `conformance::as_ordinary_user`.
const LAUNCHER_VARIABLE: &str = "OUTPOST_TEST_LAUNCHER";
/// How long a condition is waited for.
const WAIT_SECONDS: u64 = 30;

/// A launcher of its own for one test.
struct Bed {
    dir: tempfile::TempDir,
    idle_seconds: u64,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("outpost-it-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { dir, idle_seconds: 1 }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn options(&self) -> LauncherOptions {
        LauncherOptions { idle_seconds: self.idle_seconds, ..options_at(self.socket()) }
    }

    fn sandbox(&self) -> Arc<LinuxSandbox> {
        Arc::new(LinuxSandbox::new(self.options(), SandboxPolicy::allow_missing_limits()))
    }

    fn scratch(&self) -> PathBuf {
        let path = self.dir.path().join("scratch");
        std::fs::create_dir(&path).unwrap();
        path
    }
}

fn options_at(socket: PathBuf) -> LauncherOptions {
    let program = std::env::var_os(LAUNCHER_VARIABLE)
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_outpost-launcher")), PathBuf::from);
    LauncherOptions { socket, program, arguments: Vec::new(), idle_seconds: 1 }
}

async fn start(sandbox: &LinuxSandbox, id: &str, script: &str) -> Box<dyn RunningSandbox> {
    let parked = sandbox.create(SandboxSpec::new(id)).await.unwrap();
    parked.start(Payload::new(["sh", "-c", script])).await.unwrap()
}

/// Waits for a condition of the system that nothing announces.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(WAIT_SECONDS);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "still waiting for: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn process_exists(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
