//! `outpost bench accept`: dispatches that are on disk when they are answered.
//!
//! Each request has a key, a new `Idempotency-Key` and its audit entry. One slot is taken by an agent
//! that waits, so everything else only queues. The bare store writes the same rows without HTTP and
//! engine in the same run: what it does is the most the server could.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use outpost_core::{AgentDefaults, Dispatch, DispatchSpec};
use outpost_store::{
    AcceptDispatch, AuditEntry, Dispatches as _, IdempotencyClaim, SqliteOptions, SqliteStore,
};
use outpost_types::{DispatchId, DispatchRequest, KeyId, TenantId, Tier, Timestamp};

use crate::client::{self, Load, Traffic};
use crate::dataset::mix;
use crate::error::BenchError;
use crate::options::AcceptOptions;
use crate::options::Key;
use crate::report::{Goal, Report, Row};
use crate::server::{AGENT, Server};
use crate::{Bench, ROUNDS_COUNT};

/// Goals of the project on two processors that the load shares.
const ACCEPTS_PER_SECOND: f64 = 20_000.0;
const SHARE_OF_STORE_PERCENT: f64 = 80.0;
const CPU_MICROS_MAX: f64 = 75.0;
/// Text before a dispatch's id in an answer.
const ID_FIELD: &[u8] = b"\"dispatchId\":\"";
const ID_CHARS: usize = 26;

/// Requests that each make a new dispatch.
struct Accepts {
    /// Everything up to the idempotency key.
    head: Vec<u8>,
    /// Everything after it.
    tail: Vec<u8>,
    /// Makes keys differ between rounds.
    round: u64,
    /// What was acknowledged, if that is to be remembered.
    acknowledged: Option<Mutex<Vec<Acknowledged>>>,
}

/// A dispatch whose answer was read.
#[derive(Debug, Clone)]
struct Acknowledged {
    connection: usize,
    number: u64,
    id: String,
}

impl Accepts {
    fn new(key: &Key, task_bytes: u32, round: u64, remember: bool) -> Self {
        let body = format!("{{\"agent\":\"{AGENT}\",\"task\":\"{}\"}}", task(task_bytes));
        let head = format!(
            "POST /dispatch HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nIdempotency-Key: ",
            key.expose(),
            body.len()
        );
        Self {
            head: head.into_bytes(),
            tail: format!("\r\n\r\n{body}").into_bytes(),
            round,
            acknowledged: remember.then(Mutex::default),
        }
    }

    fn acknowledged(&self) -> Vec<Acknowledged> {
        let list = self.acknowledged.as_ref();
        list.map(|list| list.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }
}

impl Traffic for Accepts {
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(format!("bench-{}-{connection}-{number}", self.round).as_bytes());
        out.extend_from_slice(&self.tail);
    }

    fn accept(&self, connection: usize, number: u64, status: u16, body: &[u8]) -> bool {
        let Some(id) = id_in(body).filter(|_| status == 201) else {
            return false;
        };
        if let Some(list) = &self.acknowledged {
            let one = Acknowledged { connection, number, id: id.to_owned() };
            list.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        }
        true
    }
}

/// The dispatch's id in an answer.
pub(crate) fn id_in(body: &[u8]) -> Option<&str> {
    let start = body.windows(ID_FIELD.len()).position(|window| window == ID_FIELD)?;
    let start = start + ID_FIELD.len();
    std::str::from_utf8(body.get(start..start + ID_CHARS)?).ok()
}

