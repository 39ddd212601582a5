//! `outpost bench start`: what a sandbox with everything on costs, beside the start of a bare process.
//!
//! The payload says one byte and ends: figures reach from the wish to that byte, and to the moment its end is known,
//! which is when nothing of the sandbox lives any more. Cold: the sandbox is made, started and ends. Warm: it was
//! parked before. Claimed: parked before, it gets a workspace of layers and a home first. All are taken in turn. The
//! launcher is the one of a server; nothing is switched off.
//!
//! The floor is measured in turn with them, on the same program and to its first byte: fork and exec, as the goals
//! mean it; and `posix_spawn`, which is faster, since it copies nothing. Peers that are installed take their turn, too.
//!
//! Bounded: starts. Absent: agents, and what is in a workspace.

mod peers;

use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use outpost_sandbox::{
    Bind, Claim, GATEWAY_PORT, HOME_INSIDE, LauncherOptions, LinuxSandbox, ParkedSandbox, Payload,
    Sandbox as _, SandboxError, SandboxPolicy, SandboxSpec,
};
use tokio::io::AsyncReadExt as _;

use crate::client;
use crate::error::BenchError;
use crate::floor::elf;
use crate::histogram::Histogram;
use crate::options::{StartOptions, create_private};
use crate::report::{Goal, Report, Row};
use crate::{Bench, ROUNDS_COUNT};
use peers::Peer;

/// Goals of the project, in starts of a bare process.
const COLD_FLOORS: f64 = 6.5;
const CLAIM_FLOORS: f64 = 2.5;
const WARM_FLOORS: f64 = 1.0;
/// Where the payload is inside.
const PROGRAM_INSIDE: &str = "/opt/bench/say";
/// Where the workspace is inside.
const WORKSPACE_INSIDE: &str = "/workspace/bench";

struct Times {
    fork: Histogram,
    spawn: Histogram,
    cold: Start,
    warm: Start,
    claimed: Start,
    claim: Histogram,
    release: Histogram,
    peers: Vec<Peer>,
}

/// From the wish to the first byte, and to the known end.
struct Start {
    first: Histogram,
    end: Histogram,
}

impl Start {
    fn new() -> Self {
        Self { first: Histogram::new(), end: Histogram::new() }
    }
}

/// What the sandboxes are made of.
struct Stage {
    sandbox: LinuxSandbox,
    program: PathBuf,
    dir: PathBuf,
    overlay: bool,
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &StartOptions) -> Result<Report, BenchError> {
    let dir = bench.dir("launcher");
    create_private(&dir)?;
    let mut times = Times {
        fork: Histogram::new(),
        spawn: Histogram::new(),
        cold: Start::new(),
        warm: Start::new(),
        claimed: Start::new(),
        claim: Histogram::new(),
        release: Histogram::new(),
        peers: Vec::new(),
    };
    let runtime = client::runtime()?;
    let options = LauncherOptions::new(dir.join("socket"));
    let sandbox = LinuxSandbox::new(options, SandboxPolicy::allow_missing_limits());
    let overlay = runtime.block_on(sandbox.host()).map_err(failed)?.overlay;
    let stage = Arc::new(Stage { sandbox, program: program(&dir)?, dir, overlay });
    let peers_dir = stage.dir.join("peers");
    create_private(&peers_dir)?;
    times.peers = peers::find(&peers_dir, &stage.program, &mut |text| bench.ui.note(text))?;
    let mut number = 0;
    for round in 1..=ROUNDS_COUNT {
        bench.floor.round()?;
        runtime
            .block_on(async {
                for _ in 0..args.starts {
                    number += 1;
                    one(&stage, number, &mut times).await?;
                }
                Ok::<_, SandboxError>(())
            })
            .map_err(failed)?;
        bench.ui.note(&format!(
            "round {round} of {ROUNDS_COUNT}: cold {:.2} ms, claim {:.2} ms, warm {:.2} ms",
            times.cold.first.millis(0.5),
            times.claim.millis(0.5),
            times.warm.first.millis(0.5)
        ));
    }
    runtime.block_on(stage.sandbox.shut_down()).map_err(failed)?;
    bench.rows = rows(&times);
    Ok(bench.finish("start"))
}

fn failed(error: SandboxError) -> BenchError {
    BenchError::chain("a sandbox of the bench failed", &error)
}

/// A program that says one byte and ends: our own where this processor allows it, else `echo`.
fn program(dir: &Path) -> io::Result<PathBuf> {
    let Some(code) = say() else { return Ok(PathBuf::from("/bin/echo")) };
    let path = dir.join("say");
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(0o755).open(&path)?;
    io::Write::write_all(&mut file, &elf(code))?;
    Ok(path)
}

/// Instructions of `write(1, here, 1); exit(0)`.
const fn say() -> Option<&'static [u8]> {
    if cfg!(target_arch = "x86_64") {
        // mov edi, 1; lea rsi, [rip]; mov edx, 1; mov eax, 1; syscall; xor edi, edi; mov eax, 60; syscall
        Some(&[
            0xBF, 1, 0, 0, 0, 0x48, 0x8D, 0x35, 0, 0, 0, 0, 0xBA, 1, 0, 0, 0, 0xB8, 1, 0, 0, 0,
            0x0F, 0x05, 0x31, 0xFF, 0xB8, 60, 0, 0, 0, 0x0F, 0x05,
        ])
    } else if cfg!(target_arch = "aarch64") {
        // mov x0, #1; adr x1, .; mov x2, #1; mov x8, #64; svc #0; mov x0, #0; mov x8, #93; svc #0
        Some(&[
            0x20, 0x00, 0x80, 0xD2, 0x01, 0x00, 0x00, 0x10, 0x22, 0x00, 0x80, 0xD2, 0x08, 0x08,
            0x80, 0xD2, 0x01, 0x00, 0x00, 0xD4, 0x00, 0x00, 0x80, 0xD2, 0xA8, 0x0B, 0x80, 0xD2,
            0x01, 0x00, 0x00, 0xD4,
        ])
    } else {
        None
    }
}

