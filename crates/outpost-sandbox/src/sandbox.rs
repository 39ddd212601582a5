//! The interface every kind of sandbox has: created parked, started once, followed to its end.

use std::fmt;
use std::net::TcpListener;
use std::pin::Pin;

use async_trait::async_trait;
use tokio::net::unix::pipe;

use crate::error::SandboxError;
use crate::report::{ExitReport, HostReport, Isolation};
use crate::spec::{Claim, Owner, Payload, SandboxSpec};

/// Makes sandboxes.
#[async_trait]
pub trait Sandbox: Send + Sync + fmt::Debug {
    /// Builds a sandbox that is ready to start a payload: isolated, limited, and without any privilege left.
    ///
    /// # Errors
    /// [`SandboxError::InvalidSpec`], [`SandboxError::AlreadyExists`], [`SandboxError::Full`],
    /// [`SandboxError::Unenforceable`] if the host falls short of the policy, [`SandboxError::Build`].
    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn ParkedSandbox>, SandboxError>;

    /// Everything that exists from before: called once after a restart of the server. What ended meanwhile is
    /// returned as [`Reattached::Running`], whose `wait` answers at once and whose output can still be read.
    ///
    /// # Errors
    /// [`SandboxError::Launcher`], [`SandboxError::Busy`], [`SandboxError::LauncherLost`].
    async fn reattach(&self) -> Result<Vec<Reattached>, SandboxError>;

    /// The owner that read-write binds must have, so that the payload can write to them.
    ///
    /// # Errors
    /// As [`Sandbox::host`].
    async fn payload_owner(&self) -> Result<Owner, SandboxError> {
        Ok(self.host().await?.payload_owner)
    }

    /// What this host enforces.
    ///
    /// # Errors
    /// [`SandboxError::Launcher`] with the reason and a remedy if the host cannot run sandboxes at all.
    async fn host(&self) -> Result<HostReport, SandboxError>;
}

/// A sandbox from before a restart.
#[derive(Debug)]
pub enum Reattached {
    /// Never started.
    Parked(Box<dyn ParkedSandbox>),
    /// Started, perhaps ended.
    Running(Box<dyn RunningSandbox>),
}

/// A sandbox that waits for its payload. Dropping it destroys it.
#[async_trait]
pub trait ParkedSandbox: Send + fmt::Debug {
    /// Its name.
    fn id(&self) -> &str;

    /// What is enforced for it.
    fn isolation(&self) -> &Isolation;

    /// Ends when it, or its launcher, is known to be gone, whatever becomes of this value.
    fn gone(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// The listener on 127.0.0.1 inside, if one was asked for: connections of the payload are accepted here.
    /// It is non-blocking. `None` if it was taken before.
    fn take_listener(&mut self) -> Option<TcpListener>;

    /// Takes it for an attempt, once: it gets the attempt's name, its binds and its time limit, and its disk limit is
    /// about these binds from now on. Confined it is as if it had been made with them. After a restart of the server it
    /// is found under the one name or the other, never under both.
    ///
    /// # Errors
    /// [`SandboxError::InvalidSpec`], also if it was claimed before or has a bind at one of the places;
    /// [`SandboxError::AlreadyExists`] if a sandbox has that name; [`SandboxError::Version`] from a launcher of an older
    /// version: then it is parked as before. [`SandboxError::Build`] if a bind could not be put in place: then it is
    /// destroyed.
    async fn claim(&mut self, claim: Claim) -> Result<(), SandboxError>;

    /// Starts the payload. When this returns `Ok`, the program has been executed.
    ///
    /// # Errors
    /// [`SandboxError::InvalidSpec`] (the sandbox is destroyed), [`SandboxError::Start`] if the program or the
    /// directory does not exist inside; nothing was started then, and the sandbox is gone.
    async fn start(
        self: Box<Self>,
        payload: Payload,
    ) -> Result<Box<dyn RunningSandbox>, SandboxError>;

    /// Destroys it without starting anything.
    ///
    /// # Errors
    /// [`SandboxError::LauncherLost`]; then it is gone as well.
    async fn discard(self: Box<Self>) -> Result<(), SandboxError>;
}

/// A sandbox whose payload was started. Dropping it changes nothing: it goes on and can be reattached to. Whoever is
/// done with it calls [`RunningSandbox::release`].
#[async_trait]
pub trait RunningSandbox: Send + Sync + fmt::Debug {
    /// Its name.
    fn id(&self) -> &str;

    /// What is enforced for it.
    fn isolation(&self) -> &Isolation;

    /// The listener, after a reattach; see [`ParkedSandbox::take_listener`].
    fn take_listener(&mut self) -> Option<TcpListener>;

    /// The payload's standard output, once. When [`RunningSandbox::wait`] has answered, nobody is left who could
    /// write to it: the rest can be read, and its end comes without further waiting.
    fn take_stdout(&mut self) -> Option<pipe::Receiver>;

    /// The payload's standard error, once.
    fn take_stderr(&mut self) -> Option<pipe::Receiver>;

    /// Waits until no process of the sandbox lives, and says how it ended. May be called any number of times.
    ///
    /// # Errors
    /// [`SandboxError::LauncherLost`] if the launcher died: its sandboxes die with it, their end is unknown.
    async fn wait(&self) -> Result<ExitReport, SandboxError>;

    /// Sends SIGTERM to the payload's process group. Grace is the caller's business.
    ///
    /// # Errors
    /// [`SandboxError::LauncherLost`].
    async fn stop(&self) -> Result<(), SandboxError>;

    /// Kills every process, daemons included. Returns when that is under way; [`RunningSandbox::wait`] tells when
    /// it is done.
    ///
    /// # Errors
    /// [`SandboxError::LauncherLost`].
    async fn kill(&self) -> Result<(), SandboxError>;

    /// Kills what still lives and forgets the sandbox; its id may be used again after its end.
    ///
    /// # Errors
    /// [`SandboxError::LauncherLost`].
    async fn release(self: Box<Self>) -> Result<(), SandboxError>;
}
