//! The record of a dispatch: what was asked, where it stands, what is known about it.

use outpost_types::{
    AttemptId, CheckResult, DispatchId, DispatchStatus, Failure, Isolation, KeyId, Network,
    PhaseTimings, TenantId, Timestamp, Usage,
};
use serde::{Deserialize, Serialize};

use crate::DispatchSpec;
use crate::budget::Spend;
use crate::event::Event;

/// A dispatch as it is stored. Only [`crate::step`] makes a changed one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dispatch {
    /// Its id.
    pub id: DispatchId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The key that asked for it.
    pub created_by: KeyId,
    /// What was asked for.
    pub spec: DispatchSpec,
    /// Grows by one with every transition; a write states the generation it saw.
    pub generation: u64,
    /// Number of the current or last attempt; 0 before the first. Also its epoch: a message that
    /// names an older one changes nothing.
    pub attempt: u32,
    /// Where it stands.
    pub state: State,
    /// What is known about it.
    pub facts: Facts,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the agent's process started.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    pub completed_at: Option<Timestamp>,
}

/// Where a dispatch stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase")]
pub enum State {
    /// Accepted; nobody looked at it yet.
    Pending,
    /// Waits for a slot.
    #[serde(rename_all = "camelCase")]
    Queued {
        /// What it waits for.
        reason: QueueReason,
        /// Not to be placed before this instant (a retry backs off).
        not_before: Option<Timestamp>,
    },
    /// Holds a slot; worker and workspace are being made.
    Provisioning {
        /// Somebody wants it to end.
        stop: Option<Stop>,
    },
    /// The agent's process was started.
    Running {
        /// When its time is over.
        deadline: Timestamp,
        /// Somebody wants it to end.
        stop: Option<Stop>,
    },
    /// The agent's process ended; results are being collected.
    Completing {
        /// Why it was made to end, if it was.
        stop: Option<Stop>,
    },
    /// Terminal: the agent succeeded.
    Completed,
    /// Terminal: it did not.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Terminal: its time was over.
    Timeout {
        /// Why, in the words of a failure.
        failure: Failure,
    },
    /// Terminal: a client cancelled it.
    Cancelled {
        /// Why, in the words of a failure.
        failure: Failure,
    },
}

/// What a queued dispatch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueReason {
    /// As many attempts of this agent run as may.
    AgentLimit,
    /// As many attempts of this tenant run as may.
    TenantLimit,
    /// As many attempts run on this host as may.
    HostLimit,
    /// Provisioning failed and is tried again in a moment.
    Retry,
    /// Another dispatch is in its persistent workspace, or before it in the line for it.
    Workspace,
    /// The operator drains the host or the agent.
    Draining,
}

impl QueueReason {
    /// For a person.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::AgentLimit => "all slots of this agent are taken",
            Self::TenantLimit => "all slots of this tenant are taken",
            Self::HostLimit => "all slots of this host are taken",
            Self::Retry => "the worker could not be made; trying again in a moment",
            Self::Draining => "the operator lets nothing new start here for now",
            Self::Workspace => "another dispatch of this user works in the same workspace",
        }
    }
}

/// Why a live attempt is made to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "camelCase")]
pub enum Stop {
    /// Its time is over.
    Timeout,
    /// A client wants it.
    Cancel {
        /// In the client's words.
        reason: Option<String>,
    },
}

/// What is known about a dispatch beside its state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    /// Branch the workspace is on.
    pub branch: Option<String>,
    /// Commit the agent started from.
    pub base_commit: Option<String>,
    /// Isolation the sandbox really had.
    pub isolation: Option<Isolation>,
    /// Exit code of the agent's process.
    pub exit_code: Option<i32>,
    /// Last words of the agent.
    pub summary: Option<String>,
    /// Session id of the agent's CLI.
    pub session_id: Option<String>,
    /// What its sandbox may reach, once that was changed; until then what was asked for holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Until when the provider of its model serves nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked_until: Option<Timestamp>,
    /// Tokens and money by the agent's own account.
    pub usage: Option<Usage>,
    /// Tokens and money by the gateway's count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spend: Option<Spend>,
    /// Files the agent changed.
    pub files_changed: Option<u32>,
    /// Outcome of the checks.
    pub checks: Vec<CheckResult>,
    /// How long the phases took.
    pub timings: PhaseTimings,
}

