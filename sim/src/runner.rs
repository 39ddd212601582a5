//! The model runner: one attempt from assignment to report, in the order of steps of the local fleet.
//! Workspace, gateway and output are left out; what was saved, what runs, and what was told are not.

use std::cell::Cell;
use std::rc::Rc;

use outpost_core::{AgentVerdict, ExitFacts, PreparedFacts, ResultFacts};
use outpost_types::limits::STOP_GRACE_SECONDS;
use outpost_types::{AttemptId, Failure, FailureCode};

use crate::host::{self, Ended, Exit, Found, Handle, Phase, Saved};
use crate::plan::{Job, Mutant, Provision};
use crate::sched::{First, Pipe, first};
use crate::server::{Live, Server};
use crate::world::World;

/// How far an earlier server came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resume {
    pub(crate) stage: ResumeStage,
}

/// The last thing on record of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResumeStage {
    Placed { rebooted: bool },
    Started,
    Ended(Option<i32>),
}

/// What the server tells a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Abort,
    Stop,
    Collect,
}

/// What a runner tells the server.
#[derive(Debug)]
pub(crate) enum Report {
    Started(Box<PreparedFacts>),
    Exited(ExitFacts),
    Ended(Outcome),
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    ProvisionFailed { failure: Failure, retry: bool },
    Collected(Box<ResultFacts>),
}

/// Why there is no agent running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProvisionError {
    Aborted,
    Left,
    /// No workspace; another try may help.
    Workspace(bool),
    Collides,
    /// The launcher died before it was told to start the agent.
    LauncherLost,
    /// The launcher died after it was told; whether it did is not known.
    StartLost,
}

/// The failure of an attempt whose sandbox is gone.
pub(crate) fn lost() -> Failure {
    Failure::new(FailureCode::LostWorker, "The agent's sandbox vanished while it worked.")
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct Runner {
    world: Rc<World>,
    server: Rc<Server>,
    attempt: AttemptId,
    job: Job,
    commands: Rc<Pipe<Command>>,
    reports: Rc<Pipe<Report>>,
    /// The agent may have been started.
    go_sent: Cell<bool>,
    /// The server lets go of its attempts.
    leaving: Cell<bool>,
}

/// A parked sandbox that is destroyed when it is dropped before its start.
struct Parked<'a> {
    runner: &'a Runner,
    handle: Option<Handle>,
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let runner = self.runner;
        let Some(handle) = self.handle.take().filter(|_| !runner.server.is_dead()) else { return };
        // An agent that may run is left to the next server.
        let keep = runner.leaving.get() && runner.go_sent.get();
        if !keep || runner.world.has(Mutant::AbsentMeansNeverStarted) {
            runner.world.host.borrow_mut().release(handle);
            runner.world.host_changed.notify();
        }
    }
}

impl Runner {
    pub(crate) fn new(
        server: &Rc<Server>,
        live: &Live,
        attempt: AttemptId,
        commands: Rc<Pipe<Command>>,
        reports: Rc<Pipe<Report>>,
    ) -> Self {
        let world = Rc::clone(&server.world);
        let job = crate::client::job_of(&world.plan, &live.snapshot()).clone();
        let server = Rc::clone(server);
        let (go_sent, leaving) = (Cell::new(false), Cell::new(false));
        Self { world, server, attempt, job, commands, reports, go_sent, leaving }
    }

    /// Carries it out.
    pub(crate) async fn run(&self, resume: Option<Resume>) {
        let outcome = match resume {
            None => self.begin().await,
            Some(resume) => self.resume(resume.stage).await,
        };
        let Some(outcome) = outcome else { return };
        if self.world.has(Mutant::RemovedBeforeRecorded) {
            self.world.host.borrow_mut().dirs.remove(&self.attempt);
        }
        self.world.point("run: over").await;
        self.reports.send(Report::Ended(outcome));
    }

    async fn begin(&self) -> Option<Outcome> {
        let made = match first(self.told_to_end(), self.provision()).await {
            First::One(why) => Err(why),
            First::Two(made) => made,
        };
        match made {
            Ok(handle) => {
                self.reports.send(Report::Started(Box::default()));
                self.carry_out(handle).await
            }
            Err(ProvisionError::Left) => {
                if !self.go_sent.get() {
                    // Nothing ran, and the next server shall know.
                    self.save(None);
                }
                None
            }
            Err(error) => Some(self.not_made(error)),
        }
    }

    fn not_made(&self, error: ProvisionError) -> Outcome {
        let retry = match error {
            ProvisionError::Workspace(retry) => retry,
            ProvisionError::LauncherLost => true,
            ProvisionError::StartLost => self.world.has(Mutant::LostStartRetried),
            ProvisionError::Aborted | ProvisionError::Left | ProvisionError::Collides => false,
        };
        if error == ProvisionError::Collides {
            self.world.violated(format_args!("{} is made a second time", self.attempt));
        }
        let failure = match error {
            ProvisionError::StartLost => lost(),
            _ => Failure::new(FailureCode::Provisioning, "The worker could not be made."),
        };
        Outcome::ProvisionFailed { failure, retry }
    }

