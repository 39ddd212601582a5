//! A worker and its states. Each state is a type of its own, and a change consumes the old one: what was
//! claimed cannot be claimed again, and there is no way back to idle.

use std::fmt;
use std::str::FromStr;

use outpost_types::{AttemptId, Timestamp};
use thiserror::Error;

use super::StopReason;

/// Time between two looks at an idle worker, seconds.
pub const CHECK_SECONDS: u64 = 30;
/// After this time a stop whose end nobody reported is asked for again, seconds.
pub const STOP_AGAIN_SECONDS: u64 = 30;
/// Longest build, seconds; what takes longer has failed. The slowest fleet known needs 45.
pub const BUILD_SECONDS_MAX: u64 = 300;

/// A worker: the server that made it and a number. No two workers ever have the same, so a name derived
/// from it collides when something is made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    epoch: u64,
    serial: u64,
}

/// Not the id of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the id of a worker: expected 16 hex digits, '-' and a number, as the server wrote it")]
pub struct BadWorkerId;

impl WorkerId {
    /// The worker with that number of the server with that epoch.
    #[must_use]
    pub const fn new(epoch: u64, serial: u64) -> Self {
        Self { epoch, serial }
    }

    /// Which server made it.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.serial)
    }
}

impl FromStr for WorkerId {
    type Err = BadWorkerId;

    /// Reads what `Display` writes and nothing else, so that one worker has one name.
    fn from_str(text: &str) -> Result<Self, BadWorkerId> {
        let (epoch, serial) = text.split_once('-').ok_or(BadWorkerId)?;
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| BadWorkerId)?;
        let id = Self { epoch, serial: serial.parse().map_err(|_| BadWorkerId)? };
        if id.to_string() == text { Ok(id) } else { Err(BadWorkerId) }
    }
}

/// Stands for all that a worker was made from: version of the CLI, userland, launcher. The shell computes it;
/// two that differ never serve as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

/// Being made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Starting {
    pub(super) since: Timestamp,
}

/// Parked; nobody's yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Idle {
    pub(super) made_at: Timestamp,
    pub(super) since: Timestamp,
    pub(super) check_at: Timestamp,
}

/// Given to an attempt, for good.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy {
    pub(super) attempt: AttemptId,
}

/// Asked to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) asked_at: Timestamp,
    pub(super) why: StopReason,
}

impl Starting {
    /// It is parked. What it was made from is as old as its begin.
    pub(super) const fn started(self, now: Timestamp) -> Idle {
        Idle::new(self.since, now)
    }
}

impl Idle {
    pub(super) const fn new(made_at: Timestamp, now: Timestamp) -> Self {
        Self { made_at, since: now, check_at: now.plus_millis(CHECK_SECONDS * 1_000) }
    }

    /// Its only use.
    pub(super) const fn claim(self, attempt: AttemptId) -> Busy {
        Busy { attempt }
    }
}