/// A task text of this size.
fn task(bytes: u32) -> String {
    "Make the totals of an invoice agree with the sum of its lines. "
        .chars()
        .cycle()
        .take(bytes as usize)
        .collect()
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &AcceptOptions) -> Result<Report, BenchError> {
    let time = args.time;
    let clients = args.clients as usize;
    let server = Server::start(&bench.place, &bench.dir("server"), 1)?;
    take_the_slot(&server)?;
    let bare = Bare::open(&bench.dir("bare"), args.task_bytes)?;
    let (mut load, mut bare_rate, mut cpu) = (Load::none(), 0.0, Duration::ZERO);
    for round in 0..ROUNDS_COUNT {
        bench.ui.note(&format!("round {} of {ROUNDS_COUNT}", round + 1));
        bench.floor.round()?;
        bare_rate += bare.run(clients, time, round as u64)? / ROUNDS_COUNT as f64;
        let traffic: Arc<dyn Traffic> =
            Arc::new(Accepts::new(&server.key, args.task_bytes, round as u64, false));
        let before = server.cpu()?;
        let one = client::closed(server.address, clients, time, &traffic)?.checked("accept")?;
        cpu += server.cpu()? - before;
        bench.ui.note(&format!("  {:.0} accepts/s, bare store {bare_rate:.0}", one.rate()));
        load.merge(&one);
    }
    let rate = load.rate();
    let traffic: Arc<dyn Traffic> =
        Arc::new(Accepts::new(&server.key, args.task_bytes, ROUNDS_COUNT as u64, false));
    bench.ui.note("half load");
    let half = client::open(server.address, clients, time, rate / 2.0, &traffic)?;
    let half = half.checked("accept at half load")?;
    bench.floor.round()?;
    let sync = bench.floor.figures();
    let micros = cpu.as_secs_f64() * 1e6 / load.latency.count() as f64;
    let what = format!("durable accepts, {clients} clients");
    bench.rows = vec![
        Row::new(what, "/s", rate)
            .goal(Goal::AtLeast(ACCEPTS_PER_SECOND))
            .floor(bare_rate, "bare store writer"),
        Row::new("share of the bare store writer", "%", 100.0 * rate / bare_rate)
            .goal(Goal::AtLeast(SHARE_OF_STORE_PERCENT)),
        Row::new("server CPU per accept", "us", micros).goal(Goal::AtMost(CPU_MICROS_MAX)),
        Row::new("accept p50 at full load", "ms", load.latency.millis(0.5)),
        Row::new("accept p99 at full load", "ms", load.latency.millis(0.99)),
        Row::new("accept p50 at half load", "ms", half.latency.millis(0.5))
            .goal(Goal::AtMost(1.5 * sync.append_p50 + 1.0))
            .floor(sync.append_p50, "fdatasync"),
        Row::new("accept p99 at half load", "ms", half.latency.millis(0.99))
            .goal(Goal::AtMost(3.0 * sync.append_p50 + 3.0))
            .floor(sync.append_p99, "fdatasync p99"),
        Row::new("server memory at the end", "MiB", server.memory_bytes()? as f64 / 1_048_576.0),
    ];
    drop(server);
    Ok(bench.finish("accept"))
}

/// Makes the one dispatch that runs, so that all others wait.
fn take_the_slot(server: &Server) -> Result<(), BenchError> {
    let traffic: Arc<dyn Traffic> = Arc::new(Accepts::new(&server.key, 1, u64::MAX, false));
    client::each(server.address, 1, 1, &traffic)?.checked("the first dispatch")?;
    wait_for_running(server, 1)
}

/// Waits until this many agents run.
pub(crate) fn wait_for_running(server: &Server, count: u32) -> Result<(), BenchError> {
    const PATIENCE_SECONDS: u64 = 120;
    const LOOK_MILLIS: u64 = 20;
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    let path = format!("/runs?status=RUNNING&limit=1&agent={AGENT}");
    while Instant::now() < deadline {
        let (_, body) = client::ask(server.address, &path, server.key.expose())?;
        let (_, fleet) = client::ask(server.address, "/fleet", server.key.expose())?;
        let fleet: serde_json::Value = serde_json::from_slice(&fleet)
            .map_err(|error| BenchError::chain("the fleet cannot be read", &error))?;
        if fleet["running"].as_u64() == Some(u64::from(count)) && id_in(&body).is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
    }
    Err(BenchError::failed("the agents of the bench did not start")
        .with_hint("`outpost doctor` checks whether sandboxes work on this machine"))
}

/// The store alone, with the rows the server would write.
struct Bare {
    store: Arc<SqliteStore>,
    spec: DispatchSpec,
}

impl Bare {
    fn open(dir: &Path, task_bytes: u32) -> Result<Self, BenchError> {
        let store = SqliteStore::open(&SqliteOptions::new(dir, 0))
            .map_err(|error| BenchError::chain("the bare store cannot be opened", &error))?;
        let request = DispatchRequest {
            agent: AGENT.to_owned(),
            task: task(task_bytes),
            ..DispatchRequest::default()
        };
        let agent = AGENT.parse().expect("the name of the bench's agent is one");
        let defaults = AgentDefaults { agent, model_id: "none".into(), tier: Tier::Fast };
        let spec = DispatchSpec::from_request(request, &defaults)?;
        Ok(Self { store: Arc::new(store), spec })
    }

