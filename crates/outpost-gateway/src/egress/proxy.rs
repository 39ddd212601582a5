//! Carries out what the policy allows: tunnels and plain requests.
//!
//! Bounded: tunnels and requests at once, addresses of a name, the time to resolve, to connect, to say hello and to
//! be silent, bytes where the grant says so. Nothing outlives the session, and a tunnel to what is no longer
//! allowed is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hello::{HELLO_BYTES_MAX, Hello, server_name};
use super::host::Host;
use super::policy::{self, EgressPolicy, Way, decide, judge_address};
use super::{EgressGrant, EgressReason};
use crate::gateway::{Handle, KEY_HEADERS, Reporter, answer, kept_headers};
use crate::serve::{Body, BodyError};

/// Most tunnels and plain requests of an attempt at once.
pub const TUNNELS_MAX: usize = 64;
/// Longest silence in a tunnel, seconds.
pub const TUNNEL_IDLE_SECONDS_MAX: u64 = 300;
/// Longest time to resolve a name, seconds.
const RESOLVE_SECONDS_MAX: u64 = 10;
/// Most addresses of a name.
const ADDRESSES_MAX: usize = 32;
/// Longest time to connect to one of them, seconds.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Most of them that are tried.
const CONNECT_TRIES_MAX: usize = 4;
/// Longest time to the whole first message of TLS, seconds.
const HELLO_SECONDS_MAX: u64 = 15;
/// Longest time to the head of an answer to a plain request, seconds.
const ANSWER_HEAD_SECONDS_MAX: u64 = 120;
/// What is read of a tunnel at once, bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// The port on which a tunnel always must begin with TLS.
const TLS_PORT: u16 = 443;
/// Headers that are about the connection or the way, or are meant for the gateway.
const HEADERS_DROPPED: [&str; 12] = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "x-api-key",
    "x-goog-api-key",
];

/// The proxy of a session.
#[derive(Debug)]
pub(crate) struct Egress {
    policy: watch::Sender<EgressPolicy>,
    grant: EgressGrant,
    slots: Arc<Semaphore>,
    bytes: AtomicU64,
    tasks: TaskTracker,
    stop: CancellationToken,
    reporter: Arc<Reporter>,
}

/// Where a request wants to go.
#[derive(Debug, Clone)]
struct Target {
    host: Host,
    port: u16,
    way: Way,
}

/// What becomes of a request that was not carried out.
enum Refused {
    Denied(EgressReason),
    Failed(StatusCode, &'static str, String),
}

impl From<EgressReason> for Refused {
    fn from(reason: EgressReason) -> Self {
        Self::Denied(reason)
    }
}

impl Egress {
    pub(crate) fn new(
        grant: EgressGrant,
        tasks: TaskTracker,
        stop: CancellationToken,
        reporter: Arc<Reporter>,
    ) -> Arc<Self> {
        let (policy, _) = watch::channel(grant.policy.clone());
        let slots = Arc::new(Semaphore::new(TUNNELS_MAX));
        let bytes = AtomicU64::new(0);
        Arc::new(Self { policy, grant, slots, bytes, tasks, stop, reporter })
    }

    /// Puts another policy in force; tunnels that it does not allow are cut.
    pub(crate) fn set(&self, policy: EgressPolicy) {
        self.policy.send_replace(policy);
    }

    /// Whether the policy opens any host.
    pub(crate) fn opens_anything(&self) -> bool {
        self.policy.borrow().opens_anything()
    }

