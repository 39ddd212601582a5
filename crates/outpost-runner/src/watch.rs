//! The time between the agent's start and its end: output becomes events, commands become signals.

use std::time::{Duration, Instant};

use outpost_agents::OutputParser;
use outpost_gateway::gateway::{GatewayEvent, GatewaySession};
use outpost_sandbox::{ExitReport, RunningSandbox, SandboxError};
use outpost_types::limits::STOP_GRACE_SECONDS;
use outpost_types::{EventData, LogStreamName};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant as Deadline;
use tracing::warn;

use crate::attempt::millis_since;
use crate::lines::LineCutter;
use crate::runner::{Command, Report};

/// Most bytes read from a pipe at once.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for the rest of the output once the agent's sandbox is empty, seconds.
const DRAIN_SECONDS_MAX: u64 = 1;

/// How the agent ended.
pub(crate) struct Ended {
    pub(crate) exit: ExitReport,
    pub(crate) first_output_millis: Option<u64>,
    pub(crate) agent_millis: u64,
}

/// Follows the agent to its end. Its sandbox is empty and its gateway closed when this returns.
pub(crate) async fn watch(
    mut running: Box<dyn RunningSandbox>,
    session: Option<(GatewaySession, mpsc::Receiver<GatewayEvent>)>,
    parser: &mut dyn OutputParser,
    commands: &mut mpsc::Receiver<Command>,
    reports: &mpsc::Sender<Report>,
) -> Ended {
    let started = Instant::now();
    let (session, denials) = session.map_or((None, None), |(session, events)| {
        (Some(session), Some(tokio::spawn(report_denials(events, reports.clone()))))
    });
    let mut output = Output::new(parser, reports, started);
    let pipes = (running.take_stdout(), running.take_stderr());
    let exit = match pipes {
        (Some(stdout), Some(stderr)) => {
            follow(running.as_ref(), stdout, stderr, &mut output, commands).await
        }
        _ => running.wait().await,
    };
    if let Err(error) = running.release().await {
        warn!(%error, "the sandbox of an agent could not be released");
    }
    let exit = exit.unwrap_or_else(|error| {
        warn!(%error, "the end of an agent could not be read");
        ExitReport { killed: true, ..ExitReport::default() }
    });
    let agent_millis = millis_since(started);
    let first_output_millis = output.first_millis;
    if let Some(session) = session {
        session.shutdown().await;
    }
    if let Some(denials) = denials
        && let Err(error) = denials.await
    {
        warn!(%error, "denials of a gateway could not be reported");
    }
    Ended { exit, first_output_millis, agent_millis }
}

async fn follow(
    running: &dyn RunningSandbox,
    mut stdout: impl AsyncRead + Unpin,
    mut stderr: impl AsyncRead + Unpin,
    output: &mut Output<'_>,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<ExitReport, SandboxError> {
    let mut pieces = (vec![0; READ_BYTES_MAX], vec![0; READ_BYTES_MAX]);
    let mut open = (true, true);
    let mut exit = None;
    let mut listening = true;
    // Until the agent is told to end this is the kill's instant; afterwards that of the last byte.
    let mut deadline: Option<Deadline> = None;
    while exit.is_none() || open.0 || open.1 {
        let at = deadline.unwrap_or_else(|| Deadline::now() + Duration::from_secs(3600));
        tokio::select! {
            read = stdout.read(&mut pieces.0), if open.0 => {
                open.0 = output.take(LogStreamName::Stdout, &pieces.0, read).await;
            }
            read = stderr.read(&mut pieces.1), if open.1 => {
                open.1 = output.take(LogStreamName::Stderr, &pieces.1, read).await;
            }
            ended = running.wait(), if exit.is_none() => {
                exit = Some(ended?);
                deadline = Some(Deadline::now() + Duration::from_secs(DRAIN_SECONDS_MAX));
            }
            command = commands.recv(), if listening && exit.is_none() => match command {
                Some(Command::Stop | Command::Abort) if deadline.is_none() => {
                    running.stop().await?;
                    deadline = Some(Deadline::now() + Duration::from_secs(STOP_GRACE_SECONDS));
                }
                Some(_) => {}
                None => {
                    listening = false;
                    running.kill().await?;
                }
            },
            () = tokio::time::sleep_until(at), if deadline.is_some() => {
                if exit.is_some() {
                    break;
                }
                running.kill().await?;
                deadline = None;
            }
        }
    }
    output.finish().await;
    Ok(exit.unwrap_or_default())
}

/// Turns bytes into reports.
struct Output<'a> {
    parser: &'a mut dyn OutputParser,
    reports: &'a mpsc::Sender<Report>,
    started: Instant,
    first_millis: Option<u64>,
    stdout: LineCutter,
    stderr: LineCutter,
}

impl<'a> Output<'a> {
    fn new(
        parser: &'a mut dyn OutputParser,
        reports: &'a mpsc::Sender<Report>,
        started: Instant,
    ) -> Self {
        let (stdout, stderr) = (LineCutter::default(), LineCutter::default());
        Self { parser, reports, started, first_millis: None, stdout, stderr }
    }

    /// Takes what was read; `false` at the end of the stream.
    async fn take(
        &mut self,
        stream: LogStreamName,
        piece: &[u8],
        read: std::io::Result<usize>,
    ) -> bool {
        let Ok(read @ 1..) = read else { return false };
        let bytes = &piece[..read];
        self.first_millis.get_or_insert_with(|| millis_since(self.started));
        self.report(Report::Output(bytes.to_vec())).await;
        let cutter = match stream {
            LogStreamName::Stdout => &mut self.stdout,
            LogStreamName::Stderr => &mut self.stderr,
        };
        for line in cutter.push(bytes) {
            self.line(stream, &line).await;
        }
        true
    }

    async fn finish(&mut self) {
        if let Some(line) = self.stdout.finish() {
            self.line(LogStreamName::Stdout, &line).await;
        }
        if let Some(line) = self.stderr.finish() {
            self.line(LogStreamName::Stderr, &line).await;
        }
    }

    async fn line(&mut self, stream: LogStreamName, line: &str) {
        for event in self.parser.line(stream, line) {
            self.report(Report::Event(event)).await;
        }
    }

    async fn report(&mut self, report: Report) {
        // Nobody listening is seen by whoever reads the commands, which then ends the agent.
        let _ = self.reports.send(report).await;
    }
}

async fn report_denials(mut events: mpsc::Receiver<GatewayEvent>, reports: mpsc::Sender<Report>) {
    while let Some(event) = events.recv().await {
        let GatewayEvent::Denied { host, path, reason } = event else { continue };
        let target = host.map_or_else(|| path.clone(), |host| format!("{host}{path}"));
        let reason = reason.as_str().to_owned();
        let event = EventData::PolicyDenied { target, reason };
        if reports.send(Report::Event(event)).await.is_err() {
            return;
        }
    }
}
