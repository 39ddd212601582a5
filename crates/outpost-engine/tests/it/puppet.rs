//! A runner without processes: attempts start and end when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use outpost_core::{AgentDefaults, AgentVerdict, ExitFacts, ResultFacts};
use outpost_runner::{Assignment, Command, Outcome, Report, Resume, Runner};
use outpost_types::{
    AgentAvailability, AgentView, ApiError, AttemptId, DispatchRequest, Network, TenantId, Tier,
    Timestamp, WorkspaceView,
};
use tokio::sync::{mpsc, watch};

/// What happened to one attempt so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How often it was handed out, and what each was told of an earlier server.
    pub(crate) runs: Vec<Option<Resume>>,
    pub(crate) stops: u32,
    /// What its sandbox may reach.
    pub(crate) network: Network,
    pub(crate) ended: bool,
}

/// The runner, and what it saw.
#[derive(Debug)]
pub(crate) struct Puppet {
    seen: watch::Sender<BTreeMap<AttemptId, Seen>>,
    /// Attempts whose agent may end.
    released: watch::Sender<BTreeSet<AttemptId>>,
    swept: Mutex<Vec<BTreeSet<AttemptId>>>,
    /// Persistent workspaces: whose, and their ids.
    pub(crate) workspaces: Mutex<BTreeSet<(TenantId, String)>>,
}

impl Puppet {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: watch::Sender::default(),
            released: watch::Sender::default(),
            swept: Mutex::default(),
            workspaces: Mutex::default(),
        })
    }

    /// The agent of this attempt ends now, or as soon as it starts.
    pub(crate) fn release(&self, attempt: AttemptId) {
        self.released.send_modify(|released| {
            released.insert(attempt);
        });
    }

    /// Waits until what was seen of an attempt fits.
    pub(crate) async fn until(&self, attempt: AttemptId, fits: impl Fn(&Seen) -> bool) -> Seen {
        let mut changes = self.seen.subscribe();
        let seen = changes.wait_for(|all| all.get(&attempt).is_some_and(&fits)).await.unwrap();
        seen[&attempt].clone()
    }

    /// Every attempt that was ever handed out.
    pub(crate) fn attempts(&self) -> Vec<AttemptId> {
        self.seen.borrow().keys().copied().collect()
    }

    /// The live attempts of each start of an engine.
    pub(crate) fn sweeps(&self) -> Vec<BTreeSet<AttemptId>> {
        self.swept.lock().unwrap().clone()
    }

    fn note(&self, attempt: AttemptId, note: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(|all| note(all.entry(attempt).or_default()));
    }
}

#[async_trait]
impl Runner for Puppet {
    fn fleet(&self) -> &'static str {
        "puppet"
    }

    fn scripted_model(&self) -> bool {
        true
    }

    async fn agents(&self, _: &TenantId) -> Vec<AgentView> {
        let request = crate::world::request();
        vec![AgentView {
            agent: request.agent,
            default_model_id: "none".into(),
            tier: Tier::Fast,
            resources: Tier::Fast.resources(),
            concurrency_max: 1,
            running: 0,
            pinned_version: String::new(),
            availability: AgentAvailability { available: true, reason: None },
            draining: None,
            pool: None,
        }]
    }

    async fn admit(
        &self,
        _: &TenantId,
        request: &DispatchRequest,
    ) -> Result<AgentDefaults, ApiError> {
        let agent = request.agent.parse().unwrap();
        Ok(AgentDefaults { agent, model_id: "none".into(), tier: Tier::Fast })
    }

    fn repo_name(&self, repo: &str) -> String {
        format!("/repos/{}", repo.trim_start_matches("./"))
    }

    async fn workspaces(&self, tenant: &TenantId) -> Result<Vec<WorkspaceView>, ApiError> {
        let all = self.workspaces.lock().unwrap();
        Ok(all.iter().filter(|(whose, _)| whose == tenant).map(|(_, id)| workspace(id)).collect())
    }

    async fn workspace(&self, tenant: &TenantId, id: &str) -> Result<WorkspaceView, ApiError> {
        let found = self.workspaces.lock().unwrap().contains(&(tenant.clone(), id.to_owned()));
        found.then(|| workspace(id)).ok_or_else(ApiError::not_found)
    }

    async fn delete_workspace(&self, tenant: &TenantId, id: &str) -> Result<(), ApiError> {
        let removed = self.workspaces.lock().unwrap().remove(&(tenant.clone(), id.to_owned()));
        removed.then_some(()).ok_or_else(ApiError::not_found)
    }

    async fn run(
        &self,
        assignment: Assignment,
        mut commands: mpsc::Receiver<Command>,
        reports: mpsc::Sender<Report>,
    ) {
        let attempt = assignment.attempt;
        self.note(attempt, |seen| seen.runs.push(assignment.resume.clone()));
        if assignment.resume.is_none() {
            reports.send(Report::AgentStarted(Box::default())).await.unwrap();
        }
        let mut released = self.released.subscribe();
        let mut network = assignment.network;
        network.mark_changed();
        loop {
            tokio::select! {
                Ok(()) = network.changed() => {
                    let now = network.borrow_and_update().clone();
                    self.note(attempt, |seen| seen.network = now);
                }
                _ = released.wait_for(|all| all.contains(&attempt)) => break,
                command = commands.recv() => match command {
                    Some(Command::Stop | Command::Abort) => {
                        self.note(attempt, |seen| seen.stops += 1);
                        break;
                    }
                    Some(Command::Collect) => {}
                    None => return,
                }
            }
        }
        reports.send(Report::AgentExited(ExitFacts::default())).await.unwrap();
        loop {
            match commands.recv().await {
                Some(Command::Collect) => break,
                Some(_) => {}
                None => return,
            }
        }
        reports.send(Report::Ended(Outcome::Collected(Box::new(results())))).await.unwrap();
        self.note(attempt, |seen| seen.ended = true);
        reports.closed().await;
    }

    async fn sweep(&self, live: &BTreeSet<AttemptId>) -> Result<(), String> {
        self.swept.lock().unwrap().push(live.clone());
        Ok(())
    }
}

fn results() -> ResultFacts {
    ResultFacts {
        verdict: AgentVerdict::Completed,
        summary: None,
        session_id: None,
        usage: None,
        spend: None,
        files_changed: None,
        checks: Vec::new(),
        collect_millis: 1,
    }
}

fn workspace(id: &str) -> WorkspaceView {
    WorkspaceView {
        id: id.to_owned(),
        user_id: "ann".into(),
        repo: None,
        branch: None,
        base_commit: String::new(),
        size_bytes: 0,
        too_large: false,
        in_use: false,
        runs: 1,
        created_at: Timestamp::from_millis(1),
        used_at: Timestamp::from_millis(1),
    }
}
