//! One attempt: a task that carries it out, and one that records what it reports.

use std::sync::Arc;

use outpost_core::Event;
use outpost_runner::{Assignment, COMMANDS_MAX, Outcome, REPORTS_MAX, Report};
use outpost_types::{Attention, AttemptId, EventData};
use tokio::sync::mpsc;
use tracing::error;

use crate::effects::lock;
use crate::engine::{Engine, Live};
use crate::tasks::TaskKind;

/// Starts the attempt. The record that names it is durable already.
pub(crate) fn start(engine: &Engine, live: &Arc<Live>, attempt: AttemptId) {
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (reports, reports_in) = mpsc::channel(REPORTS_MAX);
    *lock(&live.commands) = Some(commands);
    let record = live.snapshot();
    let assignment = Assignment {
        attempt,
        tenant: record.tenant,
        spec: record.spec,
        kept_dir: live.journal.dir().to_owned(),
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
        let event = match report {
            Report::Output(bytes) => {
                if let Err(error) = live.journal.output(&bytes) {
                    error!(%error, %attempt, "output of an agent could not be kept");
                }
                continue;
            }
            Report::Event(data) => {
                engine.write_event(&live, data);
                continue;
            }
            Report::AgentStarted(prepared) => Event::AgentStarted { attempt, prepared },
            Report::AgentExited(exit) => Event::AgentExited { attempt, exit },
            Report::Ended(Outcome::ProvisionFailed { failure, retry }) => {
                Event::ProvisionFailed { attempt, failure, retry }
            }
            Report::Ended(Outcome::Collected(results)) => {
                warn_of_dropped_output(&engine, &live);
                Event::Collected { attempt, results }
            }
        };
        engine.apply_surely(&live, event).await;
    }
    // After an end this changes nothing; without one, the runner died.
    let record = live.snapshot();
    if record.attempt_id() == Some(attempt) && record.holds_slot() {
        engine.apply_surely(&live, Event::WorkerLost { attempt }).await;
    }
}

fn warn_of_dropped_output(engine: &Engine, live: &Live) {
    let dropped = live.journal.dropped_bytes();
    if dropped > 0 {
        let message = format!("The last {dropped} bytes of output are over the bound and were not kept.");
        let attention = Attention { code: "output_truncated".to_owned(), message };
        engine.write_event(live, EventData::Attention(attention));
    }
}
