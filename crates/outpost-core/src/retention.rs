//! What is kept for how long once a dispatch is over.
//!
//! A record and three kinds of files have a time each, counted from the end of the dispatch. They go
//! independently: a record may go before its artifacts do, and the logs before the record. Nothing here removes
//! anything, and nothing of a dispatch that is not over is ever due. Absent: persistent workspaces and the
//! repository cache, which go when they were idle for too long.

use outpost_types::Timestamp;

/// Milliseconds of a day.
const DAY_MILLIS: u64 = 86_400_000;
/// Shortest time a record is kept, days: an idempotency key may answer for it until then.
pub const RECORD_DAYS_MIN: u32 = 1;
/// Longest time of anything, days: a century.
pub const RETENTION_DAYS_MAX: u32 = 36_500;

/// What goes by a time of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kept {
    /// What the agent printed, and the events made of it.
    Logs,
    /// What was put into its context.
    Context,
    /// Diff, bundle, result, and the files the agent left.
    Artifacts,
}

impl Kept {
    /// All kinds of files.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Context, Self::Artifacts];

    /// The kind of a file or directory right below the kept files of a dispatch, by its name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "output.log" | "events.jsonl" => Self::Logs,
            "context.json" | "task.md" | "context" => Self::Context,
            _ => Self::Artifacts,
        }
    }
}

/// For how many days what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRules {
    /// Records of dispatches, after their end.
    pub dispatch_days: u32,
    /// Artifacts, after the end of their dispatch.
    pub artifact_days: u32,
    /// Context, after the end of its dispatch.
    pub context_days: u32,
    /// Logs and events, after the end of their dispatch.
    pub log_days: u32,
    /// API keys, after they expired.
    pub expired_key_days: u32,
    /// Sums of what was used, after their day.
    pub usage_days: u32,
    /// Events in the outbox and what came of their deliveries, after they happened.
    pub delivery_days: u32,
}

impl Default for RetentionRules {
    fn default() -> Self {
        Self {
            dispatch_days: 30,
            artifact_days: 90,
            context_days: 30,
            log_days: 14,
            expired_key_days: 30,
            usage_days: 400,
            delivery_days: 30,
        }
    }
}

/// The instant `days` before `now`: what ended then, or before, has had its time. `None` when nothing can have.
#[must_use]
pub fn days_before(now: Timestamp, days: u32) -> Option<Timestamp> {
    now.as_millis().checked_sub(u64::from(days) * DAY_MILLIS).map(Timestamp::from_millis)
}

impl RetentionRules {
    /// Records of dispatches that ended by this instant are due.
    #[must_use]
    pub fn records_until(&self, now: Timestamp) -> Option<Timestamp> {
        days_before(now, self.dispatch_days.max(RECORD_DAYS_MIN))
    }

    /// Files of this kind are due when their dispatch ended by this instant.
    #[must_use]
    pub fn files_until(&self, kind: Kept, now: Timestamp) -> Option<Timestamp> {
        let days = match kind {
            Kept::Logs => self.log_days,
            Kept::Context => self.context_days,
            Kept::Artifacts => self.artifact_days,
        };
        days_before(now, days)
    }

    /// Every file of a dispatch is due when it ended by this instant.
    #[must_use]
    pub fn all_files_until(&self, now: Timestamp) -> Option<Timestamp> {
        Kept::ALL.into_iter().map(|kind| self.files_until(kind, now)).min().flatten()
    }

    /// Whether files of this kind have had their time.
    #[must_use]
    pub fn is_due(&self, kind: Kept, ended_at: Timestamp, now: Timestamp) -> bool {
        self.files_until(kind, now).is_some_and(|until| ended_at <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: u64) -> Timestamp {
        Timestamp::from_millis(number * DAY_MILLIS)
    }

    #[test]
    fn each_kind_goes_on_its_own_day() {
        let rules = RetentionRules::default();
        let ended = day(1_000);
        for (kind, days) in [(Kept::Logs, 14), (Kept::Context, 30), (Kept::Artifacts, 90)] {
            let last = Timestamp::from_millis(day(1_000 + days).as_millis() - 1);
            assert!(!rules.is_due(kind, ended, last), "{kind:?}");
            assert!(rules.is_due(kind, ended, day(1_000 + days)), "{kind:?}");
        }
        assert_eq!(rules.records_until(day(1_030)), Some(ended));
        assert_eq!(rules.all_files_until(day(1_090)), Some(ended));
    }

    #[test]
    fn all_files_go_with_the_one_that_stays_longest() {
        let rules = RetentionRules { log_days: 120, ..RetentionRules::default() };
        assert_eq!(rules.all_files_until(day(1_090)), Some(day(970)));
        // A clock near the epoch removes nothing.
        assert_eq!(rules.all_files_until(day(119)), None);
        assert_eq!(rules.records_until(day(29)), None);
    }

    #[test]
    fn a_record_outlives_its_idempotency_key() {
        let rules = RetentionRules { dispatch_days: 0, ..RetentionRules::default() };
        let key_millis = outpost_types::limits::IDEMPOTENCY_TTL_SECONDS * 1000;
        let now = day(50);
        let until = rules.records_until(now).unwrap();
        assert!(until.plus_millis(key_millis) <= now);
    }

    #[test]
    fn every_file_has_a_kind() {
        assert_eq!(Kept::of("events.jsonl"), Kept::Logs);
        assert_eq!(Kept::of("context.json"), Kept::Context);
        for name in ["diff.patch", "artifacts", "result.json", "changes.bundle", "new"] {
            assert_eq!(Kept::of(name), Kept::Artifacts);
        }
    }
}
