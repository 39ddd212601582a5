//! The load: many kept-alive connections that cost as little as possible, because they run on the
//! processors of what they measure.
//!
//! A closed loop sends the next request when the answer to the last is there; it finds the most that a
//! server can do. An open loop sends at a fixed rate whether or not answers come, and counts the time
//! a request waits for a free connection; it finds what a client waits at that rate.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::error::BenchError;
use crate::histogram::Histogram;

/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest wait for what is still under way when the time is over, seconds.
const DRAIN_SECONDS_MAX: u64 = 60;
/// Longest time for a fixed number of requests, seconds.
const EACH_SECONDS_MAX: u64 = 3_600;
/// Requests of an open loop that may wait for a connection; more are counted as refused.
const WAITING_MAX: usize = 100_000;
/// Grid on which an open loop sends, milliseconds: the finest the runtime's timer has.
const TICK_MILLIS: u64 = 1;

/// What is sent, and what counts as a good answer.
pub(crate) trait Traffic: Send + Sync + 'static {
    /// Appends request `number` of this connection to `out`.
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>);

    /// Whether this is the answer it should be.
    fn accept(&self, connection: usize, number: u64, status: u16, body: &[u8]) -> bool;
}

/// What came of it.
pub(crate) struct Load {
    /// Time from request to answer, of good answers.
    pub(crate) latency: Histogram,
    /// Answers that were not what they should be.
    pub(crate) refused: u64,
    /// Connections that broke.
    pub(crate) broken: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

impl Load {
    fn new() -> Self {
        Self { latency: Histogram::new(), refused: 0, broken: 0, elapsed: Duration::ZERO }
    }

    /// Adds another one to it.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.refused += other.refused;
        self.broken += other.broken;
        self.elapsed += other.elapsed;
    }

    /// Nothing measured yet, to merge into.
    pub(crate) fn none() -> Self {
        Self::new()
    }

    /// Good answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latency.count() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Fails unless every answer was good.
    pub(crate) fn checked(self, what: &str) -> Result<Self, BenchError> {
        if self.refused == 0 && self.broken == 0 && self.latency.count() > 0 {
            return Ok(self);
        }
        Err(BenchError::failed(format!(
            "{what}: {} good answers, {} wrong ones, {} broken connections",
            self.latency.count(),
            self.refused,
            self.broken
        ))
        .with_hint("the figures would mean nothing; look at server.log of the bench (--keep)"))
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, sent: Vec::with_capacity(4_096), received: Vec::with_capacity(16_384) })
    }

    /// Sends the request that `write` appends and reads its answer: its status and its body.
    pub(crate) async fn ask(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<(u16, &[u8])> {
        self.sent.clear();
        write(&mut self.sent);
        let (status, head) = self.exchange().await?;
        Ok((status, &self.received[head..]))
    }

    /// Sends one request and reads its answer: its status, and its body in `received`.
    async fn exchange(&mut self) -> io::Result<(u16, usize)> {
        self.stream.write_all(&self.sent).await?;
        self.received.clear();
        let mut whole = None;
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if whole.is_none() {
                whole = read_head(&self.received)?;
            }
            match whole {
                Some((status, head, body)) if self.received.len() >= head + body => {
                    return Ok((status, head));
                }
                Some((_, head, body)) => {
                    self.received.reserve(head + body - self.received.len());
                }
                None => {}
            }
        }
    }
}

/// Status, length of the head and length of the body, once the head is complete.
fn read_head(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| wrong("a head that is no text"))?;
    let status = head.get(9..12).and_then(|digits| digits.parse().ok());
    let status = status.ok_or_else(|| wrong("a head without a status"))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = length.ok_or_else(|| wrong("an answer without a length"))?;
    if length > ANSWER_BYTES_MAX {
        return Err(wrong("an answer that is too long"));
    }
    Ok(Some((status, end + 4, length)))
}

/// A runtime of one thread for the load; the server has the rest of the machine.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Sends as fast as answers come, for `time`, on this many connections.
pub(crate) fn closed(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    traffic: &Arc<dyn Traffic>,
) -> Result<Load, BenchError> {
    run_closed(address, connections, time, u64::MAX, traffic)
}

