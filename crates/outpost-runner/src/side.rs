//! Commands beside the agent, each in a sandbox of its own: setting up the repository, collecting results, running
//! checks. Without any network, but for a setup that asks for one.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use outpost_gateway::egress::EgressGrant;
use outpost_gateway::gateway::{GatewayGrant, GatewaySession, Handle};
use outpost_sandbox::{ExitReport, GATEWAY_PORT, Payload, SandboxError, SandboxSpec};
use outpost_types::Tier;
use outpost_types::limits::OUTPUT_TAIL_BYTES_MAX;
use outpost_workspace::RepoOverlay;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::local::Parts;
use crate::network::variables;
use crate::provision::{create, limits_of};
use crate::shown;

/// A command to run.
#[derive(Debug, Clone)]
pub(crate) struct SideRun {
    pub(crate) id: String,
    pub(crate) argv: Vec<String>,
    /// The whole environment; empty for the usual one.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) ro_binds: Vec<(PathBuf, PathBuf)>,
    pub(crate) rw_binds: Vec<(PathBuf, PathBuf)>,
    /// The repository as layers, where the workspace is shown at that path.
    pub(crate) repository: Option<(RepoOverlay, PathBuf)>,
    /// What its proxy opens; `None` for no network at all.
    pub(crate) network: Option<EgressGrant>,
    pub(crate) tier: Tier,
    pub(crate) seconds_max: u64,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct SideEnd {
    pub(crate) exit: ExitReport,
    /// End of what it printed.
    pub(crate) output: String,
}

/// Runs it to its end, or kills it when its time is over.
pub(crate) async fn run_aside(parts: &Parts, side: SideRun) -> Result<SideEnd, SandboxError> {
    let mut spec = SandboxSpec::new(side.id);
    spec.limits = limits_of(side.tier, side.seconds_max);
    for (host, inside) in side.ro_binds {
        spec = spec.read_only(host, inside);
    }
    for (host, inside) in side.rw_binds {
        spec = spec.read_write(host, inside);
    }
    let repository = side.repository.iter();
    spec.binds.extend(repository.map(|(overlay, inside)| shown::repository(overlay, inside)));
    let mut payload = Payload::new(side.argv).cwd(side.cwd);
    if !side.env.is_empty() {
        payload.env = side.env;
    }
    if side.network.is_some() {
        spec.listener_port = Some(GATEWAY_PORT);
        payload.env.extend(variables(GATEWAY_PORT));
    }
    let mut parked = create(parts, spec).await?;
    let _proxy = match (side.network, parked.take_listener()) {
        (Some(network), Some(listener)) => Some(open_proxy(parts, network, listener)?),
        _ => None,
    };
    let mut running = parked.start(payload).await?;
    let (mut stdout, mut stderr) = (Tail::default(), Tail::default());
    let pipes = (running.take_stdout(), running.take_stderr());
    let reading = async { tokio::join!(stdout.read(pipes.0), stderr.read(pipes.1)) };
    let limit = Duration::from_secs(side.seconds_max);
    if tokio::time::timeout(limit, reading).await.is_err() {
        running.kill().await?;
    }
    let exit = running.wait().await;
    running.release().await?;
    stdout.append(&stderr.bytes);
    Ok(SideEnd { exit: exit?, output: stdout.text() })
}

/// Opens a way out and nothing else. It closes when it is dropped; nobody hears what it refused but the program.
fn open_proxy(
    parts: &Parts,
    network: EgressGrant,
    listener: TcpListener,
) -> io::Result<GatewaySession> {
    let handle = Handle::generate().map_err(io::Error::other)?;
    let grant = GatewayGrant::new(handle, Vec::new()).map_err(io::Error::other)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (session, mut events) = parts.gateway.serve(listener, grant.with_egress(network));
    // Ends with the session.
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    Ok(session)
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    async fn read(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut piece = vec![0; OUTPUT_TAIL_BYTES_MAX];
        // An error of a pipe is its end.
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            self.append(&piece[..read]);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let surplus = self.bytes.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX);
        self.bytes.drain(..surplus);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        // A replaced byte is longer than the byte: cut once more, at a whole character.
        let start = text.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX);
        let start = (start..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text[start..].to_owned()
    }
}
