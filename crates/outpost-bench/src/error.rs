//! Why a bench ended without a result.

use std::io;

use outpost_types::ApiError;
use thiserror::Error;

/// What happened, and what to do next.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct BenchError {
    /// What happened, with its causes.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl BenchError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// With every cause on one line.
    pub(crate) fn chain(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        Self::failed(format!("{what}: {}", causes.join(": ")))
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<io::Error> for BenchError {
    fn from(error: io::Error) -> Self {
        Self::chain("a file, process or connection of the bench failed", &error)
    }
}

impl From<ApiError> for BenchError {
    fn from(error: ApiError) -> Self {
        Self::failed(error.to_string())
    }
}
