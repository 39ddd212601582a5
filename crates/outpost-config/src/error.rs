//! What is wrong with a configuration or a data directory, and what to do next.

use std::error::Error;
use std::io;

/// Why a configuration cannot be used, or a data directory not be worked in.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// Whose mistake it is.
    pub kind: ConfigErrorKind,
    /// What happened; names the flag, entry or file.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Whose mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// A flag, variable or entry is wrong.
    Usage,
    /// The machine did not do what was asked.
    Failed,
}

impl ConfigError {
    /// A wrong flag, variable or entry.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { kind: ConfigErrorKind::Usage, message: message.into(), hint: None }
    }

    /// Work that could not be done.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { kind: ConfigErrorKind::Failed, message: message.into(), hint: None }
    }

    /// Work that could not be done, with its cause.
    pub(crate) fn chain(what: &str, error: &dyn Error) -> Self {
        Self::failed(format!("{what}: {error}"))
    }

    /// The same error, saying what to do next.
    pub(crate) fn with_hint(self, text: impl Into<String>) -> Self {
        Self { hint: Some(text.into()), ..self }
    }
}

impl From<io::Error> for ConfigError {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
