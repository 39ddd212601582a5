//! Everything up to the start of the agent's process.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outpost_agents::{Agent, AgentError, Installed, Invocation, RunSpec, TrackedFile, Unavailable};
use outpost_context::Scrubber;
use outpost_core::{DispatchSpec, PreparedFacts, Spend};
use outpost_gateway::gateway::{
    GatewayError, GatewayEvent, GatewayGrant, GatewaySession, Handle, Route,
};
use outpost_sandbox::{
    Claim, GATEWAY_PORT, HOME_INSIDE, Limits, Owner, ParkedSandbox, Payload, RunningSandbox,
    SandboxError, SandboxSpec,
};
use outpost_types::limits::{PARKED_SECONDS_MAX, STOP_GRACE_SECONDS};
use outpost_types::{
    Failure, FailureCode, GivenSecret, Isolation, PhaseTimings, Resources, SecretError, Tier,
    WantedSecret,
};
use outpost_workspace::{
    Layers, PersistentRequest, PrepareError, PrepareRequest, Prepared, SetupError, SourceError,
};
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::ahead::HOME;
use crate::attempt::millis_since;
use crate::carry::{self, Carried, inside_of};
use crate::context;
use crate::local::Parts;
use crate::masking;
use crate::network::variables;
use crate::resume::{Saved, lost};
use crate::runner::Assignment;
use crate::setup::set_up;
use crate::shown;
use crate::warm::{Claimed, Lease};

/// Search path inside.
const PATH_INSIDE: &str = "/usr/local/bin:/usr/bin:/bin";
/// What the launcher's own clock grants beyond timeout and grace, seconds, before it kills.
const BACKSTOP_SECONDS: u64 = 60;
/// How often a name that is still taken is tried again, and the pause before, milliseconds.
const NAME_TRIES_MAX: u32 = 100;
const NAME_PAUSE_MILLIS: u64 = 20;

/// An agent that was started.
pub(crate) struct Ready {
    pub(crate) saved: Saved,
    pub(crate) running: Box<dyn RunningSandbox>,
    pub(crate) session: Option<Session>,
    /// What it must not show.
    pub(crate) scrubber: Scrubber,
    /// Of the warm worker it is, if it is one; dropped when the sandbox is gone.
    pub(crate) lease: Option<Lease>,
}

/// A sandbox in which the agent can be started.
pub(crate) struct Steady {
    saved: Saved,
    parked: Box<dyn ParkedSandbox>,
    payload: Payload,
    session: Option<Session>,
    scrubber: Scrubber,
    lease: Option<Lease>,
}

impl Steady {
    /// Starts the agent. Not to be dropped half-way: whether it was started must be known.
    pub(crate) async fn start(self, dir: &Path) -> Result<Ready, ProvisionError> {
        // Before the start: a server that finds an agent running must find this, too.
        self.saved.write(dir)?;
        let running = self.parked.start(self.payload).await.map_err(ProvisionError::Start)?;
        let Self { saved, session, scrubber, lease, .. } = self;
        Ok(Ready { saved, running, session, scrubber, lease })
    }
}

/// A gateway and what it reports.
pub(crate) type Session = (GatewaySession, mpsc::Receiver<GatewayEvent>);