    /// Answers a `CONNECT`.
    pub(crate) async fn tunnel(self: &Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let Some((host, port)) = Host::with_port(authority, None) else {
            return self.bad_host(authority);
        };
        let target = Target { host, port, way: Way::Tunnel };
        match self.open(&target).await {
            Ok((stream, slot)) => {
                let upgrade = hyper::upgrade::on(&mut request);
                let (egress, stop) = (Arc::clone(self), self.stop.clone());
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = egress.run_tunnel(upgrade, stream, target) => {}
                    }
                    drop(slot);
                });
                answer::empty(StatusCode::OK)
            }
            Err(refused) => self.refuse(&target, refused),
        }
    }

    /// Answers a plain request in absolute form.
    pub(crate) async fn plain(
        self: &Arc<Self>,
        request: Request<Incoming>,
        handle: &Handle,
    ) -> Response<Body> {
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let http = request.uri().scheme_str() == Some("http");
        let target = Host::with_port(authority, Some(Way::Plain.default_port())).filter(|_| http);
        let Some((host, port)) = target else {
            return self.bad_host(authority);
        };
        let target = Target { host, port, way: Way::Plain };
        match self.pass(&target, request, handle).await {
            Ok(response) => response,
            Err(refused) => self.refuse(&target, refused),
        }
    }

    fn allowed(&self, target: &Target) -> Result<(), EgressReason> {
        decide(&self.policy.borrow(), &self.grant.floor, (&target.host, target.port), target.way)
    }

    /// A connection to where the target leads, if it may be made.
    async fn open(&self, target: &Target) -> Result<(TcpStream, OwnedSemaphorePermit), Refused> {
        self.allowed(target)?;
        self.bytes_left()?;
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let message = format!(
                "{TUNNELS_MAX} connections of this run are open, which is the most: close some."
            );
            return Err(Refused::Failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_tunnels",
                message,
            ));
        };
        let addresses = self.addresses(target).await?;
        for address in addresses.into_iter().take(CONNECT_TRIES_MAX) {
            let limit = Duration::from_secs(CONNECT_SECONDS_MAX);
            if let Ok(Ok(stream)) = timeout(limit, TcpStream::connect(address)).await {
                self.not_this_host(&stream)?;
                let _ = stream.set_nodelay(true);
                return Ok((stream, slot));
            }
        }
        let message =
            format!("{} could not be reached: check the name and try again.", target.host);
        Err(Refused::Failed(StatusCode::BAD_GATEWAY, "host_unreachable", message))
    }

    /// A public address of this host leads past its own firewall to what listens on it.
    fn not_this_host(&self, stream: &TcpStream) -> Result<(), EgressReason> {
        let ends = (stream.peer_addr(), stream.local_addr());
        let own = matches!(&ends, (Ok(peer), Ok(local)) if peer.ip() == local.ip());
        let named = matches!(&ends, (Ok(peer), _)
            if self.grant.floor.private.iter().any(|range| range.contains(peer.ip())));
        if own && !named { Err(EgressReason::PrivateAddress) } else { Ok(()) }
    }

    /// Where the target leads; every address is judged, and one bad address spoils the name.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Refused> {
        let found = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let limit = Duration::from_secs(RESOLVE_SECONDS_MAX);
                let found = timeout(limit, self.grant.resolver.resolve(name)).await;
                found.ok().and_then(Result::ok).unwrap_or_default()
            }
        };
        for address in found.iter().take(ADDRESSES_MAX) {
            judge_address(*address, &self.grant.floor)?;
        }
        if found.is_empty() {
            let message = format!("{} has no address: check the name.", target.host);
            return Err(Refused::Failed(StatusCode::BAD_GATEWAY, "name_unknown", message));
        }
        let found = found.into_iter().take(ADDRESSES_MAX);
        Ok(found.map(|address| SocketAddr::new(address, target.port)).collect())
    }

    async fn run_tunnel(&self, upgrade: OnUpgrade, server: TcpStream, target: Target) {
        let Ok(client) = upgrade.await else { return };
        let mut policy = self.policy.subscribe();
        let cut = async {
            while self.allowed(&target).is_ok() {
                if policy.changed().await.is_err() {
                    return;
                }
            }
            self.denied(&target, EgressReason::NotAllowed);
        };
        let mut client = TokioIo::new(client);
        tokio::select! {
            () = cut => {}
            reason = self.through(&mut client, server, &target) => {
                if let Err(reason) = reason {
                    self.denied(&target, reason);
                }
            }
        }
    }

    async fn through(
        &self,
        client: &mut TokioIo<Upgraded>,
        server: TcpStream,
        target: &Target,
    ) -> Result<(), EgressReason> {
        let mut first = Vec::new();
        if target.port == TLS_PORT || self.grant.tls_ports.contains(&target.port) {
            let limit = Duration::from_secs(HELLO_SECONDS_MAX);
            let hello = timeout(limit, read_hello(client, &mut first)).await;
            let named = match hello {
                Ok(Hello::Name(name)) => name,
                Ok(Hello::NotTls | Hello::More) | Err(_) => return Err(EgressReason::NoServerName),
            };
            match (&target.host, named) {
                // Addresses have no server name.
                (Host::Address(_), None) => {}
                (Host::Name(name), Some(named)) if *name == named => {}
                (Host::Name(_), None) => return Err(EgressReason::NoServerName),
                _ => return Err(EgressReason::HostMismatch),
            }
        }
        let (mut server_read, mut server_write) = server.into_split();
        if server_write.write_all(&first).await.is_err() {
            return Ok(());
        }
        self.moved(first.len())?;
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let last = std::sync::Mutex::new(tokio::time::Instant::now());
        let up = self.copy(&mut client_read, &mut server_write, &last);
        let down = self.copy(&mut server_read, &mut client_write, &last);
        let idle = until_idle(&last);
        tokio::select! {
            both = async { tokio::try_join!(up, down) } => both.map(|_| ()),
            () = idle => Ok(()),
        }
    }

    async fn copy(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        last: &std::sync::Mutex<tokio::time::Instant>,
    ) -> Result<(), EgressReason> {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(bytes @ 1..) = from.read(&mut piece).await {
            self.moved(bytes)?;
            *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                tokio::time::Instant::now();
            if to.write_all(&piece[..bytes]).await.is_err() {
                return Ok(());
            }
        }
        let _ = to.shutdown().await;
        Ok(())
    }

    fn moved(&self, bytes: usize) -> Result<(), EgressReason> {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bytes_left()
    }

    fn bytes_left(&self) -> Result<(), EgressReason> {
        let moved = self.bytes.load(Ordering::Relaxed);
        let over = self.grant.bytes_max.is_some_and(|max| moved >= max);
        if over { Err(EgressReason::BytesUsedUp) } else { Ok(()) }
    }

    async fn pass(
        self: &Arc<Self>,
        target: &Target,
        request: Request<Incoming>,
        handle: &Handle,
    ) -> Result<Response<Body>, Refused> {
        self.allowed(target)?;
        let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
        let same = |host: &&header::HeaderValue| {
            let host = host.to_str().ok().and_then(|host| Host::with_port(host, Some(80)));
            host == Some((target.host.clone(), target.port))
        };
        if hosts.len() != 1 || !hosts.iter().all(same) {
            return Err(EgressReason::HostMismatch.into());
        }
        if holds_handle(&request, handle) {
            return Err(EgressReason::HandleInRequest.into());
        }
        let (stream, slot) = self.open(target).await?;
        let failed = || {
            let message = format!("{} did not answer: try again.", target.host);
            Refused::Failed(StatusCode::BAD_GATEWAY, "host_unreachable", message)
        };
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_buf_size(crate::serve::HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|_| failed())?;
        let (egress, stop, own) = (Arc::clone(self), self.stop.clone(), target.clone());
        self.tasks.spawn(async move {
            let mut policy = egress.policy.subscribe();
            let cut =
                async { while egress.allowed(&own).is_ok() && policy.changed().await.is_ok() {} };
            tokio::select! {
                // What was taken away meanwhile is taken before the request goes out.
                biased;
                () = stop.cancelled() => {}
                () = cut => {}
                _ = connection => {}
            }
            drop(slot);
        });
        let request = self.outgoing(request).ok_or(EgressReason::BadHost)?;
        let limit = Duration::from_secs(ANSWER_HEAD_SECONDS_MAX);
        let response = timeout(limit, sender.send_request(request)).await;
        let response = response.map_err(|_| failed())?.map_err(|_| failed())?;
        let (head, body) = response.into_parts();
        let mut answer = Response::new(self.counted(body));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = kept_headers(&head.headers, &HEADERS_DROPPED);
        Ok(answer)
    }

    /// The request as the server gets it.
    fn outgoing(self: &Arc<Self>, request: Request<Incoming>) -> Option<Request<Body>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = path.parse().ok()?;
        let mut outgoing = Request::new(self.counted(body));
        *outgoing.method_mut() = head.method;
        *outgoing.uri_mut() = uri;
        *outgoing.version_mut() = Version::HTTP_11;
        let mut headers: HeaderMap = kept_headers(&head.headers, &HEADERS_DROPPED);
        for name in KEY_HEADERS {
            headers.remove(name);
        }
        *outgoing.headers_mut() = headers;
        Some(outgoing)
    }

    /// A body whose bytes count, and that may not fall silent.
    fn counted(self: &Arc<Self>, body: Incoming) -> Body {
        let egress = Arc::clone(self);
        let limit = Duration::from_secs(TUNNEL_IDLE_SECONDS_MAX);
        let frames = futures_util::stream::unfold(Some(body), move |body| {
            let egress = Arc::clone(&egress);
            async move {
                let mut body = body?;
                let frame = match timeout(limit, body.frame()).await {
                    Ok(frame) => frame?.map_err(BodyError::from),
                    Err(_) => Err("the other side fell silent".into()),
                };
                let frame = frame.and_then(|frame| {
                    let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
                    egress.moved(bytes).map_err(|reason| BodyError::from(reason.as_str()))?;
                    Ok(frame)
                });
                let body = frame.is_ok().then_some(body);
                Some((frame, body))
            }
        });
        http_body_util::StreamBody::new(frames).boxed_unsync()
    }

    fn bad_host(&self, authority: &str) -> Response<Body> {
        self.reporter.egress_denied(authority, 0, EgressReason::BadHost, None);
        let message = "The request does not name a host in a plain form: use a name and port such as \
            example.com:443.";
        answer::problem(StatusCode::FORBIDDEN, EgressReason::BadHost.as_str(), message)
    }

    fn denied(&self, target: &Target, reason: EgressReason) -> Option<String> {
        let rule = policy::suggestion(reason, &target.host, target.port, target.way);
        let host = target.host.to_string();
        self.reporter.egress_denied(&host, target.port, reason, rule.clone());
        rule
    }

    fn refuse(&self, target: &Target, refused: Refused) -> Response<Body> {
        match refused {
            Refused::Failed(status, code, message) => answer::problem(status, code, &message),
            Refused::Denied(reason) => {
                let rule = self.denied(target, reason);
                let (host, port) = (&target.host, target.port);
                let message = match (reason, rule) {
                    (_, Some(rule)) => format!(
                        "The network policy of this run does not allow {host}:{port}. A human can allow it \
                         while it runs, with `outpost network <id of the dispatch> --allow-host {rule}`."
                    ),
                    (EgressReason::OperatorDenied, None) => format!(
                        "The operator of this Outpost does not allow {host}:{port}, and no rule of a run can \
                         change that."
                    ),
                    (reason, None) => format!(
                        "The connection to {host}:{port} is refused ({}); no rule can allow it.",
                        reason.as_str()
                    ),
                };
                answer::problem(StatusCode::FORBIDDEN, reason.as_str(), &message)
            }
        }
    }
}