/// Sends `count` requests on each of this many connections, as fast as answers come.
pub(crate) fn each(
    address: SocketAddr,
    connections: usize,
    count: u64,
    traffic: &Arc<dyn Traffic>,
) -> Result<Load, BenchError> {
    run_closed(address, connections, Duration::from_secs(EACH_SECONDS_MAX), count, traffic)
}

fn run_closed(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    count: u64,
    traffic: &Arc<dyn Traffic>,
) -> Result<Load, BenchError> {
    runtime()?.block_on(async {
        let mut opened = Vec::with_capacity(connections);
        for _ in 0..connections {
            opened.push(Connection::open(address).await?);
        }
        let begin = Instant::now();
        let tasks: Vec<_> = opened
            .into_iter()
            .enumerate()
            .map(|(index, connection)| {
                let work = repeat(connection, index, begin + time, count, Arc::clone(traffic));
                let limit = time + Duration::from_secs(DRAIN_SECONDS_MAX);
                tokio::spawn(tokio::time::timeout(limit, work))
            })
            .collect();
        let mut load = Load::new();
        for task in tasks {
            match task.await {
                Ok(Ok(one)) => load.merge(&one),
                _ => load.broken += 1,
            }
        }
        load.elapsed = begin.elapsed();
        Ok(load)
    })
}

async fn repeat(
    mut connection: Connection,
    index: usize,
    end: Instant,
    count: u64,
    traffic: Arc<dyn Traffic>,
) -> Load {
    let mut load = Load::new();
    for number in 0..count {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        if !one(&mut connection, index, number, begin, traffic.as_ref(), &mut load).await {
            break;
        }
    }
    load
}

/// One request, its time counted from `begin`; `false` when the connection broke.
async fn one(
    connection: &mut Connection,
    index: usize,
    number: u64,
    begin: Instant,
    traffic: &dyn Traffic,
    load: &mut Load,
) -> bool {
    connection.sent.clear();
    traffic.request(index, number, &mut connection.sent);
    let Ok((status, head)) = connection.exchange().await else {
        load.broken += 1;
        return false;
    };
    let took = begin.elapsed();
    if traffic.accept(index, number, status, &connection.received[head..]) {
        load.latency.add(took);
    } else {
        load.refused += 1;
    }
    true
}

/// Requests of an open loop that wait for a connection, and since when.
struct Waiting {
    due: Mutex<VecDeque<Instant>>,
    count: Semaphore,
    numbers: AtomicU64,
}

/// Sends `per_second` requests a second for `time`, on at most this many connections.
pub(crate) fn open(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    per_second: f64,
    traffic: &Arc<dyn Traffic>,
) -> Result<Load, BenchError> {
    runtime()?.block_on(async {
        let waiting = Arc::new(Waiting {
            due: Mutex::default(),
            count: Semaphore::new(0),
            numbers: AtomicU64::new(0),
        });
        let mut tasks = Vec::with_capacity(connections);
        for index in 0..connections {
            let connection = Connection::open(address).await?;
            let work = serve(connection, index, Arc::clone(&waiting), Arc::clone(traffic));
            tasks.push(tokio::spawn(work));
        }
        let begin = Instant::now();
        let mut load = Load::new();
        load.refused += send(&waiting, begin, time, per_second).await;
        load.refused += drain(&waiting).await;
        for task in tasks {
            match task.await {
                Ok(one) => load.merge(&one),
                Err(_) => load.broken += 1,
            }
        }
        load.elapsed = begin.elapsed();
        Ok(load)
    })
}

/// Makes requests due at the rate; says how many found no place to wait.
async fn send(waiting: &Waiting, begin: Instant, time: Duration, per_second: f64) -> u64 {
    let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MILLIS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut sent, mut lost) = (0_u64, 0);
    while begin.elapsed() < time {
        ticks.tick().await;
        let now = Instant::now();
        let wanted = ((now - begin).as_secs_f64() * per_second) as u64;
        let fresh = wanted.saturating_sub(sent) as usize;
        sent = wanted;
        let mut due = waiting.due.lock().unwrap_or_else(PoisonError::into_inner);
        let room = fresh.min(WAITING_MAX.saturating_sub(due.len()));
        due.extend(std::iter::repeat_n(now, room));
        drop(due);
        waiting.count.add_permits(room);
        lost += (fresh - room) as u64;
    }
    lost
}

