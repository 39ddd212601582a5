//! `outpost bench restart`: a server is killed while agents run, and the next one takes them up.
//!
//! "Accepting" is when the new process answers a request. "Re-attached" is when it holds as many
//! descriptors of sandboxes (process handles, pipes, sockets) as the killed one held, and still
//! every agent is listed as running.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::accept::wait_for_running;
use crate::client::{self, Traffic};
use crate::dispatches::body;
use crate::error::BenchError;
use crate::options::RestartOptions;
use crate::report::{Goal, Report, Row};
use crate::server::{AGENT, Server};

/// Goals of the project.
const ACCEPTING_MILLIS_MAX: f64 = 500.0;
const ATTACHED_MILLIS_MAX: f64 = 2_000.0;
/// Longest wait for a server to have its agents back, seconds.
const PATIENCE_SECONDS: u64 = 60;
/// Pause between two looks at its descriptors, milliseconds.
const LOOK_MILLIS: u64 = 2;

struct Starts {
    key: String,
}

impl Traffic for Starts {
    fn request(&self, _: usize, _: u64, out: &mut Vec<u8>) {
        client::post(out, &body(AGENT), &self.key);
    }

    fn accept(&self, _: usize, _: u64, status: u16, _: &[u8]) -> bool {
        status == 201
    }
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &RestartOptions) -> Result<Report, BenchError> {
    let (set, dir) = bench.data(&args.data)?;
    let mut server = Server::start(&bench.place, &dir, args.live)?;
    let traffic: Arc<dyn Traffic> = Arc::new(Starts { key: server.key.expose().to_owned() });
    bench.ui.note(&format!("starting {} agents", args.live));
    client::each(server.address, 1, u64::from(args.live), &traffic)?.checked("dispatches")?;
    wait_for_running(&server, args.live)?;
    let (mut accepting, mut attached): (f64, f64) = (0.0, 0.0);
    for round in 1..=args.times {
        bench.floor.round()?;
        let held = settled_descriptors(&server);
        server.kill()?;
        let begin = Instant::now();
        server = Server::start(&bench.place, &dir, args.live)?;
        let (status, _) = client::ask(server.address, "/health", server.key.expose())?;
        let up = begin.elapsed();
        wait_for_descriptors(&server, held)?;
        let back = begin.elapsed();
        // One that could not be taken up is recorded as lost a moment later.
        settled_descriptors(&server);
        wait_for_running(&server, args.live)?;
        bench.ui.note(&format!(
            "restart {round}: accepting ({status}) after {:.0} ms, {held} descriptors back after {:.0} ms",
            up.as_secs_f64() * 1e3,
            back.as_secs_f64() * 1e3
        ));
        accepting = accepting.max(up.as_secs_f64() * 1e3);
        attached = attached.max(back.as_secs_f64() * 1e3);
    }
    let exec = bench.floor.figures().exec_p50;
    let what = format!("{} records, {} live", set.records, args.live);
    bench.rows = vec![
        Row::new(format!("restart, {what}: accepting, slowest of {}", args.times), "ms", accepting)
            .goal(Goal::AtMost(ACCEPTING_MILLIS_MAX))
            .floor(exec, "fork+exec"),
        Row::new("all agents re-attached, slowest", "ms", attached)
            .goal(Goal::AtMost(ATTACHED_MILLIS_MAX)),
        Row::new("server memory", "MiB", server.memory_bytes()? as f64 / 1_048_576.0),
    ];
    drop(server);
    Ok(bench.finish("restart"))
}

/// Descriptors of sandboxes that the server holds: process handles, pipes and sockets.
fn descriptors(server: &Server) -> usize {
    let dir = format!("/proc/{}/fd", server.pid());
    let Ok(entries) = std::fs::read_dir(Path::new(&dir)) else {
        return 0;
    };
    let kinds = ["anon_inode:[pidfd]", "pipe:", "socket:"];
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| kinds.iter().any(|kind| target.to_string_lossy().starts_with(kind)))
        .count()
}

/// The same, once it does not change any more: connections of this bench close a moment later.
fn settled_descriptors(server: &Server) -> usize {
    const SAME_LOOKS: u32 = 25;
    let (mut last, mut same) = (descriptors(server), 0);
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    while same < SAME_LOOKS && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
        let now = descriptors(server);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

fn wait_for_descriptors(server: &Server, wanted: usize) -> Result<(), BenchError> {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    while Instant::now() < deadline {
        if descriptors(server) >= wanted {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
    }
    Err(BenchError::failed(format!(
        "after the restart the server holds {} of {wanted} descriptors of its sandboxes",
        descriptors(server)
    ))
    .with_hint("its server.log says which agents it could not take up"))
}
