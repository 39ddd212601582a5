//! `outpost bench workspace`: how soon the files of a repository are there, beside git's own clones.
//!
//! Everything is asked of the workspace crate as a server asks it. What is compared takes turns, each after the
//! disk has written what came before, so that nobody pays for the other's files. `git status` runs in sandboxes of
//! one kind, on the layers of a run and on a plain clone; its time includes the start of a process there.
//!
//! Bounded: repetitions. The disk holds a checkout of each new commit until the end. Absent: hosts that are
//! asked over the network, whose speed is theirs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use outpost_sandbox::{
    Bind, LauncherOptions, LinuxSandbox, Payload, Sandbox as _, SandboxError, SandboxPolicy,
    SandboxSpec,
};
use outpost_workspace::{
    Layers, OpenError, PersistentConfig, PrepareError, PrepareRequest, Prepared, RepoOverlay,
    Workspaces, WorkspacesConfig,
};
use tokio::io::AsyncReadExt as _;

use crate::error::BenchError;
use crate::histogram::Histogram;
use crate::options::{WorkspaceOptions, create_private};
use crate::report::{Goal, Report, Row};
use crate::source::Source;
use crate::{Bench, ROUNDS_COUNT, client};

/// Goals of the project: at a cached commit, and how many times as long as `git clone --shared` at a new one.
const CACHED_P50_MILLIS: f64 = 5.0;
const NEW_CLONES: f64 = 1.1;
/// Repetitions in each round, of what is cheap.
const CACHED_COUNT: u32 = 70;
const STATUS_COUNT: u32 = 7;
/// Of what writes all files, for repositories up to [`LARGE_BYTES`], and beyond.
const NEW_COUNT: u32 = 4;
const NEW_COUNT_LARGE: u32 = 2;
const LARGE_BYTES: u64 = 256 * 1024 * 1024;
/// First prepares and plain clones in each round.
const COLD_COUNT: u32 = 2;
/// Where the workspace is inside.
const INSIDE: &str = "/workspace/bench";
/// Most of git's answer that is read, bytes.
const STATUS_BYTES_MAX: u64 = 4 * 1024;
/// More than any repository of the bench.
const REPO_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

struct Times {
    cached: Histogram,
    new: Histogram,
    shared: Histogram,
    cold: Histogram,
    clone: Histogram,
    status: Histogram,
    status_again: Histogram,
    status_clone: Histogram,
}

impl Times {
    fn new() -> Self {
        let [cached, new, shared, cold] = std::array::from_fn(|_| Histogram::new());
        let [clone, status, status_again, status_clone] = std::array::from_fn(|_| Histogram::new());
        Self { cached, new, shared, cold, clone, status, status_again, status_clone }
    }
}

/// What workspaces are made of.
struct Stage {
    workspaces: Workspaces,
    source: Source,
    dir: PathBuf,
    /// Who the agent is, where files can be given away.
    owner: Option<(u32, u32)>,
    layers: Layers,
    number: u32,
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &WorkspaceOptions) -> Result<Report, BenchError> {
    let runtime = client::runtime()?;
    let launcher = bench.dir("launcher");
    create_private(&launcher)?;
    let options = LauncherOptions::new(launcher.join("socket"));
    let sandbox = LinuxSandbox::new(options, SandboxPolicy::allow_missing_limits());
    let overlay = runtime.block_on(sandbox.host()).map_err(sandbox_failed)?.overlay;
    let owner = runtime.block_on(sandbox.payload_owner()).map_err(sandbox_failed)?;
    let owner = rustix::process::geteuid().is_root().then_some((owner.uid, owner.gid));
    bench.ui.note("making the repository");
    let source = Source::make(bench.dir("source"), args.files, args.bytes)?;
    let layers = if overlay { Layers::Overlay } else { Layers::Copy };
    let mut stage = Stage::new(bench.dir("stage"), source, owner, layers)?;
    let mut times = Times::new();
    let new_count = if args.bytes > LARGE_BYTES { NEW_COUNT_LARGE } else { NEW_COUNT };
    for round in 1..=ROUNDS_COUNT {
        bench.floor.round()?;
        runtime.block_on(async {
            stage.cold(&mut times).await?;
            stage.new_commits(new_count, &mut times).await?;
            stage.cached(&mut times).await?;
            stage.statuses(&sandbox, &mut times).await
        })?;
        bench.ui.note(&format!(
            "round {round} of {ROUNDS_COUNT}: cached {:.2} ms, new {:.0} ms, first {:.0} ms",
            times.cached.millis(0.5),
            times.new.millis(0.5),
            times.cold.millis(0.5)
        ));
    }
    runtime.block_on(sandbox.shut_down()).map_err(sandbox_failed)?;
    bench.rows = rows(args, overlay, &times);
    Ok(bench.finish("workspace"))
}

