//! One attempt of the model server: a task that carries it out, and one that records what it reports.

use std::rc::Rc;

use outpost_core::Event;
use outpost_types::AttemptId;

use crate::plan::Mutant;
use crate::runner::{Outcome, Report, Resume, Runner};
use crate::sched::Pipe;
use crate::server::{Live, Server};

/// Longest time after which a report comes once more, milliseconds: while the next attempt is being
/// made, or long after.
const REPEAT_MILLIS_MAX: [u64; 2] = [2_500, 20_000];

/// Starts the attempt, or takes it up again.
pub(crate) fn start(
    server: &Rc<Server>,
    live: &Rc<Live>,
    attempt: AttemptId,
    resume: Option<Resume>,
) {
    let (commands, reports) = (Rc::new(Pipe::default()), Rc::new(Pipe::default()));
    if let Some(former) = live.commands.replace(Some(Rc::clone(&commands))) {
        former.close();
    }
    let runner = Runner::new(server, live, attempt, commands, Rc::clone(&reports));
    let ended = Rc::clone(&reports);
    server.spawn_waited(async move {
        runner.run(resume).await;
        ended.close();
    });
    let recording = record_reports(Rc::clone(server), Rc::clone(live), attempt, reports);
    server.spawn_waited(recording);
}

async fn record_reports(
    server: Rc<Server>,
    live: Rc<Live>,
    attempt: AttemptId,
    reports: Rc<Pipe<Report>>,
) {
    while let Some(report) = reports.receive().await {
        let event = event_of(attempt, report);
        server.world.point("report").await;
        if server.world.fault(server.world.plan.faults.repeat) {
            repeat(&server, &live, event.clone());
        }
        server.apply_surely(&live, event).await;
    }
    let record = live.snapshot();
    let is_over = record.attempt_id() != Some(attempt) || !record.holds_slot();
    if !is_over && !server.closing.get() {
        server.apply_surely(&live, Event::WorkerLost { attempt }).await;
    }
}

fn event_of(attempt: AttemptId, report: Report) -> Event {
    match report {
        Report::Started(prepared) => Event::AgentStarted { attempt, prepared },
        Report::Exited(exit) => Event::AgentExited { attempt, exit },
        Report::Ended(Outcome::ProvisionFailed { failure, retry }) => {
            Event::ProvisionFailed { attempt, failure, retry }
        }
        Report::Ended(Outcome::Collected(results)) => Event::Collected { attempt, results },
    }
}

/// The same report comes once more, when it may be about an attempt that is over.
fn repeat(server: &Rc<Server>, live: &Rc<Live>, event: Event) {
    let (server_later, live) = (Rc::clone(server), Rc::clone(live));
    server.spawn(async move {
        let world = &server_later.world;
        let [soon, late] = REPEAT_MILLIS_MAX;
        let most = if world.range(0, 1) == 0 { soon } else { late };
        world.sleep_millis(world.range(0, most)).await;
        let current = live.snapshot().attempt_id();
        let event = match (event, current) {
            (event, Some(current)) if world.has(Mutant::TrustStale) => readdressed(event, current),
            (event, _) => event,
        };
        server_later.apply_surely(&live, event).await;
    });
}

fn readdressed(event: Event, attempt: AttemptId) -> Event {
    match event {
        Event::AgentStarted { prepared, .. } => Event::AgentStarted { attempt, prepared },
        Event::AgentExited { exit, .. } => Event::AgentExited { attempt, exit },
        Event::ProvisionFailed { failure, retry, .. } => {
            Event::ProvisionFailed { attempt, failure, retry }
        }
        Event::Collected { results, .. } => Event::Collected { attempt, results },
        other => other,
    }
}
