//! What can go wrong, said so that the reader knows what to do next.

use std::io;

use serde::{Deserialize, Serialize};

/// Why a sandbox could not be made, started or followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A field of the description is out of its bounds.
    #[error("sandbox description refused: {message}")]
    InvalidSpec {
        /// Names the field and its bound.
        message: String,
    },
    /// A sandbox with this id exists already: the same attempt was started before.
    #[error("a sandbox with the id {id} exists already; reattach to it or use another id")]
    AlreadyExists {
        /// The id asked for.
        id: String,
    },
    /// No sandbox with this id: it never was or it was released.
    #[error("there is no sandbox with the id {id}; it may have been released already")]
    NotFound {
        /// The id asked for.
        id: String,
    },
    /// The launcher holds as many sandboxes as it may.
    #[error(
        "the launcher holds its maximum of {max} sandboxes; wait for one to finish or release finished ones"
    )]
    Full {
        /// The bound that was reached.
        max: usize,
    },
    /// The host cannot enforce what the operator requires.
    #[error("this host cannot enforce: {}. {hint}", missing.join("; "))]
    Unenforceable {
        /// What is missing.
        missing: Vec<String>,
        /// What the operator can do.
        hint: String,
    },
    /// Building the sandbox failed at a named step.
    #[error("building the sandbox failed: {message}")]
    Build {
        /// Step and reason.
        message: String,
    },
    /// The payload could not be executed; nothing was started and the sandbox is gone.
    #[error("the program did not start: {message}")]
    Start {
        /// Reason, with the path concerned.
        message: String,
    },
    /// The launcher process could not be started.
    #[error("the sandbox launcher did not start: {message}")]
    Launcher {
        /// What it said.
        message: String,
    },
    /// Another client controls the launcher.
    #[error(
        "another server controls the launcher at this socket; stop it first or use another data directory"
    )]
    Busy,
    /// The launcher went away; its sandboxes ended with it.
    #[error(
        "the sandbox launcher ended unexpectedly and its sandboxes ended with it; see its log beside the socket"
    )]
    LauncherLost,
    /// The launcher that runs and this program share no version of their messages.
    #[error(
        "the sandbox launcher that runs (process {launcher_pid}) is of another version of Outpost: {message}; \
         start that version again on this data directory and wait for its agents (`outpost ls`), or end them \
         with Ctrl-C in its `outpost serve`; `kill {launcher_pid}` ends the launcher and all its agents at once"
    )]
    Version {
        /// Process id of the launcher.
        launcher_pid: u32,
        /// Which versions each side speaks.
        message: String,
    },
    /// The launcher did something that no version of it does.
    #[error(
        "the launcher answered in an unexpected way ({message}); stop the old launcher and try again"
    )]
    Protocol {
        /// What was wrong.
        message: String,
    },
    /// A system call on this side failed.
    #[error("sandbox input/output failed; see the cause")]
    Io(#[from] io::Error),
}

/// An error as it travels from the launcher to its client.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    InvalidSpec { message: String },
    AlreadyExists { id: String },
    NotFound { id: String },
    Full { max: usize },
    Build { message: String },
    Busy,
    Protocol { message: String },
}

impl From<Refusal> for SandboxError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidSpec { message } => Self::InvalidSpec { message },
            Refusal::AlreadyExists { id } => Self::AlreadyExists { id },
            Refusal::NotFound { id } => Self::NotFound { id },
            Refusal::Full { max } => Self::Full { max },
            Refusal::Build { message } => Self::Build { message },
            Refusal::Busy => Self::Busy,
            Refusal::Protocol { message } => Self::Protocol { message },
        }
    }
}
