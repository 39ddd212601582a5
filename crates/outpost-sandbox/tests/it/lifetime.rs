//! What outlives what: servers come and go, sandboxes go on; the launcher goes, sandboxes go with it; nothing stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outpost_sandbox::{
    LinuxSandbox, Payload, Reattached, RunningSandbox, Sandbox, SandboxError, SandboxPolicy,
    SandboxSpec, probe_host,
};
use tokio::io::AsyncReadExt as _;

use crate::{Bed, eventually, options_at, process_exists, start};

async fn read_until(stream: &mut tokio::net::unix::pipe::Receiver, word: &str) -> String {
    let mut text = String::new();
    while !text.contains(word) {
        let mut chunk = [0; 512];
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "the output ended: {text}");
        text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    text
}

async fn only_running(sandbox: &LinuxSandbox) -> Box<dyn RunningSandbox> {
    let mut all = sandbox.reattach().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    match all.remove(0) {
        Reattached::Running(running) => running,
        Reattached::Parked(parked) => panic!("{parked:?}"),
    }
}

#[tokio::test]
async fn a_restarted_server_finds_what_runs_and_loses_no_output() {
    let bed = Bed::new();
    let first = bed.sandbox();
    // Goes on only when it is told to: the file is in a directory both sides see.
    let dir = bed.scratch();
    let owner = first.payload_owner().await.unwrap();
    std::os::unix::fs::chown(&dir, Some(owner.uid), Some(owner.gid)).unwrap();
    let mut spec = SandboxSpec::new("long").read_write(&dir, "/w");
    spec.listener_port = Some(0);
    let script = "echo one; while [ ! -e /w/go ]; do sleep 0.01; done; seq 1 5000; exit 9";
    let parked = first.create(spec).await.unwrap();
    let mut running = parked.start(Payload::new(["sh", "-c", script])).await.unwrap();
    let mut stdout = running.take_stdout().unwrap();
    assert_eq!(read_until(&mut stdout, "one\n").await, "one\n");
    let launcher = first.host().await.unwrap().launcher_pid;
    drop((running, stdout));
    first.disconnect().await;
    drop(first);

    let second = bed.sandbox();
    assert_eq!(second.host().await.unwrap().launcher_pid, launcher, "the same launcher goes on");
    let mut running = only_running(&second).await;
    assert!(running.take_listener().is_some(), "the gateway's listener comes back");
    drop(running);
    drop(second);

    // It ends while nobody is there.
    std::fs::write(dir.join("go"), "").unwrap();
    eventually("the payload's end", || !has_children(launcher)).await;
    let third = bed.sandbox();
    let mut running = only_running(&third).await;
    let report = running.wait().await.unwrap();
    assert_eq!(report.exit_code, Some(9));
    let mut rest = String::new();
    running.take_stdout().unwrap().read_to_string(&mut rest).await.unwrap();
    let want: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    assert_eq!(rest, want);
    running.release().await.unwrap();
    assert!(third.reattach().await.unwrap().is_empty());
    third.shut_down().await.unwrap();
}

/// News of an end is only for those who were greeted: to a server that is just saying hello it would
/// look like a wrong answer, and its runs like lost ones.
#[tokio::test]
async fn who_was_not_greeted_hears_nothing() {
    let bed = Bed::new();
    let first = bed.sandbox();
    let dir = bed.scratch();
    let owner = first.payload_owner().await.unwrap();
    std::os::unix::fs::chown(&dir, Some(owner.uid), Some(owner.gid)).unwrap();
    let spec = SandboxSpec::new("short").read_write(&dir, "/w");
    let script = "while [ ! -e /w/go ]; do sleep 0.01; done";
    let parked = first.create(spec).await.unwrap();
    let running = parked.start(Payload::new(["sh", "-c", script])).await.unwrap();
    let launcher = first.host().await.unwrap().launcher_pid;
    let open = || std::fs::read_dir(format!("/proc/{launcher}/fd")).unwrap().flatten();
    let fds = || open().count();
    let is_door = |entry: std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("mnt:"))
    };
    eventually("the end of what only a parked one needs", || !open().any(is_door)).await;
    let connected = fds();
    drop(running);
    first.disconnect().await;
    drop(first);
    eventually("the first server's leave", || fds() == connected - 1).await;

    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        None,
    )
    .unwrap();
    let address = rustix::net::SocketAddrUnix::new(bed.socket()).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    eventually("the second server's arrival", || fds() == connected).await;
    std::fs::write(dir.join("go"), "").unwrap();
    eventually("the payload's end", || !has_children(launcher)).await;
    // The launcher hangs up when it is through with what it had to say.
    rustix::net::shutdown(&socket, rustix::net::Shutdown::Write).unwrap();
    let mut said = [0_u8; 64];
    assert_eq!(rustix::io::read(&socket, &mut said).unwrap(), 0, "it spoke before the greeting");

    let third = bed.sandbox();
    let running = only_running(&third).await;
    assert!(running.wait().await.unwrap().success());
    running.release().await.unwrap();
    third.shut_down().await.unwrap();
}

