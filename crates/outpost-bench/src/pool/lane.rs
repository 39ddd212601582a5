//! One of the two servers, and dispatches to it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outpost_types::{DispatchView, EventData, EventEnvelope, FleetView, PoolView, Timestamp};
use serde_json::json;
use tokio::task::JoinSet;

use super::times::Burst;
use crate::client::Connection;
use crate::dispatches::{completed, create, read, until_over, within};
use crate::error::BenchError;
use crate::floor::elf;
use crate::options::{Key, Notes, Place};
use crate::server::{self, Server};

/// Name of the agent that says what time it is.
pub(super) const AGENT: &str = "clock";
/// Pause between two looks at the fleet, milliseconds.
const LOOK_MILLIS: u64 = 2;
/// Longest line of an agent's output or of the events that is read, and most lines, bytes and counts.
const OUTPUT_BYTES_MAX: u64 = 64;
const EVENTS_READ_MAX: usize = 1_000;

/// A server with warm workers, or one without.
pub(super) struct Lane {
    pub(super) warm: bool,
    server: Server,
    data: PathBuf,
}

/// A completed dispatch, and when the client did what. Instants are nanoseconds since the Unix epoch.
pub(super) struct Told {
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) view: DispatchView,
    /// The first event of the agent itself.
    pub(super) first: Option<Timestamp>,
    /// What the agent's process said the time was.
    pub(super) said: Option<u64>,
}

impl Lane {
    pub(super) fn start(
        place: &Place,
        data: PathBuf,
        slots: u32,
        config: &str,
        warm: bool,
    ) -> Result<Self, BenchError> {
        let server = Server::start_with(place, &data, slots, config)?;
        Ok(Self { warm, server, data })
    }

    pub(super) async fn connect(&self) -> Result<Connection, BenchError> {
        Ok(Connection::open(self.server.address).await?)
    }

    pub(super) async fn fleet(&self) -> Result<FleetView, BenchError> {
        read(&mut self.connect().await?, "/fleet", &self.server.key).await
    }

    /// Attempts of the agent that got a warm worker, and all.
    pub(super) async fn hits_and_claims(&self) -> Result<[u64; 2], BenchError> {
        let pool = pool_of(&self.fleet().await?);
        Ok([pool.hits, pool.hits + pool.misses.values().sum::<u64>()])
    }

    /// Waits until nothing runs and the pool is as full as it wants to be.
    pub(super) async fn wait_until_quiet(&self) -> Result<(), BenchError> {
        let quiet = async {
            loop {
                let fleet = self.fleet().await?;
                let full = fleet.agents.iter().filter(|it| it.availability.available).all(|it| {
                    it.pool.as_ref().is_none_or(|pool| pool.idle >= pool.min && pool.starting == 0)
                });
                if fleet.running == 0 && fleet.queued == 0 && full {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            }
        };
        within("the server of the bench to be quiet", quiet).await
    }

    /// One dispatch, to its end.
    pub(super) async fn run(
        &self,
        connection: &mut Connection,
        body: &str,
    ) -> Result<Told, BenchError> {
        let sent = now();
        let id = create(connection, &self.server.key, body).await?;
        let answered = now();
        let over = until_over(connection, &self.server.key, &id);
        let view = within("a dispatch of the bench", over).await?;
        completed(&view)?;
        let dir = self.data.join("dispatches").join(&id);
        let (first, said) = (first_of_agent(&dir)?, said(&dir)?);
        Ok(Told { sent, answered, view, first, said })
    }

    /// So many at once, on a connection each. What fails is counted; the first reason is told.
    pub(super) async fn burst(
        &self,
        count: u32,
        body: &str,
        ui: Notes<'_>,
    ) -> Result<Burst, BenchError> {
        let before = self.hits_and_claims().await?;
        let mut ends = Vec::new();
        for _ in 0..count {
            ends.push(self.connect().await?);
        }
        let began = now();
        let mut tasks = JoinSet::new();
        for mut end in ends {
            let (key, body) = (self.server.key.clone(), body.to_owned());
            tasks.spawn(async move { in_burst(&mut end, &key, &body).await });
        }
        let mut burst = Burst::default();
        let mut ids = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.map_err(|error| BenchError::chain("a client failed", &error))?;
            match ended {
                Ok(id) => ids.push(id),
                Err(error) => {
                    if burst.failed == 0 {
                        ui.note(&format!("of {count} at once one failed: {error}"));
                    }
                    burst.failed += 1;
                }
            }
        }
        burst.done = Duration::from_nanos(now().saturating_sub(began));
        for id in ids {
            let said = said(&self.data.join("dispatches").join(id))?.unwrap_or(began);
            let started = Duration::from_nanos(said.saturating_sub(began));
            burst.started = burst.started.max(started);
        }
        let after = self.hits_and_claims().await?;
        (burst.hits, burst.claims) = (after[0] - before[0], after[1] - before[1]);
        Ok(burst)
    }
}

async fn in_burst(
    connection: &mut Connection,
    key: &Key,
    body: &str,
) -> Result<String, BenchError> {
    let id = create(connection, key, body).await?;
    let view = within("a dispatch of many", until_over(connection, key, &id)).await?;
    completed(&view).map(|()| id)
}

fn pool_of(fleet: &FleetView) -> PoolView {
    let agent = fleet.agents.iter().find(|it| it.agent == AGENT);
    agent.and_then(|agent| agent.pool.clone()).unwrap_or_default()
}

