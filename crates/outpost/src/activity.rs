//! When the last request arrived, for servers that end when nobody needs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by the layer that sees requests and the loop that decides to end.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    started: Instant,
    last_millis: Arc<AtomicU64>,
}

impl Activity {
    /// Idle since now.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), last_millis: Arc::default() }
    }

    /// Something happened.
    pub(crate) fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// How long nothing has happened.
    pub(crate) fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }

    /// The router, noting each request.
    pub(crate) fn watch(&self, router: axum::Router) -> axum::Router {
        let activity = self.clone();
        router.layer(axum::middleware::from_fn(
            move |request: axum::extract::Request, next: axum::middleware::Next| {
                activity.touch();
                next.run(request)
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_ends_idleness() {
        let activity = Activity {
            started: Instant::now() - Duration::from_secs(60),
            last_millis: Arc::default(),
        };
        assert!(activity.idle() >= Duration::from_secs(60));
        activity.touch();
        assert!(activity.idle() < Duration::from_secs(30));
    }
}
