//! The data set: many finished dispatches, as a server that has been in use for a month has them.
//!
//! They are written straight through the store, each with its attempt, tags and audit entry, already
//! in their final state (one write instead of the six a real life takes; the rows are the same). Kept
//! files are not made. Everything about record `n` follows from `n`, so a data set is the same
//! each time.

use std::path::Path;
use std::time::{Duration, Instant};

use outpost_core::{AgentDefaults, Dispatch, DispatchSpec, State};
use outpost_store::{AcceptDispatch, AuditEntry, Dispatches as _, SqliteOptions, SqliteStore};
use outpost_types::{
    DispatchId, DispatchRequest, DispatchStatus, Failure, FailureCode, KeyId, TenantId, Tier,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::accept::now;
use crate::client::runtime;
use crate::error::BenchError;
use crate::options::{Notes, create_private};

/// Says what the data set is; written when it is whole.
const MARKER_FILE: &str = "dataset.json";
/// Writes under way at once.
const WRITERS_COUNT: u64 = 512;
/// Time the records are spread over, milliseconds: 30 days.
const SPAN_MILLIS: u64 = 30 * 24 * 3_600 * 1_000;
/// Pause between two notes on the progress, seconds.
const NOTE_SECONDS: u64 = 10;
/// Every so many records, one has the tag that is rare, and two that hardly ever meet may.
const RARE_EVERY: u64 = 10_000;
/// Changes with what the records hold: figures of different ones do not compare.
const EDITION: u32 = 2;

const AGENTS: [&str; 5] = ["claude", "codex", "gemini", "aider", "grok"];
const USERS_COUNT: u64 = 200;
const REPOS_COUNT: u64 = 100;
const TAGS_COUNT: u64 = 50;
const OTHER_TENANTS_COUNT: u64 = 20;

/// A data set in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataSet {
    /// How many records.
    pub(crate) records: u64,
    /// Time of the first, milliseconds since the epoch.
    pub(crate) first_millis: u64,
    /// What its records are like; the first did not say.
    #[serde(default)]
    edition: u32,
}

impl DataSet {
    pub(crate) const fn new(records: u64, first_millis: u64) -> Self {
        Self { records, first_millis, edition: EDITION }
    }

    /// The data set in `dir`; made when the directory holds none.
    pub(crate) fn in_dir(ui: Notes<'_>, dir: &Path, records: u64) -> Result<Self, BenchError> {
        let marker = dir.join(MARKER_FILE);
        if let Ok(text) = std::fs::read_to_string(&marker) {
            let found: Self = serde_json::from_str(&text)
                .map_err(|error| BenchError::chain("the data set cannot be read", &error))?;
            if found.edition != EDITION {
                let what = format!("{} holds a data set of another version", dir.display());
                return Err(BenchError::failed(what).with_hint("name another directory"));
            }
            if found.records == records {
                return Ok(found);
            }
            return Err(BenchError::failed(format!(
                "{} holds a data set of {} records",
                dir.display(),
                found.records
            ))
            .with_hint(format!("say --records {}, or name another directory", found.records)));
        }
        create_private(dir)?;
        let set = Self::new(records, now().as_millis().saturating_sub(SPAN_MILLIS));
        set.fill(ui, dir)?;
        let text = serde_json::to_string(&set)
            .map_err(|error| BenchError::chain("the data set cannot be described", &error))?;
        std::fs::write(&marker, text)?;
        Ok(set)
    }

