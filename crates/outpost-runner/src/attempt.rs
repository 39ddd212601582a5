//! One attempt on this host, step by step.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use outpost_agents::{Agent, AgentReport, Exit, Verdict, judge};
use outpost_context::Scrubber;
use outpost_core::{AgentVerdict, ExitFacts, ResultFacts, Spend};
use outpost_sandbox::{ExitReport, RunningSandbox, SandboxError};
use outpost_types::limits::{CHECK_SECONDS_MAX, OUTPUT_TAIL_BYTES_MAX};
use outpost_types::{AttemptId, Attention, CheckResult, EventData, Failure, FailureCode};
use outpost_workspace::{Collected, Note, Prepared, RepoOverlay};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::carry;
use crate::gatekeeper::Gatekeeper;
use crate::local::Parts;
use crate::masking;
use crate::money::noted_spend;
use crate::network;
use crate::output::OutputLog;
use crate::provision::{ProvisionError, Ready, provision};
use crate::resume::{SAVED_FILE, Saved, claim, lost, reopen_gateway};
use crate::runner::{Assignment, Command, Outcome, Report, Resume, ResumeStage, Told};
use crate::side::{SideRun, run_aside};
use crate::watch::{Ended, Output, Watched, watch};

/// How often results are collected when the launcher dies of it or beside it.
const COLLECT_TRIES_MAX: u32 = 3;
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
    /// The persistent workspace it is in, as long as its agent was not started.
    entered: Option<Prepared>,
    /// What must not be shown of it; nothing is known of that before its agent is about to start.
    scrubber: Scrubber,
}

impl Attempt {
    pub(crate) fn new(
        parts: Arc<Parts>,
        mut assignment: Assignment,
        commands: mpsc::Receiver<Command>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        network::take_newest(&mut assignment);
        let dir = parts.config.attempts_dir.join(assignment.attempt.to_string());
        Self {
            parts,
            assignment,
            commands,
            reports,
            dir,
            entered: None,
            scrubber: Scrubber::default(),
        }
    }

    /// Carries it out. Whatever happens, nothing of it is left when this returns; unless nobody
    /// listens any more, which means that another server will take it up.
    pub(crate) async fn run(mut self) {
        let outcome = match self.assignment.resume.clone() {
            None => self.begin().await,
            // On the heap: few attempts are taken up again, and every one would be as large as this.
            Some(resume) => Box::pin(self.resume(resume)).await,
        };
        let Some(outcome) = outcome else { return };
        self.leave_workspace().await;
        self.remove_all_but_saved().await;
        self.report(Report::Ended(outcome)).await;
        // Closed once the end is on record. Until then a later server needs what was saved.
        self.reports.closed().await;
        self.parts.remove_dir(&self.dir).await;
    }

    /// Frees the persistent workspace before anybody hears of the end, so that the next one finds it free; and
    /// tells what there is to tell of it.
    async fn leave_workspace(&mut self) {
        if self.assignment.spec.workspace.is_none() {
            return;
        }
        let saved = || Saved::read(&self.dir).map(|saved| saved.prepared);
        let Some(prepared) = self.entered.take().or_else(saved) else { return };
        match Box::pin(self.parts.workspaces.release_persistent(&prepared)).await {
            Ok(notes) => self.attention(&notes).await,
            // It is free when the attempt's directory is gone.
            Err(error) => warn!(%error, "a persistent workspace could not be released"),
        }
    }

