//! `outpost bench start`: what a sandbox with everything on costs, beside the start of a bare process.
//!
//! The payload is the floor's own program, which only ends, so each figure reaches from the wish to the moment
//! its end is known. Cold: the sandbox is made, started and ends. Warm: it was parked before. All are taken in
//! turn. The launcher is the one of a server; nothing is switched off.
//!
//! Bounded: starts. Absent: workspaces and agents.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use outpost_sandbox::{
    GATEWAY_PORT, LauncherOptions, LinuxSandbox, ParkedSandbox, Payload, Sandbox as _,
    SandboxError, SandboxPolicy, SandboxSpec,
};

use crate::client;
use crate::error::BenchError;
use crate::histogram::Histogram;
use crate::options::{StartOptions, create_private};
use crate::report::{Goal, Report, Row};
use crate::{Bench, ROUNDS_COUNT};

/// Goals of the project, in starts of a bare process.
const COLD_FLOORS: f64 = 6.5;
const WARM_FLOORS: f64 = 1.0;
/// Where the payload is inside.
const PROGRAM_INSIDE: &str = "/workspace/bench/end";

struct Times {
    cold: Histogram,
    warm: Histogram,
    release: Histogram,
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &StartOptions) -> Result<Report, BenchError> {
    let dir = bench.dir("launcher");
    create_private(&dir)?;
    let program = bench.floor.program().to_owned();
    let mut times =
        Times { cold: Histogram::new(), warm: Histogram::new(), release: Histogram::new() };
    let runtime = client::runtime()?;
    let options = LauncherOptions::new(dir.join("socket"));
    let sandbox = LinuxSandbox::new(options, SandboxPolicy::allow_missing_limits());
    let sandbox = Arc::new(sandbox);
    let mut number = 0;
    for round in 1..=ROUNDS_COUNT {
        bench.floor.round()?;
        runtime
            .block_on(async {
                for _ in 0..args.starts {
                    number += 1;
                    one(&sandbox, &program, number, &mut times).await?;
                }
                Ok::<_, SandboxError>(())
            })
            .map_err(failed)?;
        bench.ui.note(&format!(
            "round {round} of {ROUNDS_COUNT}: cold {:.2} ms, warm {:.2} ms",
            times.cold.millis(0.5),
            times.warm.millis(0.5)
        ));
    }
    runtime.block_on(sandbox.shut_down()).map_err(failed)?;
    let floor = bench.floor.figures();
    bench.rows = rows(&times, floor.exec_p50, floor.exec_p99);
    Ok(bench.finish("start"))
}

fn failed(error: SandboxError) -> BenchError {
    BenchError::chain("a sandbox of the bench failed", &error)
}

async fn one(
    sandbox: &LinuxSandbox,
    program: &Path,
    number: u32,
    times: &mut Times,
) -> Result<(), SandboxError> {
    let spec = |kind: &str| {
        let spec = SandboxSpec::new(format!("bench-{kind}-{number}"));
        let mut spec = spec.read_only(program, PROGRAM_INSIDE);
        spec.listener_port = Some(GATEWAY_PORT);
        spec
    };
    let parked = sandbox.create(spec("warm")).await?;
    let began = Instant::now();
    let cold = sandbox.create(spec("cold")).await?;
    to_its_end(cold, &mut times.cold, began, &mut times.release).await?;
    let began = Instant::now();
    to_its_end(parked, &mut times.warm, began, &mut times.release).await
}

async fn to_its_end(
    parked: Box<dyn ParkedSandbox>,
    whole: &mut Histogram,
    began: Instant,
    release: &mut Histogram,
) -> Result<(), SandboxError> {
    let running = parked.start(Payload::new(vec![PROGRAM_INSIDE.to_owned()])).await?;
    let exit = running.wait().await?;
    whole.add(began.elapsed());
    if !exit.success() {
        return Err(SandboxError::Io(std::io::Error::other("the payload failed")));
    }
    let began = Instant::now();
    running.release().await?;
    release.add(began.elapsed());
    Ok(())
}

fn rows(times: &Times, exec_p50: f64, exec_p99: f64) -> Vec<Row> {
    let row = |what: &str, times: &Histogram, floors: f64| {
        let goal = Goal::AtMost(floors * exec_p50);
        [
            Row::new(format!("{what}, p50 of {}", times.count()), "ms", times.millis(0.5))
                .goal(goal)
                .floor(exec_p50, "fork+exec"),
            Row::new(format!("{what}, p99"), "ms", times.millis(0.99)).floor(exec_p99, "fork+exec"),
        ]
    };
    let cold = row("cold: made, started, its end known", &times.cold, COLD_FLOORS);
    let warm = row("warm: started, its end known", &times.warm, WARM_FLOORS);
    let release = Row::new("returned: group, mounts, names, p50", "ms", times.release.millis(0.5));
    cold.into_iter().chain(warm).chain([release]).collect()
}
