//! The time between the agent's start and its end: output becomes events, commands become signals.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use outpost_agents::OutputParser;
use outpost_context::Scrubber;
use outpost_sandbox::{ExitReport, RunningSandbox, SandboxError};
use outpost_types::limits::STOP_GRACE_SECONDS;
use outpost_types::{Attention, EventData, LogStreamName};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant as Deadline;
use tracing::warn;

use crate::attempt::millis_since;
use crate::gatekeeper::{Account, Exhausted, Gatekeeper};
use crate::lines::LineCutter;
use crate::masking;
use crate::output::{OutputLog, Taken};
use crate::runner::{Command, Report, Told};

/// Longest wait for the rest of the output once the agent's sandbox is empty, seconds.
const DRAIN_SECONDS_MAX: u64 = 1;
/// How long an agent whose budget is used up may take to end by itself, seconds. It gets no more answers of
/// a model, but the last one may have been all it needed.
const BUDGET_END_SECONDS: u64 = 10;

/// How the agent ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Absent when nobody can say: the sandbox is gone and its launcher with it.
    pub(crate) exit: Option<ExitReport>,
    pub(crate) first_output_millis: Option<u64>,
    pub(crate) agent_millis: u64,
    #[serde(default)]
    pub(crate) account: Account,
}

/// What became of a watched agent.
pub(crate) enum Watched {
    /// It ended; its sandbox is empty and its gateway closed.
    Ended(Box<Ended>),
    /// It goes on without us: the server ends, and the next one will take it up.
    Left,
}

/// Follows the agent to its end, or to ours. `keep` hears of the end before the sandbox is let go of:
/// from then on nobody else could tell a later server.
pub(crate) async fn watch(
    mut running: Box<dyn RunningSandbox>,
    gatekeeper: Option<Gatekeeper>,
    mut output: Output<'_>,
    commands: &mut mpsc::Receiver<Command>,
    keep: impl FnOnce(&Ended),
) -> Watched {
    let started = output.started;
    let exhausted = gatekeeper.as_ref().map(Gatekeeper::exhausted);
    let pipes = Pipe::of(running.take_stdout())
        .and_then(|stdout| Ok((stdout, Pipe::of(running.take_stderr())?)));
    let exit = match pipes {
        Ok((stdout, stderr)) => {
            follow(running.as_ref(), [stdout, stderr], &mut output, commands, exhausted).await
        }
        Err(error) => Err(error.into()),
    };
    let exit = match exit {
        Ok(None) => return Watched::Left,
        Ok(Some(exit)) => Ok(exit),
        Err(error) => Err(error),
    };
    let exit = exit.inspect_err(|error| warn!(%error, "the end of an agent cannot be known")).ok();
    let agent_millis = millis_since(started);
    let account = match gatekeeper {
        Some(gatekeeper) => gatekeeper.close().await,
        None => Account::default(),
    };
    let first_output_millis = output.first_millis;
    let ended = Ended { exit, first_output_millis, agent_millis, account };
    keep(&ended);
    if let Err(error) = running.release().await {
        warn!(%error, "the sandbox of an agent could not be released");
    }
    Watched::Ended(Box::new(ended))
}