    /// What is large goes before anybody hears of the end.
    async fn remove_all_but_saved(&self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name() != SAVED_FILE) {
            self.parts.remove_dir(&entry.path()).await;
        }
    }

    async fn begin(&mut self) -> Option<Outcome> {
        match self.provision().await {
            Ok(ready) => {
                self.scrubber = ready.scrubber.clone();
                self.announce(&ready.saved).await;
                self.carry_out(ready, Told::default()).await
            }
            Err(ProvisionError::Left) => None,
            Err(error) => Some(Outcome::ProvisionFailed {
                retry: error.retry(),
                failure: error.into_failure(),
            }),
        }
    }

    /// Goes on where an earlier server stopped.
    async fn resume(&mut self, resume: Resume) -> Option<Outcome> {
        let saved = Saved::read(&self.dir);
        if let Some(saved) = &saved {
            self.scrubber = masking::again(&self.parts, &self.assignment, saved).await;
        }
        let running = claim(&self.parts, &self.assignment).await;
        let Resume { stage, told } = resume;
        // Until its end is on record, what it spent is in no sum of the records.
        let spent = noted_spend(&self.dir);
        self.parts.config.money.recall(&self.assignment.tenant, &spent);
        let results = saved.as_ref().and_then(|saved| saved.results.clone());
        if let (ResumeStage::Ended(_), Some(results)) = (stage, results) {
            release(running).await;
            return Some(Outcome::Collected(Box::new(results)));
        }
        if let (Some(saved), ResumeStage::Placed | ResumeStage::Started) = (&saved, stage)
            && let Some(ended) = saved.ended.clone()
        {
            // It came to its end, and all of its output is taken; only its record lags behind.
            release(running).await;
            if stage != ResumeStage::Started {
                self.announce(saved).await;
            }
            return self.recount(saved.clone(), ended, told, true).await;
        }
        match (saved, running, stage) {
            (Some(saved), Some(mut running), ResumeStage::Placed | ResumeStage::Started) => {
                let (parts, assignment) = (&self.parts, &self.assignment);
                let session =
                    reopen_gateway(parts, assignment, &saved, running.as_mut(), spent).await;
                if stage != ResumeStage::Started {
                    self.announce(&saved).await;
                }
                let scrubber = self.scrubber.clone();
                let ready = Ready { saved, running, session, scrubber, lease: None };
                self.carry_out(ready, told).await
            }
            (saved, running, ResumeStage::Placed) => {
                let may_have_run = running.is_some()
                    || match &saved {
                        Some(saved) => !self.same_launcher(saved).await,
                        None => false,
                    };
                release(running).await;
                if may_have_run {
                    return Some(Outcome::ProvisionFailed { failure: lost(), retry: false });
                }
                self.begin_anew().await
            }
            (Some(saved), running, ResumeStage::Started) => {
                release(running).await;
                self.recount(saved, Ended::default(), told, true).await
            }
            (Some(saved), running, ResumeStage::Ended(code)) => {
                release(running).await;
                let exit = ExitReport { exit_code: code, ..ExitReport::default() };
                let ended = saved.ended.clone();
                let ended = ended.unwrap_or_else(|| Ended { exit: Some(exit), ..Ended::default() });
                self.recount(saved, ended, told, false).await
            }
            (None, running, stage) => {
                release(running).await;
                self.give_up(stage == ResumeStage::Started).await
            }
        }
    }

    /// The agent was not started, and the server's end is no fault of the run: it is the same attempt.
    async fn begin_anew(&mut self) -> Option<Outcome> {
        // A git of the dead server may still be at work in there. Moved away first, it cannot write
        // into what is made anew. The name is no attempt's: the next sweep would take it.
        let aside = self.dir.with_extension("old");
        self.parts.remove_dir(&aside).await;
        match std::fs::rename(&self.dir, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(%error, "a directory of an earlier server cannot be moved away");
            }
            _ => {}
        }
        self.parts.remove_dir(&aside).await;
        self.parts.remove_dir(&self.dir).await;
        self.begin().await
    }

    /// Ends an attempt of which nothing can be made: what was saved is gone, or its agent is not
    /// declared any more.
    async fn give_up(&mut self, report_end: bool) -> Option<Outcome> {
        if report_end {
            self.report(Report::AgentExited(ExitFacts::default())).await;
        }
        let spend = noted_spend(&self.dir);
        self.told_to_collect().await.then(|| nothing_left(spend))
    }

    async fn same_launcher(&self, saved: &Saved) -> bool {
        let host = self.parts.sandbox.host().await;
        host.is_ok_and(|host| host.launcher_pid == saved.launcher_pid)
    }

    /// Reads the output of an agent that is gone again, and concludes.
    async fn recount(
        &mut self,
        mut saved: Saved,
        ended: Ended,
        told: Told,
        report_end: bool,
    ) -> Option<Outcome> {
        let Some(agent) = self.parts.registry.get(&self.assignment.spec.agent).cloned() else {
            return self.give_up(report_end).await;
        };
        let mut parser = agent.parser();
        match OutputLog::open(&self.assignment.kept_dir, &self.dir, &self.scrubber) {
            Ok(log) => {
                let scrubber = self.scrubber.clone();
                let mut output = Output::new(log, scrubber, parser.as_mut(), &self.reports);
                if let Err(error) = output.replay(told).await {
                    warn!(%error, "the output of an agent cannot be read again");
                }
                output.finish().await;
            }
            Err(error) => warn!(%error, "the output of an agent cannot be read again"),
        }
        if report_end {
            saved.ended = Some(ended.clone());
            saved.keep(&self.dir);
            self.report(Report::AgentExited(exit_facts(&ended))).await;
        }
        if !self.told_to_collect().await {
            return None;
        }
        Some(self.conclude(agent.as_ref(), parser.finish(), &mut saved, &ended).await)
    }

    /// Tells the engine. When nobody listens any more, it makes no difference.
    async fn report(&self, report: Report) {
        if self.reports.send(report).await.is_err() {
            info!(attempt = %self.assignment.attempt, "nobody listens to this attempt any more");
        }
    }

    async fn event(&self, data: EventData) {
        self.report(Report::Event(masking::event(&self.scrubber, data))).await;
    }

    async fn attention(&self, notes: &[Note]) {
        attention(&self.reports, &self.scrubber, notes).await;
    }

    async fn phase(&self, name: &str, millis: u64, detail: Option<String>) {
        self.event(EventData::Phase { name: name.to_owned(), millis, detail }).await;
    }

    async fn provision(&mut self) -> Result<Ready, ProvisionError> {
        let _starting = self.parts.starting.begin();
        // Both sides are safe to drop half-way: git dies with its handle, a sandbox with its own.
        let steady = tokio::select! {
            biased;
            why = told_to_end(&mut self.commands) => return Err(why),
            steady = provision(&self.parts, &self.assignment, &self.dir, &mut self.entered) => steady?,
        };
        steady.start(&self.dir).await
    }

    /// Tells that the agent was started, and what is known since.
    async fn announce(&self, saved: &Saved) {
        let timings = saved.facts.timings;
        self.phase("fetch", timings.fetch_millis.unwrap_or(0), None).await;
        self.phase("checkout", timings.checkout_millis.unwrap_or(0), None).await;
        if let Some(millis) = timings.setup_millis {
            self.phase("setup", millis, None).await;
        }
        let worker = if timings.warm == Some(true) { "a warm worker" } else { "a new one" };
        let worker = Some(worker.to_owned());
        self.phase("sandbox", timings.sandbox_millis.unwrap_or(0), worker).await;
        self.attention(&saved.prepared.notes).await;
        self.report(Report::AgentStarted(Box::new(saved.facts.clone()))).await;
    }

    async fn carry_out(&mut self, ready: Ready, told: Told) -> Option<Outcome> {
        let Ready { mut saved, running, session, scrubber, lease } = ready;
        let Some(agent) = self.parts.registry.get(&self.assignment.spec.agent).cloned() else {
            release(Some(running)).await;
            return self.give_up(true).await;
        };
        // What is only known after preparing has served.
        saved.prepared.tracked_files.clear();
        saved.prepared.tracked_sizes.clear();
        let late = self.late_notes(saved.prepared.clone(), told);
        let mut parser = agent.parser();
        let ended = match OutputLog::open(&self.assignment.kept_dir, &self.dir, &scrubber) {
            Ok(log) => {
                let mut output = Output::new(log, scrubber.clone(), parser.as_mut(), &self.reports);
                if let Err(error) = output.replay(told).await {
                    warn!(%error, "the output of an agent cannot be read again");
                }
                let keep = |ended: &Ended| {
                    saved.ended = Some(ended.clone());
                    saved.keep(&self.dir);
                };
                let gatekeeper = session.map(|session| {
                    let network = self.assignment.network.clone();
                    let (dir, reports) = (self.dir.clone(), self.reports.clone());
                    Gatekeeper::begin(session, network, dir, reports, scrubber.clone())
                });
                let watching = watch(running, gatekeeper, output, &mut self.commands, keep);
                tokio::join!(watching, late).0
            }
            Err(error) => {
                warn!(%error, "the output of an agent cannot be kept; it is ended");
                release(Some(running)).await;
                Watched::Ended(Box::default())
            }
        };
        drop(lease);
        let Watched::Ended(ended) = ended else { return None };
        self.report(Report::AgentExited(exit_facts(&ended))).await;
        if !self.told_to_collect().await {
            return None;
        }
        Some(self.conclude(agent.as_ref(), parser.finish(), &mut saved, &ended).await)
    }

    /// Tells what takes too long to find out before the agent starts; a server that takes an attempt up again
    /// does not repeat it.
    fn late_notes(&self, prepared: Prepared, told: Told) -> impl Future<Output = ()> + use<> {
        let (workspaces, reports) = (self.parts.workspaces.clone(), self.reports.clone());
        let scrubber = self.scrubber.clone();
        async move {
            if told != Told::default() {
                return;
            }
            attention(&reports, &scrubber, &workspaces.late_notes(&prepared).await).await;
        }
    }

    /// Collects, checks, judges, and saves what came of it.
    async fn conclude(
        &self,
        agent: &dyn Agent,
        report: AgentReport,
        saved: &mut Saved,
        ended: &Ended,
    ) -> Outcome {
        let started = Instant::now();
        let sessions = if report.session_id.is_some() { agent.session_paths() } else { &[] };
        let keep = carry::keep_session(&self.parts, &self.assignment, &saved.prepared, sessions);
        let (collected, ()) = tokio::join!(self.collect(saved), keep);
        let checks = match &collected {
            Ok(_) => self.run_checks(&saved.prepared).await,
            Err(_) => Vec::new(),
        };
        let verdict = match &ended.exit {
            None => AgentVerdict::Failed(lost()),
            Some(exit) => verdict(agent, &report, exit, &collected),
        };
        // An agent that came to its end all the same had all it needed.
        let verdict = match (verdict, ended.account.exhausted) {
            (AgentVerdict::Failed(_), Some(exhausted)) => AgentVerdict::Failed(exhausted.failure()),
            (verdict, _) => verdict,
        };
        let mut results = ResultFacts {
            verdict,
            summary: report.summary,
            session_id: report.session_id,
            usage: report.usage,
            spend: self.spend(agent, saved, ended),
            files_changed: collected.ok().map(|collected| collected.files_changed),
            checks,
            collect_millis: millis_since(started),
        };
        masking::results(&self.scrubber, &mut results);
        saved.results = Some(results.clone());
        saved.keep(&self.dir);
        Outcome::Collected(Box::new(results))
    }

    /// What the gateway counted; `None` for an agent that had none.
    fn spend(&self, agent: &dyn Agent, saved: &Saved, ended: &Ended) -> Option<Spend> {
        agent.provider(&self.assignment.spec.model_id)?;
        let counted = ended.account.spend.clone();
        // Nobody was there to see it end: what was written down while it ran.
        Some(counted.unwrap_or_else(|| noted_spend(&saved.prepared.attempt_dir)))
    }

    /// Waits until the end of the agent is on record; `false` when nobody will ever say so.
    async fn told_to_collect(&mut self) -> bool {
        loop {
            match self.commands.recv().await {
                Some(Command::Collect) => return true,
                Some(Command::Abort | Command::Stop) => {}
                None => return false,
            }
        }
    }

    /// Turns what the agent left into diff, bundle and artifacts. git runs on the agent's files only
    /// inside a sandbox; the host reads nothing but the bundle that comes out.
    async fn collect(&self, saved: &Saved) -> Result<Collected, Failure> {
        let started = Instant::now();
        let prepared = &saved.prepared;
        let attempt = self.assignment.attempt;
        let job = self.parts.workspaces.collect_job(prepared, &saved.litter);
        let job = job.map_err(|error| not_collected(attempt, &error))?;
        let side = SideRun {
            id: format!("{}-collect", self.assignment.attempt),
            argv: job.argv,
            env: job.env,
            cwd: job.cwd,
            ro_binds: job.ro_binds,
            rw_binds: job.rw_binds,
            repository: job.overlay.map(|overlay| (overlay, prepared.inside.clone())),
            network: None,
            tier: self.assignment.spec.tier,
            seconds_max: COLLECT_SECONDS_MAX,
        };
        let mut ran = run_aside(&self.parts, side.clone()).await;
        for _ in 1..COLLECT_TRIES_MAX {
            // A launcher that dies takes this sandbox with it, but nothing of what is collected.
            if matches!(ran, Err(SandboxError::LauncherLost)) {
                ran = run_aside(&self.parts, side.clone()).await;
            }
        }
        let ran = ran.map_err(|error| not_collected(attempt, &error))?;
        if !ran.exit.success() {
            warn!(attempt = %self.assignment.attempt, output = ?ran.output, "collecting failed");
        }
        let collected = self.take_in(prepared).await?;
        self.attention(&collected.notes).await;
        self.phase("collect", millis_since(started), None).await;
        for (name, size_bytes) in &collected.artifacts {
            let (name, size_bytes) = (name.clone(), *size_bytes);
            self.event(EventData::ArtifactCreated { name, size_bytes }).await;
        }
        Ok(collected)
    }

    /// Checks and keeps what the sandbox left, without its secrets.
    async fn take_in(&self, prepared: &Prepared) -> Result<Collected, Failure> {
        let (attempt, kept) = (self.assignment.attempt, &self.assignment.kept_dir);
        let broken = |error| not_collected(attempt, &error);
        let stage = masking::stage(&self.parts, kept).await.map_err(broken)?;
        let ingested = self.parts.workspaces.ingest(prepared, &stage).await;
        let (collected, error) = match ingested {
            Ok(collected) => (Some(collected), None),
            Err(error) => (None, Some(not_collected(attempt, &error))),
        };
        let published = masking::publish(&self.parts, kept, &self.scrubber, collected).await;
        let (collected, notes) = published.map_err(broken)?;
        self.attention(&notes).await;
        collected.ok_or_else(|| error.unwrap_or_else(lost))
    }

    /// Runs the request's checks, each in a fresh sandbox on the agent's tree, one after the other. They are the
    /// task's own commands on the agent's own files, so they get nothing that the agent did not have. In a workspace
    /// of layers they share one of their own, and change nothing of what was collected.
    async fn run_checks(&self, prepared: &Prepared) -> Vec<CheckResult> {
        let mut results = Vec::new();
        let commands = &self.assignment.spec.checks;
        if commands.is_empty() {
            return results;
        }
        let layers = prepared.overlay.as_ref().map(|_| prepared.check_layers("run")).transpose();
        for (index, command) in commands.iter().enumerate() {
            let started = Instant::now();
            let ran = match &layers {
                Ok(layers) => {
                    let layers = layers.clone().map(|layers| (layers, prepared.inside.clone()));
                    let side = self.check(prepared, index, command, layers);
                    run_aside(&self.parts, side).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(format!("there is no room for it: {error}")),
            };
            let (passed, exit_code, mut output) = match ran {
                Ok(ran) => (ran.exit.success(), ran.exit.exit_code, ran.output),
                Err(error) => (false, None, error),
            };
            debug_assert!(output.len() <= OUTPUT_TAIL_BYTES_MAX);
            masking::tail(&self.scrubber, &mut output);
            let millis = millis_since(started);
            let verdict = if passed { "passed" } else { "failed" };
            self.phase("check", millis, Some(format!("{verdict}: {command}"))).await;
            let command = command.clone();
            results.push(CheckResult { command, passed, exit_code, millis, output });
        }
        results
    }

    fn check(
        &self,
        prepared: &Prepared,
        index: usize,
        command: &str,
        repository: Option<(RepoOverlay, PathBuf)>,
    ) -> SideRun {
        SideRun {
            id: format!("{}-check-{index}", self.assignment.attempt),
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()],
            env: Vec::new(),
            cwd: format!("{}/repo", prepared.inside.display()),
            ro_binds: prepared.ro_binds.clone(),
            rw_binds: vec![(prepared.dir.clone(), prepared.inside.clone())],
            repository,
            network: None,
            tier: self.assignment.spec.tier,
            seconds_max: CHECK_SECONDS_MAX,
        }
    }
}