fn sandbox_failed(error: SandboxError) -> BenchError {
    BenchError::chain("a sandbox of the bench failed", &error)
}

fn prepare_failed(error: PrepareError) -> BenchError {
    BenchError::chain("a workspace of the bench could not be made", &error)
}

impl Stage {
    fn new(
        dir: PathBuf,
        source: Source,
        owner: Option<(u32, u32)>,
        layers: Layers,
    ) -> Result<Self, BenchError> {
        create_private(&dir)?;
        let workspaces = open(&dir.join("server"))?;
        Ok(Self { workspaces, source, dir, owner, layers, number: 0 })
    }

    /// A name that was not used yet, once everything before is on the disk.
    fn fresh(&mut self, kind: &str) -> io::Result<PathBuf> {
        self.number += 1;
        rustix::fs::syncfs(File::open(&self.dir)?)?;
        Ok(self.dir.join(format!("{kind}-{}", self.number)))
    }

    async fn prepare(&self, by: &Workspaces, dir: PathBuf) -> Result<Prepared, BenchError> {
        let source = by.parse_source(&self.source.dir.to_string_lossy());
        let source = source.map_err(|error| BenchError::chain("the source", &error))?;
        let request = PrepareRequest {
            laid_out: false,
            tenant: "bench".to_owned(),
            source: Some(source),
            branch: None,
            dir,
            inside: INSIDE.into(),
            owner: self.owner,
            task: "Look around.".to_owned(),
            layers: self.layers,
            persistent: None,
        };
        by.prepare(request).await.map_err(prepare_failed)
    }

    async fn timed_prepare(
        &mut self,
        by: &Workspaces,
        times: &mut Histogram,
    ) -> Result<(), BenchError> {
        let dir = self.fresh("attempt")?;
        let began = Instant::now();
        self.prepare(by, dir.clone()).await?;
        times.add(began.elapsed());
        Ok(by.remove(&dir).await?)
    }

    fn timed_clone(&mut self, kind: &str, times: &mut Histogram) -> Result<(), BenchError> {
        let dir = self.fresh("clone")?;
        let began = Instant::now();
        self.source.clone_to(&dir, kind)?;
        times.add(began.elapsed());
        Ok(std::fs::remove_dir_all(dir)?)
    }

    /// By a server that knows nothing, beside a clone that shares nothing.
    async fn cold(&mut self, times: &mut Times) -> Result<(), BenchError> {
        for _ in 0..COLD_COUNT {
            let server = self.fresh("server")?;
            let strange = open(&server)?;
            self.timed_prepare(&strange, &mut times.cold).await?;
            std::fs::remove_dir_all(server)?;
            self.timed_clone("--no-hardlinks", &mut times.clone)?;
        }
        Ok(())
    }

    /// The mirror is there and the commit is new, beside a clone that borrows the objects; who is first changes.
    async fn new_commits(&mut self, count: u32, times: &mut Times) -> Result<(), BenchError> {
        let known = self.workspaces.clone();
        // The mirror.
        self.timed_prepare(&known, &mut Histogram::new()).await?;
        for number in 0..count {
            self.source.commit()?;
            if number % 2 == 0 {
                self.timed_clone("--shared", &mut times.shared)?;
            }
            self.timed_prepare(&known, &mut times.new).await?;
            if number % 2 != 0 {
                self.timed_clone("--shared", &mut times.shared)?;
            }
        }
        Ok(())
    }

