//! The local fleet: every attempt in a Linux sandbox of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outpost_agents::{Agent, Installed, Registry};
use outpost_core::AgentDefaults;
use outpost_gateway::gateway::Gateway;
use outpost_sandbox::{Reattached, Sandbox, SandboxError};
use outpost_types::{
    AgentAvailability, AgentId, AgentView, ApiError, AttemptId, DispatchRequest, ErrorCode,
    SecretError, SecretSource, TenantId,
};
use outpost_workspace::{SourceError, Workspaces};
use tokio::sync::mpsc;
use tracing::warn;

use crate::attempt::Attempt;
use crate::models::Models;
use crate::money::Money;
use crate::network::{self, Network};
use crate::runner::{Assignment, Command, Report, Runner};

/// How often the sandboxes of an earlier server are asked for, and the pause after a failure,
/// milliseconds.
const REATTACH_TRIES_MAX: u32 = 5;
const REATTACH_PAUSE_MILLIS: u64 = 100;

/// How long an agent that could run is taken to be able to, milliseconds: a look costs a system call for
/// each of its files. That one cannot run is never taken for granted.
const AVAILABLE_MILLIS: u64 = 1_000;

/// What a local fleet is made of.
#[derive(Debug)]
pub struct LocalRunnerConfig {
    /// Directories of live attempts; emptied at start.
    pub attempts_dir: PathBuf,
    /// Where agent CLIs are installed.
    pub agents_dir: PathBuf,
    /// What model calls cost, and who may spend how much.
    pub money: Money,
    /// What sandboxes may reach.
    pub network: Network,
    /// Keys of providers, and what dispatches want in their environment.
    pub secrets: Arc<dyn SecretSource>,
}

/// The local fleet.
#[derive(Debug, Clone)]
pub struct LocalRunner {
    pub(crate) parts: Arc<Parts>,
}

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: LocalRunnerConfig,
    pub(crate) registry: Registry,
    pub(crate) models: Models,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) workspaces: Workspaces,
    pub(crate) gateway: Gateway,
    /// Sandboxes of an earlier server, by name, until their attempts are taken up.
    found: Mutex<BTreeMap<String, Reattached>>,
    /// When each agent, with that model, could last run. As many as the operator declared.
    available: Mutex<BTreeMap<AgentId, (String, Instant)>>,
}

impl LocalRunner {
    /// A fleet of these parts.
    #[must_use]
    pub fn new(
        config: LocalRunnerConfig,
        registry: Registry,
        models: Models,
        sandbox: Arc<dyn Sandbox>,
        workspaces: Workspaces,
        gateway: Gateway,
    ) -> Self {
        let parts = Parts {
            config,
            registry,
            models,
            sandbox,
            workspaces,
            gateway,
            found: Mutex::default(),
            available: Mutex::default(),
        };
        Self { parts: Arc::new(parts) }
    }
}

impl Parts {
    /// Removes a directory of an attempt.
    pub(crate) async fn remove_dir(&self, dir: &Path) {
        if let Err(error) = self.workspaces.remove(dir).await {
            warn!(%error, dir = %dir.display(), "a directory of an attempt is left behind");
        }
    }

    /// The sandbox of that name of an earlier server, once.
    pub(crate) fn take_found(&self, name: &str) -> Option<Reattached> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// The same as [`Parts::obstacle`], which is not asked again for a moment once there was none.
    async fn recent_obstacle(
        &self,
        tenant: &TenantId,
        agent: &dyn Agent,
        model_id: &str,
    ) -> Option<String> {
        let (id, now) = (&agent.profile().id, Instant::now());
        let known = || self.available.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |(model, at): &(String, Instant)| {
            model == model_id && now.duration_since(*at) < Duration::from_millis(AVAILABLE_MILLIS)
        };
        if known().get(id).is_some_and(fresh) {
            return None;
        }
        let obstacle = self.obstacle(tenant, agent, model_id).await;
        // What needs no secret is the same for every tenant.
        if obstacle.is_none() && self.needs_no_secret(agent, model_id) {
            known().insert(id.clone(), (model_id.to_owned(), now));
        }
        obstacle
    }

    fn needs_no_secret(&self, agent: &dyn Agent, model_id: &str) -> bool {
        let provider = agent.provider(model_id);
        provider.is_none_or(|provider| self.models.has_key(provider) == Ok(true))
    }

    /// Why the agent cannot run here for this tenant.
    async fn obstacle(
        &self,
        tenant: &TenantId,
        agent: &dyn Agent,
        model_id: &str,
    ) -> Option<String> {
        if let Err(unavailable) = Installed::load(&self.config.agents_dir, agent) {
            return Some(unavailable.reason);
        }
        let provider = agent.provider(model_id)?;
        match self.models.has_key(provider) {
            Ok(true) => return None,
            Ok(false) => {}
            Err(problem) => return Some(problem),
        }
        match self.config.secrets.has_provider_credentials(tenant, provider).await {
            Ok(true) => None,
            Ok(false) => Some(Models::no_key(provider)),
            Err(error) => Some(error.to_string()),
        }
    }
}

