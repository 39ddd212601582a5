//! The states of a dispatch as clients see them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a dispatch stands.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum DispatchStatus {
    /// Accepted and durable.
    Pending,
    /// Waiting for a slot of its agent, tenant or host.
    Queued,
    /// Worker and workspace are being made.
    Provisioning,
    /// The agent's process has started.
    Running,
    /// Results are being collected.
    Completing,
    /// Finished, and the agent said it succeeded.
    Completed,
    /// Finished without success; `failure` says why.
    Failed,
    /// Ran longer than its `timeoutSeconds`.
    Timeout,
    /// Cancelled by a client.
    Cancelled,
}

/// A text that is no status.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "unknown status; expected one of PENDING, QUEUED, PROVISIONING, RUNNING, COMPLETING, COMPLETED, FAILED, TIMEOUT, CANCELLED"
)]
pub struct UnknownStatus;

impl DispatchStatus {
    /// All states, in the order a dispatch can pass them.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Queued,
        Self::Provisioning,
        Self::Running,
        Self::Completing,
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// No event changes a dispatch in such a state.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled)
    }

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Queued => "QUEUED",
            Self::Provisioning => "PROVISIONING",
            Self::Running => "RUNNING",
            Self::Completing => "COMPLETING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for DispatchStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DispatchStatus {
    type Err = UnknownStatus;

    /// Upper or lower case; `SUCCESS` is read as `COMPLETED`.
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        let upper = text.to_ascii_uppercase();
        if upper == "SUCCESS" {
            return Ok(Self::Completed);
        }
        Self::ALL.into_iter().find(|status| status.as_str() == upper).ok_or(UnknownStatus)
    }
}