    async fn cached(&mut self, times: &mut Times) -> Result<(), BenchError> {
        let known = self.workspaces.clone();
        self.timed_prepare(&known, &mut Histogram::new()).await?;
        for _ in 0..CACHED_COUNT {
            self.timed_prepare(&known, &mut times.cached).await?;
        }
        Ok(())
    }

    /// What an agent's first questions cost, in a workspace of its own each time, and in a plain clone.
    async fn statuses(
        &mut self,
        sandbox: &LinuxSandbox,
        times: &mut Times,
    ) -> Result<(), BenchError> {
        let clone = self.fresh("clone")?;
        self.source.clone_to(&clone, "--no-hardlinks")?;
        give(&clone, self.owner)?;
        let plain = vec![Bind::read_write(&clone, format!("{INSIDE}/repo"))];
        // The kernel has all files at hand from here on.
        self.status(sandbox, &plain).await?;
        for _ in 0..STATUS_COUNT {
            let dir = self.fresh("attempt")?;
            let prepared = self.prepare(&self.workspaces, dir.clone()).await?;
            let layered = binds(&prepared);
            times.status.add(self.status(sandbox, &layered).await?);
            times.status_again.add(self.status(sandbox, &layered).await?);
            times.status_clone.add(self.status(sandbox, &plain).await?);
            self.workspaces.remove(&dir).await?;
        }
        Ok(std::fs::remove_dir_all(clone)?)
    }

    /// Runs `git status` in a sandbox that was made before; an answer other than "clean" is an error.
    async fn status(
        &mut self,
        sandbox: &LinuxSandbox,
        binds: &[Bind],
    ) -> Result<Duration, BenchError> {
        self.number += 1;
        let mut spec = SandboxSpec::new(format!("bench-status-{}", self.number));
        spec.binds = binds.to_vec();
        let payload = Payload::new(["/usr/bin/env", "git", "status", "--porcelain"]);
        let payload = payload.cwd(format!("{INSIDE}/repo"));
        let parked = sandbox.create(spec).await.map_err(sandbox_failed)?;
        let began = Instant::now();
        let mut running = parked.start(payload).await.map_err(sandbox_failed)?;
        let exit = running.wait().await.map_err(sandbox_failed)?;
        let took = began.elapsed();
        let mut text = String::new();
        if let Some(stdout) = running.take_stdout() {
            stdout.take(STATUS_BYTES_MAX).read_to_string(&mut text).await?;
        }
        running.release().await.map_err(sandbox_failed)?;
        if !exit.success() || !text.is_empty() {
            let text =
                format!("git status in a new workspace ended with {exit:?} and said: {text}");
            return Err(BenchError::failed(text).with_hint("git must be in /usr of this host"));
        }
        Ok(took)
    }
}

/// As a server shows a workspace to an agent.
fn binds(prepared: &Prepared) -> Vec<Bind> {
    let mut binds = vec![Bind::read_write(&prepared.dir, &prepared.inside)];
    binds.extend(prepared.overlay.clone().map(|overlay| {
        let RepoOverlay { lower, upper, work } = overlay;
        Bind::overlay(upper, work, lower, prepared.inside.join("repo"))
    }));
    binds.extend(prepared.ro_binds.iter().map(|(host, inside)| Bind::read_only(host, inside)));
    binds
}

/// Gives a clone to the agent's user, as a workspace is: git asks whose it is.
fn give(dir: &Path, owner: Option<(u32, u32)>) -> Result<(), BenchError> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let ended = Command::new("chown").args(["-R", &format!("{uid}:{gid}")]).arg(dir).status()?;
    if ended.success() { Ok(()) } else { Err(BenchError::failed("chown of a clone failed")) }
}