impl Dispatch {
    /// A new dispatch, to be stored before anybody hears of it.
    #[must_use]
    pub fn accept(
        id: DispatchId,
        tenant: TenantId,
        created_by: KeyId,
        spec: DispatchSpec,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            tenant,
            created_by,
            spec,
            generation: 1,
            attempt: 0,
            state: State::Pending,
            facts: Facts::default(),
            created_at: now,
            started_at: None,
            completed_at: None,
        }
    }

    /// Its state as clients see it.
    #[must_use]
    pub const fn status(&self) -> DispatchStatus {
        match &self.state {
            State::Pending => DispatchStatus::Pending,
            State::Queued { .. } => DispatchStatus::Queued,
            State::Provisioning { .. } => DispatchStatus::Provisioning,
            State::Running { .. } => DispatchStatus::Running,
            State::Completing { .. } => DispatchStatus::Completing,
            State::Completed => DispatchStatus::Completed,
            State::Failed { .. } => DispatchStatus::Failed,
            State::Timeout { .. } => DispatchStatus::Timeout,
            State::Cancelled { .. } => DispatchStatus::Cancelled,
        }
    }

    /// The current or last attempt; `None` before the first.
    #[must_use]
    pub fn attempt_id(&self) -> Option<AttemptId> {
        (self.attempt > 0).then_some(AttemptId { dispatch: self.id, number: self.attempt })
    }

    /// What its sandbox may reach now.
    #[must_use]
    pub fn network(&self) -> Network {
        let asked =
            || Network { level: self.spec.network, allow_hosts: self.spec.allow_hosts.clone() };
        self.facts.network.clone().unwrap_or_else(asked)
    }

    /// How long its agent ran, milliseconds: from the start of its process until it had ended. Of an attempt that
    /// was lost while it ran, until that was found. Waiting at the gateway is in it; waiting for a slot,
    /// preparing, collecting and checks are not.
    #[must_use]
    pub fn agent_millis(&self) -> u64 {
        let until_end = || Some(self.completed_at?.millis_since(self.started_at?));
        self.facts.timings.agent_millis.or_else(until_end).unwrap_or(0)
    }

    /// When it is over at the latest, but for collecting results.
    #[must_use]
    pub const fn deadline_at(&self) -> Timestamp {
        self.created_at.plus_millis(self.spec.deadline_seconds.saturating_mul(1000))
    }

    /// Whether it holds a slot.
    #[must_use]
    pub const fn holds_slot(&self) -> bool {
        matches!(
            self.state,
            State::Provisioning { .. } | State::Running { .. } | State::Completing { .. }
        )
    }

    /// Whether it waits for a slot.
    #[must_use]
    pub const fn waits(&self) -> bool {
        matches!(self.state, State::Pending | State::Queued { .. })
    }

    /// What time alone makes of it, and when.
    #[must_use]
    pub fn alarm(&self) -> Option<(Timestamp, Event)> {
        match &self.state {
            State::Pending | State::Queued { .. } => Some((self.deadline_at(), Event::Expired)),
            State::Running { deadline, stop: None } => {
                let attempt = self.attempt_id()?;
                Some((*deadline, Event::DeadlinePassed { attempt }))
            }
            _ => None,
        }
    }

    /// Why it ended without success.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match &self.state {
            State::Failed { failure }
            | State::Timeout { failure }
            | State::Cancelled { failure } => Some(failure),
            _ => None,
        }
    }
}