/// Why there is no agent running.
#[derive(Debug, Error)]
pub(crate) enum ProvisionError {
    /// Somebody wants it to end.
    #[error("It was told to end before the agent started.")]
    Aborted,
    /// The server ends; the next one will try.
    #[error("The server ended before the agent started.")]
    Left,
    /// The agent is not what it was when the dispatch was accepted.
    #[error("The agent cannot run here: {0}.")]
    Unavailable(String),
    /// The repository is not one any more.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// No repository, no branch, no room.
    #[error("The workspace could not be made: {0}")]
    Workspace(#[from] PrepareError),
    /// What the repository wants done first cannot be read, or has to wait.
    #[error("The repository could not be set up: {0}")]
    Setup(#[from] SetupError),
    /// What the repository wants done first failed.
    #[error("The setup commands failed{}.", code.map(|code| format!(" with exit code {code}")).unwrap_or_default())]
    SetupFailed {
        /// Exit code of the one that failed; `None` when it was killed.
        code: Option<i32>,
        /// They had no network.
        closed: bool,
        /// The last of what they printed.
        output: String,
    },
    /// The files of the dispatch to go on from do not fit.
    #[error("The files of the dispatch to go on from could not be put in place.")]
    Carry,
    /// The agent cannot take this task.
    #[error("The agent cannot take this task: {0}")]
    Agent(#[from] AgentError),
    /// A secret it needs is not to be had.
    #[error("It cannot have its secrets: {0}.")]
    Secret(#[from] SecretError),
    /// A secret would take the place of something the agent needs.
    #[error(
        "The secret {0} has the name of a variable that the agent's own start needs; store it under another name."
    )]
    TakenVariable(String),
    /// The gateway could not be opened.
    #[error("The gateway could not be opened: {0}")]
    Gateway(#[from] GatewayError),
    /// The sandbox could not be made.
    #[error("The sandbox could not be made: {0}")]
    Sandbox(#[from] SandboxError),
    /// The agent could not be started, or may have been: nobody can say.
    #[error("The agent could not be started: {0}")]
    Start(#[source] SandboxError),
    /// A file could not be written.
    #[error("A file of the attempt could not be written; check the data directory's free space.")]
    Io(#[from] io::Error),
}

impl From<Unavailable> for ProvisionError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable.reason)
    }
}

impl ProvisionError {
    /// Another try may help.
    pub(crate) fn retry(&self) -> bool {
        match self {
            Self::Workspace(error) => error.retry(),
            Self::Setup(error) => error.retry(),
            Self::Sandbox(error) => matches!(
                error,
                SandboxError::Full { .. } | SandboxError::LauncherLost | SandboxError::Io(_)
            ),
            Self::Io(_) | Self::Secret(SecretError::Unavailable { .. }) => true,
            Self::Secret(_) => false,
            Self::Aborted
            | Self::Left
            | Self::Source(_)
            | Self::TakenVariable(_)
            | Self::SetupFailed { .. }
            | Self::Unavailable(_)
            | Self::Carry
            | Self::Agent(_)
            | Self::Start(_)
            | Self::Gateway(_) => false,
        }
    }

    pub(crate) fn into_failure(self) -> Failure {
        if let Self::Start(SandboxError::LauncherLost) = self {
            return lost();
        }
        let failure = Failure::new(FailureCode::Provisioning, self.to_string());
        match self {
            Self::Workspace(error) => match error.hint() {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            },
            Self::SetupFailed { closed, output, .. } => {
                let network = if closed {
                    " They had no network; `--network trusted`, or `[setup] network` of the server's \
                     configuration, opens package registries to those that ask for it."
                } else {
                    ""
                };
                failure.with_hint(format!(
                    "Correct [setup] of outpost.toml, or the dispatch's own setup commands.{network} They printed at last:\n{output}"
                ))
            }
            _ => failure,
        }
    }
}

/// Makes workspace, sandbox and gateway. May be dropped half-way: then nothing was started. A persistent workspace
/// is put into `entered` as soon as this attempt is in it.
pub(crate) async fn provision(
    parts: &Parts,
    assignment: &Assignment,
    dir: &Path,
    entered: &mut Option<Prepared>,
) -> Result<Steady, ProvisionError> {
    let spec = &assignment.spec;
    let agent = parts.registry.get(&spec.agent);
    let agent = agent.ok_or_else(|| ProvisionError::Unavailable("it is not declared".into()))?;
    let installed = Installed::load(&parts.config.agents_dir, agent.as_ref())?;
    let route = route_of(parts, assignment, agent.as_ref()).await?;
    let exposed = exposed_to(parts, assignment).await?;
    let mut carried = Carried::of(assignment);
    let task = carry::task(assignment, carried.as_ref());
    let mut prepared = prepare_workspace(parts, assignment, &task, dir).await?;
    if prepared.persistent.is_some() {
        *entered = Some(prepared.clone());
    }
    let resumes = carried.as_ref().is_some_and(|carried| carried.session_id().is_some());
    let task =
        context::tell(assignment, &parts.config.profiles, &mut prepared, &exposed, resumes, task)
            .await?;
    let setup_millis = Box::pin(set_up(parts, assignment, &mut prepared)).await?;
    let handle = Handle::generate()?;
    let session_id = carried.as_ref().and_then(Carried::session_id);
    let mut run = RunSpec { session_id, ..run_spec(assignment, &task, &prepared, &handle) };
    let mut invocation = agent.invocation(&run, &installed)?;
    lay_home(&prepared, &invocation)?;
    if let Some(carried) = &mut carried {
        Box::pin(carried.restore(parts, assignment, &mut prepared)).await?;
        if carried.session_id() != run.session_id {
            run.session_id = None;
            invocation = agent.invocation(&run, &installed)?;
        }
    }
    let began = Instant::now();
    let (mut parked, lease) = sandbox_for(parts, assignment, &invocation, &prepared).await?;
    let sandbox_millis = millis_since(began);
    let facts = PreparedFacts {
        branch: branch_of(spec).or_else(|| prepared.branch.clone()),
        base_commit: Some(prepared.base_commit.clone()),
        isolation: Some(isolation_of(parked.as_ref())),
        timings: PhaseTimings {
            fetch_millis: Some(prepared.fetch_millis),
            checkout_millis: Some(prepared.checkout_millis),
            setup_millis,
            sandbox_millis: Some(sandbox_millis),
            warm: Some(lease.is_some()),
            ..PhaseTimings::default()
        },
    };
    let listener = parked.take_listener();
    let session =
        open_gateway(parts, assignment, listener, handle.clone(), route, Spend::default())?;
    let saved = Saved {
        prepared,
        facts,
        handle: handle.expose().to_owned(),
        exposed: exposed.iter().map(|given| (given.name.clone(), given.version)).collect(),
        litter: invocation.litter.clone(),
        launcher_pid: parts.sandbox.host().await?.launcher_pid,
        ended: None,
        results: None,
    };
    let scrubber = masking::scrubber(&handle, &exposed);
    let payload = payload_of(invocation, exposed, &task, &run.workdir)?;
    Ok(Steady { saved, parked, payload, session, scrubber, lease })
}

async fn prepare_workspace(
    parts: &Parts,
    assignment: &Assignment,
    task: &str,
    dir: &Path,
) -> Result<Prepared, ProvisionError> {
    let spec = &assignment.spec;
    let host = parts.sandbox.host().await?;
    let source = match &spec.repo {
        Some(repo) => Some(parts.workspaces.parse_source(repo)?),
        None => None,
    };
    let owner = owner(host.payload_owner);
    let request = PrepareRequest {
        laid_out: parts.ahead.take(dir, owner),
        tenant: assignment.tenant.to_string(),
        source,
        branch: start_of(spec),
        dir: dir.to_owned(),
        inside: inside_of(assignment),
        owner,
        task: task.to_owned(),
        layers: if host.overlay { Layers::Overlay } else { Layers::Copy },
        persistent: spec
            .workspace
            .as_ref()
            .map(|workspace| PersistentRequest { user: workspace.user.clone() }),
    };
    // On the heap: it is by far the largest part of an attempt's future.
    Ok(Box::pin(parts.workspaces.prepare(request)).await?)
}

/// The branch the parent began from, which its base commit does not tell.
fn branch_of(spec: &DispatchSpec) -> Option<String> {
    spec.parent.as_ref()?.branch.clone()
}

/// The branch or commit the files begin from: what the parent's changes are based on, if there is one.
fn start_of(spec: &DispatchSpec) -> Option<String> {
    let based_on = spec.parent.as_ref().and_then(|parent| parent.base_commit.clone());
    based_on.filter(|_| spec.repo.is_some()).or_else(|| spec.branch.clone())
}

/// Who owns what the agent writes; `None` where this process cannot give files away.
pub(crate) fn owner(payload: Owner) -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then_some((payload.uid, payload.gid))
}

/// Limits of a tier, as the sandbox wants them.
pub(crate) fn limits_of(tier: Tier, seconds_max: u64) -> Limits {
    let Resources { cpu_millis, memory_bytes, disk_bytes } = tier.resources();
    let wall_seconds = u32::try_from(seconds_max + BACKSTOP_SECONDS).ok();
    Limits::of_agent(cpu_millis, memory_bytes, disk_bytes, wall_seconds)
}

/// A sandbox with the workspace in it: a warm worker where there is one, else a new one.
async fn sandbox_for(
    parts: &Parts,
    assignment: &Assignment,
    invocation: &Invocation,
    prepared: &Prepared,
) -> Result<(Box<dyn ParkedSandbox>, Option<Lease>), ProvisionError> {
    let binds = shown::workspace(prepared, invocation, &prepared.attempt_dir.join(HOME))?;
    let (tier, timeout_seconds) = (assignment.spec.tier, assignment.spec.timeout_seconds);
    let seconds_max = timeout_seconds + PARKED_SECONDS_MAX + STOP_GRACE_SECONDS;
    let limits = limits_of(tier, seconds_max);
    match parts.warm.claim(assignment.attempt, &assignment.spec.agent, tier) {
        Ok(worker) => {
            let claim = Claim {
                id: assignment.attempt.to_string(),
                binds: binds.clone(),
                wall_seconds: limits.wall_seconds,
            };
            if let Some((sandbox, lease)) = take(worker, claim, &invocation.ro_paths).await? {
                return Ok((sandbox, Some(lease)));
            }
        }
        Err(miss) => debug!(attempt = %assignment.attempt, miss = miss.as_str(), "no warm worker"),
    }
    let mut spec = SandboxSpec::new(assignment.attempt.to_string());
    spec.binds = shown::programs(&invocation.ro_paths)?;
    spec.binds.extend(binds);
    spec.limits = limits;
    spec.listener_port = Some(GATEWAY_PORT);
    Ok((create(parts, spec).await?, None))
}

/// Makes a warm worker the attempt's; `None` when it turns out to be no good.
async fn take(
    worker: Claimed,
    mut claim: Claim,
    programs: &[PathBuf],
) -> io::Result<Option<(Box<dyn ParkedSandbox>, Lease)>> {
    let Claimed { mut sandbox, programs: shown, lease } = worker;
    // The agent may have been installed anew since the worker was made.
    let newer = programs.iter().filter(|path| !shown.contains(path));
    claim.binds.extend(shown::programs(newer)?);
    let mut pauses = 0;
    loop {
        match sandbox.claim(claim.clone()).await {
            Ok(()) => return Ok(Some((sandbox, lease))),
            Err(error) if !may_become_free(&error, &mut pauses) => {
                warn!(%error, id = claim.id, "a warm worker could not be claimed; another is made");
                lease.failed(error.to_string());
                return Ok(None);
            }
            Err(_) => name_pause().await,
        }
    }
}

/// Makes a sandbox.
pub(crate) async fn create(
    parts: &Parts,
    spec: SandboxSpec,
) -> Result<Box<dyn ParkedSandbox>, SandboxError> {
    let mut pauses = 0;
    loop {
        match parts.sandbox.create(spec.clone()).await {
            Err(error) if may_become_free(&error, &mut pauses) => name_pause().await,
            made => return made,
        }
    }
}

/// Whether the name of a sandbox is worth another pause: one of the same name that an earlier server left half
/// built is just ending.
fn may_become_free(error: &SandboxError, pauses: &mut u32) -> bool {
    *pauses += 1;
    matches!(error, SandboxError::AlreadyExists { .. }) && *pauses <= NAME_TRIES_MAX
}

async fn name_pause() {
    tokio::time::sleep(Duration::from_millis(NAME_PAUSE_MILLIS)).await;
}

fn isolation_of(parked: &dyn ParkedSandbox) -> Isolation {
    let isolation = parked.isolation();
    Isolation { effective: isolation.enforced.clone(), missing: isolation.missing.clone() }
}

/// Opens the gateway on the listener that was made inside, if there is one. Of its budget `spent` is gone.
pub(crate) fn open_gateway(
    parts: &Parts,
    assignment: &Assignment,
    listener: Option<TcpListener>,
    handle: Handle,
    route: Option<Route>,
    spent: Spend,
) -> Result<Option<Session>, ProvisionError> {
    let Some(listener) = listener else { return Ok(None) };
    let spec = &assignment.spec;
    let network = parts.config.network.grant(spec.network, &spec.allow_hosts);
    let network = network.map_err(ProvisionError::Unavailable)?;
    let grant = GatewayGrant::new(handle, route.into_iter().collect())?.with_egress(network);
    let grant = parts.config.money.grant(grant, &assignment.tenant, assignment.spec.budget, spent);
    let grant = grant.map_err(|error| ProvisionError::Unavailable(error.to_string()))?;
    Ok(Some(parts.gateway.serve(tokio::net::TcpListener::from_std(listener)?, grant)))
}

/// The way to the provider of an agent's model, with the tenant's keys before the platform's; `None` for agents
/// without one.
pub(crate) async fn route_of(
    parts: &Parts,
    assignment: &Assignment,
    agent: &dyn Agent,
) -> Result<Option<Route>, ProvisionError> {
    let Some(provider) = agent.provider(&assignment.spec.model_id) else { return Ok(None) };
    let given = if parts.models.is_scripted() {
        Vec::new()
    } else {
        let (tenant, dispatch) = (&assignment.tenant, assignment.attempt.dispatch);
        parts.config.secrets.provider_credentials(tenant, dispatch, provider).await?
    };
    parts.models.route(provider, &given).map(Some).map_err(ProvisionError::Unavailable)
}

/// What the dispatch wants in its agent's environment.
async fn exposed_to(
    parts: &Parts,
    assignment: &Assignment,
) -> Result<Vec<GivenSecret>, ProvisionError> {
    let names = &assignment.spec.secrets;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = names.iter().map(|name| WantedSecret { name: name.clone(), version: None });
    let wanted: Vec<_> = wanted.collect();
    let (tenant, dispatch) = (&assignment.tenant, assignment.attempt.dispatch);
    Ok(parts.config.secrets.exposed(tenant, dispatch, &wanted).await?)
}

fn run_spec(assignment: &Assignment, task: &str, prepared: &Prepared, handle: &Handle) -> RunSpec {
    let spec = &assignment.spec;
    let inside = prepared.inside.display();
    let tracked = |(path, size_bytes): (&String, &u64)| TrackedFile {
        path: path.clone(),
        size_bytes: *size_bytes,
    };
    let files = prepared.tracked_files.iter().zip(&prepared.tracked_sizes);
    let first_files = files.take(outpost_agents::TRACKED_FILES_MAX);
    RunSpec {
        prompt: task.to_owned(),
        prompt_path: format!("{inside}/task.md"),
        model_id: spec.model_id.clone(),
        gateway_url: format!("http://127.0.0.1:{GATEWAY_PORT}"),
        handle: handle.expose().to_owned(),
        home: HOME_INSIDE.to_owned(),
        workdir: format!("{inside}/repo"),
        path: PATH_INSIDE.to_owned(),
        session_id: None,
        tracked_files: first_files.map(tracked).collect(),
    }
}

fn payload_of(
    invocation: Invocation,
    exposed: Vec<GivenSecret>,
    prompt: &str,
    workdir: &str,
) -> Result<Payload, ProvisionError> {
    let mut payload = Payload::new(invocation.argv).cwd(workdir);
    payload.env = invocation.env;
    payload.env.extend(variables(GATEWAY_PORT));
    for secret in exposed {
        let name = secret.name.to_string();
        if payload.env.iter().any(|(known, _)| *known == name) {
            return Err(ProvisionError::TakenVariable(name));
        }
        payload.env.push((name, secret.value.expose().to_owned()));
    }
    if invocation.stdin_prompt {
        payload = payload.stdin(prompt);
    }
    Ok(payload)
}

/// Makes the agent's home with its settings, before anything of it or of an earlier agent comes there: what this host
/// writes must follow no link of theirs.
fn lay_home(prepared: &Prepared, invocation: &Invocation) -> Result<(), io::Error> {
    let home = prepared.attempt_dir.join(HOME);
    make_home(&home, prepared.owner)?;
    write_home(&home, invocation, prepared.owner)
}

/// Puts the agent's own settings into its home.
fn write_home(
    home: &Path,
    invocation: &Invocation,
    owner: Option<(u32, u32)>,
) -> Result<(), io::Error> {
    for file in &invocation.home_files {
        let path = home.join(&file.path);
        let mut parent = home.to_owned();
        for part in Path::new(&file.path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            make_home(&parent, owner)?;
        }
        std::fs::write(&path, &file.contents)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
        give(&path, owner)?;
    }
    Ok(())
}

/// Makes a directory that only the agent's user may enter, if it is not there.
pub(crate) fn make_home(path: &Path, owner: Option<(u32, u32)>) -> Result<(), io::Error> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => give(path, owner),
    }
}

fn give(path: &Path, owner: Option<(u32, u32)>) -> Result<(), io::Error> {
    match owner {
        Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