    async fn told_to_end(&self) -> ProvisionError {
        loop {
            match self.commands.receive().await {
                Some(Command::Abort | Command::Stop) => return ProvisionError::Aborted,
                Some(Command::Collect) => {}
                None => {
                    self.leaving.set(true);
                    return ProvisionError::Left;
                }
            }
        }
    }

    async fn provision(&self) -> Result<Handle, ProvisionError> {
        let world = &self.world;
        let index = (self.attempt.number as usize).min(self.job.provisions.len()) - 1;
        let Provision { millis, fails } = self.job.provisions[index];
        world.point("provision: workspace").await;
        world.check.borrow_mut().external(world, self.attempt);
        world.host.borrow_mut().dirs.insert(self.attempt, None);
        world.sleep_millis(millis).await;
        if let Some(retry) = fails {
            return Err(ProvisionError::Workspace(retry));
        }
        world.point("provision: sandbox").await;
        world.check.borrow_mut().external(world, self.attempt);
        let made = world.host.borrow_mut().create(self.attempt, self.job.behaviour);
        let mut parked = Parked { runner: self, handle: made };
        let Some(handle) = made else { return Err(ProvisionError::Collides) };
        world.point("provision: parked").await;
        let launcher_pid = world.host.borrow_mut().launcher_pid();
        self.save(Some(Saved { launcher_pid, ended: None }));
        world.point("provision: saved").await;
        self.go_sent.set(true);
        if !host::go(world, handle, self.job.timeout_seconds) {
            return Err(ProvisionError::LauncherLost);
        }
        world.point("provision: go sent").await;
        if world.host.borrow_mut().ended(handle).is_err() {
            return Err(ProvisionError::StartLost);
        }
        parked.handle = None;
        Ok(handle)
    }

    fn saved(&self) -> Option<Saved> {
        self.world.host.borrow().dirs.get(&self.attempt).copied().flatten()
    }

    fn save(&self, saved: Option<Saved>) {
        if let Some(slot) = self.world.host.borrow_mut().dirs.get_mut(&self.attempt) {
            *slot = saved;
        }
    }

    // ---- an earlier server's attempt ----

    async fn resume(&self, stage: ResumeStage) -> Option<Outcome> {
        self.world.point("resume").await;
        let saved = self.saved();
        let found = self.server.found.borrow_mut().remove(&self.attempt);
        match (saved, found, stage) {
            (Some(_), Some(Found::Running(handle)), ResumeStage::Placed { .. }) => {
                self.reports.send(Report::Started(Box::default()));
                self.carry_out(handle).await
            }
            (Some(_), Some(Found::Running(handle)), ResumeStage::Started) => {
                self.carry_out(handle).await
            }
            (Some(Saved { ended: Some(ended), .. }), found, ResumeStage::Placed { .. })
                if !self.world.has(Mutant::SavedEndIgnored) =>
            {
                // The agent was done before its start could be recorded.
                self.discard(found);
                self.reports.send(Report::Started(Box::default()));
                self.reports.send(Report::Exited(exit_facts(ended)));
                self.conclude(ended).await
            }
            (saved, found, ResumeStage::Placed { rebooted }) => {
                if self.certainly_never_ran(saved, found, rebooted) {
                    // The server's end is no fault of the run: it is the same attempt.
                    self.world.host.borrow_mut().dirs.remove(&self.attempt);
                    self.world.point("begin anew").await;
                    return self.begin().await;
                }
                Some(Outcome::ProvisionFailed { failure: lost(), retry: false })
            }
            (Some(saved), found, ResumeStage::Started) => {
                self.discard(found);
                let ended = saved.ended.unwrap_or_default();
                self.reports.send(Report::Exited(exit_facts(ended)));
                self.conclude(ended).await
            }
            (Some(saved), found, ResumeStage::Ended(code)) => {
                self.discard(found);
                let ended = saved.ended.unwrap_or(Ended { exit: Some(Exit { code }) });
                self.conclude(ended).await
            }
            (None, found, stage) => {
                self.discard(found);
                if stage == ResumeStage::Started {
                    self.reports.send(Report::Exited(ExitFacts::default()));
                }
                self.conclude(Ended::default()).await
            }
        }
    }

