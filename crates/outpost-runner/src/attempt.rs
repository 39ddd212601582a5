//! One attempt on this host, step by step.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use outpost_agents::{Exit, Verdict, judge};
use outpost_core::{AgentVerdict, ExitFacts, ResultFacts};
use outpost_types::limits::{CHECK_SECONDS_MAX, OUTPUT_TAIL_BYTES_MAX};
use outpost_types::{Attention, CheckResult, EventData, Failure, FailureCode};
use outpost_workspace::{Collected, Note};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::local::Parts;
use crate::provision::{ProvisionError, Ready, provision};
use crate::runner::{Assignment, Command, Outcome, Report};
use crate::side::{SideRun, run_aside};
use crate::watch::{Ended, watch};

/// Longest collection of results in its sandbox, seconds.
const COLLECT_SECONDS_MAX: u64 = 300;

/// One attempt: what it is, who commands it, who hears of it.
#[derive(Debug)]
pub(crate) struct Attempt {
    parts: Arc<Parts>,
    assignment: Assignment,
    commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<Report>,
    dir: PathBuf,
}

impl Attempt {
    pub(crate) fn new(
        parts: Arc<Parts>,
        assignment: Assignment,
        commands: mpsc::Receiver<Command>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let dir = parts.config.attempts_dir.join(assignment.attempt.to_string());
        Self { parts, assignment, commands, reports, dir }
    }

    /// Carries it out. Whatever happens, nothing of it is left when this returns.
    pub(crate) async fn run(mut self) {
        let outcome = match self.provision().await {
            Ok(ready) => self.carry_out(ready).await,
            Err(error) => Some(Outcome::ProvisionFailed {
                retry: error.retry(),
                failure: error.into_failure(),
            }),
        };
        self.parts.remove_dir(&self.dir).await;
        if let Some(outcome) = outcome {
            self.report(Report::Ended(outcome)).await;
        }
    }

    /// Tells the engine. When nobody listens any more, it makes no difference.
    async fn report(&self, report: Report) {
        if self.reports.send(report).await.is_err() {
            info!(attempt = %self.assignment.attempt, "nobody listens to this attempt any more");
        }
    }

    async fn event(&self, data: EventData) {
        self.report(Report::Event(data)).await;
    }

    async fn attention(&self, notes: &[Note]) {
        for note in notes {
            let (code, message) = (note.code.to_string(), note.message.clone());
            self.event(EventData::Attention(Attention { code, message })).await;
        }
    }

    async fn phase(&self, name: &str, millis: u64, detail: Option<String>) {
        self.event(EventData::Phase { name: name.to_owned(), millis, detail }).await;
    }

    async fn provision(&mut self) -> Result<Ready, ProvisionError> {
        // Both sides are safe to drop half-way: git dies with its handle, a sandbox with its own.
        tokio::select! {
            biased;
            () = told_to_end(&mut self.commands) => Err(ProvisionError::Aborted),
            ready = provision(&self.parts, &self.assignment, &self.dir) => ready,
        }
    }

    async fn carry_out(&mut self, ready: Ready) -> Option<Outcome> {
        let timings = ready.facts.timings;
        self.phase("fetch", timings.fetch_millis.unwrap_or(0), None).await;
        self.phase("checkout", timings.checkout_millis.unwrap_or(0), None).await;
        self.phase("sandbox", timings.sandbox_millis.unwrap_or(0), None).await;
        self.attention(&ready.prepared.notes).await;
        self.report(Report::AgentStarted(Box::new(ready.facts.clone()))).await;
        let Ready { running, session, mut parser, prepared, agent, .. } = ready;
        let ended = watch(running, session, parser.as_mut(), &mut self.commands, &self.reports).await;
        let Ended { exit, first_output_millis, agent_millis } = ended;
        let facts = ExitFacts { code: exit.exit_code, first_output_millis, agent_millis };
        self.phase("agent", agent_millis, None).await;
        self.report(Report::AgentExited(facts)).await;
        if !told_to_collect(&mut self.commands).await {
            return None;
        }
        let started = Instant::now();
        let collected = self.collect(&prepared).await;
        let checks = match &collected {
            Ok(_) => self.run_checks(&prepared).await,
            Err(_) => Vec::new(),
        };
        let report = parser.finish();
        let exit = Exit { code: exit.exit_code, signal: exit.signal, oom: exit.oom_killed };
        let changed = collected.as_ref().is_ok_and(|collected| collected.changed);
        let verdict = match judge(agent.profile(), &report, &exit, changed) {
            Verdict::Failed(failure) => AgentVerdict::Failed(failure),
            Verdict::Completed => match &collected {
                Ok(_) => AgentVerdict::Completed,
                Err(failure) => AgentVerdict::Failed(failure.clone()),
            },
        };
        Some(Outcome::Collected(Box::new(ResultFacts {
            verdict,
            summary: report.summary,
            session_id: report.session_id,
            usage: report.usage,
            files_changed: collected.ok().map(|collected| collected.files_changed),
            checks,
            collect_millis: millis_since(started),
        })))
    }