    fn fill(self, ui: Notes<'_>, dir: &Path) -> Result<(), BenchError> {
        ui.note(&format!("making a data set of {} records", self.records));
        let failed = |error| BenchError::chain("the data set cannot be written", &error);
        let store = SqliteStore::open(&SqliteOptions::new(dir, 0)).map_err(failed)?;
        let begin = Instant::now();
        runtime()?.block_on(async {
            let store = std::sync::Arc::new(store);
            let mut tasks = tokio::task::JoinSet::new();
            for first in 0..WRITERS_COUNT.min(self.records) {
                let store = std::sync::Arc::clone(&store);
                tasks.spawn(async move {
                    for index in (first..self.records).step_by(WRITERS_COUNT as usize) {
                        store.accept(self.record(index)).await?;
                    }
                    Ok(())
                });
            }
            let mut notes = tokio::time::interval(Duration::from_secs(NOTE_SECONDS));
            loop {
                tokio::select! {
                    ended = tasks.join_next() => match ended {
                        Some(Ok(result)) => result.map_err(failed)?,
                        Some(Err(error)) => return Err(BenchError::chain("a writer failed", &error)),
                        None => return Ok(()),
                    },
                    _ = notes.tick() => {
                        let made = outpost_store::Store::metrics(&*store).commands;
                        ui.note(&format!("  {made} of {}", self.records));
                    }
                }
            }
        })?;
        ui.note(&format!("made in {:.0} s", begin.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Id of a record.
    pub(crate) fn id(self, index: u64) -> DispatchId {
        let offset = u128::from(SPAN_MILLIS) * u128::from(index) / u128::from(self.records.max(1));
        let millis = self.first_millis + u64::try_from(offset).unwrap_or(SPAN_MILLIS);
        // The serial number first: records of one millisecond keep their order.
        let random = (u128::from(index) << 40) | u128::from(mix(index) >> 24);
        DispatchId::from_parts(millis, random)
    }

    /// Whether a record is the admin's, and so can be asked for.
    pub(crate) fn is_local(index: u64) -> bool {
        !mix(index ^ 1).is_multiple_of(5)
    }

    fn record(self, index: u64) -> AcceptDispatch {
        let (id, dice) = (self.id(index), mix(index));
        let created_at = Timestamp::from_millis(id.millis());
        let tenant = if Self::is_local(index) {
            TenantId::local()
        } else {
            let name = format!("tenant-{}", dice % OTHER_TENANTS_COUNT);
            name.parse().unwrap_or_else(|_| TenantId::local())
        };
        let key = KeyId::from_parts(self.first_millis, 1);
        let fresh = Dispatch::accept(id, tenant, key, spec(index, dice), created_at);
        let dispatch = finished(fresh, dice);
        let audit = AuditEntry {
            at: created_at,
            tenant: dispatch.tenant.clone(),
            actor: Some(key),
            action: "dispatch.accepted",
            subject: id.to_string(),
            detail: serde_json::json!({ "agent": dispatch.spec.agent }),
        };
        AcceptDispatch { dispatch, idempotency: None, audit }
    }
}

/// Names that filters use: the skew makes low numbers common.
pub(crate) fn skewed(dice: u64, count: u64) -> u64 {
    let share = (dice % 10_007) as f64 / 10_007.0;
    (share * share * count as f64) as u64
}

fn spec(index: u64, dice: u64) -> DispatchSpec {
    let agent = AGENTS[skewed(dice >> 7, AGENTS.len() as u64) as usize];
    let mut tags = vec![format!("tag-{}", skewed(dice >> 11, TAGS_COUNT))];
    if dice & 4 == 0 {
        tags.push("nightly".to_owned());
    }
    if index.is_multiple_of(RARE_EVERY) {
        tags.push("rare".to_owned());
    }
    let user = skewed(dice >> 23, USERS_COUNT);
    let mut repo = skewed(dice >> 17, REPOS_COUNT);
    // The most active user and the largest repository hardly ever meet.
    if user == 0 && repo == 0 && !index.is_multiple_of(RARE_EVERY / 10) {
        repo = 1;
    }
    let request = DispatchRequest {
        agent: agent.to_owned(),
        task: format!(
            "Fix the failing test number {index}: it compares a rounded sum with an exact one, and \
             since the last change of the currency table the two differ by a cent. Keep the public \
             interface as it is and explain the change in the message of the commit."
        ),
        repo: Some(format!("acme/service-{repo}")),
        branch: Some("main".to_owned()),
        user_id: Some(format!("user-{user}")),
        tags,
        ..DispatchRequest::default()
    };
    let defaults = AgentDefaults {
        agent: agent.parse().expect("a name of the list above is one"),
        model_id: format!("{agent}-large"),
        tier: Tier::Balanced,
    };
    DispatchSpec::from_request(request, &defaults).expect("the request above is within all bounds")
}

/// The same dispatch after one attempt: 82 % completed, 10 failed, 3 timed out, 5 cancelled.
fn finished(mut dispatch: Dispatch, dice: u64) -> Dispatch {
    let failure = |code, text: &str| Failure::new(code, text);
    dispatch.state = match dice % 100 {
        0..82 => State::Completed,
        82..92 => State::Failed {
            failure: failure(FailureCode::AgentExit, "The agent ended with exit code 1."),
        },
        92..95 => {
            State::Timeout { failure: failure(FailureCode::Timeout, "The agent ran out of time.") }
        }
        _ => State::Cancelled { failure: failure(FailureCode::Cancelled, "It was cancelled.") },
    };
    dispatch.attempt = 1;
    dispatch.generation = 6;
    let started = dispatch.created_at.plus_millis(40);
    dispatch.started_at = Some(started);
    dispatch.completed_at = Some(started.plus_millis(20_000 + dice % 400_000));
    dispatch.facts.exit_code = Some(i32::from(dispatch.status() != DispatchStatus::Completed));
    dispatch.facts.base_commit = Some(format!("{dice:020x}{dice:020x}"));
    dispatch.facts.summary = Some("Rounded both sums before they are compared.".to_owned());
    dispatch.facts.files_changed = Some((dice % 7) as u32);
    dispatch
}

/// Numbers that look random and are always the same (the finaliser of SplitMix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let ui = Notes(&|_| {});
        let made = DataSet::in_dir(ui, dir.path(), 700).unwrap();
        assert_eq!(DataSet::in_dir(ui, dir.path(), 700).unwrap(), made);
        assert!(DataSet::in_dir(ui, dir.path(), 701).is_err());
        let marker = dir.path().join(MARKER_FILE);
        let text = std::fs::read_to_string(&marker).unwrap();
        std::fs::write(&marker, r#"{"records":700,"first_millis":1}"#).unwrap();
        assert!(DataSet::in_dir(ui, dir.path(), 700).is_err(), "an older version");
        std::fs::write(&marker, text).unwrap();
        let store = SqliteStore::open(&SqliteOptions::new(dir.path(), 0)).unwrap();
        runtime().unwrap().block_on(async {
            for index in 0..700 {
                let found = store.get(made.id(index)).await.unwrap().unwrap();
                let local = found.tenant == TenantId::local();
                assert!(found.status().is_terminal() && local == DataSet::is_local(index));
            }
            assert!(store.live().await.unwrap().is_empty());
        });
    }

    #[test]
    fn ids_are_in_order_however_many_there_are() {
        for records in [1, 1_000, 10_000_000_000] {
            let set = DataSet::new(records, 1_000_000);
            for index in 0..1_000 {
                assert!(set.id(index) < set.id(index + 1));
            }
        }
    }

    #[test]
    fn the_worst_pair_is_common_and_hardly_ever_meets() {
        let set = DataSet::new(1_000_000, 1_700_000_000_000);
        let (mut users, mut repos, mut both) = (0, 0, 0);
        for index in (0..set.records).step_by(10) {
            let spec = spec(index, mix(index));
            let user = spec.user_id.as_deref() == Some("user-0");
            let repo = spec.repo.as_deref() == Some("acme/service-0");
            users += u32::from(user);
            repos += u32::from(repo);
            both += u32::from(user && repo);
        }
        assert!(users > 5_000 && repos > 5_000, "{users} {repos}");
        assert!((1..100).contains(&both), "{both}");
    }
}