/// Nanoseconds since the Unix epoch, by the clock that the agent reads too.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The time that stands in an agent's output; `None` where something else does.
fn said(dispatch: &Path) -> io::Result<Option<u64>> {
    let mut text = Vec::new();
    let file = File::open(dispatch.join("output.log"))?;
    io::Read::read_to_end(&mut io::Read::take(file, OUTPUT_BYTES_MAX), &mut text)?;
    Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok()))
}

/// When the first event was recorded that the agent's own output led to.
fn first_of_agent(dispatch: &Path) -> io::Result<Option<Timestamp>> {
    let lines = BufReader::new(File::open(dispatch.join("events.jsonl"))?).lines();
    for line in lines.take(EVENTS_READ_MAX) {
        let event: EventEnvelope = serde_json::from_str(&line?)?;
        let kind = event.data.kind();
        if matches!(event.data, EventData::Log { .. }) || kind.starts_with("agent.") {
            return Ok(Some(event.at));
        }
    }
    Ok(None)
}

/// The table of the agent in a configuration; its program is written to `dir`.
pub(super) fn clock_agent(dir: &Path, slots: u32) -> io::Result<String> {
    let Some(code) = say_time() else {
        // Its own start is in the figures then.
        return Ok(server::agent(AGENT, &json!(["/usr/bin/date", "+%s%N"]), slots));
    };
    let path = dir.join("clock");
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(0o755).open(&path)?;
    io::Write::write_all(&mut file, &elf(code))?;
    let path = path.to_string_lossy();
    let table = server::agent(AGENT, &json!([path]), slots);
    Ok(format!("{table}ro_paths = {}\n", json!([path])))
}

/// Instructions that print the nanoseconds since the Unix epoch in decimal digits, and a line's end.
const fn say_time() -> Option<&'static [u8]> {
    if cfg!(target_arch = "x86_64") {
        Some(&[
            0x48, 0x83, 0xEC, 0x40, // sub rsp, 64
            0x31, 0xFF, // xor edi, edi: CLOCK_REALTIME
            0x48, 0x8D, 0x74, 0x24, 0x20, // lea rsi, [rsp+32]
            0xB8, 0xE4, 0, 0, 0, // mov eax, 228: clock_gettime
            0x0F, 0x05, // syscall
            0x48, 0x8B, 0x44, 0x24, 0x20, // mov rax, [rsp+32]
            0x48, 0x69, 0xC0, 0x00, 0xCA, 0x9A, 0x3B, // imul rax, rax, 1000000000
            0x48, 0x03, 0x44, 0x24, 0x28, // add rax, [rsp+40]
            0x48, 0x8D, 0x74, 0x24, 0x1F, // lea rsi, [rsp+31]
            0xC6, 0x06, 0x0A, // mov byte [rsi], 10
            0xB9, 0x0A, 0, 0, 0, // mov ecx, 10
            0x31, 0xD2, // digit: xor edx, edx
            0x48, 0xF7, 0xF1, // div rcx
            0x80, 0xC2, 0x30, // add dl, '0'
            0x48, 0xFF, 0xCE, // dec rsi
            0x88, 0x16, // mov [rsi], dl
            0x48, 0x85, 0xC0, // test rax, rax
            0x75, 0xEE, // jnz digit
            0xBF, 1, 0, 0, 0, // mov edi, 1
            0x48, 0x8D, 0x54, 0x24, 0x20, // lea rdx, [rsp+32]
            0x48, 0x29, 0xF2, // sub rdx, rsi
            0xB8, 1, 0, 0, 0, // mov eax, 1: write
            0x0F, 0x05, // syscall
            0x31, 0xFF, // xor edi, edi
            0xB8, 0x3C, 0, 0, 0, // mov eax, 60: exit
            0x0F, 0x05, // syscall
        ])
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_says_the_time_of_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let table = clock_agent(dir.path(), 7).unwrap();
        assert!(table.contains("concurrency_max = 7"));
        if say_time().is_some() {
            let before = now();
            let output = std::process::Command::new(dir.path().join("clock")).output().unwrap();
            let after = now();
            std::fs::write(dir.path().join("output.log"), &output.stdout).unwrap();
            let said = said(dir.path()).unwrap().unwrap();
            assert!((before..=after).contains(&said), "{before} {said} {after}");
        }
        std::fs::write(dir.path().join("output.log"), "no time\n").unwrap();
        assert_eq!(said(dir.path()).unwrap(), None);
    }

    #[test]
    fn what_the_platform_tells_is_not_the_agents_first_event() {
        let dir = tempfile::tempdir().unwrap();
        let id = "01J9Z3NDEKTSV4RRFFQ69G5FAV";
        let event = |seq: u64, kind: &str, data: serde_json::Value| {
            let at = format!("2025-01-01T00:00:00.00{seq}Z");
            format!(
                "{}\n",
                json!({ "seq": seq, "at": at, "dispatchId": id, "type": kind, "data": data })
            )
        };
        let mut text = event(1, "dispatch.status", json!({ "status": "PENDING" }));
        text += &event(2, "phase", json!({ "name": "sandbox", "millis": 3 }));
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(first_of_agent(dir.path()).unwrap(), None);
        text += &event(3, "log", json!({ "stream": "stdout", "text": "1" }));
        std::fs::write(&path, &text).unwrap();
        let first = first_of_agent(dir.path()).unwrap().unwrap();
        assert_eq!(first.as_millis() % 1_000, 3);
    }
}