impl Stage {
    async fn park(&self, kind: &str, number: u32) -> Result<Box<dyn ParkedSandbox>, SandboxError> {
        let spec = SandboxSpec::new(format!("bench-{kind}-{number}"));
        let mut spec = spec.read_only(&self.program, PROGRAM_INSIDE);
        spec.listener_port = Some(GATEWAY_PORT);
        self.sandbox.create(spec).await
    }

    /// Fresh directories, and the claim that binds them.
    async fn claim(&self, number: u32) -> Result<Claim, SandboxError> {
        let owner = self.sandbox.payload_owner().await?;
        let attempt = self.dir.join(format!("attempt-{number}"));
        std::fs::create_dir(&attempt)?;
        let make = |name: &str| -> io::Result<PathBuf> {
            let path = attempt.join(name);
            std::fs::create_dir(&path)?;
            std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid))?;
            Ok(path)
        };
        let (upper, work, lower) = (make("upper")?, make("work")?, make("lower")?);
        let workspace = if self.overlay {
            Bind::overlay(upper, Some(work), vec![lower], WORKSPACE_INSIDE)
        } else {
            Bind::read_write(upper, WORKSPACE_INSIDE)
        };
        let binds = vec![workspace, Bind::read_write(make("home")?, HOME_INSIDE)];
        Ok(Claim { id: format!("bench-attempt-{number}"), binds, wall_seconds: Some(60) })
    }
}

/// Starts the program bare, to its first byte.
fn bare(program: &Path, fork: bool, times: &mut Histogram) -> io::Result<()> {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env_clear();
    if fork {
        // With the id we have, std takes fork and exec.
        command.uid(rustix::process::getuid().as_raw());
    }
    let began = Instant::now();
    let mut child = command.spawn()?;
    let mut byte = [0];
    child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut byte)?;
    times.add(began.elapsed());
    child.wait().map(drop)
}

async fn one(stage: &Stage, number: u32, times: &mut Times) -> Result<(), SandboxError> {
    bare(&stage.program, true, &mut times.fork)?;
    bare(&stage.program, false, &mut times.spawn)?;
    let warm = stage.park("warm", number).await?;
    let mut claimed = stage.park("claimed", number).await?;
    let claim = stage.claim(number).await?;

    let began = Instant::now();
    let cold = stage.park("cold", number).await?;
    to_its_end(cold, &mut times.cold, began, &mut times.release).await?;

    let began = Instant::now();
    to_its_end(warm, &mut times.warm, began, &mut times.release).await?;

    let began = Instant::now();
    claimed.claim(claim).await?;
    times.claim.add(began.elapsed());
    to_its_end(claimed, &mut times.claimed, began, &mut times.release).await?;
    std::fs::remove_dir_all(stage.dir.join(format!("attempt-{number}")))?;
    for peer in &mut times.peers {
        peer.start(&number.to_string())?;
    }
    Ok(())
}

async fn to_its_end(
    parked: Box<dyn ParkedSandbox>,
    start: &mut Start,
    began: Instant,
    release: &mut Histogram,
) -> Result<(), SandboxError> {
    let mut running = parked.start(Payload::new(vec![PROGRAM_INSIDE.to_owned()])).await?;
    let silent = || SandboxError::Io(io::Error::other("the payload said nothing"));
    running.take_stdout().ok_or_else(silent)?.read_u8().await?;
    start.first.add(began.elapsed());
    let exit = running.wait().await?;
    start.end.add(began.elapsed());
    if !exit.success() {
        return Err(SandboxError::Io(io::Error::other("the payload failed")));
    }
    let began = Instant::now();
    running.release().await?;
    release.add(began.elapsed());
    Ok(())
}

fn rows(times: &Times) -> Vec<Row> {
    let (exec_p50, exec_p99) = (times.fork.millis(0.5), times.fork.millis(0.99));
    let two = |what: &str, times: &Histogram, floors: Option<f64>| {
        let p50 = Row::new(format!("{what}, p50 of {}", times.count()), "ms", times.millis(0.5))
            .floor(exec_p50, "fork+exec");
        let p50 = match floors {
            Some(floors) => p50.goal(Goal::AtMost(floors * exec_p50)),
            None => p50,
        };
        let p99 = Row::new(format!("{what}, p99"), "ms", times.millis(0.99));
        [p50, p99.floor(exec_p99, "fork+exec")]
    };
    let peers = times.peers.iter().flat_map(|peer| {
        let first = two(&format!("{}: started, first output", peer.name), &peer.first, None);
        first.into_iter().chain(two(&format!("{}, its end known", peer.name), &peer.end, None))
    });
    let spawn = Row::new("bare: posix_spawn, first output, p50", "ms", times.spawn.millis(0.5));
    let release = Row::new("returned: group, mounts, names, p50", "ms", times.release.millis(0.5));
    [
        two("cold: made, started, first output", &times.cold.first, Some(COLD_FLOORS)),
        two("cold, its end known", &times.cold.end, None),
        two("claim: name, layers, home", &times.claim, Some(CLAIM_FLOORS)),
        two("claimed, started, first output", &times.claimed.first, None),
        two("warm: started, first output", &times.warm.first, Some(WARM_FLOORS)),
        two("warm, its end known", &times.warm.end, None),
    ]
    .into_iter()
    .flatten()
    .chain([release, spawn])
    .chain(peers)
    .collect()
}
