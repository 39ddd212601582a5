//! From the record to what a client sees.

use outpost_types::{DispatchView, Usage};

use crate::budget::Nanodollars;
use crate::dispatch::{Dispatch, Facts, State};

impl Facts {
    /// What the agent used: by the gateway's count where there was one, else by the agent's own account.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let Some(spend) = &self.spend else { return self.usage.clone() };
        let tokens = spend.tokens;
        Some(Usage {
            input_tokens: tokens.input,
            cached_input_tokens: tokens.cached,
            cache_write_tokens: tokens.cache_write,
            output_tokens: tokens.output,
            thinking_tokens: tokens.thinking,
            searches: spend.searches,
            cost_usd: (spend.calls > spend.calls_unpriced).then(|| spend.cost.to_usd()),
            unpriced_models: spend.models_unpriced.clone(),
            calls: spend.calls,
            estimated_calls: spend.calls_estimated,
            model_id: self.usage.as_ref().and_then(|usage| usage.model_id.clone()),
        })
    }
}

impl Dispatch {
    /// The client's view, without the parts that live in files (`output`) or in the queue
    /// (`queue_position`).
    #[must_use]
    pub fn view(&self) -> DispatchView {
        let (spec, facts, network) = (&self.spec, &self.facts, self.network());
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
            continued_from: spec.parent.as_ref().map(|parent| parent.dispatch_id),
            files_changed: facts.files_changed,
            checks: facts.checks.clone(),
            network: network.level,
            allow_hosts: network.allow_hosts,
            secrets: spec.secrets.iter().map(ToString::to_string).collect(),
            budget_usd: spec.budget.map(Nanodollars::to_usd),
            usage: facts.usage(),
            timings: facts.timings,
            isolation: facts.isolation.clone(),
            created_at: self.created_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
        }
    }
}
