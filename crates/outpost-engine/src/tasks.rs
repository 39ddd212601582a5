//! Every task of the engine has a name and a policy for the moment of shutdown and for a panic.
//! There is no anonymous spawn.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
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

/// What a panic said, if it was a text.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
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
        subject: impl fmt::Display + Send + 'static,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let closing = self.closing.clone();
        let work = async move {
            if kind.is_waited_for() {
                work.await;
            } else {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = work => {}
                }
            }
        };
        self.tracker.spawn(async move {
            // What a panic left behind is seen by nobody: the work is dropped with it.
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                let fault = panic_text(panic.as_ref());
                error!(task = %kind, %subject, fault, "task ended badly");
            }
        });
    }

    /// Starts a task of a caller and waits for its answer; `None` when it panicked.
    pub async fn finish<T: Send + 'static>(
        &self,
        subject: impl fmt::Display + Send + 'static,
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

    /// Tells every task that can be aborted to end, and the others that the engine is closing.
    pub fn begin_closing(&self) {
        self.closing.cancel();
    }

    /// Tells every task to end and waits for those that must be waited for, at most `bound`.
    pub async fn close(&self, bound: Duration) {
        self.begin_closing();
        self.tracker.close();
        if tokio::time::timeout(bound, self.tracker.wait()).await.is_err() {
            warn!(tasks = self.tracker.len(), "gave up waiting for tasks");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_only_its_task() {
        let tasks = Tasks::default();
        let lost: Option<u32> = tasks.finish("bad", async { panic!("on purpose") }).await;
        assert_eq!(lost, None);
        assert_eq!(tasks.finish("good", async { 7 }).await, Some(7));
        tasks.close(Duration::from_secs(5)).await;
        assert!(tasks.tracker.is_empty());
    }

    #[test]
    fn what_a_panic_said() {
        let said: [Box<dyn Any + Send>; 3] =
            [Box::new("a"), Box::new(String::from("b")), Box::new(3)];
        let texts: Vec<_> = said.iter().map(|panic| panic_text(panic.as_ref())).collect();
        assert_eq!(texts, ["a", "b", "no text"]);
    }
}
