//! `outpost bench status`: how fast clients learn where their dispatches stand.
//!
//! Polls are for records chosen evenly from the whole data set, which is the hardest for the store;
//! their logs are not kept, so no answer carries the end of an agent's output.

use std::sync::Arc;
use std::time::Duration;

use crate::client::{self, Load, Traffic};
use crate::dataset::{DataSet, mix};
use crate::error::BenchError;
use crate::options::StatusOptions;
use crate::report::{Goal, Report, Row};
use crate::server::Server;
use crate::{Bench, ROUNDS_COUNT};

/// Goals of the project on two processors that the load shares.
const POLLS_PER_SECOND: f64 = 40_000.0;
const POLL_P99_MILLIS_MAX: f64 = 10.0;
const POLL_CPU_MICROS_MAX: f64 = 30.0;
const HEALTH_P99_MILLIS_MAX: f64 = 2.0;
const HEALTH_CPU_MICROS_MAX: f64 = 10.0;

struct Polls {
    set: DataSet,
    key: String,
    round: u64,
}

impl Polls {
    fn index(&self, connection: usize, number: u64) -> u64 {
        let start = mix(self.round << 48 | (connection as u64) << 32 | number) % self.set.records;
        // The next one that this key may see; four of five are.
        (start..start + self.set.records)
            .map(|index| index % self.set.records)
            .find(|index| DataSet::is_local(*index))
            .unwrap_or(start)
    }
}

impl Traffic for Polls {
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>) {
        let id = self.set.id(self.index(connection, number));
        client::get(out, &format!("/dispatch/{id}"), &self.key);
    }

    fn accept(&self, connection: usize, number: u64, status: u16, body: &[u8]) -> bool {
        let id = self.set.id(self.index(connection, number)).to_string();
        status == 200 && body.windows(id.len()).any(|window| window == id.as_bytes())
    }
}

struct Health;

impl Traffic for Health {
    fn request(&self, _: usize, _: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    }

    fn accept(&self, _: usize, _: u64, status: u16, _: &[u8]) -> bool {
        status == 200
    }
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &StatusOptions) -> Result<Report, BenchError> {
    let (set, dir) = bench.data(&args.data)?;
    let server = Server::start(&bench.place, &dir, 1)?;
    let time = args.time;
    let clients = args.clients as usize;
    let (mut polls, mut health) = (Measured::new(), Measured::new());
    for round in 0..ROUNDS_COUNT as u64 {
        bench.ui.note(&format!("round {} of {ROUNDS_COUNT}", round + 1));
        bench.floor.round()?;
        let key = server.key.expose().to_owned();
        polls.round(&server, clients, time, &(Arc::new(Polls { set, key, round }) as _))?;
        health.round(&server, clients, time, &(Arc::new(Health) as _))?;
    }
    let what = format!("status polls at {} records, {clients} clients", set.records);
    bench.rows = vec![
        Row::new(what, "/s", polls.load.rate()).goal(Goal::AtLeast(POLLS_PER_SECOND)),
        Row::new("status p50", "ms", polls.load.latency.millis(0.5)),
        Row::new("status p99", "ms", polls.load.latency.millis(0.99))
            .goal(Goal::AtMost(POLL_P99_MILLIS_MAX)),
        Row::new("server CPU per status", "us", polls.cpu_micros())
            .goal(Goal::AtMost(POLL_CPU_MICROS_MAX)),
        Row::new(format!("/health, {clients} clients"), "/s", health.load.rate()),
        Row::new("/health p99", "ms", health.load.latency.millis(0.99))
            .goal(Goal::AtMost(HEALTH_P99_MILLIS_MAX)),
        Row::new("server CPU per /health", "us", health.cpu_micros())
            .goal(Goal::AtMost(HEALTH_CPU_MICROS_MAX)),
    ];
    drop(server);
    Ok(bench.finish("status"))
}

struct Measured {
    load: Load,
    cpu: Duration,
}

impl Measured {
    fn new() -> Self {
        Self { load: Load::none(), cpu: Duration::ZERO }
    }

    fn round(
        &mut self,
        server: &Server,
        clients: usize,
        time: Duration,
        traffic: &Arc<dyn Traffic>,
    ) -> Result<(), BenchError> {
        let before = server.cpu()?;
        let load = client::closed(server.address, clients, time, traffic)?.checked("the load")?;
        self.cpu += server.cpu()?.saturating_sub(before);
        self.load.merge(&load);
        Ok(())
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.load.latency.count() as f64
    }
}
