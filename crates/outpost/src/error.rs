//! The one error of the command line: what happened, and what to do next.

use std::io;

use outpost_config::{ConfigError, ConfigErrorKind};
use outpost_types::{ApiError, ErrorCode};
use thiserror::Error;

use crate::exit::Exit;

/// Why a command ended without success.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// A flag, argument or configuration entry is wrong.
    #[error("{message}")]
    Usage {
        /// What is wrong; names the flag or entry.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// The command could not do its work.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// The server refused.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The reader of our output is gone, as in `outpost ls | head -1`.
    #[error("the reader of the output is gone")]
    OutputClosed,
}

impl CliError {
    /// A wrong flag, argument or configuration entry.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// Work that could not be done.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None }
    }

    /// Work that could not be done, with every cause on one line.
    pub(crate) fn chain(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self::failed(message)
    }

    /// The same error, saying what to do next.
    pub(crate) fn with_hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Usage { message, .. } => Self::Usage { message, hint: Some(text.into()) },
            Self::Failed { message, .. } => Self::Failed { message, hint: Some(text.into()) },
            Self::Api(error) => Self::Api(error.with_hint(text)),
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.as_deref(),
            // A hint for HTTP clients is none for somebody at a terminal.
            Self::Api(error) => error.hint.as_deref().filter(|hint| !hint.starts_with("GET ")).or(
                match error.code {
                    ErrorCode::Unauthorized => Some(
                        "set OUTPOST_API_KEY, or name the file that holds the key with --key-file",
                    ),
                    ErrorCode::NotFound => Some("`outpost ls` shows what there is"),
                    ErrorCode::AgentUnavailable => Some("`outpost agents ls` says why"),
                    _ => None,
                },
            ),
            Self::OutputClosed => None,
        }
    }

    /// What happened; names the field at fault when the server named one.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Api(ApiError { field: Some(field), message, .. }) if !message.contains(field) => {
                format!("{field}: {message}")
            }
            _ => self.to_string(),
        }
    }

    /// Stable name of the error for `--json`.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Failed { .. } => "failed",
            Self::Api(error) => error.code.as_str(),
            Self::OutputClosed => "output_closed",
        }
    }

    /// How the process ends.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Failed { .. } => Exit::Failed,
            Self::Api(error) => match error.code {
                ErrorCode::InvalidField => Exit::Usage,
                _ => Exit::Failed,
            },
            Self::OutputClosed => Exit::Ok,
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let ConfigError { kind, message, hint } = error;
        match kind {
            ConfigErrorKind::Usage => Self::Usage { message, hint },
            ConfigErrorKind::Failed => Self::Failed { message, hint },
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::failed(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_and_hints_follow_the_kind() {
        let bad_field = CliError::from(ApiError::field("task", "too long"));
        assert_eq!(bad_field.exit(), Exit::Usage);
        let no_key = CliError::from(ApiError::new(ErrorCode::Unauthorized, "no key"));
        assert_eq!(no_key.exit(), Exit::Failed);
        assert!(no_key.hint().is_some_and(|hint| hint.contains("OUTPOST_API_KEY")));
        let mut away = ApiError::new(ErrorCode::AgentUnavailable, "not installed");
        away.hint = Some("GET /fleet lists the agents that can.".into());
        assert_eq!(CliError::from(away).hint(), Some("`outpost agents ls` says why"));
        let gone = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(gone.exit(), Exit::Ok);
    }

    #[test]
    fn a_field_at_fault_is_named_once() {
        let message = |text: &str| CliError::from(ApiError::field("checks[0]", text)).message();
        assert_eq!(message("Too long."), "checks[0]: Too long.");
        assert_eq!(message("`checks[0]` is too long."), "`checks[0]` is too long.");
    }
}
