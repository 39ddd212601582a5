//! When a broken stream is tried again, and when it is given up.

use std::time::Duration;

use outpost_types::{ApiError, ErrorCode};

use crate::RetryPolicy;

/// Longest pause a server may ask for, seconds.
const RETRY_AFTER_SECONDS_MAX: u64 = 60;

/// Tries since the last progress.
#[derive(Debug)]
pub(crate) struct Tries {
    policy: RetryPolicy,
    failed: u32,
}

impl Tries {
    pub(crate) const fn new(policy: RetryPolicy) -> Self {
        Self { policy, failed: 0 }
    }

    /// Something was received.
    pub(crate) const fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try, or hands `error` back when it was the last or another try cannot
    /// help.
    pub(crate) async fn pause(&mut self, error: ApiError) -> Result<(), ApiError> {
        let passing = matches!(error.code, ErrorCode::Unavailable | ErrorCode::RateLimited);
        if !passing || self.failed >= self.policy.tries_max {
            return Err(error);
        }
        self.failed += 1;
        let asked = error.retry_after_seconds.unwrap_or(0);
        let asked = Duration::from_secs(asked.min(RETRY_AFTER_SECONDS_MAX));
        tokio::time::sleep(self.policy.pause(self.failed).max(asked)).await;
        Ok(())
    }
}