    /// Accepts per second.
    fn run(&self, clients: usize, time: Duration, round: u64) -> Result<f64, BenchError> {
        client::runtime()?.block_on(async {
            let begin = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for client in 0..clients as u64 {
                let (store, spec) = (Arc::clone(&self.store), self.spec.clone());
                tasks.spawn(async move {
                    let mut count = 0_u64;
                    while begin.elapsed() < time {
                        let serial = (round << 48) | (client << 32) | count;
                        store.accept(accept(&spec, serial)).await?;
                        count += 1;
                    }
                    Ok::<_, outpost_store::StoreError>(count)
                });
            }
            let mut total = 0;
            while let Some(ended) = tasks.join_next().await {
                let ended = ended.map_err(|error| BenchError::chain("a writer failed", &error))?;
                total +=
                    ended.map_err(|error| BenchError::chain("the bare store failed", &error))?;
            }
            Ok(total as f64 / begin.elapsed().as_secs_f64())
        })
    }
}

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

fn accept(spec: &DispatchSpec, serial: u64) -> AcceptDispatch {
    let now = now();
    let random = (u128::from(mix(serial)) << 16) | u128::from(serial & 0xFFFF);
    let key = KeyId::from_parts(1, 1);
    let id = DispatchId::from_parts(now.as_millis(), random);
    let dispatch = Dispatch::accept(id, TenantId::local(), key, spec.clone(), now);
    let audit = AuditEntry {
        at: now,
        tenant: dispatch.tenant.clone(),
        actor: Some(key),
        action: "dispatch.accepted",
        subject: id.to_string(),
        detail: serde_json::json!({ "agent": spec.agent, "model": spec.model_id }),
    };
    let claim = IdempotencyClaim {
        key: format!("bench-{serial}"),
        body_hash: [7; 32],
        expires_at: Timestamp::from_millis(now.as_millis() + 86_400_000),
    };
    AcceptDispatch { dispatch, idempotency: Some(claim), audit }
}

/// What was acknowledged before a kill, asked for again after it.
struct Again {
    accepts: Accepts,
    list: Vec<Acknowledged>,
    connections: usize,
    key: String,
    replay: bool,
}

impl Again {
    fn item(&self, connection: usize, number: u64) -> &Acknowledged {
        &self.list[(connection + number as usize * self.connections) % self.list.len()]
    }
}

impl Traffic for Again {
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>) {
        let item = self.item(connection, number);
        if self.replay {
            self.accepts.request(item.connection, item.number, out);
        } else {
            client::get(out, &format!("/dispatch/{}", item.id), &self.key);
        }
    }

    fn accept(&self, connection: usize, number: u64, status: u16, body: &[u8]) -> bool {
        let wanted = if self.replay { 201 } else { 200 };
        status == wanted && id_in(body) == Some(&self.item(connection, number).id)
    }
}

/// Kills the server under load, again and again, and counts.
pub(crate) fn kill(
    mut bench: Bench<'_>,
    args: &AcceptOptions,
    times: u32,
) -> Result<Report, BenchError> {
    let dir = bench.dir("server");
    let (mut total, mut lost, mut other) = (0, 0, 0);
    let mut start = Duration::ZERO;
    let mut server = Server::start(&bench.place, &dir, 1)?;
    take_the_slot(&server)?;
    for round in 0..u64::from(times) {
        bench.floor.round()?;
        let accepts = Arc::new(Accepts::new(&server.key, args.task_bytes, round, true));
        kill_under_load(server, args, &accepts)?;
        server = Server::start(&bench.place, &dir, 1)?;
        start = start.max(server.start);
        let list = accepts.acknowledged();
        let (missing, changed) = ask_again((server.address, &server.key), args, round, &list)?;
        total += list.len();
        lost += missing;
        other += changed;
        bench.ui.note(&format!(
            "kill {}: {} acknowledged, {missing} lost, {changed} not replayed; again up in {:.2} s",
            round + 1,
            list.len(),
            server.start.as_secs_f64()
        ));
    }
    bench.rows = vec![
        Row::new("kills of the server under load", "", f64::from(times)),
        Row::new("acknowledged before a kill", "", total as f64),
        Row::new("of these lost", "", lost as f64).goal(Goal::AtMost(0.0)),
        Row::new("idempotency keys that gave another id", "", other as f64).goal(Goal::AtMost(0.0)),
        Row::new("longest start after a kill", "ms", start.as_secs_f64() * 1e3),
    ];
    drop(server);
    Ok(bench.finish("accept"))
}

