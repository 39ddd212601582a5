//! Every task of the engine has a name and a policy for the moment of shutdown and for a panic.
//! There is no anonymous spawn.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::effects::lock;

/// How often a shutdown says whom it waits for, seconds.
const SAY_SECONDS: u64 = 2;
/// Most names it says at once.
const NAMES_MAX: usize = 8;

/// What a task is for, and so how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Gives out slots and watches deadlines. Aborted at shutdown: it holds no state.
    Placer,
    /// The fleet's own work beside attempts. Aborted at shutdown: what it holds goes with the fleet.
    Fleet,
    /// Brings what is in step with what should be, again and again. Aborted at shutdown: each of its steps is
    /// whole, and the next server's goes on.
    Reconciler,
    /// Carries out one promotion. Aborted at shutdown: the next server goes on with it.
    Promotion,
    /// Carries out one attempt. Told to end at shutdown and waited for: it owns a sandbox.
    Attempt,
    /// Records what one attempt reports. Waited for: it owns the end of the logs.
    Recorder,
    /// Carries out what a caller asked for. Waited for: once begun it is finished, even when the
    /// caller hangs up, because half of it may be durable already.
    Request,
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
            Self::Fleet => "fleet",
            Self::Reconciler => "reconciler",
            Self::Promotion => "promotion",
            Self::Attempt => "attempt",
            Self::Recorder => "recorder",
            Self::Request => "request",
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
    next: AtomicU64,
    holders: Arc<Holders>,
}

type Name = (TaskKind, Box<dyn fmt::Display + Send>);

/// Those that a shutdown waits for, by number.
#[derive(Default)]
struct Holders(Mutex<BTreeMap<u64, Name>>);

impl fmt::Debug for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Holders {
    /// The first of them.
    fn names(&self) -> Vec<String> {
        let held = lock(&self.0);
        held.values().take(NAMES_MAX).map(|(kind, subject)| format!("{kind} {subject}")).collect()
    }
}

impl Tasks {
    /// Starts a task. A panic in it is logged as an error; the engine goes on.
    pub fn spawn(
        &self,
        kind: TaskKind,
        subject: impl fmt::Display + Send + Clone + 'static,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let closing = self.closing.clone();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if kind.is_waited_for() {
            lock(&self.holders.0).insert(number, (kind, Box::new(subject.clone())));
        }
        let holders = Arc::clone(&self.holders);
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
            lock(&holders.0).remove(&number);
        });
    }

    /// Starts a task of a caller and waits for its answer; `None` when it panicked.
    pub async fn finish<T: Send + 'static>(
        &self,
        subject: impl fmt::Display + Send + Clone + 'static,
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

    /// Tells every task to end and waits for those that must be waited for, at most `bound`. Says
    /// whom it waits for, and answers with whom it gave up on: the first names of them.
    pub async fn close(&self, bound: Duration) -> Vec<String> {
        self.begin_closing();
        self.tracker.close();
        let end = Instant::now() + bound;
        loop {
            let say = end.min(Instant::now() + Duration::from_secs(SAY_SECONDS));
            if timeout_at(say, self.tracker.wait()).await.is_ok() {
                return Vec::new();
            }
            let (count, names) = (self.tracker.len(), self.holders.names());
            if Instant::now() >= end {
                warn!(count, ?names, "gave up waiting for tasks");
                return names;
            }
            info!(count, ?names, "waiting for tasks");
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
        assert_eq!(tasks.close(Duration::from_secs(5)).await, [] as [String; 0]);
        assert!(tasks.tracker.is_empty());
    }

    #[tokio::test]
    async fn a_shutdown_names_whom_it_gave_up_on() {
        let tasks = Tasks::default();
        tasks.spawn(TaskKind::Recorder, "01ABC-1", std::future::pending());
        tasks.spawn(TaskKind::Placer, "all", std::future::pending());
        let (ended, end) = oneshot::channel();
        tasks.spawn(TaskKind::Attempt, "01ABC-1", async {
            end.await.unwrap();
        });
        ended.send(()).unwrap();
        assert_eq!(tasks.close(Duration::from_millis(200)).await, ["recorder 01ABC-1"]);
    }

    #[test]
    fn what_a_panic_said() {
        let said: [Box<dyn Any + Send>; 3] =
            [Box::new("a"), Box::new(String::from("b")), Box::new(3)];
        let texts: Vec<_> = said.iter().map(|panic| panic_text(panic.as_ref())).collect();
        assert_eq!(texts, ["a", "b", "no text"]);
    }
}
