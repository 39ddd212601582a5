//! The server's connection to the launcher: requests, answers, news of ends.
//!
//! Bounds: [`REQUESTS_IN_FLIGHT_MAX`] unanswered requests; the launcher answers each of them exactly once.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Refusal, SandboxError};
use crate::launcher::{EXIT_ALREADY_RUNNING, LAUNCHER_ARGUMENT};
use crate::report::{ExitReport, HostReport};
use crate::sys;
use crate::wire::{self, Answer, Ask, Frame, Peer, Request, Said, Versions};

/// Most requests waiting for an answer; further ones wait for a place.
const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// How long a start of the launcher, or its first answer, may take.
const CONNECT_SECONDS_MAX: u64 = 20;
/// Pause before another attempt to reach a launcher that is just starting or whose last client is just leaving.
const CONNECT_RETRY_MILLIS: u64 = 10;
/// How long a launcher may be controlled by another client before that is reported.
const BUSY_SECONDS_MAX: u64 = 2;
/// Most bytes kept of what a failing launcher says.
const COMPLAINT_BYTES_MAX: usize = 4096;

/// How to reach the launcher, and how to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherOptions {
    /// Its socket: an absolute path of at most 107 bytes in a directory of ours with mode 0700.
    pub socket: PathBuf,
    /// The program that becomes the launcher; normally this very program, `/proc/self/exe`.
    pub program: PathBuf,
    /// Its arguments before socket and idle time; normally [`LAUNCHER_ARGUMENT`].
    pub arguments: Vec<String>,
    /// After how many seconds without client and sandboxes it ends.
    pub idle_seconds: u64,
}

impl LauncherOptions {
    /// The usual launcher at this socket: this very program.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec![LAUNCHER_ARGUMENT.to_owned()],
            idle_seconds: 5,
        }
    }
}

/// The end of one sandbox, as far as it is known.
pub(crate) type End = watch::Receiver<Option<ExitReport>>;

/// An answer with its descriptors and, if it is about a sandbox, the way to learn of its end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) end: Option<End>,
}

type Reply = Result<Answered, Refusal>;

#[derive(Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<Reply>>,
    ends: HashMap<String, watch::Sender<Option<ExitReport>>>,
    closed: bool,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
    next_seq: AtomicU64,
    places: Semaphore,
    /// Becomes true when the connection is lost.
    closed: watch::Sender<bool>,
}

/// A live connection. Dropping the last handle to it closes it; sandboxes go on.
pub(crate) struct Link {
    shared: Arc<Shared>,
    reader: tokio::task::JoinHandle<()>,
    /// The version agreed on.
    version: u32,
    pub(crate) host: HostReport,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("launcher_pid", &self.host.launcher_pid)
            .finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // The guarded maps are valid after any panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, frame: &Frame) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(result) = ready.try_io(|socket| frame.send(socket.as_fd())) {
                return result;
            }
        }
    }

    async fn receive(&self) -> io::Result<Option<(Said, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(result) =
                ready.try_io(|socket| wire::receive::<Said>(socket.as_fd(), Peer::Trusted))
            {
                return result;
            }
        }
    }

    async fn read_all(&self) {
        loop {
            match self.receive().await {
                Ok(Some((Said::Answer { seq, answer }, fds))) => {
                    let mut waiting = self.lock();
                    let reply = answer.map(|answer| {
                        // Messages are read in order, so interest registered here misses no end.
                        let end = match &answer {
                            Answer::Sandbox(record) => {
                                let end = waiting.ends.entry(record.id.clone()).or_default();
                                Some(end.subscribe())
                            }
                            Answer::Claimed { was, id, .. } => {
                                // Its end is told under the new name from now on.
                                if let Some(end) = waiting.ends.remove(was) {
                                    waiting.ends.insert(id.clone(), end);
                                }
                                None
                            }
                            _ => None,
                        };
                        Answered { answer, fds, end }
                    });
                    if let Some(waiter) = waiting.answers.remove(&seq) {
                        let _asker_gave_up = waiter.send(reply);
                    }
                }
                Ok(Some((Said::Exited { id, report }, _))) => {
                    if let Some(end) = self.lock().ends.remove(&id) {
                        end.send_replace(Some(report));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the launcher sent what could not be understood");
                    break;
                }
            }
        }
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.answers.clear();
        waiting.ends.clear();
        drop(waiting);
        self.closed.send_replace(true);
    }
}

impl Link {
    /// Connects, starting the launcher if none answers.
    pub(crate) async fn open(options: &LauncherOptions) -> Result<Self, SandboxError> {
        let started = Instant::now();
        loop {
            match Self::try_open(options).await {
                Err(SandboxError::Busy)
                    if started.elapsed() < Duration::from_secs(BUSY_SECONDS_MAX) => {}
                Err(SandboxError::LauncherLost)
                    if started.elapsed() < Duration::from_secs(CONNECT_SECONDS_MAX) => {}
                other => return other,
            }
            // The last server is just leaving, or the launcher just ended being idle.
            sleep(Duration::from_millis(CONNECT_RETRY_MILLIS)).await;
        }
    }