    /// Turns what the agent left into diff, bundle and artifacts. git runs on the agent's files only
    /// inside a sandbox; the host reads nothing but the bundle that comes out.
    async fn collect(&self, prepared: &outpost_workspace::Prepared) -> Result<Collected, Failure> {
        let started = Instant::now();
        let failed = |what: String| {
            Failure::new(FailureCode::Collect, what)
                .with_hint("The agent's output is kept; dispatch the task again for its changes.")
        };
        let job = self
            .parts
            .workspaces
            .collect_job(prepared)
            .map_err(|error| failed(error.to_string()))?;
        let side = SideRun {
            id: format!("{}-collect", self.assignment.attempt),
            argv: job.argv,
            env: job.env,
            cwd: job.cwd,
            ro_binds: job.ro_binds,
            rw_binds: job.rw_binds,
            tier: self.assignment.spec.tier,
            seconds_max: COLLECT_SECONDS_MAX,
        };
        let ran = run_aside(&self.parts, side).await.map_err(|error| failed(error.to_string()))?;
        if !ran.exit.success() {
            warn!(attempt = %self.assignment.attempt, output = %ran.output, "collecting failed");
        }
        let collected = self
            .parts
            .workspaces
            .ingest(prepared, &self.assignment.kept_dir)
            .await
            .map_err(|error| failed(error.to_string()))?;
        self.attention(&collected.notes).await;
        self.phase("collect", millis_since(started), None).await;
        for (name, size_bytes) in &collected.artifacts {
            let (name, size_bytes) = (name.clone(), *size_bytes);
            self.event(EventData::ArtifactCreated { name, size_bytes }).await;
        }
        Ok(collected)
    }

    /// Runs the request's checks, each in a fresh sandbox on the agent's tree. They are the task's
    /// own commands on the agent's own files, so they get nothing that the agent did not have.
    async fn run_checks(&self, prepared: &outpost_workspace::Prepared) -> Vec<CheckResult> {
        let mut results = Vec::new();
        for (index, command) in self.assignment.spec.checks.iter().enumerate() {
            let started = Instant::now();
            let side = SideRun {
                id: format!("{}-check-{index}", self.assignment.attempt),
                argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), command.clone()],
                env: Vec::new(),
                cwd: format!("{}/repo", prepared.inside.display()),
                ro_binds: prepared.ro_binds.clone(),
                rw_binds: vec![(prepared.dir.clone(), prepared.inside.clone())],
                tier: self.assignment.spec.tier,
                seconds_max: CHECK_SECONDS_MAX,
            };
            let (passed, exit_code, output) = match run_aside(&self.parts, side).await {
                Ok(ran) => (ran.exit.success(), ran.exit.exit_code, ran.output),
                Err(error) => (false, None, error.to_string()),
            };
            debug_assert!(output.len() <= OUTPUT_TAIL_BYTES_MAX);
            let millis = millis_since(started);
            let verdict = if passed { "passed" } else { "failed" };
            self.phase("check", millis, Some(format!("{verdict}: {command}"))).await;
            let command = command.clone();
            results.push(CheckResult { command, passed, exit_code, millis, output });
        }
        results
    }
}

async fn told_to_end(commands: &mut mpsc::Receiver<Command>) {
    loop {
        match commands.recv().await {
            Some(Command::Abort | Command::Stop) | None => return,
            Some(Command::Collect) => {}
        }
    }
}

/// Waits until the end of the agent is on record; `false` when nobody will ever say so.
async fn told_to_collect(commands: &mut mpsc::Receiver<Command>) -> bool {
    loop {
        match commands.recv().await {
            Some(Command::Collect) => return true,
            Some(Command::Abort | Command::Stop) => {}
            None => return false,
        }
    }
}

pub(crate) fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