/// Waits until nothing waits any more; says how many still did when the patience was over.
async fn drain(waiting: &Waiting) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(DRAIN_SECONDS_MAX);
    let left = || waiting.due.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    while left() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(TICK_MILLIS)).await;
    }
    waiting.count.close();
    left()
}

async fn serve(
    mut connection: Connection,
    index: usize,
    waiting: Arc<Waiting>,
    traffic: Arc<dyn Traffic>,
) -> Load {
    let mut load = Load::new();
    while let Ok(permit) = waiting.count.acquire().await {
        permit.forget();
        let due = waiting.due.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(begin) = due else { continue };
        let number = waiting.numbers.fetch_add(1, Ordering::Relaxed);
        if !one(&mut connection, index, number, begin, traffic.as_ref(), &mut load).await {
            break;
        }
    }
    load
}

/// Appends a request for an address.
pub(crate) fn get(out: &mut Vec<u8>, path: &str, key: &str) {
    without_body(out, b"GET ", path, key);
}

/// Appends a request that takes something back.
pub(crate) fn delete(out: &mut Vec<u8>, path: &str, key: &str) {
    without_body(out, b"DELETE ", path, key);
}

fn without_body(out: &mut Vec<u8>, method: &[u8], path: &str, key: &str) {
    out.extend_from_slice(method);
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: ");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a request that makes a dispatch.
pub(crate) fn post(out: &mut Vec<u8>, body: &str, key: &str) {
    let text = format!(
        "POST /dispatch HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    out.extend_from_slice(text.as_bytes());
}

/// Reads one address once: status and body.
pub(crate) fn ask(
    address: SocketAddr,
    path: &str,
    key: &str,
) -> Result<(u16, Vec<u8>), BenchError> {
    runtime()?.block_on(async {
        let mut connection = Connection::open(address).await?;
        let (status, body) = connection.ask(|out| get(out, path, key)).await?;
        Ok((status, body.to_vec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_whole_or_not_at_all() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        for cut in 0..answer.len() - 5 {
            assert!(read_head(&answer[..cut]).unwrap().is_none(), "{cut}");
        }
        assert_eq!(read_head(answer).unwrap(), Some((201, answer.len() - 5, 5)));
        for bad in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert!(read_head(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    struct Fixed;

    impl Traffic for Fixed {
        fn request(&self, _: usize, _: u64, out: &mut Vec<u8>) {
            get(out, "/", "k");
        }
        fn accept(&self, _: usize, _: u64, status: u16, body: &[u8]) -> bool {
            status == 200 && body == b"ok"
        }
    }

    /// A server that answers every second request wrongly when told to.
    fn server(wrong: bool) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream, wrong));
            }
        });
        address
    }

    fn answer(mut stream: std::net::TcpStream, wrong: bool) {
        use std::io::{Read as _, Write as _};
        let mut request = [0; 1_024];
        let mut count = 0;
        while stream.read(&mut request).is_ok_and(|read| read > 0) {
            count += 1;
            let body = if wrong && count % 2 == 0 { "no" } else { "ok" };
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{body}");
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    #[test]
    fn good_and_wrong_answers_are_told_apart() {
        let traffic: Arc<dyn Traffic> = Arc::new(Fixed);
        let time = Duration::from_millis(50);
        let good = closed(server(false), 3, time, &traffic).unwrap();
        assert!(good.checked("good").is_ok());
        let mixed = closed(server(true), 3, time, &traffic).unwrap();
        assert!(mixed.refused > 0 && mixed.latency.count() > 0);
        assert!(mixed.checked("mixed").is_err());
    }

    #[test]
    fn an_open_loop_keeps_its_rate() {
        let traffic: Arc<dyn Traffic> = Arc::new(Fixed);
        let time = Duration::from_millis(200);
        let load = open(server(false), 3, time, 1_000.0, &traffic).unwrap();
        assert_eq!((load.refused, load.broken), (0, 0));
        // However late the timer is, all that was due by its last tick is sent and answered.
        assert!((1..=250).contains(&load.latency.count()), "{}", load.latency.count());
    }
}
