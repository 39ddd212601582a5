//! How sandboxes end: by themselves, on request, at a limit; and that nothing outlives them.

use std::sync::Arc;

use tokio::io::AsyncReadExt as _;

use super::{Case, Outcome, Problem, Target, Verdict, await_word, check, same};
use crate::error::SandboxError;
use crate::sandbox::RunningSandbox;
use crate::spec::{Payload, SandboxSpec};

pub(super) const CASES: &[Case] = &[
    Case { name: "exit codes and signals are told apart", run: |t| Box::pin(codes(t)) },
    Case {
        name: "a program or directory that is missing is an error of the start",
        run: |t| Box::pin(no_start(t)),
    },
    Case { name: "stop sends SIGTERM to the payload's group", run: |t| Box::pin(stop(t)) },
    Case { name: "kill ends daemons too", run: |t| Box::pin(kill(t)) },
    Case { name: "the payload's end ends what it left behind", run: |t| Box::pin(orphans(t)) },
    Case { name: "orphans are reaped while the payload runs", run: |t| Box::pin(reaping(t)) },
    Case { name: "the memory limit kills and is reported", run: |t| Box::pin(memory(t)) },
    Case { name: "the process limit refuses more", run: |t| Box::pin(processes(t)) },
    Case { name: "the wall clock limit kills and is reported", run: |t| Box::pin(wall(t)) },
    Case { name: "use of processor and time is reported", run: |t| Box::pin(usage(t)) },
];

async fn codes(target: Arc<Target>) -> Verdict {
    for code in [0, 1, 42, 255] {
        let got = target.sh(target.spec(), &format!("exit {code}")).await?;
        same("exit code", (got.report.exit_code, got.report.signal), (Some(code), None))?;
    }
    for signal in [libc::SIGSEGV, libc::SIGKILL, libc::SIGPIPE] {
        let got = target.sh(target.spec(), &format!("kill -{signal} $$")).await?;
        same("signal", (got.report.exit_code, got.report.signal), (None, Some(signal)))?;
        check(!got.report.oom_killed && !got.report.killed, || format!("{:?}", got.report))?;
    }
    Ok(Outcome::Passed)
}

async fn no_start(target: Arc<Target>) -> Verdict {
    for payload in [
        Payload::new(["no-such-program"]),
        Payload::new(["/no/such/program"]),
        Payload::new(["/etc/passwd"]),
        Payload::new(["true"]).cwd("/no/such/directory"),
    ] {
        let spec = target.spec();
        let got = target.sandbox.create(spec.clone()).await?.start(payload.clone()).await;
        check(matches!(got, Err(SandboxError::Start { .. })), || format!("{payload:?}: {got:?}"))?;
    }
    Ok(Outcome::Passed)
}

/// Starts a script and waits for its first word, `ready`.
async fn ready(target: &Target, spec: SandboxSpec, script: &str) -> Result<Started, Problem> {
    let mut running =
        target.sandbox.create(spec).await?.start(Payload::new(["sh", "-c", script])).await?;
    let mut stdout = running.take_stdout().ok_or_else(|| Problem("no output".into()))?;
    await_word(&mut stdout, "ready\n").await?;
    Ok(Started { running, stdout })
}

struct Started {
    running: Box<dyn RunningSandbox>,
    stdout: tokio::net::unix::pipe::Receiver,
}

impl Started {
    /// Everything that held the output is gone when it ends.
    async fn rest(&mut self) -> Result<String, Problem> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).await?;
        Ok(rest)
    }
}

async fn stop(target: Arc<Target>) -> Verdict {
    let script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut started = ready(&target, target.spec(), script).await?;
    started.running.stop().await?;
    let report = started.running.wait().await?;
    same("exit code", report.exit_code, Some(7))?;
    same("last words", started.rest().await?.as_str(), "got it\n")?;
    check(!report.killed, || "a stop is not a kill".into())?;
    started.running.release().await?;
    // Without a handler the signal itself ends it, its children included.
    let started = ready(&target, target.spec(), "sleep 1000 & echo ready; wait").await?;
    started.running.stop().await?;
    same("signal", started.running.wait().await?.signal, Some(libc::SIGTERM))?;
    started.running.release().await?;
    Ok(Outcome::Passed)
}

