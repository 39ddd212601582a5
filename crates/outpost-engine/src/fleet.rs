//! The fleet as a caller sees it, and draining it.
//!
//! What is drained is one record of the install, written with its audit entry before it is in force, so it holds
//! across restarts until the operator resumes. The queue has it in memory, and nobody else.

use async_trait::async_trait;
use outpost_core::{Drain, Drains};
use outpost_store::AuditEntry;
use outpost_types::limits::DRAIN_REASON_BYTES_MAX;
use outpost_types::{
    AgentId, AgentView, ApiError, DrainRequest, DrainView, FleetApi, FleetView, ResumeRequest,
};
use serde_json::json;

use crate::api::{EngineApi, panicked, store_error};
use crate::engine::{Engine, OpenError};

#[async_trait]
impl FleetApi for EngineApi {
    async fn drain_fleet(&self, request: DrainRequest) -> Result<FleetView, ApiError> {
        self.only_operator("drain the fleet")?;
        let agent = request.agent.as_deref().map(parse_agent).transpose()?;
        if let Some(agent) = &agent {
            self.check_known(agent).await?;
        }
        let reason = request.reason.map(checked_reason).transpose()?;
        self.change_drains("fleet.drained", agent.clone(), reason.clone(), move |drains, now| {
            drains.begin(agent, reason, now);
        })
        .await
    }

    async fn resume_fleet(&self, request: ResumeRequest) -> Result<FleetView, ApiError> {
        self.only_operator("resume the fleet")?;
        let agent = request.agent.as_deref().map(parse_agent).transpose()?;
        let known = self.engine().inner.waiting.queue().drains().clone();
        // One that is drained may have been removed from the configuration since.
        if let Some(agent) = agent.as_ref().filter(|agent| !known.agents.contains_key(*agent)) {
            self.check_known(agent).await?;
        }
        self.change_drains("fleet.resumed", agent.clone(), None, move |drains, _| {
            drains.end(agent.as_ref());
        })
        .await
    }
}

impl EngineApi {
    /// What can run here, and what runs now.
    pub(crate) async fn fleet_view(&self) -> FleetView {
        let (slots, waiting, drains) = {
            let queue = self.engine().inner.waiting.queue();
            (queue.slots().clone(), queue.waiting(), queue.drains().clone())
        };
        let limits = &self.engine().inner.config.limits;
        let runner = &self.engine().inner.runner;
        let with_counts = |view: AgentView| match view.agent.parse() {
            Ok(agent) => AgentView {
                concurrency_max: limits.of_agent(&agent),
                running: slots.of_agent(&agent),
                draining: drains.agents.get(&agent).map(drain_view),
                ..view
            },
            Err(_) => view,
        };
        let agents = runner.agents(&self.caller().tenant).await;
        FleetView {
            fleet: runner.fleet().to_owned(),
            running: slots.total(),
            queued: u32::try_from(waiting).unwrap_or(u32::MAX),
            concurrency_max: limits.host_attempts_max,
            scripted_model: runner.scripted_model(),
            draining: drains.host.as_ref().map(drain_view),
            agents: agents.into_iter().map(with_counts).collect(),
        }
    }

    async fn check_known(&self, agent: &AgentId) -> Result<(), ApiError> {
        let agents = self.engine().inner.runner.agents(&self.caller().tenant).await;
        if agents.iter().any(|known| known.agent == agent.as_str()) {
            return Ok(());
        }
        let error = ApiError::field("agent", "There is no such agent.");
        Err(error.with_hint("GET /fleet lists the agents."))
    }

    async fn change_drains(
        &self,
        action: &'static str,
        agent: Option<AgentId>,
        reason: Option<String>,
        edit: impl FnOnce(&mut Drains, outpost_types::Timestamp) + Send + 'static,
    ) -> Result<FleetView, ApiError> {
        let api = self.clone();
        let work = async move {
            let inner = &api.engine().inner;
            let _writing = inner.access.writing.lock().await;
            let before = inner.waiting.queue().drains().clone();
            let (mut after, now) = (before.clone(), api.engine().now());
            edit(&mut after, now);
            if after != before {
                let audit = AuditEntry {
                    at: now,
                    tenant: api.caller().tenant.clone(),
                    actor: Some(api.caller().key),
                    action,
                    subject: agent.map_or_else(|| "host".to_owned(), |agent| agent.to_string()),
                    detail: json!({ "reason": reason }),
                };
                inner.store.put_drains(after.clone(), audit).await.map_err(store_error)?;
                api.engine().hold(after);
            }
            Ok(api.fleet_view().await)
        };
        self.engine().inner.tasks.finish("fleet", work).await.unwrap_or_else(|| Err(panicked()))
    }
}

impl Engine {
    /// Reads what is drained, before anything is given a slot.
    pub(crate) async fn load_drains(&self) -> Result<(), OpenError> {
        let drains = self.inner.store.drains().await?;
        if drains != Drains::default() {
            tracing::info!(?drains, "nothing new is started of what the operator drained");
        }
        self.hold(drains);
        Ok(())
    }

    fn hold(&self, drains: Drains) {
        self.inner.runner.drain(&drains);
        self.inner.waiting.queue().set_drains(drains);
        self.inner.placer.notify_one();
    }
}

fn drain_view(drain: &Drain) -> DrainView {
    DrainView { since: drain.since, reason: drain.reason.clone() }
}

fn parse_agent(text: &str) -> Result<AgentId, ApiError> {
    text.parse().map_err(|_| {
        let error = ApiError::field("agent", "It is no name of an agent.");
        error.with_hint("GET /fleet lists the agents.")
    })
}

fn checked_reason(reason: String) -> Result<String, ApiError> {
    let fits = (1..=DRAIN_REASON_BYTES_MAX).contains(&reason.trim().len());
    if fits && reason.len() <= DRAIN_REASON_BYTES_MAX && !reason.chars().any(char::is_control) {
        return Ok(reason);
    }
    let message =
        format!("It must have 1 to {DRAIN_REASON_BYTES_MAX} bytes without control characters.");
    Err(ApiError::field("reason", message))
}
