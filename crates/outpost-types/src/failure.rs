//! Why a dispatch did not complete.

use serde::{Deserialize, Serialize};

/// Stable reason of a failure; clients branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The agent ended without success, or died.
    AgentExit,
    /// The agent was killed for using more memory than its tier allows.
    Oom,
    /// The agent was ended for writing more to disk than its tier allows.
    DiskFull,
    /// Workspace or sandbox could not be made.
    Provisioning,
    /// The model provider refused the credential.
    AgentAuth,
    /// The model provider's rate limit outlasted the agent's retries.
    RateLimited,
    /// The budget was spent.
    BudgetExceeded,
    /// A policy forbade what the task needs.
    PolicyDenied,
    /// The worker vanished while the agent ran.
    LostWorker,
    /// The agent ran into its `timeoutSeconds`.
    Timeout,
    /// A client cancelled it.
    Cancelled,
    /// The agent ended, but its results could not be collected.
    Collect,
}

/// Reason, text for a person, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What to branch on.
    pub code: FailureCode,
    /// What happened.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same failure, saying what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