#[async_trait]
impl Runner for LocalRunner {
    fn fleet(&self) -> &'static str {
        "local"
    }

    fn scripted_model(&self) -> bool {
        self.parts.models.is_scripted()
    }

    async fn agents(&self, tenant: &TenantId) -> Vec<AgentView> {
        let mut views = Vec::new();
        for agent in self.parts.registry.iter() {
            let profile = agent.profile();
            let model_id = &profile.default_model;
            let reason = self.parts.obstacle(tenant, agent.as_ref(), model_id).await;
            views.push(AgentView {
                agent: profile.id.to_string(),
                default_model_id: profile.default_model.clone(),
                tier: profile.tier,
                resources: profile.tier.resources(),
                concurrency_max: profile.concurrency_max,
                running: 0,
                pinned_version: profile.version.clone().unwrap_or_default(),
                availability: AgentAvailability { available: reason.is_none(), reason },
            });
        }
        views
    }

    async fn admit(
        &self,
        tenant: &TenantId,
        request: &DispatchRequest,
    ) -> Result<AgentDefaults, ApiError> {
        let parts = &self.parts;
        let agent = request.agent.parse().ok().and_then(|id| parts.registry.get(&id));
        let Some(agent) = agent else {
            let known: Vec<_> =
                parts.registry.iter().map(|agent| agent.profile().id.to_string()).collect();
            let message = format!("There is no such agent; known are {}.", known.join(", "));
            return Err(ApiError::field("agent", message));
        };
        let profile = agent.profile();
        let model_id = request.model_id.as_deref().unwrap_or(&profile.default_model);
        if let Some(reason) = parts.recent_obstacle(tenant, agent.as_ref(), model_id).await {
            let message = format!("The agent cannot run here: {reason}.");
            return Err(ApiError::new(ErrorCode::AgentUnavailable, message)
                .with_hint("GET /fleet lists the agents that can."));
        }
        if let Some(repo) = &request.repo {
            parts.workspaces.parse_source(repo).map_err(|error| repo_error(&error))?;
        }
        network::check(request)?;
        parts.check_secrets(tenant, &request.secrets).await?;
        Ok(AgentDefaults {
            agent: profile.id.clone(),
            model_id: profile.default_model.clone(),
            tier: profile.tier,
        })
    }

    async fn run(
        &self,
        assignment: Assignment,
        commands: mpsc::Receiver<Command>,
        reports: mpsc::Sender<Report>,
    ) {
        Attempt::new(Arc::clone(&self.parts), assignment, commands, reports).run().await;
    }

    async fn sweep(&self, live: &BTreeSet<AttemptId>) -> Result<(), String> {
        let is_live = |name: &str| live.iter().any(|attempt| name == attempt.to_string());
        match self.reattach().await {
            Ok(found) => {
                for sandbox in found {
                    self.keep_or_remove(sandbox, &is_live).await;
                }
            }
            // Without live attempts there is nothing to lose: the server starts, and `doctor` says
            // what is wrong with the sandbox.
            Err(error) if live.is_empty() => warn!(%error, "the sandbox cannot be used"),
            Err(error) => return Err(error.to_string()),
        }
        let entries = std::fs::read_dir(&self.parts.config.attempts_dir);
        for entry in entries.into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(is_live) {
                self.parts.remove_dir(&entry.path()).await;
            }
        }
        Ok(())
    }
}

impl Parts {
    /// Whether the tenant has the secrets a request names, and may show them to an agent.
    async fn check_secrets(&self, tenant: &TenantId, names: &[String]) -> Result<(), ApiError> {
        if names.is_empty() {
            return Ok(());
        }
        let names = outpost_core::secret_names(names)?;
        let checked = self.config.secrets.check_exposed(tenant, &names).await;
        checked.map_err(|error| match error {
            SecretError::Unavailable { .. } | SecretError::Damaged { .. } => {
                ApiError::new(ErrorCode::SecretsUnavailable, error.to_string())
            }
            _ => ApiError::field("secrets", error.to_string()),
        })
    }
}

fn repo_error(error: &SourceError) -> ApiError {
    let code = match error {
        SourceError::LocalRefused | SourceError::PrivateHost(_) => ErrorCode::RepoNotAllowed,
        _ => ErrorCode::InvalidField,
    };
    ApiError { field: Some("repo".to_owned()), ..ApiError::new(code, error.to_string()) }
}

impl LocalRunner {
    /// The sandboxes of an earlier server. Asked for again when that fails: a run whose sandbox is
    /// not found is lost.
    async fn reattach(&self) -> Result<Vec<Reattached>, SandboxError> {
        let mut tries = 1;
        loop {
            match self.parts.sandbox.reattach().await {
                Err(error) if tries < REATTACH_TRIES_MAX => {
                    warn!(%error, "the sandboxes of an earlier server cannot be listed");
                }
                result => return result,
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(REATTACH_PAUSE_MILLIS)).await;
        }
    }

    /// Holds a sandbox for its live attempt; ends one that has none.
    async fn keep_or_remove(&self, sandbox: Reattached, is_live: &(dyn Fn(&str) -> bool + Sync)) {
        let name = match &sandbox {
            Reattached::Parked(parked) => parked.id().to_owned(),
            Reattached::Running(running) => running.id().to_owned(),
        };
        if is_live(&name) {
            let mut found = self.parts.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(name, sandbox);
            return;
        }
        let removed = match sandbox {
            Reattached::Parked(parked) => parked.discard().await,
            Reattached::Running(running) => running.release().await,
        };
        if let Err(error) = removed {
            warn!(%error, %name, "a sandbox of an earlier server could not be removed");
        }
    }
}