    async fn try_open(options: &LauncherOptions) -> Result<Self, SandboxError> {
        let socket = match connect(&options.socket) {
            Ok(socket) => socket,
            Err(error) if absent(&error) => {
                start_launcher(options).await?;
                connect(&options.socket).map_err(|error| {
                    if absent(&error) {
                        SandboxError::LauncherLost
                    } else {
                        SandboxError::Io(error)
                    }
                })?
            }
            Err(error) => return Err(error.into()),
        };
        let shared = Arc::new(Shared {
            socket: sys::watch(socket)?,
            waiting: Mutex::default(),
            next_seq: AtomicU64::new(1),
            places: Semaphore::new(REQUESTS_IN_FLIGHT_MAX),
            closed: watch::Sender::new(false),
        });
        let (version, host) = greet(&shared, Versions::OURS).await?;
        let reader = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move { shared.read_all().await }
        });
        Ok(Self { shared, reader, version, host })
    }

    /// True once the launcher is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Refuses what the launcher is too old for: it would pass over what it does not know.
    ///
    /// # Errors
    /// [`SandboxError::Version`].
    pub(crate) fn requires(&self, version: u32, what: &str) -> Result<(), SandboxError> {
        if self.version >= version {
            return Ok(());
        }
        let message = format!("it speaks version {}, {what} needs version {version}", self.version);
        Err(SandboxError::Version { launcher_pid: self.host.launcher_pid, message })
    }

    /// Follows the loss of the connection.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.shared.closed.subscribe()
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answered, SandboxError> {
        let lost = |_| SandboxError::LauncherLost;
        let _place = self.shared.places.acquire().await.map_err(|_| SandboxError::LauncherLost)?;
        let seq = self.shared.next_seq.fetch_add(1, Ordering::Relaxed);
        let frame = Frame::new(&Request { seq, ask }, Vec::new())?;
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.lock();
            if waiting.closed {
                return Err(SandboxError::LauncherLost);
            }
            waiting.answers.insert(seq, sender);
        }
        if self.shared.send(&frame).await.is_err() {
            self.shared.lock().answers.remove(&seq);
            return Err(SandboxError::LauncherLost);
        }
        Ok(answer.await.map_err(lost)??)
    }

    /// Asks for something that is only confirmed.
    pub(crate) async fn tell(&self, ask: Ask) -> Result<(), SandboxError> {
        self.ask(ask).await.map(drop)
    }

    /// Sends a request nobody waits for, without waiting; used where a value is dropped.
    pub(crate) fn tell_in_passing(&self, ask: Ask) {
        let seq = self.shared.next_seq.fetch_add(1, Ordering::Relaxed);
        let sent = Frame::new(&Request { seq, ask }, Vec::new())
            .and_then(|frame| frame.send(self.shared.socket.get_ref().as_fd()));
        if let Err(error) = sent {
            tracing::warn!(%error, "a dropped sandbox could not be released now; it goes when the server leaves");
        }
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)?;
    if peer.uid != rustix::process::geteuid() {
        return Err(io::Error::other(
            "the launcher's socket belongs to another user; choose another data directory",
        ));
    }
    Ok(socket)
}

/// Agrees on a version with a launcher, which may be older or newer than this program.
async fn greet(shared: &Shared, ours: Versions) -> Result<(u32, HostReport), SandboxError> {
    let hello =
        Frame::new(&Request { seq: 0, ask: Ask::Hello { version: ours.newest } }, Vec::new())?;
    // A launcher that is busy says so and closes, perhaps before this is sent; what it said can still be read.
    let _closed_already = shared.send(&hello).await;
    let answer = timeout(Duration::from_secs(CONNECT_SECONDS_MAX), shared.receive()).await;
    let silent = |_| SandboxError::Launcher {
        message: "it does not answer; stop it and try again".to_owned(),
    };
    let other_version =
        |message: String| match rustix::net::sockopt::socket_peercred(shared.socket.get_ref()) {
            Ok(peer) => SandboxError::Version {
                launcher_pid: peer.pid.as_raw_nonzero().get().unsigned_abs(),
                message,
            },
            Err(error) => SandboxError::Io(error.into()),
        };
    match answer.map_err(silent)? {
        Ok(Some((Said::Answer { answer: Ok(Answer::Hello { version, host }), .. }, _))) => {
            if !ours.contain(version) {
                let message = format!("it speaks version {version}, this program {ours}");
                return Err(other_version(message));
            }
            if version < ours.newest {
                tracing::info!(version, "the launcher is older than this program and goes on");
            }
            Ok((version, *host))
        }
        // Nothing else of a greeting can be refused for this reason.
        Ok(Some((Said::Answer { answer: Err(Refusal::Protocol { message }), .. }, _))) => {
            Err(other_version(message))
        }
        Ok(Some((Said::Answer { answer: Err(refusal), .. }, _))) => Err(refusal.into()),
        Ok(Some(_)) => Err(SandboxError::Protocol { message: "no greeting".to_owned() }),
        Ok(None) => Err(SandboxError::LauncherLost),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(other_version(format!("this program does not understand its answer ({error})")))
        }
        Err(_) => Err(SandboxError::LauncherLost),
    }
}

/// Starts the launcher and returns when it answers at its socket. std uses `posix_spawn` here, so this
/// multi-threaded process is never forked. It inherits nothing: no descriptors, and an empty environment.
async fn start_launcher(options: &LauncherOptions) -> Result<(), SandboxError> {
    let failed = |message: String| SandboxError::Launcher { message };
    let program = options.program.display();
    let run = Command::new(&options.program)
        .arg0("outpost-launcher")
        .args(&options.arguments)
        .arg(&options.socket)
        .arg(options.idle_seconds.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("{program}: {error}")))?
        .wait_with_output();
    let output = timeout(Duration::from_secs(CONNECT_SECONDS_MAX), run).await;
    let output = output.map_err(|_| failed("it did not become ready in time".to_owned()))??;
    match output.status.code() {
        Some(0 | EXIT_ALREADY_RUNNING) => Ok(()),
        _ => {
            let said = &output.stderr[..output.stderr.len().min(COMPLAINT_BYTES_MAX)];
            Err(failed(format!(
                "{} ({program}: {})",
                String::from_utf8_lossy(said).trim(),
                output.status
            )))
        }
    }
}
