//! The seam between engine and runner: what an attempt is, what it is told, what it tells.

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use outpost_core::{AgentDefaults, DispatchSpec, Drains, ExitFacts, PreparedFacts, ResultFacts};
use outpost_types::{
    AgentView, ApiError, AttemptId, DispatchRequest, EventData, Failure, Network, TenantId,
    WorkspaceView,
};
use tokio::sync::{mpsc, watch};

use crate::network::check_hosts;

/// Reports that may wait for the engine; beyond it the runner, and at last the agent, waits.
pub const REPORTS_MAX: usize = 1_024;
/// Commands that may wait for the runner; there are never more than a handful.
pub const COMMANDS_MAX: usize = 16;

/// One attempt to carry out.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Everything external is named after it.
    pub attempt: AttemptId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What to do.
    pub spec: DispatchSpec,
    /// What the sandbox may reach by the newest record, also while the agent runs. It wins over that of
    /// `spec`, which is what was asked for at first.
    pub network: watch::Receiver<Network>,
    /// Where kept files go; exists already.
    pub kept_dir: PathBuf,
    /// Set when an earlier server began it.
    pub resume: Option<Resume>,
}

/// How far an earlier server came with an attempt, by its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The last thing that is on record.
    pub stage: ResumeStage,
    /// Events from the agent's output that are in the event log.
    pub told: Told,
}

/// The last thing on record of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeStage {
    /// It was placed; whether the agent was started is not on record. The machine is the same as then.
    Placed,
    /// The agent was started.
    Started,
    /// The agent ended, with this exit code.
    Ended(Option<i32>),
}

/// How much of the agent's output became events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Offset in the output log of the last such event, bytes.
    pub log_offset: u64,
    /// Events with that very offset.
    pub count: u64,
}

/// What the engine tells a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Give up making the worker.
    Abort,
    /// SIGTERM, grace, SIGKILL.
    Stop,
    /// The end of the agent is recorded: collect now.
    Collect,
}

/// What a runner tells the engine, in order. The last one is an [`Report::Ended`].
#[derive(Debug)]
pub enum Report {
    /// The agent's process was started.
    AgentStarted(Box<PreparedFacts>),
    /// The output log reaches to here, bytes.
    OutputEnd(u64),
    /// Something for the event stream.
    Event(EventData),
    /// Something for the event stream that was read from the agent's output.
    AgentEvent {
        /// Where in the output log the line ends, bytes.
        log_offset: u64,
        /// What it says.
        data: EventData,
    },
    /// The provider of its model serves nobody for so long; the agent waits at the gateway.
    Parked {
        /// From now, milliseconds.
        millis: u64,
    },
    /// The agent's process ended.
    AgentExited(ExitFacts),
    /// The attempt is over and nothing of it runs any more.
    Ended(Outcome),
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// The agent was never started.
    ProvisionFailed {
        /// Why.
        failure: Failure,
        /// Another try may help.
        retry: bool,
    },
    /// The agent ended and its results are kept.
    Collected(Box<ResultFacts>),
}

/// Where attempts are carried out.
#[async_trait]
pub trait Runner: Send + Sync + std::fmt::Debug {
    /// Name of the fleet.
    fn fleet(&self) -> &'static str;

    /// Whether the model is the scripted provider.
    fn scripted_model(&self) -> bool;

    /// Every known agent and whether it can run for this tenant; `running` is left zero.
    async fn agents(&self, tenant: &TenantId) -> Vec<AgentView>;

    /// Whether this could run here for this tenant, and what it gets where it leaves something out.
    /// Cheap: nothing is fetched.
    ///
    /// # Errors
    /// An error for the client: the agent is unknown or unavailable, the repository is not allowed, a
    /// secret is missing.
    async fn admit(
        &self,
        tenant: &TenantId,
        request: &DispatchRequest,
    ) -> Result<AgentDefaults, ApiError>;

    /// Whether sandboxes here can be held to this network. Cheap. The same for every runner, since every
    /// gateway reads the same rules.
    ///
    /// # Errors
    /// An error for the client that names `allowHosts`: one is no rule for hosts.
    fn check_network(&self, network: &Network) -> Result<(), ApiError> {
        check_hosts(network.level, &network.allow_hosts)
    }

    /// The one name of a repository: that of its persistent workspaces, however a request writes it.
    fn repo_name(&self, repo: &str) -> String {
        repo.to_owned()
    }

    /// The tenant's persistent workspaces, the last used first; at most
    /// [`outpost_types::limits::WORKSPACES_COUNT_MAX`].
    ///
    /// # Errors
    /// An error for the client: they cannot be read now.
    async fn workspaces(&self, tenant: &TenantId) -> Result<Vec<WorkspaceView>, ApiError> {
        let _ = tenant;
        Ok(Vec::new())
    }

    /// One persistent workspace of the tenant.
    ///
    /// # Errors
    /// `not_found` where there is none of this id, or it is another tenant's; or it cannot be read.
    async fn workspace(&self, tenant: &TenantId, id: &str) -> Result<WorkspaceView, ApiError> {
        let _ = (tenant, id);
        Err(ApiError::not_found())
    }

    /// Deletes a persistent workspace of the tenant with all its files.
    ///
    /// # Errors
    /// `not_found` as above; `workspace_in_use` while a run is in it; or the disk.
    async fn delete_workspace(&self, tenant: &TenantId, id: &str) -> Result<(), ApiError> {
        let _ = (tenant, id);
        Err(ApiError::not_found())
    }

    /// Carries out one attempt and reports. Ends after [`Report::Ended`] was taken in, which dropping the
    /// receiver says, or when nobody
    /// listens any more; either way nothing of the attempt is left running.
    async fn run(
        &self,
        assignment: Assignment,
        commands: mpsc::Receiver<Command>,
        reports: mpsc::Sender<Report>,
    );

    /// How busy the host is: attempts that hold a slot, and dispatches that wait for one. Told whenever it may
    /// have changed, and cheap; a fleet that prepares for what comes can use it.
    fn load(&self, attempts: u32, waiting: u32) {
        let _ = (attempts, waiting);
    }

    /// What nothing new is started of; told at the start and whenever it changes. Attempts that are placed go on.
    fn drain(&self, drains: &Drains) {
        let _ = drains;
    }

    /// The fleet's own work beside attempts, such as workers that wait for one. Begun once, after
    /// [`Runner::sweep`]; it may end by itself, and ends when it is dropped.
    async fn tend(&self) {}

    /// Removes sandboxes and workspaces of attempts that are not `live`, and holds those that are for
    /// [`Runner::run`] to take up again. Called once, at start.
    ///
    /// # Errors
    /// One sentence, when nobody can say which sandboxes there are: to go on would lose them.
    async fn sweep(&self, live: &BTreeSet<AttemptId>) -> Result<(), String>;
}