async fn read_hello(client: &mut TokioIo<Upgraded>, first: &mut Vec<u8>) -> Hello {
    loop {
        let mut piece = [0; 2048];
        let room = HELLO_BYTES_MAX.saturating_sub(first.len()).min(piece.len());
        match client.read(&mut piece[..room]).await {
            Ok(bytes @ 1..) => first.extend_from_slice(&piece[..bytes]),
            Ok(0) | Err(_) => return Hello::NotTls,
        }
        match server_name(first) {
            Hello::More => {}
            hello => return hello,
        }
    }
}

async fn until_idle(last: &std::sync::Mutex<tokio::time::Instant>) {
    let limit = Duration::from_secs(TUNNEL_IDLE_SECONDS_MAX);
    loop {
        let at = *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) + limit;
        if at <= tokio::time::Instant::now() {
            return;
        }
        tokio::time::sleep_until(at).await;
    }
}

/// Whether the attempt's handle is anywhere in a request's head.
fn holds_handle(request: &Request<Incoming>, handle: &Handle) -> bool {
    let handle = handle.expose().as_bytes();
    let within = |text: &[u8]| memchr::memmem::find(text, handle).is_some();
    let uri = request.uri().to_string();
    within(uri.as_bytes())
        || request.headers().iter().any(|(name, value)| {
            // What is meant for the gateway itself is not passed on.
            !HEADERS_DROPPED.contains(&name.as_str()) && within(value.as_bytes())
        })
}
