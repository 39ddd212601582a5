//! What the world tells the machine.

use outpost_types::{
    AttemptId, CheckResult, Failure, Isolation, Network, PhaseTimings, Timestamp, Usage,
};

use serde::{Deserialize, Serialize};

use crate::budget::Spend;
use crate::dispatch::QueueReason;

/// Something that happened. Events of an attempt name it; one of an older attempt changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A slot is free for it.
    Placed,
    /// No slot is free for it.
    MustWait(QueueReason),
    /// The agent's process was started.
    AgentStarted {
        /// By which attempt.
        attempt: AttemptId,
        /// What is known since.
        prepared: Box<PreparedFacts>,
    },
    /// The worker or workspace could not be made; the agent was never started.
    ProvisionFailed {
        /// Which attempt.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
        /// Another try may help.
        retry: bool,
    },
    /// The agent's process ended, however.
    AgentExited {
        /// Which attempt.
        attempt: AttemptId,
        /// What is known since.
        exit: ExitFacts,
    },
    /// Its time is over, says a timer.
    DeadlinePassed {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The provider of its model serves nobody before an instant; the agent waits at the gateway.
    Parked {
        /// Which attempt.
        attempt: AttemptId,
        /// Until when.
        until: Timestamp,
    },
    /// Its deadline passed while it waited, says a timer.
    Expired,
    /// A client wants it to end.
    CancelRequested {
        /// In the client's words.
        reason: Option<String>,
    },
    /// A client wants its sandbox to reach something else from now on. Means nothing when it may reach
    /// something else than `from` by then: half of what the client knew is not what is changed.
    NetworkChanged {
        /// What it can reach, as the client knows.
        from: Network,
        /// What it may reach.
        to: Network,
    },
    /// Results are kept.
    Collected {
        /// Which attempt.
        attempt: AttemptId,
        /// What is known since.
        results: Box<ResultFacts>,
    },
    /// The worker is gone and nobody can say what became of it.
    WorkerLost {
        /// Which attempt.
        attempt: AttemptId,
    },
}

/// What is known once the agent's process was started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PreparedFacts {
    /// Branch the workspace is on.
    pub branch: Option<String>,
    /// Commit the agent started from.
    pub base_commit: Option<String>,
    /// Isolation the sandbox really had.
    pub isolation: Option<Isolation>,
    /// How long the phases so far took.
    pub timings: PhaseTimings,
}

/// What is known once the agent's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitFacts {
    /// Exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// "Go" → first output, milliseconds.
    pub first_output_millis: Option<u64>,
}

/// What the agent's own account and the workspace say about its success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentVerdict {
    /// It did what it was asked.
    Completed,
    /// It did not.
    Failed(Failure),
}

/// What is known once results are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultFacts {
    /// Success by the agent's account and the workspace.
    pub verdict: AgentVerdict,
    /// Last words of the agent.
    pub summary: Option<String>,
    /// Session id of the agent's CLI.
    pub session_id: Option<String>,
    /// Tokens and money by the agent's own account.
    pub usage: Option<Usage>,
    /// Tokens and money by the gateway's count; `None` for an agent without a gateway.
    #[serde(default)]
    pub spend: Option<Spend>,
    /// Files the agent changed.
    pub files_changed: Option<u32>,
    /// Outcome of the checks.
    pub checks: Vec<CheckResult>,
    /// Diff, bundle and artifacts, milliseconds.
    pub collect_millis: u64,
}

impl ResultFacts {
    /// A verdict, and nothing else is known.
    #[must_use]
    pub const fn of(verdict: AgentVerdict) -> Self {
        Self {
            verdict,
            summary: None,
            session_id: None,
            usage: None,
            spend: None,
            files_changed: None,
            checks: Vec::new(),
            collect_millis: 0,
        }
    }
}
