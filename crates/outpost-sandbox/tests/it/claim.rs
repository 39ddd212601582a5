//! Claims across the ends of servers, and what they leave.

use std::path::PathBuf;

use outpost_sandbox::{
    Bind, Claim, LinuxSandbox, ParkedSandbox, Payload, Reattached, Sandbox, SandboxPolicy,
    SandboxSpec,
};

use crate::overlay::Dirs;
use crate::{Bed, eventually, options_at};

fn claim(id: &str, binds: Vec<Bind>) -> Claim {
    Claim { id: id.to_owned(), binds, wall_seconds: None }
}

async fn parked(sandbox: &LinuxSandbox) -> Vec<Box<dyn ParkedSandbox>> {
    let parked = |one| match one {
        Reattached::Parked(parked) => parked,
        Reattached::Running(running) => panic!("{running:?}"),
    };
    sandbox.reattach().await.unwrap().into_iter().map(parked).collect()
}

/// Tells the re-executed test binary which socket to use as a server that is killed amid claims.
const CLAIMING_SOCKET: &str = "OUTPOST_TEST_CLAIMING_SOCKET";
/// Sandboxes that server has.
const SANDBOXES: usize = 12;

/// Not a test: the server of the next one, in a process of its own.
#[tokio::test]
async fn claiming_server() {
    let Some(socket) = std::env::var_os(CLAIMING_SOCKET) else { return };
    let options = options_at(PathBuf::from(socket));
    let sandbox = LinuxSandbox::new(options, SandboxPolicy::allow_missing_limits());
    let mut all = Vec::new();
    for number in 0..SANDBOXES {
        all.push(sandbox.create(SandboxSpec::new(format!("warm-{number}"))).await.unwrap());
    }
    println!("claiming server is ready");
    for (number, one) in all.iter_mut().enumerate() {
        let bind = Bind::read_only("/usr/share", "/srv/share");
        one.claim(claim(&format!("attempt-{number}"), vec![bind])).await.unwrap();
        println!("claimed {number}");
    }
    std::future::pending::<()>().await;
}

/// Killed at any moment of a claim, a server leaves each sandbox under one name, parked and whole.
#[tokio::test]
async fn a_server_killed_amid_claims_loses_no_sandbox() {
    use std::io::BufRead as _;
    for last_heard in ["claiming server is ready", "claimed 3", "claimed 11"] {
        let bed = Bed::new();
        let mut server = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "claim::claiming_server", "--nocapture"])
            .env(CLAIMING_SOCKET, bed.socket())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let said = std::io::BufReader::new(server.stdout.take().unwrap());
        assert!(said.lines().any(|line| line.unwrap().contains(last_heard)));
        server.kill().unwrap();
        server.wait().unwrap();
        let second = bed.sandbox();
        let mut numbers = Vec::new();
        for one in parked(&second).await {
            let (kind, number) = one.id().split_once('-').unwrap();
            numbers.push(number.parse::<usize>().unwrap());
            let claimed = kind == "attempt";
            let look = if claimed { "test -e /srv/share" } else { "test ! -e /srv/share" };
            let running = one.start(Payload::new(["sh", "-c", look])).await.unwrap();
            assert!(running.wait().await.unwrap().success(), "{last_heard}: {claimed}");
            running.release().await.unwrap();
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..SANDBOXES).collect::<Vec<_>>(), "{last_heard}");
        second.shut_down().await.unwrap();
    }
}

/// Who gives up amid a claim does not know the sandbox's name: it goes all the same.
#[tokio::test]
async fn a_claim_that_is_given_up_leaves_nothing() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    for round in 0..20_u64 {
        let mut warm = sandbox.create(SandboxSpec::new(format!("warm-{round}"))).await.unwrap();
        let bind = Bind::read_only("/usr/share", "/srv/share");
        let claim = warm.claim(claim(&format!("attempt-{round}"), vec![bind]));
        let limit = std::time::Duration::from_micros(round * 150);
        let _gave_up = tokio::time::timeout(limit, claim).await;
    }
    let launcher = sandbox.host().await.unwrap().launcher_pid;
    let children = format!("/proc/{launcher}/task/{launcher}/children");
    eventually("no sandbox", || {
        std::fs::read_to_string(&children).is_ok_and(|text| text.trim().is_empty())
    })
    .await;
    assert!(sandbox.reattach().await.unwrap().is_empty());
    sandbox.shut_down().await.unwrap();
}

/// What a claim adds is measured together with what was there before.
#[tokio::test]
async fn a_claim_adds_to_what_is_measured() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dirs = Dirs::new(&bed, &sandbox).await;
    let mut spec = SandboxSpec::new("warm").read_write(dirs.path("lower"), "/first");
    spec.limits.disk_files = Some(64);
    let mut warm = sandbox.create(spec).await.unwrap();
    let binds = vec![Bind::read_write(dirs.path("upper"), "/second")];
    warm.claim(claim("attempt", binds)).await.unwrap();
    let script = "for i in $(seq 40); do : > /first/$i; : > /second/$i; done; sleep 1000";
    let running = warm.start(Payload::new(["sh", "-c", script])).await.unwrap();
    let report = running.wait().await.unwrap();
    assert!(report.disk_limit_hit, "{report:?}");
    running.release().await.unwrap();
    sandbox.shut_down().await.unwrap();
}
