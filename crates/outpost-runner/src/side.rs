//! Short commands beside the agent, each in a sandbox of its own without any network: collecting
//! results, running checks.

use std::path::PathBuf;
use std::time::Duration;

use outpost_sandbox::{ExitReport, Payload, SandboxError, SandboxSpec};
use outpost_types::Tier;
use outpost_types::limits::OUTPUT_TAIL_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::local::Parts;
use crate::provision::{create, limits_of};

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
    let mut payload = Payload::new(side.argv).cwd(side.cwd);
    if !side.env.is_empty() {
        payload.env = side.env;
    }
    let mut running = create(parts, spec).await?.start(payload).await?;
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
