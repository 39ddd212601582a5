//! The local fleet: every attempt in a Linux sandbox of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use outpost_agents::{Agent, Installed, Registry};
use outpost_context::Profiles;
use outpost_core::{AgentDefaults, Drains};
use outpost_gateway::gateway::Gateway;
use outpost_sandbox::{Reattached, Sandbox, SandboxError};
use outpost_types::{
    AgentAvailability, AgentId, AgentView, ApiError, AttemptId, DispatchRequest, ErrorCode,
    SecretError, SecretSource, TenantId, Timestamp, WorkspaceMode, WorkspaceView,
    limits::WORKSPACES_COUNT_MAX,
};
use outpost_workspace::{
    PersistentWorkspace, SetupNetwork, SourceError, WorkspaceError, Workspaces,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::ahead::{Ahead, Starting};
use crate::attempt::Attempt;
use crate::models::Models;
use crate::money::Money;
use crate::network::{self, Network};
use crate::runner::{Assignment, Command, Report, Runner};
use crate::warm::{Warm, WarmSettings};

/// How often the sandboxes of an earlier server are asked for, and the pause after a failure,
/// milliseconds.
const REATTACH_TRIES_MAX: u32 = 5;
const REATTACH_PAUSE_MILLIS: u64 = 100;

/// How long an agent that could run is taken to be able to, milliseconds: a look costs a system call for
/// each of its files. That one cannot run is never taken for granted.
const AVAILABLE_MILLIS: u64 = 1_000;

/// How often persistent workspaces are looked at that nobody used for long, seconds.
const WORKSPACES_LOOK_SECONDS: u64 = 3_600;

/// What a local fleet is made of.
#[derive(Debug)]
pub struct LocalRunnerConfig {
    /// Directories of live attempts; emptied at start.
    pub attempts_dir: PathBuf,
    /// Directories of attempts to come; on the disk of `attempts_dir`, emptied at start.
    pub ahead_dir: PathBuf,
    /// Where agent CLIs are installed.
    pub agents_dir: PathBuf,
    /// What model calls cost, and who may spend how much.
    pub money: Money,
    /// What sandboxes may reach.
    pub network: Network,
    /// Keys of providers, and what dispatches want in their environment.
    pub secrets: Arc<dyn SecretSource>,
    /// How many workers wait for an attempt.
    pub warm: WarmSettings,
    /// What the setup commands of repositories may reach, if they ask for it, when the dispatch itself has no
    /// network.
    pub setup_network: SetupNetwork,
    /// What agents are told of how the operator and the tenants work.
    pub profiles: Profiles,
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
    pub(crate) warm: Arc<Warm>,
    pub(crate) ahead: Ahead,
    pub(crate) starting: Starting,
    /// Sandboxes of an earlier server, by name, until their attempts are taken up.
    found: Mutex<BTreeMap<String, Reattached>>,
    /// When each agent, with that model, could last run. As many as the operator declared.
    available: Mutex<BTreeMap<AgentId, (String, Instant)>>,
}

impl LocalRunner {
    /// A fleet of these parts.
    ///
    /// # Errors
    /// One sentence that names the setting of the warm pool that cannot be.
    pub fn new(
        config: LocalRunnerConfig,
        registry: Registry,
        models: Models,
        sandbox: Arc<dyn Sandbox>,
        workspaces: Workspaces,
        gateway: Gateway,
    ) -> Result<Self, String> {
        let agents =
            registry.iter().map(|agent| (agent.profile().id.clone(), agent.profile().tier));
        let warm = Arc::new(Warm::new(&config.warm, agents)?);
        let parts = Parts {
            ahead: Ahead::new(config.ahead_dir.clone()),
            starting: Starting::default(),
            config,
            registry,
            models,
            sandbox,
            workspaces,
            gateway,
            warm,
            found: Mutex::default(),
            available: Mutex::default(),
        };
        Ok(Self { parts: Arc::new(parts) })
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
        let mut pools = self.parts.warm.views();
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
                draining: None,
                pool: pools.remove(&profile.id),
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
        if request.workspace_mode == Some(WorkspaceMode::Persistent) {
            parts.check_overlays().await?;
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

    fn load(&self, attempts: u32, waiting: u32) {
        self.parts.warm.load(attempts, waiting);
    }

    fn drain(&self, drains: &Drains) {
        self.parts.warm.drain(drains);
    }

    fn repo_name(&self, repo: &str) -> String {
        let source = self.parts.workspaces.parse_source(repo);
        source.map_or_else(|_| repo.to_owned(), |source| source.display())
    }

    async fn workspaces(&self, tenant: &TenantId) -> Result<Vec<WorkspaceView>, ApiError> {
        let found = self.parts.workspaces.persistent_list(tenant.as_str()).await;
        let found = found.map_err(workspace_error)?.into_iter().take(WORKSPACES_COUNT_MAX);
        Ok(found.map(view).collect())
    }

    async fn workspace(&self, tenant: &TenantId, id: &str) -> Result<WorkspaceView, ApiError> {
        let found = self.parts.workspaces.persistent_get(tenant.as_str(), id).await;
        found.map_err(workspace_error)?.map(view).ok_or_else(ApiError::not_found)
    }

    async fn delete_workspace(&self, tenant: &TenantId, id: &str) -> Result<(), ApiError> {
        let deleted = self.parts.workspaces.persistent_delete(tenant.as_str(), id).await;
        deleted.map_err(workspace_error)?.then_some(()).ok_or_else(ApiError::not_found)
    }

    async fn tend(&self) {
        let parts = &self.parts;
        tokio::join!(parts.keep_warm(), parts.keep_ahead(), parts.drop_idle_workspaces());
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
    /// Persistent workspaces are layers.
    async fn check_overlays(&self) -> Result<(), ApiError> {
        // A launcher that cannot be asked now may answer when the attempt begins.
        if self.sandbox.host().await.is_ok_and(|host| !host.overlay) {
            let message =
                "Persistent workspaces need overlay mounts, which this host does not offer.";
            let error = ApiError::new(ErrorCode::NotSupported, message);
            return Err(ApiError { field: Some("workspaceMode".to_owned()), ..error });
        }
        Ok(())
    }

    /// Drops persistent workspaces that nobody used for long, now and from time to time.
    async fn drop_idle_workspaces(&self) {
        loop {
            let dropped = self.workspaces.sweep_persistent(SystemTime::now()).await;
            if dropped > 0 {
                info!(dropped, "persistent workspaces that nobody used for long are deleted");
            }
            tokio::time::sleep(Duration::from_secs(WORKSPACES_LOOK_SECONDS)).await;
        }
    }

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

fn view(workspace: PersistentWorkspace) -> WorkspaceView {
    let at = |seconds: u64| Timestamp::from_millis(seconds.saturating_mul(1000));
    WorkspaceView {
        id: workspace.id,
        user_id: workspace.user,
        repo: workspace.repo,
        branch: workspace.branch,
        base_commit: workspace.base_commit,
        size_bytes: workspace.bytes,
        too_large: workspace.too_large,
        in_use: workspace.busy,
        runs: workspace.runs,
        created_at: at(workspace.created_at),
        used_at: at(workspace.used_at),
    }
}

fn workspace_error(error: WorkspaceError) -> ApiError {
    match error {
        WorkspaceError::Busy => {
            ApiError::new(ErrorCode::WorkspaceInUse, "A run is in the workspace.")
                .with_hint("Cancel the run or wait for its end, then try again.")
        }
        WorkspaceError::Io { .. } => {
            warn!(error = &error as &dyn std::error::Error, "a persistent workspace");
            ApiError::new(ErrorCode::Unavailable, error.to_string())
        }
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
