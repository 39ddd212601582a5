//! Why a step of a promotion did not happen.

use outpost_types::{ErrorCode, PromotionFailure};
use outpost_workspace::git::GitError;

use crate::words::{line, scrub};

/// A step that did not happen, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromoteError {
    /// Trying again changes nothing.
    #[error("{}", .0.message)]
    Refused(PromotionFailure),
    /// Trying again may help.
    #[error("{}", .failure.message)]
    Hindered {
        /// What to say should it have been the last try.
        failure: PromotionFailure,
        /// How long the code host asks to be left alone, milliseconds.
        pause_millis: Option<u64>,
    },
}

impl PromoteError {
    pub(crate) fn refused(code: ErrorCode, message: impl Into<String>, hint: &str) -> Self {
        Self::Refused(PromotionFailure::new(code, message).with_hint(hint))
    }

    /// The code host is out of reach for now.
    pub(crate) fn unreachable(host: &str, why: &str) -> Self {
        let message = format!("The code host {host} does not answer: {}", line(why));
        let failure = PromotionFailure::new(ErrorCode::ForgeUnavailable, message)
            .with_hint("Promote again later; nothing is pushed or opened twice.");
        Self::Hindered { failure, pause_millis: None }
    }

    /// A fault of this machine: disk, git.
    pub(crate) fn internal(what: &str, why: impl std::fmt::Display) -> Self {
        tracing::error!(what, %why, "a promotion cannot go on");
        let message = format!("The server could not go on: {what}.");
        let failure = PromotionFailure::new(ErrorCode::Internal, message)
            .with_hint("The server's log says why.");
        Self::Hindered { failure, pause_millis: None }
    }

    pub(crate) fn credentials(host: &str) -> Self {
        Self::refused(
            ErrorCode::ForgeCredentials,
            format!("The code host {host} does not take the token."),
            "It may have expired: store a new one and promote again.",
        )
    }

    pub(crate) fn forbidden(what: &str, said: &str) -> Self {
        let said = line(said);
        let message = match said.as_str() {
            "" => format!("The code host refuses {what}."),
            said => format!("The code host refuses {what}: {said}"),
        };
        Self::refused(
            ErrorCode::ForgeForbidden,
            message,
            "Give the token the rights to write contents and pull requests, and for CI files workflows.",
        )
    }

    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self::refused(
            ErrorCode::TargetMissing,
            what,
            "Push the branch the dispatch started from, or check the repository's name and the token's rights.",
        )
    }
}

/// Words of git and of servers it talked to (in the C locale) that tell what is wrong.
pub(crate) fn explain_git(
    error: &GitError,
    host: &str,
    what: &str,
    token: Option<&str>,
) -> PromoteError {
    const CREDENTIALS: &[&str] = &[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "terminal prompts disabled",
        "error: 401",
        "unable to get password",
        "unable to get credential",
        "askpass",
        "Invalid username",
    ];
    const FORBIDDEN: &[&str] = &[
        "error: 403",
        "Permission to",
        "Permission denied",
        "pre-receive hook declined",
        "protected branch",
        "refusing to allow",
        "GH006",
        "GH013",
        "not allowed to push",
        "remote rejected",
        "Write access to repository not granted",
    ];
    const MISSING: &[&str] =
        &["not found", "does not exist", "error: 404", "error: 410", "error: 301"];
    const NETWORK: &[&str] = &[
        "Could not resolve",
        "SSL",
        "certificate",
        "timed out",
        "Timeout",
        "Failed to connect",
        "Could not connect",
        "early EOF",
        "RPC failed",
        "hung up",
        "error: 5",
        "error: 429",
        "Connection reset",
        "Empty reply",
    ];
    let said = scrub(error.stderr(), token);
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match error {
        GitError::TooLarge { limit_bytes, .. } => PromoteError::refused(
            ErrorCode::PayloadTooLarge,
            format!("The repository is larger than {limit_bytes} bytes."),
            "Take the changes by hand: `outpost apply`.",
        ),
        GitError::TimedOut { .. } => PromoteError::unreachable(host, &error.to_string()),
        GitError::Failed { .. } if has(CREDENTIALS) => PromoteError::credentials(host),
        GitError::Failed { .. } if has(FORBIDDEN) => PromoteError::forbidden(what, &said),
        GitError::Failed { .. } if has(NETWORK) => PromoteError::unreachable(host, &said),
        GitError::Failed { .. } if has(MISSING) => {
            PromoteError::missing(format!("The code host {host} has no such repository."))
        }
        GitError::Failed { .. } => PromoteError::internal(&format!("git failed {what}"), said),
        _ => PromoteError::internal(what, error),
    }
}