    /// Whether an attempt of which it is not on record that its agent was started may begin anew.
    fn certainly_never_ran(
        &self,
        saved: Option<Saved>,
        found: Option<Found>,
        rebooted: bool,
    ) -> bool {
        let was_found = found.is_some();
        let phase = self.discard(found);
        if self.world.has(Mutant::RetryAfterBegin) {
            return true;
        }
        if self.world.has(Mutant::AbsentMeansNeverStarted) || self.world.has(Mutant::BootNotedFirst)
        {
            let pid = self.world.host.borrow_mut().launcher_pid();
            return !(rebooted || saved.is_some_and(|saved| saved.launcher_pid != pid));
        }
        match saved {
            None => !rebooted,
            Some(_) if was_found && phase == Some(Phase::Parked) => {
                // It certainly never ran; a server after this one shall know that, too.
                self.save(None);
                true
            }
            Some(_) => false,
        }
    }

    fn discard(&self, found: Option<Found>) -> Option<Phase> {
        let (Found::Parked(handle) | Found::Running(handle)) = found?;
        let phase = self.world.host.borrow_mut().release(handle);
        self.world.host_changed.notify();
        phase
    }

    // ---- the agent runs ----

    async fn carry_out(&self, handle: Handle) -> Option<Outcome> {
        let world = &self.world;
        let exit = match self.watch(handle).await {
            Watched::Left => return None,
            Watched::Ended(exit) => exit,
        };
        let ended = Ended { exit };
        let saved = self.saved().map(|saved| Saved { ended: Some(ended), ..saved });
        world.point("run: agent ended").await;
        if world.has(Mutant::ReleasedBeforeSaved) {
            world.host.borrow_mut().release(handle);
            world.point("run: released").await;
            self.save(saved);
        } else {
            self.save(saved);
            world.point("run: end saved").await;
            world.host.borrow_mut().release(handle);
        }
        world.point("run: report the end").await;
        self.reports.send(Report::Exited(exit_facts(ended)));
        self.conclude(ended).await
    }

    /// Follows the agent to its end, or to ours.
    async fn watch(&self, handle: Handle) -> Watched {
        const LONG_MICROS: u64 = 3_600_000_000;
        let world = &self.world;
        let mut kill_at: Option<u64> = None;
        loop {
            let ended = world.host_changed.until(|| {
                world.host.borrow_mut().ended(handle).map(|end| end.map(Some)).unwrap_or(Some(None))
            });
            let at = kill_at.unwrap_or_else(|| world.micros() + LONG_MICROS);
            let nap = crate::sched::sleep_micros(&world.sched, at.saturating_sub(world.micros()));
            match first(ended, first(self.commands.receive(), nap)).await {
                First::One(exit) => return Watched::Ended(exit),
                First::Two(First::One(None)) => return Watched::Left,
                First::Two(First::One(Some(Command::Stop | Command::Abort)))
                    if kill_at.is_none() =>
                {
                    if host::term(world, handle).is_err() {
                        return Watched::Ended(None);
                    }
                    if !world.has(Mutant::NoKill) {
                        kill_at = Some(world.micros() + STOP_GRACE_SECONDS * 1_000_000);
                    }
                }
                First::Two(First::One(Some(_))) => {}
                First::Two(First::Two(())) if kill_at.is_some() => {
                    if host::kill(world, handle).is_err() {
                        return Watched::Ended(None);
                    }
                    kill_at = None;
                }
                First::Two(First::Two(())) => {}
            }
        }
    }

    /// Waits until the end of the agent is on record, then collects.
    async fn conclude(&self, ended: Ended) -> Option<Outcome> {
        loop {
            match self.commands.receive().await {
                Some(Command::Collect) => break,
                Some(Command::Abort | Command::Stop) => {}
                None => return None,
            }
        }
        self.world.point("collect").await;
        self.world.sleep_millis(self.job.collect_millis).await;
        self.world.point("collected").await;
        let verdict = match (ended.exit, self.saved()) {
            (None, _) | (_, None) => AgentVerdict::Failed(lost()),
            (Some(exit), Some(_)) => verdict(exit),
        };
        Some(Outcome::Collected(Box::new(ResultFacts {
            collect_millis: self.job.collect_millis,
            ..ResultFacts::of(verdict)
        })))
    }
}

enum Watched {
    /// How it ended; `None` when its launcher is gone.
    Ended(Option<Exit>),
    /// It goes on without us.
    Left,
}

const fn exit_facts(ended: Ended) -> ExitFacts {
    let code = match ended.exit {
        Some(exit) => exit.code,
        None => None,
    };
    ExitFacts { code, first_output_millis: None }
}

fn verdict(exit: Exit) -> AgentVerdict {
    const OOM_CODE: i32 = 137;
    match exit.code {
        Some(0) => AgentVerdict::Completed,
        Some(OOM_CODE) => AgentVerdict::Failed(Failure::new(FailureCode::Oom, "Out of memory.")),
        _ => AgentVerdict::Failed(Failure::new(FailureCode::AgentExit, "The agent failed.")),
    }
}
