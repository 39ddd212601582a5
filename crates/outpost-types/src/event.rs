//! What happens during a dispatch, as a numbered stream.

use serde::{Deserialize, Serialize};

use crate::{DispatchId, DispatchStatus, Failure, Network, Timestamp, Usage};

/// One event. `seq` starts at 1 and has no gaps within a dispatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventEnvelope {
    /// Position in the stream of this dispatch, from 1, contiguous.
    pub seq: u64,
    /// When it was recorded.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The dispatch it belongs to.
    #[schema(value_type = String)]
    pub dispatch_id: DispatchId,
    /// For what was read from the agent's output: where in `output.log` that line ends, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_offset: Option<u64>,
    /// Kind and content.
    #[serde(flatten)]
    pub data: EventData,
}

/// Kind and content of an event; `{"type": …, "data": {…}}` on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum EventData {
    /// The dispatch reached a state.
    #[serde(rename = "dispatch.status", rename_all = "camelCase")]
    Status {
        /// The state reached.
        status: DispatchStatus,
        /// Why it waits, or why it ended this way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Set when it ended without success.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// A client changed what the sandbox may reach.
    #[serde(rename = "dispatch.network")]
    Network {
        /// What it could reach before.
        from: Network,
        /// What it may reach from now on.
        to: Network,
    },
    /// A step of the platform ended.
    #[serde(rename = "phase", rename_all = "camelCase")]
    Phase {
        /// Name of the step, such as `clone` or `sandbox`.
        name: String,
        /// How long it took, milliseconds.
        millis: u64,
        /// What is worth knowing about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A line the agent printed that was not understood as anything else.
    #[serde(rename = "log")]
    Log {
        /// Where it was printed.
        stream: LogStreamName,
        /// The line, without its end.
        text: String,
    },
    /// The agent said something.
    #[serde(rename = "agent.message")]
    Message {
        /// What it said.
        text: String,
        /// The CLI's own line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw: Option<String>,
    },
    /// The agent thought aloud.
    #[serde(rename = "agent.thought")]
    Thought {
        /// What it thought.
        text: String,
        /// The CLI's own line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw: Option<String>,
    },
    /// The agent used a tool.
    #[serde(rename = "agent.tool", rename_all = "camelCase")]
    Tool {
        /// The CLI's own name of the tool.
        name: String,
        /// The CLI's id of this call, which joins start and end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call_id: Option<String>,
        /// Whether the call began or ended.
        phase: ToolPhase,
        /// One line for a person: the command, or the path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        summary: Option<String>,
        /// Whether the call failed, once it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
        /// The CLI's own line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw: Option<String>,
    },
    /// Tokens used so far, by the CLI's own account.
    #[serde(rename = "agent.usage", rename_all = "camelCase")]
    Usage {
        /// Totals of the attempt so far.
        usage: Usage,
        /// The CLI's own line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw: Option<String>,
    },
    /// The gateway refused something the sandbox asked for.
    #[serde(rename = "policy.denied")]
    PolicyDenied {
        /// Host and path that were asked for.
        target: String,
        /// Why not.
        reason: String,
        /// What a person could put into `allowHosts` to allow it, also of a dispatch that runs; absent when
        /// nothing there could.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suggestion: Option<String>,
    },
    /// 80 % or all of a budget is spent.
    #[serde(rename = "budget.threshold", rename_all = "camelCase")]
    BudgetThreshold {
        /// Whose budget it is.
        #[serde(default)]
        scope: BudgetScope,
        /// Spent so far, US dollars.
        spent_usd: f64,
        /// The budget, US dollars.
        budget_usd: f64,
    },
    /// A file was kept.
    #[serde(rename = "artifact.created", rename_all = "camelCase")]
    ArtifactCreated {
        /// Its name.
        name: String,
        /// Its size, bytes.
        size_bytes: u64,
    },
    /// Something a person should look at.
    #[serde(rename = "attention")]
    Attention(Attention),
}

/// Whose budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The dispatch's own `budgetUsd`.
    #[default]
    Dispatch,
    /// What the tenant may spend in a day (UTC).
    TenantDay,
}

/// Something a person should look at; the dispatch goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attention {
    /// Stable name of the matter, such as `submodules_skipped`.
    pub code: String,
    /// What it is and what to do.
    pub message: String,
}

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Whether a tool call began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolPhase {
    /// It began.
    Start,
    /// It ended.
    End,
}

impl EventData {
    /// The type as on the wire.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Status { .. } => "dispatch.status",
            Self::Network { .. } => "dispatch.network",
            Self::Phase { .. } => "phase",
            Self::Log { .. } => "log",
            Self::Message { .. } => "agent.message",
            Self::Thought { .. } => "agent.thought",
            Self::Tool { .. } => "agent.tool",
            Self::Usage { .. } => "agent.usage",
            Self::PolicyDenied { .. } => "policy.denied",
            Self::BudgetThreshold { .. } => "budget.threshold",
            Self::ArtifactCreated { .. } => "artifact.created",
            Self::Attention(_) => "attention",
        }
    }

    /// No event follows it.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.is_terminal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope_is_flat() {
        let event = EventEnvelope {
            seq: 7,
            at: Timestamp::from_millis(0),
            dispatch_id: DispatchId::from_parts(1, 2),
            log_offset: None,
            data: EventData::Log { stream: LogStreamName::Stdout, text: "é\n".into() },
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["type"], "log");
        assert_eq!(json["data"]["text"], "é\n");
        assert_eq!(json["seq"], 7);
        assert_eq!(json["type"], event.data.kind());
        assert_eq!(serde_json::from_value::<EventEnvelope>(json).unwrap(), event);
    }
}