/// How the agent ended; `None` when nobody commands this any more.
async fn follow(
    running: &dyn RunningSandbox,
    mut pipes: [Pipe; 2],
    output: &mut Output<'_>,
    commands: &mut mpsc::Receiver<Command>,
    mut exhausted: Option<watch::Receiver<Option<Exhausted>>>,
) -> Result<Option<ExitReport>, SandboxError> {
    let mut exit = None;
    // From when on an agent whose budget is used up is told to end.
    let mut budget_end: Option<Deadline> = None;
    // Until the agent is told to end this is the kill's instant; afterwards that of the last byte.
    let mut deadline: Option<Deadline> = None;
    while exit.is_none() || pipes.iter().any(Pipe::is_open) {
        let far = Deadline::now() + Duration::from_secs(3600);
        let (at, stop_at) = (deadline.unwrap_or(far), budget_end.unwrap_or(far));
        let [stdout, stderr] = &mut pipes;
        tokio::select! {
            ready = stdout.readable(), if stdout.is_open() => {
                ready?;
                output.take(LogStreamName::Stdout, stdout).await?;
            }
            ready = stderr.readable(), if stderr.is_open() => {
                ready?;
                output.take(LogStreamName::Stderr, stderr).await?;
            }
            ended = running.wait(), if exit.is_none() => {
                exit = Some(ended?);
                deadline = Some(Deadline::now() + Duration::from_secs(DRAIN_SECONDS_MAX));
            }
            () = used_up(&mut exhausted), if exit.is_none() && budget_end.is_none() => {
                budget_end = Some(Deadline::now() + Duration::from_secs(BUDGET_END_SECONDS));
            }
            () = tokio::time::sleep_until(stop_at),
                if budget_end.is_some() && exit.is_none() && deadline.is_none() =>
            {
                running.stop().await?;
                deadline = Some(Deadline::now() + Duration::from_secs(STOP_GRACE_SECONDS));
            }
            command = commands.recv(), if exit.is_none() => match command {
                Some(Command::Stop | Command::Abort) if deadline.is_none() => {
                    running.stop().await?;
                    deadline = Some(Deadline::now() + Duration::from_secs(STOP_GRACE_SECONDS));
                }
                Some(_) => {}
                None => return Ok(None),
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
    Ok(exit)
}

/// Waits until a budget is used up; for ever, where there is none.
async fn used_up(exhausted: &mut Option<watch::Receiver<Option<Exhausted>>>) {
    if let Some(exhausted) = exhausted
        && exhausted.wait_for(Option::is_some).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The end of a pipe that the launcher keeps, too.
struct Pipe {
    fd: Option<AsyncFd<OwnedFd>>,
}

impl Pipe {
    fn of(receiver: Option<pipe::Receiver>) -> io::Result<Self> {
        let fd = receiver.map(pipe::Receiver::into_nonblocking_fd).transpose()?;
        Ok(Self { fd: fd.map(outpost_sandbox::watch).transpose()? })
    }

    const fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    async fn readable(&self) -> io::Result<()> {
        match &self.fd {
            Some(fd) => fd.readable().await.map(|mut ready| ready.retain_ready()),
            None => std::future::pending().await,
        }
    }

    /// Moves what it holds into the log; empty when it held nothing after all, or ended.
    fn take(&mut self, stream: LogStreamName, log: &mut OutputLog) -> io::Result<Option<Taken>> {
        let Some(fd) = &self.fd else { return Ok(None) };
        match fd.try_io(Interest::READABLE, |fd| log.take(stream, fd)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Ok(taken) if taken.ended => {
                self.fd = None;
                Ok(None)
            }
            taken => taken.map(Some),
        }
    }
}

/// Turns the agent's output into reports. Whatever leaves here is masked.
pub(crate) struct Output<'a> {
    log: OutputLog,
    scrubber: Scrubber,
    parser: &'a mut dyn OutputParser,
    reports: &'a mpsc::Sender<Report>,
    started: Instant,
    first_millis: Option<u64>,
    stdout: LineCutter,
    stderr: LineCutter,
    /// What an earlier server told of this output.
    told: Told,
}

impl<'a> Output<'a> {
    pub(crate) fn new(
        log: OutputLog,
        scrubber: Scrubber,
        parser: &'a mut dyn OutputParser,
        reports: &'a mpsc::Sender<Report>,
    ) -> Self {
        let (stdout, stderr) = (LineCutter::default(), LineCutter::default());
        let (started, told) = (Instant::now(), Told::default());
        Self { log, scrubber, parser, reports, started, first_millis: None, stdout, stderr, told }
    }

    /// Reads again what an earlier server took, and tells what it had not told yet.
    pub(crate) async fn replay(&mut self, told: Told) -> io::Result<()> {
        self.told = told;
        for (stream, piece) in self.log.pieces() {
            let taken = self.log.read(stream, &piece)?;
            self.digest(stream, taken).await;
        }
        Ok(())
    }

    async fn take(&mut self, stream: LogStreamName, pipe: &mut Pipe) -> io::Result<()> {
        if let Some(taken) = pipe.take(stream, &mut self.log)? {
            self.digest(stream, taken).await;
        }
        Ok(())
    }

    async fn digest(&mut self, stream: LogStreamName, taken: Taken) {
        self.first_millis.get_or_insert_with(|| millis_since(self.started));
        self.report(Report::OutputEnd(self.log.written())).await;
        let cutter = match stream {
            LogStreamName::Stdout => &mut self.stdout,
            LogStreamName::Stderr => &mut self.stderr,
        };
        for (line, passed) in cutter.push(&taken.bytes) {
            let log_offset = taken.start.map(|start| start + passed as u64);
            for event in self.parser.line(stream, &line) {
                self.tell(log_offset, event).await;
            }
        }
    }

    /// Tells what was held back for the end of a line or of the output.
    pub(crate) async fn finish(&mut self) {
        for stream in [LogStreamName::Stdout, LogStreamName::Stderr] {
            match self.log.rest(stream) {
                Ok(taken) if taken.bytes.is_empty() => {}
                Ok(taken) => self.digest(stream, taken).await,
                Err(error) => warn!(%error, "the last line of an output cannot be kept"),
            }
        }
        let log_offset = Some(self.log.given());
        let last = [
            (LogStreamName::Stdout, self.stdout.finish()),
            (LogStreamName::Stderr, self.stderr.finish()),
        ];
        let mut events = Vec::new();
        for (stream, line) in last {
            events.extend(line.iter().flat_map(|line| self.parser.line(stream, line)));
        }
        events.extend(self.parser.flush());
        for event in events {
            self.tell(log_offset, event).await;
        }
        let dropped = self.log.dropped_bytes();
        if dropped > 0 {
            let code = "output_truncated".to_owned();
            let message =
                format!("The last {dropped} bytes of output are over the bound and were not kept.");
            self.report(Report::Event(EventData::Attention(Attention { code, message }))).await;
        }
    }

    /// Reports an event, unless an earlier server did.
    async fn tell(&mut self, log_offset: Option<u64>, data: EventData) {
        // What was read is masked; what the parser put together of several lines may not be.
        let data = masking::event(&self.scrubber, data);
        // What is in no file cannot be read again, so nobody can have told it before.
        let Some(log_offset) = log_offset else {
            return self.report(Report::Event(data)).await;
        };
        if log_offset < self.told.log_offset {
            return;
        }
        if log_offset == self.told.log_offset && self.told.count > 0 {
            self.told.count -= 1;
            return;
        }
        self.report(Report::AgentEvent { log_offset, data }).await;
    }

    async fn report(&mut self, report: Report) {
        // Nobody listening is seen by whoever reads the commands, which then ends the agent.
        let _ = self.reports.send(report).await;
    }
}
