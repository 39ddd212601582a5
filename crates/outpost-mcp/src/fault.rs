//! Faults of a call, as a model reads them.

use outpost_types::ApiError;
use rmcp::model::{CallToolResult, ContentBlock};
use thiserror::Error;

/// Why a call did not do what it was asked for.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// The operation refused.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The client took its call back, or is gone.
    #[error("The call was cancelled; what it began goes on.")]
    Cancelled,
}

impl Fault {
    /// The text: code, field, what happened, what to do.
    pub(crate) fn text(&self) -> String {
        let Self::Api(error) = self else {
            return self.to_string();
        };
        let mut text = format!("{}: ", error.code.as_str());
        match &error.field {
            Some(field) if !error.message.contains(field.as_str()) => {
                text.push_str(&format!("`{field}`: {}", error.message));
            }
            _ => text.push_str(&error.message),
        }
        if let Some(hint) = &error.hint {
            text.push_str(&format!("\nWhat to do: {hint}"));
        }
        if let Some(seconds) = error.retry_after_seconds {
            text.push_str(&format!("\nTry again after {seconds} seconds."));
        }
        if let Some(id) = &error.request_id {
            text.push_str(&format!("\nRequest id, for the operator: {id}"));
        }
        text
    }

    /// The answer to a call of a tool. Without structured content: clients hold that against the schema of
    /// what a tool answers when all is well.
    pub(crate) fn into_result(self) -> CallToolResult {
        CallToolResult::error(vec![ContentBlock::text(self.text())])
    }
}