const DAEMON: &str =
    "trap '' TERM HUP; (setsid sh -c 'trap \"\" TERM HUP; (sleep 1000 &) ; sleep 1000' &)";

async fn kill(target: Arc<Target>) -> Verdict {
    let mut started =
        ready(&target, target.spec(), &format!("{DAEMON}; echo ready; sleep 1000")).await?;
    started.running.kill().await?;
    let report = started.running.wait().await?;
    same(
        "end",
        (report.exit_code, report.signal, report.killed),
        (None, Some(libc::SIGKILL), true),
    )?;
    started.rest().await?;
    same("a second wait", started.running.wait().await?, report)?;
    started.running.kill().await?;
    started.running.release().await?;
    Ok(Outcome::Passed)
}

async fn orphans(target: Arc<Target>) -> Verdict {
    let mut started =
        ready(&target, target.spec(), &format!("{DAEMON}; echo ready; exit 3")).await?;
    same("exit code", started.running.wait().await?.exit_code, Some(3))?;
    started.rest().await?;
    started.running.release().await?;
    Ok(Outcome::Passed)
}

async fn reaping(target: Arc<Target>) -> Verdict {
    // Each round leaves an orphan that ends at once; a reaping init keeps the number of zombies from growing.
    let script = "i=0; while [ $i -lt 50 ]; do sh -c '(exit 0) & exit 0'; i=$((i+1)); done
        n=1000; tries=0; while [ $n -gt 0 ] && [ $tries -lt 500 ]; do
            n=$(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l); tries=$((tries+1)); done; echo $n";
    same("zombies", target.sh(target.spec(), script).await?.stdout.as_str(), "0\n")?;
    Ok(Outcome::Passed)
}

async fn memory(target: Arc<Target>) -> Verdict {
    if !target.limits_enforced().await? {
        return Ok(Outcome::Skipped("this host gives us no memory cgroup".into()));
    }
    let mut spec = target.spec();
    spec.limits.memory_bytes = 64 << 20;
    // tail keeps all it reads, because no line ever ends.
    let got =
        target.sh(spec, "head -c 300000000 /dev/zero | tail -n 1 > /dev/null; echo $?").await?;
    check(got.report.oom_killed, || format!("{:?} {}", got.report, got.stdout))?;
    let peak = got.report.memory_peak_bytes.unwrap_or_default();
    check((32 << 20..=64 << 20).contains(&peak), || format!("the peak was {peak}"))?;
    let mut spec = target.spec();
    spec.limits.memory_bytes = 64 << 20;
    let got = target.sh(spec, "true").await?;
    check(!got.report.oom_killed, || "a harmless payload was reported".into())?;
    Ok(Outcome::Passed)
}

async fn processes(target: Arc<Target>) -> Verdict {
    let mut spec = target.spec();
    spec.limits.pids_max = 20;
    let script = "n=0; while [ $n -lt 60 ]; do sleep 1000 & n=$((n+1)); done; echo all";
    let got = target.sh(spec, script).await?;
    check(!got.stdout.contains("all") && got.stderr.contains("ork"), || {
        format!("{:?} {} {}", got.report, got.stdout, got.stderr)
    })?;
    Ok(Outcome::Passed)
}

async fn wall(target: Arc<Target>) -> Verdict {
    let mut spec = target.spec();
    spec.limits.wall_seconds = Some(1);
    let got = target.sh(spec, "sleep 1000").await?;
    check(got.report.wall_limit_hit && got.report.signal == Some(libc::SIGKILL), || {
        format!("{:?}", got.report)
    })?;
    Ok(Outcome::Passed)
}

async fn usage(target: Arc<Target>) -> Verdict {
    let got = target.sh(target.spec(), "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").await?;
    check(got.report.cpu_micros > 1000, || format!("{:?}", got.report))?;
    check(got.report.duration_micros > 1000, || format!("{:?}", got.report))?;
    Ok(Outcome::Passed)
}