/// Workspaces of a server whose cache is below `dir`.
fn open(dir: &Path) -> Result<Workspaces, BenchError> {
    create_private(dir)?;
    let config = WorkspacesConfig {
        cache_dir: dir.join("cache"),
        allow_local: true,
        github_base: "https://github.invalid".to_owned(),
        repo_bytes_max: REPO_BYTES_MAX,
        // Nothing is to be dropped while something is measured.
        cache_bytes_max: REPO_BYTES_MAX,
        persistent: PersistentConfig {
            dir: dir.join("workspaces"),
            bytes_max: REPO_BYTES_MAX,
            idle_seconds_max: outpost_workspace::WORKSPACE_IDLE_SECONDS_DEFAULT,
        },
        git: "git".into(),
        token: None,
    };
    let failed = |error: OpenError| BenchError::chain("the cache of the bench", &error);
    Workspaces::new(config).map_err(failed)
}

fn rows(args: &WorkspaceOptions, overlay: bool, times: &Times) -> Vec<Row> {
    let mib = args.bytes as f64 / 1_048_576.0;
    let how = if overlay { "layers" } else { "copies" };
    let what = format!("{} files, {mib:.0} MiB, {how}", args.files);
    let p50 = |what: &str, times: &Histogram| {
        Row::new(format!("{what}, p50 of {}", times.count()), "ms", times.millis(0.5))
    };
    let shared = times.shared.millis(0.5);
    let (clone, status) = (times.clone.millis(0.5), times.status_clone.millis(0.5));
    vec![
        p50(&format!("{what}: at a cached commit"), &times.cached)
            .goal(Goal::AtMost(CACHED_P50_MILLIS)),
        Row::new("at a cached commit, p99", "ms", times.cached.millis(0.99)),
        p50("at a new commit, the mirror is there", &times.new)
            .goal(Goal::AtMost(NEW_CLONES * shared))
            .floor(shared, "git clone --shared"),
        Row::new("at a new commit, slowest", "ms", times.new.millis(1.0))
            .floor(times.shared.millis(1.0), "git clone --shared"),
        p50("first time, nothing is there", &times.cold).floor(clone, "git clone --no-hardlinks"),
        p50("git status in a new workspace", &times.status).floor(status, "in a plain clone"),
        p50("git status again", &times.status_again).floor(status, "in a plain clone"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_are_timed_beside_clones_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::make(dir.path().join("source"), 30, 30_000).unwrap();
        let mut stage =
            Stage::new(dir.path().join("stage"), source, None, Layers::Overlay).unwrap();
        let mut times = Times::new();
        client::runtime().unwrap().block_on(async {
            stage.cold(&mut times).await.unwrap();
            stage.new_commits(3, &mut times).await.unwrap();
            let prepared = stage.prepare(&stage.workspaces, dir.path().join("a")).await.unwrap();
            assert_eq!(prepared.tracked_files.len(), 30);
            let shown = binds(&prepared).len();
            assert_eq!(shown, 3, "workspace, layers and mirror");
        });
        assert_eq!((times.new.count(), times.shared.count()), (3, 3));
        assert_eq!((times.cold.count(), times.clone.count()), (2, 2));
        let left = std::fs::read_dir(dir.path().join("stage")).unwrap().count();
        assert_eq!(left, 1, "only the cache of the server that knows");
    }

    #[test]
    fn a_new_commit_is_judged_by_the_clone_beside_it() {
        let options = WorkspaceOptions { files: 14_000, bytes: 50 << 20 };
        let met = |cached: u64, new: u64| {
            let mut times = Times::new();
            times.cached.add(Duration::from_millis(cached));
            times.new.add(Duration::from_millis(new));
            times.shared.add(Duration::from_millis(100));
            let rows = rows(&options, true, &times);
            assert!(rows[0].what.starts_with("14000 files, 50 MiB"), "{}", rows[0].what);
            rows.iter().filter_map(Row::met).collect::<Vec<_>>()
        };
        assert_eq!(met(4, 108), [true, true]);
        assert_eq!(met(6, 120), [false, false]);
    }
}
