//! `outpost bench gateway`: what the gateway adds to a call of a model.
//!
//! The same streamed call goes to the scripted provider directly and through a gateway, in turn, over
//! connections that stay open. Provider and gateway each have a thread and a runtime of their own, as
//! they have in different processes; client, gateway and provider share the machine, so a quiet one matters.
//!
//! Bounded: calls, the size of an answer, and the wait for one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use outpost_gateway::gateway::{
    AuthStyle, Credential, Gateway, GatewayGrant, Handle, Route, Upstream,
};
use outpost_scripted::{SCRIPTED_KEY, Script, ScriptedProvider};
use tokio::sync::oneshot;

use crate::error::BenchError;
use crate::histogram::Histogram;
use crate::options::GatewayOptions;
use crate::report::{Goal, Report, Row};
use crate::{Bench, ROUNDS_COUNT};

/// Goals of the project: added to the first byte of an answer, milliseconds.
const ADDED_P50_MILLIS: f64 = 0.3;
/// See [`ADDED_P50_MILLIS`].
const ADDED_P99_MILLIS: f64 = 3.0;
/// What the model answers, and in what pieces.
const SCRIPT: &str = "[[rule]]\nsteps = [{ say = 'Done: the test passes now, and nothing else changed.' }]\n\
                      stream = { chunk_chars = 4 }\n";
/// Name and prefix of the only route.
const ROUTE: &str = "anthropic";
/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait for a byte, seconds.
const PATIENCE_SECONDS: u64 = 20;

/// How long a call took.
struct Times {
    first: Histogram,
    whole: Histogram,
}

impl Times {
    fn new() -> Self {
        Self { first: Histogram::new(), whole: Histogram::new() }
    }
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &GatewayOptions) -> Result<Report, BenchError> {
    let provider = Served::start(Kind::Provider)?;
    let gateway = Served::start(Kind::Gateway { upstream: provider.address })?;
    let mut direct = Client::connect(&provider, "", args.request_bytes)?;
    let mut through = Client::connect(&gateway, "/anthropic", args.request_bytes)?;
    let (mut straight, mut added) = (Times::new(), Times::new());
    // What is only done once, connections included, is not measured.
    direct.call(&mut Times::new())?;
    through.call(&mut Times::new())?;
    for round in 1..=ROUNDS_COUNT {
        bench.floor.round()?;
        for _ in 0..args.calls {
            direct.call(&mut straight)?;
            through.call(&mut added)?;
        }
        let beyond = |share| added.first.millis(share) - straight.first.millis(share);
        let (p50, p99) = (beyond(0.5), beyond(0.99));
        bench.ui.note(&format!(
            "round {round} of {ROUNDS_COUNT}: {p50:.3} / {p99:.3} ms added (p50 / p99)"
        ));
    }
    bench.rows = rows(args, &straight, &added);
    Ok(bench.finish("gateway"))
}

fn rows(args: &GatewayOptions, straight: &Times, through: &Times) -> Vec<Row> {
    let row = |what: &str, share: f64, of: fn(&Times) -> &Histogram| {
        let (direct, through) = (of(straight).millis(share), of(through).millis(share));
        Row::new(what, "ms", through - direct).floor(direct, "a direct call in all")
    };
    let kib = args.request_bytes / 1024;
    let calls = straight.first.count();
    let first = format!("added to the first byte, p50, {calls} calls of {kib} KiB");
    vec![
        row(&first, 0.5, |times| &times.first).goal(Goal::AtMost(ADDED_P50_MILLIS)),
        row("added to the first byte, p99", 0.99, |times| &times.first)
            .goal(Goal::AtMost(ADDED_P99_MILLIS)),
        row("added to the last byte, p50", 0.5, |times| &times.whole),
        row("added to the last byte, p99", 0.99, |times| &times.whole),
    ]
}

/// What a thread serves.
#[derive(Clone, Copy)]
enum Kind {
    Provider,
    Gateway { upstream: SocketAddr },
}

/// Where it listens and the key it wants; ends with its value.
struct Served {
    address: SocketAddr,
    key: String,
    _stop: oneshot::Sender<()>,
}

impl Served {
    fn start(kind: Kind) -> Result<Self, BenchError> {
        let (ready, started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("bench-served".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.map_err(BenchError::from).and_then(|runtime| {
                runtime.block_on(async {
                    match kind {
                        Kind::Provider => provide(&ready, stopped).await,
                        Kind::Gateway { upstream } => forward(upstream, &ready, stopped).await,
                    }
                })
            });
            if let Err(error) = served {
                // The other end waits for nothing else.
                let _ = ready.send(Err(error));
            }
        })?;
        let gone = || BenchError::failed("a thread of the bench ended before it served");
        let (address, key) = started.recv().map_err(|_| gone())??;
        Ok(Self { address, key, _stop: stop })
    }
}

