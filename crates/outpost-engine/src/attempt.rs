//! One attempt: a task that carries it out, and one that records what it reports.

use std::sync::Arc;

use outpost_core::Event;
use outpost_runner::{Assignment, COMMANDS_MAX, Outcome, REPORTS_MAX, Report, Resume};
use outpost_types::{AttemptId, Failure};
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::effects::lock;
use crate::engine::Engine;
use crate::live::Live;
use crate::tasks::TaskKind;

/// Starts the attempt, or takes it up again. The record that names it is durable already.
pub(crate) fn start(engine: &Engine, live: &Arc<Live>, attempt: AttemptId, resume: Option<Resume>) {
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (reports, reports_in) = mpsc::channel(REPORTS_MAX);
    *lock(&live.commands) = Some(commands);
    // Before the record: what changes in between is told again instead of missed.
    let network = live.network.subscribe();
    let record = live.snapshot();
    let assignment = Assignment {
        attempt,
        network,
        tenant: record.tenant,
        spec: record.spec,
        kept_dir: live.journal.dir().to_owned(),
        resume,
    };
    let tasks = &engine.inner.tasks;
    let runner = Arc::clone(&engine.inner.runner);
    tasks.spawn(TaskKind::Attempt, attempt, async move {
        runner.run(assignment, commands_in, reports).await;
    });
    let recorder = record_reports(engine.clone(), Arc::clone(live), attempt, reports_in);
    tasks.spawn(TaskKind::Recorder, attempt, recorder);
}

async fn record_reports(
    engine: Engine,
    live: Arc<Live>,
    attempt: AttemptId,
    mut reports: mpsc::Receiver<Report>,
) {
    while let Some(report) = reports.recv().await {
        let is_end = matches!(report, Report::Ended(_));
        let event = match report {
            Report::OutputEnd(end) => {
                live.journal.output_end(end);
                continue;
            }
            Report::AgentEvent { log_offset, data } => {
                let at = engine.now();
                if let Err(error) = live.journal.event(at, Some(log_offset), data) {
                    error!(%error, %attempt, "an event of an agent could not be kept");
                }
                continue;
            }
            Report::Event(data) => {
                engine.tell_of_budget(&live, &data).await;
                engine.write_event(&live, data);
                continue;
            }
            Report::Parked { millis } => {
                Event::Parked { attempt, until: engine.now().plus_millis(millis) }
            }
            Report::AgentStarted(prepared) => Event::AgentStarted { attempt, prepared },
            Report::AgentExited(exit) => Event::AgentExited { attempt, exit },
            Report::Ended(Outcome::ProvisionFailed { failure, retry }) => {
                let Failure { code, message, .. } = &failure;
                warn!(%attempt, ?code, %message, retry, "an attempt could not be provisioned");
                Event::ProvisionFailed { attempt, failure, retry }
            }
            Report::Ended(Outcome::Collected(results)) => Event::Collected { attempt, results },
        };
        let recorded = engine.apply_surely(&live, event).await;
        if is_end && !recorded {
            // The runner keeps what the next server needs to find out for as long as we listen, and
            // that is to the end of this server.
            return std::future::pending().await;
        }
        if is_end {
            // The runner removes what it saved for a later server once nobody listens.
            break;
        }
    }
    // After an end nothing holds a slot; without one the runner left, or died.
    let record = live.snapshot();
    let is_over = record.attempt_id() != Some(attempt) || !record.holds_slot();
    if !is_over && !engine.inner.tasks.closing().is_cancelled() {
        engine.apply_surely(&live, Event::WorkerLost { attempt }).await;
    }
}
