//! Every task of the engine has a name and a policy for the moment of shutdown and for a panic.
//! There is no anonymous spawn.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

/// What a task is for, and so how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Gives out slots. Aborted at shutdown: it holds no state.
    Placer,
    /// Carries out one attempt. Told to end at shutdown and waited for: it owns a sandbox.
    Attempt,
    /// Records what one attempt reports. Waited for: it owns the end of the logs.
    Recorder,
    /// Carries out what a caller asked for. Waited for: once begun it is finished, even when the
    /// caller hangs up, because half of it may be durable already.
    Request,
    /// Waits for an instant. Aborted at shutdown: the record says when.
    Timer,
}

impl TaskKind {
    const fn is_waited_for(self) -> bool {
        matches!(self, Self::Attempt | Self::Recorder | Self::Request)
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Placer => "placer",
            Self::Attempt => "attempt",
            Self::Recorder => "recorder",
            Self::Request => "request",
            Self::Timer => "timer",
        })
    }
}

/// All tasks of one engine.
#[derive(Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    closing: CancellationToken,
}

impl Tasks {
    /// Starts a task. A panic in it is logged as an error; the engine goes on.
    pub fn spawn(
        &self,
        kind: TaskKind,
        subject: impl fmt::Display,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let subject = subject.to_string();
        let closing = self.closing.clone();
        let inner = tokio::spawn(async move {
            if kind.is_waited_for() {
                work.await;
            } else {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = work => {}
                }
            }
        });
        self.tracker.spawn(async move {
            if let Err(fault) = inner.await {
                error!(task = %kind, %subject, %fault, "task ended badly");
            }
        });
    }

    /// Starts a task of a caller and waits for its answer; `None` when it panicked.
    pub async fn finish<T: Send + 'static>(
        &self,
        subject: impl fmt::Display,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.spawn(TaskKind::Request, subject, async move {
            // A caller that hung up does not want to know.
            let _ = answer.send(work.await);
        });
        answered.await.ok()
    }

    /// Whether the engine is closing.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Tells every task to end and waits for those that must be waited for, at most `bound`.
    pub async fn close(&self, bound: Duration) {
        self.closing.cancel();
        self.tracker.close();
        if tokio::time::timeout(bound, self.tracker.wait()).await.is_err() {
            warn!(tasks = self.tracker.len(), "gave up waiting for tasks");
        }
    }
}
