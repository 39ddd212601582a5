//! The Linux sandbox as the server sees it.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::client::{Answered, End, LauncherOptions, Link};
use crate::error::SandboxError;
use crate::report::{ExitReport, HostReport, Isolation, SandboxPolicy};
use crate::sandbox::{ParkedSandbox, Reattached, RunningSandbox, Sandbox};
use crate::spec::{Claim, Payload, SandboxSpec};
use crate::sys;
use crate::wire::{self, Answer, Ask, Go, GoAnswer, Peer, Record, Stage, VERSION_OF_CLAIMS};

/// How long an init may take to start a payload. It only executes a program; a full disk cache can make that slow.
const START_SECONDS_MAX: u64 = 30;
/// How long the death of a sandbox is waited for after its launcher died. The kernel kills it at once.
const DEATH_SECONDS_MAX: u64 = 10;

/// Sandboxes made by a launcher on this machine.
pub struct LinuxSandbox {
    options: LauncherOptions,
    policy: SandboxPolicy,
    link: Mutex<Option<Arc<Link>>>,
}

impl fmt::Debug for LinuxSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxSandbox")
            .field("options", &self.options)
            .field("policy", &self.policy)
            .finish()
    }
}

impl LinuxSandbox {
    /// Nothing is started or connected before the first use.
    #[must_use]
    pub fn new(options: LauncherOptions, policy: SandboxPolicy) -> Self {
        Self { options, policy, link: Mutex::new(None) }
    }

    /// Kills all sandboxes and ends the launcher. Without it the launcher lives on as long as sandboxes do.
    ///
    /// # Errors
    /// [`SandboxError::Launcher`], [`SandboxError::Busy`], [`SandboxError::LauncherLost`].
    pub async fn shut_down(&self) -> Result<(), SandboxError> {
        let link = self.link().await?;
        link.tell(Ask::Shutdown).await?;
        let mut closed = link.closed();
        let _sender_gone = closed.wait_for(|closed| *closed).await;
        Ok(())
    }

    /// Leaves the launcher and its sandboxes alone, as a server does that is about to be replaced. Handles that
    /// still exist keep the connection open.
    pub async fn disconnect(&self) {
        self.link.lock().await.take();
    }

