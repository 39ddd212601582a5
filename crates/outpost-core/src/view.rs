//! From the record to what a client sees.

use outpost_types::DispatchView;

use crate::budget::Nanodollars;
use crate::dispatch::{Dispatch, State};

impl Dispatch {
    /// The client's view, without the parts that live in files (`output`) or in the queue
    /// (`queue_position`).
    #[must_use]
    pub fn view(&self) -> DispatchView {
        let (spec, facts) = (&self.spec, &self.facts);
        let queue_reason = match &self.state {
            State::Queued { reason, .. } => Some(reason.message().to_owned()),
            _ => None,
        };
        DispatchView {
            dispatch_id: self.id,
            status: self.status(),
            generation: self.generation,
            agent: spec.agent.to_string(),
            model_id: spec.model_id.clone(),
            tier: spec.tier,
            task: spec.task.clone(),
            repo: spec.repo.clone(),
            branch: facts.branch.clone().or_else(|| spec.branch.clone()),
            base_commit: facts.base_commit.clone(),
            context_level: spec.context_level,
            workspace_mode: spec.workspace_mode,
            timeout_seconds: spec.timeout_seconds,
            priority: spec.priority,
            deadline_at: self.deadline_at(),
            user_id: spec.user_id.clone(),
            tags: spec.tags.clone(),
            attempt: self.attempt,
            queue_reason,
            queue_position: None,
            parked_until: match &self.state {
                State::Running { .. } => facts.parked_until,
                _ => None,
            },
            exit_code: facts.exit_code,
            failure: self.failure().cloned(),
            summary: facts.summary.clone(),
            output: None,
            artifact_url: self.attempt_id().map(|_| format!("/artifacts/{}", self.id)),
            session_id: facts.session_id.clone(),
            files_changed: facts.files_changed,
            checks: facts.checks.clone(),
            network: spec.network,
            allow_hosts: spec.allow_hosts.clone(),
            secrets: spec.secrets.clone(),
            budget_usd: spec.budget.map(Nanodollars::to_usd),
            usage: facts.usage.clone(),
            timings: facts.timings,
            isolation: facts.isolation.clone(),
            created_at: self.created_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
        }
    }
}
