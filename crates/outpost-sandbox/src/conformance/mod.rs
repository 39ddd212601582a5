//! The checks that every implementation of [`crate::Sandbox`] must pass, against the real thing.
//!
//! A harness makes a [`Target`], runs [`cases`] one by one (they are independent) and prints names and outcomes.
//! Payloads are shell scripts with the host's own tools. Each case is bounded by [`CASE_SECONDS_MAX`]. Deliberately
//! absent: what only one implementation has, such as its restart behaviour, and escape probes.

mod claims;
mod confinement;
mod ends;
mod running;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::report::{ExitReport, IsolationLevel};
use crate::sandbox::{RunningSandbox, Sandbox};
use crate::spec::{Payload, SandboxSpec};

/// How long one case may take. All are done in well under a second on an idle machine, but for the limits' own waits.
pub const CASE_SECONDS_MAX: u64 = 120;
/// Most output a case reads from one stream.
const OUTPUT_BYTES_MAX: u64 = 8 << 20;

/// What a case runs against.
#[derive(Debug)]
pub struct Target {
    /// The implementation under test.
    pub sandbox: Arc<dyn Sandbox>,
    /// A directory of ours in which cases make directories to bind. Payloads may only see what is bound.
    pub scratch: PathBuf,
    counter: AtomicU32,
}

impl Target {
    /// `scratch` must exist.
    #[must_use]
    pub fn new(sandbox: Arc<dyn Sandbox>, scratch: PathBuf) -> Self {
        Self { sandbox, scratch, counter: AtomicU32::new(0) }
    }

    /// A spec with a fresh id.
    fn spec(&self) -> SandboxSpec {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        SandboxSpec::new(format!("case-{}-{number}", std::process::id()))
    }

    /// A new directory on the host that the payload may write to.
    async fn writable(&self, name: &str) -> Result<PathBuf, Problem> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let dir = self.scratch.join(format!("{number}-{name}"));
        std::fs::create_dir(&dir)?;
        let owner = self.sandbox.payload_owner().await?;
        std::os::unix::fs::chown(&dir, Some(owner.uid), Some(owner.gid))?;
        Ok(dir)
    }

    async fn limits_enforced(&self) -> Result<bool, Problem> {
        Ok(self.sandbox.host().await?.isolation.level >= IsolationLevel::Limits)
    }
}

/// Why a case failed.
#[derive(Debug)]
pub struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self(format!("{error}{cause}"))
    }
}

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it must.
    Passed,
    /// The host lacks what it needs; the reason.
    Skipped(String),
}

type Verdict = Result<Outcome, Problem>;
type Run = fn(Arc<Target>) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One check.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it checks.
    pub name: &'static str,
    run: Run,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Case {
    /// Runs the check.
    ///
    /// # Errors
    /// What was not as it must be, or that it took too long.
    pub async fn run(&self, target: Arc<Target>) -> Result<Outcome, Problem> {
        match timeout(Duration::from_secs(CASE_SECONDS_MAX), (self.run)(target)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Problem(format!("not done within {CASE_SECONDS_MAX} s"))),
        }
    }
}

/// All checks.
#[must_use]
pub fn cases() -> Vec<Case> {
    [running::CASES, claims::CASES, confinement::CASES, ends::CASES].concat()
}

/// What a finished payload left.
struct Finished {
    report: ExitReport,
    stdout: String,
    stderr: String,
}

impl Target {
    /// Runs a shell script to its end.
    async fn sh(&self, spec: SandboxSpec, script: &str) -> Result<Finished, Problem> {
        self.run(spec, Payload::new(["sh", "-c", script])).await
    }

    /// Runs a payload to its end and releases the sandbox.
    async fn run(&self, spec: SandboxSpec, payload: Payload) -> Result<Finished, Problem> {
        let running = self.sandbox.create(spec).await?.start(payload).await?;
        finish(running).await
    }
}

/// Reads all output, waits, releases.
async fn finish(mut running: Box<dyn RunningSandbox>) -> Result<Finished, Problem> {
    let (stdout, stderr) = (running.take_stdout(), running.take_stderr());
    let read = |stream: Option<tokio::net::unix::pipe::Receiver>| async move {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await?;
        }
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (stdout, stderr, report) = tokio::join!(read(stdout), read(stderr), running.wait());
    let finished = Finished { report: report?, stdout: stdout?, stderr: stderr? };
    running.release().await?;
    Ok(finished)
}

/// Reads until the payload has said `word`, so that what follows happens at a known point of its life.
async fn await_word(
    stream: &mut tokio::net::unix::pipe::Receiver,
    word: &str,
) -> Result<(), Problem> {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(word) {
        let mut chunk = [0_u8; 256];
        let count = stream.read(&mut chunk).await?;
        check(count > 0, || {
            format!("the output ended before {word:?}: {}", String::from_utf8_lossy(&seen))
        })?;
        seen.extend_from_slice(&chunk[..count]);
    }
    Ok(())
}

fn check(ok: bool, problem: impl FnOnce() -> String) -> Result<(), Problem> {
    if ok { Ok(()) } else { Err(Problem(problem())) }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, want: T) -> Result<(), Problem> {
    check(got == want, || format!("{what}: got {got:?}, want {want:?}"))
}

fn utf8(path: &Path) -> Result<&str, Problem> {
    path.to_str().ok_or_else(|| Problem(format!("{} is not UTF-8", path.display())))
}