/// The failure for results that are not to be had; its cause stays in the server's log.
fn not_collected(attempt: AttemptId, error: &(dyn std::error::Error + 'static)) -> Failure {
    warn!(%attempt, error, "the results of an attempt could not be collected");
    Failure::new(FailureCode::Collect, error.to_string())
        .with_hint("The agent's output is kept; dispatch the task again for its changes.")
}

/// Tells the user what is no error.
async fn attention(reports: &mpsc::Sender<Report>, scrubber: &Scrubber, notes: &[Note]) {
    for Note { code, message } in notes {
        let attention = Attention { code: code.to_string(), message: message.clone() };
        let event = masking::event(scrubber, EventData::Attention(attention));
        if reports.send(Report::Event(event)).await.is_err() {
            // Nobody listens to this attempt any more.
            return;
        }
    }
}

async fn told_to_end(commands: &mut mpsc::Receiver<Command>) -> ProvisionError {
    loop {
        match commands.recv().await {
            Some(Command::Abort | Command::Stop) => return ProvisionError::Aborted,
            None => return ProvisionError::Left,
            Some(Command::Collect) => {}
        }
    }
}

pub(crate) fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn exit_facts(ended: &Ended) -> ExitFacts {
    ExitFacts {
        code: ended.exit.as_ref().and_then(|exit| exit.exit_code),
        first_output_millis: ended.first_output_millis,
    }
}

/// What the agent's account, its end and its workspace say together.
fn verdict(
    agent: &dyn Agent,
    report: &AgentReport,
    exit: &ExitReport,
    collected: &Result<Collected, Failure>,
) -> AgentVerdict {
    let exit = Exit {
        code: exit.exit_code,
        signal: exit.signal,
        oom: exit.oom_killed,
        disk_full: exit.disk_limit_hit,
    };
    let changed = collected.as_ref().is_ok_and(|collected| collected.changed);
    match (judge(agent.profile(), report, &exit, changed), collected) {
        (Verdict::Failed(failure), _) => AgentVerdict::Failed(failure),
        (Verdict::Completed, Err(failure)) => AgentVerdict::Failed(failure.clone()),
        (Verdict::Completed, Ok(_)) => AgentVerdict::Completed,
    }
}

/// The outcome of an attempt of which nothing but its record is left.
fn nothing_left(spend: Spend) -> Outcome {
    let spend = Some(spend).filter(|spend| spend.calls > 0);
    let verdict = AgentVerdict::Failed(lost());
    Outcome::Collected(Box::new(ResultFacts { spend, ..ResultFacts::of(verdict) }))
}

async fn release(running: Option<Box<dyn RunningSandbox>>) {
    if let Some(running) = running
        && let Err(error) = running.release().await
    {
        warn!(%error, "a sandbox could not be released");
    }
}