fn has_children(pid: u32) -> bool {
    let path = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty())
}

/// Tells the re-executed test binary which socket to use as a server that will be killed.
const DOOMED_SOCKET: &str = "OUTPOST_TEST_DOOMED_SOCKET";

/// Not a test: the server of the next one, in a process of its own.
#[tokio::test]
async fn doomed_server() {
    let Some(socket) = std::env::var_os(DOOMED_SOCKET) else {
        return;
    };
    let options = options_at(PathBuf::from(socket));
    let sandbox = LinuxSandbox::new(options, SandboxPolicy::allow_missing_limits());
    let _warm = sandbox.create(SandboxSpec::new("warm")).await.unwrap();
    drop(sandbox.create(SandboxSpec::new("dropped")).await.unwrap());
    let _busy = start(&sandbox, "busy", "seq 1 100000; exit 4").await;
    println!("doomed server is ready");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_server_loses_neither_parked_nor_running_sandboxes() {
    use std::io::BufRead as _;
    let bed = Bed::new();
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifetime::doomed_server", "--nocapture"])
        .env(DOOMED_SOCKET, bed.socket())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(server.stdout.take().unwrap());
    assert!(said.lines().any(|line| line.unwrap().contains("doomed server is ready")));
    server.kill().unwrap();
    server.wait().unwrap();

    let second = bed.sandbox();
    let launcher = second.host().await.unwrap().launcher_pid;
    let (mut parked, mut running) = (Vec::new(), Vec::new());
    for one in second.reattach().await.unwrap() {
        match one {
            Reattached::Parked(sandbox) if sandbox.id() == "warm" => parked.push(sandbox),
            Reattached::Running(sandbox) if sandbox.id() == "busy" => running.push(sandbox),
            other => println!("still being killed: {other:?}"),
        }
    }
    let warm = parked.remove(0).start(Payload::new(["true"])).await.unwrap();
    assert!(warm.wait().await.unwrap().success());
    warm.release().await.unwrap();
    // The pipe was full while nobody read; nothing was lost.
    let mut busy = running.remove(0);
    let mut text = String::new();
    busy.take_stdout().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text.lines().count(), 100_000);
    assert!(text.ends_with("\n100000\n"));
    assert_eq!(busy.wait().await.unwrap().exit_code, Some(4));
    busy.release().await.unwrap();
    eventually("no sandbox", || !has_children(launcher)).await;
    second.shut_down().await.unwrap();
}