/// Kills the server half the time of a round after its first answer, and waits for the load to notice.
fn kill_under_load(
    server: Server,
    args: &AcceptOptions,
    accepts: &Arc<Accepts>,
) -> Result<(), BenchError> {
    const PATIENCE_SECONDS: u64 = 120;
    const LOOK_MILLIS: u64 = 1;
    let (address, half) = (server.address, args.time / 2);
    let patience = Duration::from_secs(PATIENCE_SECONDS);
    let traffic: Arc<dyn Traffic> = Arc::clone(accepts) as Arc<dyn Traffic>;
    let clients = args.clients as usize;
    let load = std::thread::scope(|scope| {
        let killer = scope.spawn(move || {
            let deadline = Instant::now() + patience;
            while accepts.acknowledged().is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
            }
            std::thread::sleep(half);
            server.kill()
        });
        let load = client::closed(address, clients, patience + half, &traffic);
        let killed = killer.join().unwrap_or_else(|_| Err(BenchError::failed("the kill failed")));
        killed.and(load)
    })?;
    if load.refused > 0 || load.broken < clients as u64 {
        return Err(BenchError::failed(format!(
            "the kill did not come in the middle: {} wrong answers, {} of {clients} connections broke",
            load.refused, load.broken
        )));
    }
    Ok(())
}

/// How many are gone, and how many idempotency keys do not give the same dispatch again.
fn ask_again(
    (address, key): (SocketAddr, &Key),
    args: &AcceptOptions,
    round: u64,
    list: &[Acknowledged],
) -> Result<(u64, u64), BenchError> {
    let connections = (args.clients as usize).min(list.len()).max(1);
    if list.is_empty() {
        return Err(BenchError::failed("nothing was acknowledged before the kill"));
    }
    let count = |replay| {
        let traffic: Arc<dyn Traffic> = Arc::new(Again {
            accepts: Accepts::new(key, args.task_bytes, round, false),
            list: list.to_vec(),
            connections,
            key: key.expose().to_owned(),
            replay,
        });
        let each = list.len().div_ceil(connections) as u64;
        let load = client::each(address, connections, each, &traffic)?;
        // A connection that broke says nothing about what it still had to ask.
        Ok::<_, BenchError>(load.refused + load.broken * each)
    };
    Ok((count(false)?, count(true)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_answers() {
        let body = br#"{"dispatchId":"01J9Z3NDEKTSV4RRFFQ69G5FAV","status":"PENDING"}"#;
        assert_eq!(id_in(body), Some("01J9Z3NDEKTSV4RRFFQ69G5FAV"));
        for bad in [&b"{}"[..], b"{\"dispatchId\":\"01J9\"}", b""] {
            assert_eq!(id_in(bad), None);
        }
    }

    const IDS: [&str; 3] =
        ["01J9Z3NDEKTSV4RRFFQ69G5FA0", "01J9Z3NDEKTSV4RRFFQ69G5FA1", "01J9Z3NDEKTSV4RRFFQ69G5FA2"];

    /// A server that has forgotten `lost` and answers a repeated request for `renamed` with a new id.
    fn forgetful(lost: Option<usize>, renamed: Option<usize>) -> SocketAddr {
        use std::io::{Read as _, Write as _};
        let answer = move |request: &str| {
            let asked = IDS.iter().position(|id| request.contains(&format!("/dispatch/{id}")));
            let repeated =
                (0..IDS.len()).find(|number| request.contains(&format!("bench-9-0-{number}\r\n")));
            match (asked, repeated) {
                (Some(number), _) if Some(number) == lost => ("404 Not Found", IDS[number]),
                (Some(number), _) => ("200 OK", IDS[number]),
                (_, Some(number)) if Some(number) == renamed => ("201 Created", IDS[0]),
                (_, number) => ("201 Created", IDS[number.unwrap_or(0)]),
            }
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut request = [0; 4_096];
                    while let Ok(read @ 1..) = stream.read(&mut request) {
                        let request = String::from_utf8_lossy(&request[..read]).into_owned();
                        let (status, id) = answer(&request);
                        let body = format!("{{\"dispatchId\":\"{id}\"}}");
                        let length = body.len();
                        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}");
                        if write!(stream, "{head}\r\n\r\n{body}").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn a_server_that_loses_or_doubles_is_found_out() {
        let args = AcceptOptions { clients: 2, time: Duration::from_secs(1), task_bytes: 1 };
        let key = Key::new("otp_0".to_owned());
        let list: Vec<_> = (0_u64..)
            .zip(IDS)
            .map(|(number, id)| Acknowledged { connection: 0, number, id: id.to_owned() })
            .collect();
        let count =
            |lost, renamed| ask_again((forgetful(lost, renamed), &key), &args, 9, &list).unwrap();
        assert_eq!(count(None, None), (0, 0));
        assert!(count(Some(1), None).0 > 0);
        assert!(count(None, Some(2)).1 > 0);
    }

    #[test]
    fn a_task_has_its_size() {
        assert_eq!(task(1).len(), 1);
        assert_eq!(task(51_200).len(), 51_200);
    }
}