    /// The current connection, or a new one if the launcher is not running (any more).
    async fn link(&self) -> Result<Arc<Link>, SandboxError> {
        let mut link = self.link.lock().await;
        if let Some(link) = link.as_ref().filter(|link| !link.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let fresh = Arc::new(Link::open(&self.options).await?);
        *link = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn attach(
        &self,
        link: &Arc<Link>,
        id: String,
    ) -> Result<Option<Reattached>, SandboxError> {
        match link.ask(Ask::Attach { id }).await {
            Ok(answered) => {
                let handle = Handle::new(Arc::clone(link), answered)?;
                Ok(Some(match handle.stage {
                    Stage::Parked => Reattached::Parked(Box::new(Parked::new(handle))),
                    Stage::Running | Stage::Finished(_) => Reattached::Running(Box::new(handle)),
                }))
            }
            Err(SandboxError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn odd_answer() -> SandboxError {
    SandboxError::Protocol { message: "an answer to another question".to_owned() }
}

#[async_trait]
impl Sandbox for LinuxSandbox {
    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn ParkedSandbox>, SandboxError> {
        spec.validate()?;
        let link = self.link().await?;
        self.policy.check(&link.host.isolation)?;
        if spec.binds.iter().any(|bind| bind.overlay.is_some()) {
            link.requires(VERSION_OF_CLAIMS, "an overlay")?;
        }
        let policy = self.policy;
        // In a task of its own: if the caller gives up, the task still ends and drops, that is destroys, the result.
        let made = tokio::spawn(async move {
            let answered = link.ask(Ask::Create { spec: Box::new(spec) }).await?;
            let parked = Parked::new(Handle::new(link, answered)?);
            policy.check(&parked.isolation)?;
            Ok::<_, SandboxError>(parked)
        });
        Ok(Box::new(made.await.map_err(|error| SandboxError::Io(io::Error::other(error)))??))
    }

    async fn reattach(&self) -> Result<Vec<Reattached>, SandboxError> {
        let link = self.link().await?;
        let Answer::Inventory { ids } = link.ask(Ask::Inventory).await?.answer else {
            return Err(odd_answer());
        };
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.attach(&link, id).await?);
        }
        Ok(found)
    }

    async fn host(&self) -> Result<HostReport, SandboxError> {
        Ok(self.link().await?.host.clone())
    }
}

/// A sandbox the launcher told us about.
struct Handle {
    link: Arc<Link>,
    id: String,
    isolation: Isolation,
    stage: Stage,
    end: End,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    pidfd: Option<AsyncFd<OwnedFd>>,
    go: Option<OwnedFd>,
    listener: Option<TcpListener>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("id", &self.id)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Descriptors come in the order that the launcher's record has them.
    fn new(link: Arc<Link>, answered: Answered) -> Result<Self, SandboxError> {
        let Answered { answer: Answer::Sandbox(record), fds, end: Some(end) } = answered else {
            return Err(odd_answer());
        };
        let mut fds = fds.into_iter();
        let mut pipe = || -> Result<pipe::Receiver, SandboxError> {
            let fd = fds
                .next()
                .ok_or_else(|| SandboxError::Protocol { message: "no output pipe".to_owned() })?;
            Ok(pipe::Receiver::from_owned_fd(fd)?)
        };
        let (stdout, stderr) = (Some(pipe()?), Some(pipe()?));
        let pidfd = fds.next().map(sys::watch).transpose()?;
        let go = fds.next();
        let listener = fds.next().map(TcpListener::from);
        let Record { id, stage, isolation, .. } = *record;
        Ok(Self { link, id, isolation, stage, end, stdout, stderr, pidfd, go, listener })
    }

    /// The report if the end is known, an error if it never will be.
    async fn end(&self) -> Result<ExitReport, SandboxError> {
        if let Stage::Finished(report) = &self.stage {
            return Ok(report.clone());
        }
        let mut end = self.end.clone();
        let report = end.wait_for(Option::is_some).await.map(|report| report.clone());
        if let Ok(Some(report)) = report {
            return Ok(report);
        }
        // The launcher is gone. Say so only when the sandbox is, too.
        if let Some(pidfd) = &self.pidfd {
            let _stuck_in_kernel =
                timeout(Duration::from_secs(DEATH_SECONDS_MAX), pidfd.readable()).await;
        }
        Err(SandboxError::LauncherLost)
    }

    async fn go(&self, payload: Payload) -> Result<(), SandboxError> {
        let go = self.go.as_ref().ok_or_else(|| SandboxError::NotFound { id: self.id.clone() })?;
        let go = sys::watch(go.try_clone()?)?;
        let stdin = if payload.stdin.is_empty() {
            OwnedFd::from(std::fs::File::open("/dev/null")?)
        } else {
            wire::memory_file(&payload.stdin)?
        };
        // Nothing was sent on this socket before, so there is room for it.
        wire::send(go.get_ref().as_fd(), &Go { payload }, vec![stdin])?;
        let answer = async {
            loop {
                let mut ready = go.readable().await?;
                let result = ready.try_io(|go| wire::receive::<GoAnswer>(go.as_fd(), Peer::Init));
                if let Ok(result) = result {
                    return result;
                }
            }
        };
        let late =
            |_| SandboxError::Start { message: "the sandbox did not answer in time".to_owned() };
        let ended = async {
            let mut end = self.end.clone();
            let _sender_gone = end.wait_for(Option::is_some).await;
        };
        let answer = tokio::select! {
            biased;
            answer = timeout(Duration::from_secs(START_SECONDS_MAX), answer) => answer.map_err(late)?,
            // A short payload can be over before its start is read here. Init answers before it ends, so by now the
            // answer is there to be taken, or there is none.
            () = ended => wire::receive::<GoAnswer>(go.get_ref().as_fd(), Peer::Init),
        };
        match answer {
            Ok(Some((GoAnswer::Started, _))) => Ok(()),
            Ok(Some((GoAnswer::Failed { message }, _))) => Err(SandboxError::Start { message }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(SandboxError::Protocol { message: error.to_string() })
            }
            _ if self.link.is_closed() => Err(SandboxError::LauncherLost),
            _ => Err(SandboxError::Start {
                message: "the sandbox was ended before its start".to_owned(),
            }),
        }
    }
}

/// A sandbox that destroys itself when it is dropped before its start.
#[derive(Debug)]
struct Parked {
    /// Taken when it is started.
    handle: Option<Handle>,
    id: String,
    isolation: Isolation,
}

impl Parked {
    fn new(handle: Handle) -> Self {
        let (id, isolation) = (handle.id.clone(), handle.isolation.clone());
        Self { handle: Some(handle), id, isolation }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.link.tell_in_passing(Ask::Release { id: handle.id.clone() });
        }
    }
}

#[async_trait]
impl ParkedSandbox for Parked {
    fn id(&self) -> &str {
        &self.id
    }

    fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    fn gone(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let Some(handle) = &self.handle else { return Box::pin(std::future::ready(())) };
        let (mut end, mut closed) = (handle.end.clone(), handle.link.closed());
        Box::pin(async move {
            tokio::select! {
                // A sender that is gone says the same.
                _ = end.wait_for(Option::is_some) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        })
    }

    fn take_listener(&mut self) -> Option<TcpListener> {
        self.handle.as_mut()?.listener.take()
    }

    async fn claim(&mut self, claim: Claim) -> Result<(), SandboxError> {
        claim.validate()?;
        let handle = self.handle.as_mut().ok_or_else(odd_answer)?;
        handle.link.requires(VERSION_OF_CLAIMS, "a claim")?;
        let ask = Ask::Claim { id: handle.id.clone(), claim: Box::new(claim) };
        let Answer::Claimed { id, isolation, .. } = handle.link.ask(ask).await?.answer else {
            return Err(odd_answer());
        };
        handle.id.clone_from(&id);
        handle.isolation.clone_from(&isolation);
        (self.id, self.isolation) = (id, *isolation);
        Ok(())
    }

    async fn start(
        mut self: Box<Self>,
        payload: Payload,
    ) -> Result<Box<dyn RunningSandbox>, SandboxError> {
        payload.validate()?;
        let Some(handle) = &self.handle else {
            return Err(odd_answer());
        };
        // On failure, and if this future is dropped, `self` still holds the handle and releases the sandbox.
        handle.go(payload).await?;
        let mut handle = self.handle.take().ok_or_else(odd_answer)?;
        handle.stage = Stage::Running;
        handle.go = None;
        Ok(Box::new(handle))
    }

    async fn discard(mut self: Box<Self>) -> Result<(), SandboxError> {
        let Some(handle) = self.handle.take() else {
            return Ok(());
        };
        Box::new(handle).release().await
    }
}

#[async_trait]
impl RunningSandbox for Handle {
    fn id(&self) -> &str {
        &self.id
    }

    fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    fn take_listener(&mut self) -> Option<TcpListener> {
        self.listener.take()
    }

    fn take_stdout(&mut self) -> Option<pipe::Receiver> {
        self.stdout.take()
    }

    fn take_stderr(&mut self) -> Option<pipe::Receiver> {
        self.stderr.take()
    }

    async fn wait(&self) -> Result<ExitReport, SandboxError> {
        self.end().await
    }

    async fn stop(&self) -> Result<(), SandboxError> {
        self.link.tell(Ask::Signal { id: self.id.clone(), signal: libc::SIGTERM }).await
    }

    async fn kill(&self) -> Result<(), SandboxError> {
        self.link.tell(Ask::Kill { id: self.id.clone() }).await
    }

    async fn release(self: Box<Self>) -> Result<(), SandboxError> {
        self.link.tell(Ask::Release { id: self.id.clone() }).await?;
        // The id is free and the groups are gone only after the end.
        match self.end().await {
            Ok(_) | Err(SandboxError::LauncherLost) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