#[tokio::test]
async fn when_the_launcher_dies_its_sandboxes_die() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let mut running =
        start(&sandbox, "doomed", "(setsid sleep 1000 &); echo ready; sleep 1000").await;
    let parked = sandbox.create(SandboxSpec::new("parked")).await.unwrap();
    let mut stdout = running.take_stdout().unwrap();
    read_until(&mut stdout, "ready\n").await;
    let launcher = sandbox.host().await.unwrap().launcher_pid;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(launcher.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(matches!(running.wait().await, Err(SandboxError::LauncherLost)));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert!(matches!(running.kill().await, Err(SandboxError::LauncherLost)));
    assert!(parked.start(Payload::new(["true"])).await.is_err());
    drop(running);

    // The socket file is stale now; a new launcher takes its place, and the same ids can be used.
    assert!(bed.socket().exists());
    let running = start(&sandbox, "doomed", "exit 5").await;
    assert_eq!(running.wait().await.unwrap().exit_code, Some(5));
    assert_ne!(sandbox.host().await.unwrap().launcher_pid, launcher);
    running.release().await.unwrap();
    sandbox.shut_down().await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let launcher = sandbox.host().await.unwrap().launcher_pid;
    let mounts = || {
        std::fs::read_to_string(format!("/proc/{launcher}/mountinfo"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let fds = || {
        std::fs::read_dir(format!("/proc/{launcher}/fd")).map(Iterator::count).unwrap_or_default()
    };
    start(&sandbox, "warm-up", "true").await.release().await.unwrap();
    // Standard streams, lock, listener, event queue, this connection: nothing inherited.
    assert_eq!(fds(), 7, "descriptors of an idle launcher");
    let (mounts_before, fds_before) = (mounts(), fds());
    for round in 0..20 {
        let running =
            start(&sandbox, &format!("round-{round}"), "(setsid sleep 1000 &); exit 0").await;
        running.wait().await.unwrap();
        running.release().await.unwrap();
    }
    eventually("no process and no group", || {
        !has_children(launcher) && groups_below(launcher).is_empty()
    })
    .await;
    assert_eq!(mounts(), mounts_before);
    assert_eq!(fds(), fds_before);
    let own_groups = own_groups(launcher);
    drop(sandbox);
    eventually("the idle launcher's end", || !process_exists(launcher)).await;
    eventually("the socket's end", || !bed.socket().exists()).await;
    assert!(own_groups.iter().all(|group| !group.exists()), "{own_groups:?}");
}

/// The directories of this launcher in all cgroup hierarchies, found by its name.
fn own_groups(launcher: u32) -> Vec<PathBuf> {
    let socket = std::fs::read(format!("/proc/{launcher}/cmdline")).unwrap_or_default();
    let socket = String::from_utf8_lossy(&socket)
        .split('\0')
        .find(|arg| arg.ends_with("/s"))
        .map(str::to_owned);
    let Some(socket) = socket else {
        return Vec::new();
    };
    let hash = socket.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), &format!("outpost-{hash:016x}"), 6, &mut found);
    found
}

fn groups_below(launcher: u32) -> Vec<PathBuf> {
    let below = |group: PathBuf| {
        std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    own_groups(launcher).into_iter().flat_map(below).filter(|path| path.is_dir()).collect()
}

fn search(dir: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() == name {
                found.push(entry.path());
            } else if depth > 0 {
                search(&entry.path(), name, depth - 1, found);
            }
        }
    }
}

#[tokio::test]
async fn one_server_at_a_time_and_two_at_once_share_no_launcher_by_accident() {
    let bed = Bed::new();
    let (first, second) = (bed.sandbox(), bed.sandbox());
    // Both start at once: one launcher comes up, one server gets it, the other is told.
    let (a, b) = tokio::join!(first.host(), second.host());
    assert_eq!([&a, &b].iter().filter(|result| result.is_ok()).count(), 1, "{a:?} {b:?}");
    assert!([a, b].into_iter().any(|result| matches!(result, Err(SandboxError::Busy))));
    drop(first);
    drop(second);
    let third = bed.sandbox();
    third.host().await.unwrap();
    third.shut_down().await.unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let launcher = sandbox.host().await.unwrap().launcher_pid;
    for round in 0..10_u64 {
        let create = sandbox.create(SandboxSpec::new(format!("given-up-{round}")));
        let _gave_up = tokio::time::timeout(Duration::from_micros(round * 300), create).await;
    }
    eventually("no sandbox", || !has_children(launcher)).await;
    assert!(sandbox.reattach().await.unwrap().is_empty());
    sandbox.shut_down().await.unwrap();
}

#[tokio::test]
async fn the_probe_says_yes_and_the_policy_says_no_where_it_must() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let probe = probe_host(&*sandbox).await;
    assert!(probe.usable(), "{probe:?}");
    let host = probe.host.unwrap();
    assert_eq!(host.rootless, !rustix::process::geteuid().is_root());
    sandbox.shut_down().await.unwrap();
    let strict = LinuxSandbox::new(bed.options(), SandboxPolicy::default());
    let result = strict.create(SandboxSpec::new("strict")).await;
    let full = host.isolation.level == outpost_sandbox::IsolationLevel::Limits;
    match result {
        Ok(parked) => {
            assert!(full);
            parked.discard().await.unwrap();
        }
        Err(SandboxError::Unenforceable { missing, .. }) => {
            assert!(!full);
            assert!(missing.iter().any(|what| what.contains("memory")), "{missing:?}");
        }
        Err(other) => panic!("{other}"),
    }
    strict.shut_down().await.unwrap();
}

#[tokio::test]
async fn a_launcher_that_cannot_start_says_why() {
    let mut bed = Bed::new();
    bed.idle_seconds = 0;
    let mut options = bed.options();
    options.socket = PathBuf::from("/proc/no/s");
    let sandbox = LinuxSandbox::new(options, SandboxPolicy::allow_missing_limits());
    let error = sandbox.host().await.unwrap_err().to_string();
    assert!(error.contains("/proc/no"), "{error}");
    let mut options = bed.options();
    options.program = PathBuf::from("/no/such/launcher");
    let probe = probe_host(&LinuxSandbox::new(options, SandboxPolicy::default())).await;
    assert!(probe.problem.unwrap().contains("/no/such/launcher"));
}
