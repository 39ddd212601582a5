//! What the tests share: a gateway in front of the scripted provider, clients, and a raw upstream that
//! does exactly what a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outpost_gateway::gateway::{
    AuthStyle, Credential, Gateway, GatewayEvent, GatewayGrant, GatewaySession, Handle, Route,
    Upstream,
};
use outpost_scripted::SCRIPTED_KEY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

#[path = "../../../outpost-scripted/tests/it/support.rs"]
mod provider;

pub(crate) use provider::{SOON, client, loopback, scripted};

/// A gateway session with its events.
pub(crate) struct Open {
    pub(crate) session: GatewaySession,
    pub(crate) events: mpsc::Receiver<GatewayEvent>,
    pub(crate) handle: String,
    pub(crate) addr: SocketAddr,
}

impl Open {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn event(&mut self) -> GatewayEvent {
        tokio::time::timeout(SOON, self.events.recv()).await.unwrap().unwrap()
    }
}

pub(crate) fn route(name: &str, upstream: &str, auth: AuthStyle) -> Route {
    let credential = Credential::new(name, SCRIPTED_KEY).unwrap();
    let upstream = Upstream::parse(name, upstream).unwrap();
    Route::new(name, &format!("/{name}"), upstream, credential, auth).unwrap()
}

/// A gateway with one route per authentication style, all to `upstream`, that holds no calls.
pub(crate) async fn open(upstream: &str) -> Open {
    open_with(upstream, |grant| grant.with_rate_limit_wait(Duration::ZERO)).await
}

/// A gateway with one route per authentication style, all to `upstream`, and what `more` grants.
pub(crate) async fn open_with(
    upstream: &str,
    more: impl FnOnce(GatewayGrant) -> GatewayGrant,
) -> Open {
    open_routes(routes(upstream), more).await
}

/// One route per authentication style.
pub(crate) fn routes(upstream: &str) -> Vec<Route> {
    vec![
        route("anthropic", upstream, AuthStyle::XApiKey),
        route("openai", upstream, AuthStyle::Bearer),
        route("google", upstream, AuthStyle::XGoogApiKey),
    ]
}

pub(crate) async fn open_routes(
    routes: Vec<Route>,
    more: impl FnOnce(GatewayGrant) -> GatewayGrant,
) -> Open {
    let handle = Handle::generate().unwrap();
    let text = handle.expose().to_owned();
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let grant = more(GatewayGrant::new(handle, routes).unwrap());
    let (session, events) = Gateway::new().unwrap().serve(listener, grant);
    Open { session, events, handle: text, addr }
}

/// A piece of what a raw upstream answers.
pub(crate) enum Raw {
    /// Bytes, flushed at once.
    Send(Vec<u8>),
    /// Wait until the test says so.
    Wait(Arc<tokio::sync::Notify>),
    /// Send back the body of the request.
    Echo,
}

/// An upstream that keeps the heads of its requests and answers each with the same pieces.
pub(crate) struct RawUpstream {
    pub(crate) url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl RawUpstream {
    pub(crate) async fn start(pieces: Vec<Raw>) -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (pieces, kept) = (Arc::new(pieces), Arc::clone(&heads));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (pieces, kept) = (Arc::clone(&pieces), Arc::clone(&kept));
                tokio::spawn(async move { raw_answer(socket, &pieces, &kept).await });
            }
        });
        Self { url, heads }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn raw_answer(mut socket: TcpStream, pieces: &[Raw], heads: &Mutex<Vec<String>>) {
    socket.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    while bytes.len() < end + length.unwrap_or(0) {
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    heads.lock().unwrap().push(head);
    for piece in pieces {
        let sent = match piece {
            Raw::Send(piece) => socket.write_all(piece).await,
            Raw::Echo => socket.write_all(&bytes[end..]).await,
            Raw::Wait(until) => {
                until.notified().await;
                Ok(())
            }
        };
        if sent.is_err() {
            return;
        }
        let _ = socket.flush().await;
    }
}

/// Sends raw bytes and returns all that comes back until the other side closes or `until` appears.
pub(crate) async fn raw_request(addr: SocketAddr, request: &str, until: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    // The other side may close before it has read everything.
    let _ = socket.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&bytes).contains(until) {
            if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, read).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