type Ready = std::sync::mpsc::Sender<Result<(SocketAddr, String), BenchError>>;

async fn provide(ready: &Ready, stopped: oneshot::Receiver<()>) -> Result<(), BenchError> {
    let failed = |error: String| BenchError::failed(format!("the scripted provider: {error}"));
    let script = Script::parse(SCRIPT).map_err(|error| failed(error.to_string()))?;
    let provider = ScriptedProvider::new(script).start(([127, 0, 0, 1], 0).into());
    let provider = provider.await.map_err(|error| failed(error.to_string()))?;
    let _ = ready.send(Ok((provider.addr(), SCRIPTED_KEY.to_owned())));
    let _ = stopped.await;
    provider.shutdown().await;
    Ok(())
}

async fn forward(
    upstream: SocketAddr,
    ready: &Ready,
    stopped: oneshot::Receiver<()>,
) -> Result<(), BenchError> {
    let failed = |error| BenchError::chain("the gateway cannot be opened", &error);
    let credential = Credential::new(ROUTE, SCRIPTED_KEY).map_err(failed)?;
    let upstream = Upstream::parse(ROUTE, &format!("http://{upstream}")).map_err(failed)?;
    let prefix = format!("/{ROUTE}");
    let route = Route::new(ROUTE, &prefix, upstream, credential, AuthStyle::XApiKey);
    let handle = Handle::generate().map_err(failed)?;
    let key = handle.expose().to_owned();
    let grant = GatewayGrant::new(handle, vec![route.map_err(failed)?]).map_err(failed)?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (session, mut events) = Gateway::new().map_err(failed)?.serve(listener, grant);
    let _ = ready.send(Ok((address, key)));
    let read = async { while events.recv().await.is_some() {} };
    tokio::select! {
        _ = stopped => {}
        () = read => {}
    }
    session.shutdown().await;
    Ok(())
}

/// A connection that repeats one call.
struct Client {
    socket: TcpStream,
    request: Vec<u8>,
}

impl Client {
    fn connect(served: &Served, prefix: &str, request_bytes: usize) -> Result<Self, BenchError> {
        let socket = TcpStream::connect(served.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(PATIENCE_SECONDS)))?;
        let body = serde_json::json!({
            "model": "claude-opus-4-5-20251101", "max_tokens": 4096, "stream": true,
            "messages": [{"role": "user", "content": "x".repeat(request_bytes)}],
        });
        let body = body.to_string();
        let mut request = format!(
            "POST {prefix}/v1/messages HTTP/1.1\r\nhost: {}\r\nx-api-key: {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            served.address,
            served.key,
            body.len()
        );
        request.push_str(&body);
        Ok(Self { socket, request: request.into_bytes() })
    }

    /// One call, to the last byte of its answer.
    fn call(&mut self, times: &mut Times) -> Result<(), BenchError> {
        const GOOD: &[u8] = b"HTTP/1.1 200";
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        let began = Instant::now();
        self.socket.write_all(&self.request)?;
        let mut answer = Vec::with_capacity(16 * 1024);
        let mut piece = [0; 16 * 1024];
        let mut first = None;
        while !answer.ends_with(LAST) {
            let count = self.socket.read(&mut piece)?;
            first.get_or_insert_with(|| began.elapsed());
            answer.extend_from_slice(&piece[..count]);
            let refused = answer.len() >= GOOD.len() && !answer.starts_with(GOOD);
            if count == 0 || refused || answer.len() > ANSWER_BYTES_MAX {
                let head = String::from_utf8_lossy(&answer[..answer.len().min(200)]);
                let message = format!("an answer is not what was asked for: {head}");
                return Err(BenchError::failed(message));
            }
        }
        let whole = began.elapsed();
        if !contains(&answer, b"message_stop") {
            return Err(BenchError::failed("an answer has no end"));
        }
        times.first.add(first.unwrap_or(whole));
        times.whole.add(whole);
        Ok(())
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_arrive_directly_and_through_the_gateway() {
        let provider = Served::start(Kind::Provider).unwrap();
        let gateway = Served::start(Kind::Gateway { upstream: provider.address }).unwrap();
        assert_ne!(provider.key, gateway.key, "the key stays outside");
        let mut times = Times::new();
        Client::connect(&provider, "", 2_000).unwrap().call(&mut times).unwrap();
        let mut client = Client::connect(&gateway, "/anthropic", 2_000).unwrap();
        client.call(&mut times).unwrap();
        client.call(&mut times).unwrap();
        assert_eq!((times.first.count(), times.whole.count()), (3, 3));
        let foreign =
            Served { address: gateway.address, key: "otph_0".into(), _stop: oneshot::channel().0 };
        let refused = Client::connect(&foreign, "/anthropic", 10).unwrap().call(&mut times);
        assert!(refused.is_err(), "a figure needs a right answer");
    }
}
