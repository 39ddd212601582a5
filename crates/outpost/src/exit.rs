//! Exit codes of the command line, as documented in `outpost --help`.

use std::process::ExitCode;

use outpost_types::DispatchStatus;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or the dispatch completed.
    Ok,
    /// The command or the dispatch failed.
    Failed,
    /// Wrong usage or configuration; the same number clap uses.
    Usage,
    /// The dispatch ran into its timeout; the number of `timeout(1)`.
    Timeout,
    /// The dispatch was cancelled, or waiting was interrupted; 128 + SIGINT.
    Cancelled,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Timeout => 124,
            Self::Cancelled => 130,
        }
    }

    /// The exit code of waiting for a dispatch that ended in `status`.
    pub(crate) const fn of_status(status: DispatchStatus) -> Self {
        match status {
            DispatchStatus::Completed => Self::Ok,
            DispatchStatus::Timeout => Self::Timeout,
            DispatchStatus::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
