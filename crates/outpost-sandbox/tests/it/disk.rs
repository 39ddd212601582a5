//! The watched disk limit, and that no protection can be left off by asking.

use outpost_sandbox::{Payload, Sandbox, SandboxError, SandboxSpec, Weakness};

use crate::Bed;

/// A directory that the payload may write to.
async fn writable(bed: &Bed, sandbox: &impl Sandbox) -> std::path::PathBuf {
    let dir = bed.scratch();
    let owner = sandbox.payload_owner().await.unwrap();
    std::os::unix::fs::chown(&dir, Some(owner.uid), Some(owner.gid)).unwrap();
    dir
}

/// Without an end of its own: only the limit ends it.
const FOREVER: &str = "while :; do read -r _ < /dev/zero; done";

#[tokio::test]
async fn who_takes_more_than_the_limit_is_ended_and_the_report_says_so() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dir = writable(&bed, &*sandbox).await;
    for (name, flood, bytes_max, files_max) in [
        ("bytes", "for i in 1 2 3; do head -c 1000000 /dev/zero > $i; done", Some(2 << 20), None),
        ("files", "mkdir d; for i in $(seq 100); do : > d/$i; done", None, Some(64)),
        // Written, deleted, and still open.
        (
            "deleted",
            "for i in 3 4 5; do eval \"exec $i> f\"; head -c 1000000 /dev/zero >&$i; rm f; done",
            Some(2 << 20),
            None,
        ),
    ] {
        let mut spec = SandboxSpec::new(name).read_write(&dir, "/work");
        spec.limits.disk_bytes = bytes_max;
        spec.limits.disk_files = files_max;
        let parked = sandbox.create(spec).await.unwrap();
        let watched = "limit of read-write binds, watched";
        let enforced = parked.isolation().enforced.iter().any(|what| what.ends_with(watched));
        assert!(enforced, "{:?}", parked.isolation());
        let script = format!("{flood}; {FOREVER}");
        let payload = Payload::new(["sh", "-c", &script]).cwd("/work");
        let running = parked.start(payload).await.unwrap();
        let report = running.wait().await.unwrap();
        assert!(report.disk_limit_hit, "{name}: {report:?}");
        assert_eq!((report.exit_code, report.signal), (None, Some(libc::SIGXFSZ)), "{name}");
        assert!(!report.killed, "{name}: nobody asked for it");
        running.release().await.unwrap();
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)).unwrap();
        }
    }
    sandbox.shut_down().await.unwrap();
}

/// A file with many names takes its room once, and a hole takes none.
#[tokio::test]
async fn who_stays_within_the_limit_is_left_alone() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dir = writable(&bed, &*sandbox).await;
    let mut spec = SandboxSpec::new("within").read_write(&dir, "/work");
    spec.limits.disk_bytes = Some(4 << 20);
    let script = "head -c 1000000 /dev/zero > one; for i in $(seq 20); do ln one $i; done; truncate -s 4M hole";
    let parked = sandbox.create(spec).await.unwrap();
    let running = parked.start(Payload::new(["sh", "-c", script]).cwd("/work")).await.unwrap();
    let report = running.wait().await.unwrap();
    assert!(report.success() && !report.disk_limit_hit, "{report:?}");
    running.release().await.unwrap();
    sandbox.shut_down().await.unwrap();
}

#[tokio::test]
async fn one_file_cannot_grow_beyond_the_limit() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dir = writable(&bed, &*sandbox).await;
    let mut spec = SandboxSpec::new("file").read_write(&dir, "/work");
    spec.limits.disk_bytes = Some(1 << 20);
    let script = "trap '' XFSZ; head -c 3000000 /dev/zero > big; stat -c %s big; head -c 3000000 /dev/zero > /tmp/big";
    let parked = sandbox.create(spec).await.unwrap();
    let mut running = parked.start(Payload::new(["sh", "-c", script]).cwd("/work")).await.unwrap();
    let mut stdout = String::new();
    let mut stream = running.take_stdout().unwrap();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut stdout).await.unwrap();
    assert_eq!(stdout, "1048576\n", "{:?}", running.wait().await);
    running.release().await.unwrap();
    sandbox.shut_down().await.unwrap();
}

#[tokio::test]
async fn the_products_launcher_leaves_no_protection_off() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    for off in [Weakness::Filter, Weakness::HostRoot, Weakness::Network, Weakness::Links] {
        let mut spec = SandboxSpec::new("weak");
        spec.weakened.insert(off);
        let error = sandbox.create(spec).await.unwrap_err();
        assert!(matches!(&error, SandboxError::InvalidSpec { .. }), "{off:?}: {error}");
    }
    sandbox.shut_down().await.unwrap();
}
