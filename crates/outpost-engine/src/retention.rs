//! Removes what had its time: the one place that does, for every kind of record and file.
//!
//! Takes no input: it asks the clock and the rules, and carries out the answer; doing so twice changes nothing.
//! Woken by timer. Each look is made of steps of bounded size. What goes is decided by [`outpost_core`].
//!
//! Order: files of a kind go while the record stays, and whoever asks for them hears that they are expired from the
//! instant they are due, not from the instant they are gone. A record goes in one transaction that notes that
//! there are files left; the last files go in one rename, and then the note. So a crash leaves a file whose record
//! or note is still there, or a note without files, and the next look goes on from there. Nothing of a
//! dispatch that is not over is touched, and nothing of one in [`held`].

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outpost_core::{Kept, days_before};
use outpost_store::{
    AuditEntry, ENDED_ROWS_MAX, Ended, EndedRange, LIVE_ROWS_MAX, Purge, StoreError,
};
use outpost_types::{ApiError, Day, DispatchId, ErrorCode, TenantId, Timestamp};
use tracing::{info, warn};

use crate::audit;
use crate::engine::Engine;

/// Time between two looks, milliseconds.
const NAP_MILLIS: u64 = 60_000;
/// The same when there is more to remove, milliseconds.
const NAP_MILLIS_MORE: u64 = 1_000;
/// Time from the start of a server to its first look, milliseconds: it has other things to do.
const FIRST_NAP_MILLIS: u64 = 10_000;
/// Most steps of each kind in one look; the rest is for the next.
const STEPS_MAX: usize = 64;
/// Most names of a directory of kept files that are looked at: far more than are kept.
const ENTRIES_COUNT_MAX: usize = 10_000;
/// Where directories are moved before they are removed.
const REMOVED_DIR: &str = "removed";

/// How far files were removed since the server started. Not kept: another server looks at all of them once more.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    with_record: [Option<(Timestamp, DispatchId)>; Kept::ALL.len()],
    leftover: [Option<(Timestamp, DispatchId)>; Kept::ALL.len()],
    /// See [`held`]; for this look.
    held: Option<BTreeSet<DispatchId>>,
    swept: bool,
}

/// What a look removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Records of dispatches.
    pub records: u64,
    /// Dispatches of which all files went.
    pub directories: u64,
    /// Files and directories of one kind.
    pub files: u64,
    /// Idempotency keys, API keys, sums and deliveries.
    pub rows: u64,
    /// There is more to remove.
    pub more: bool,
}

/// Why a look ended early. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The records cannot be read or written.
    #[error("the records cannot be read or written")]
    Store(#[from] StoreError),
    /// A kept file cannot be removed.
    #[error("a kept file cannot be removed")]
    Io(#[from] io::Error),
}

/// Looks again and again; ends when its task is aborted.
pub(crate) async fn run(engine: Engine) {
    let mut nap_millis = FIRST_NAP_MILLIS;
    loop {
        tokio::time::sleep(Duration::from_millis(nap_millis)).await;
        nap_millis = NAP_MILLIS;
        match engine.remove_expired().await {
            Ok(removed) if removed == Removed::default() => {}
            Ok(removed) => {
                info!(?removed, "what had its time was removed");
                nap_millis = if removed.more { NAP_MILLIS_MORE } else { NAP_MILLIS };
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "retention is late");
            }
        }
    }
}

/// Dispatches that are over and whose files somebody still needs: those that a live one goes on from. Asked once in
/// a look, and only when something is due.
async fn held(engine: &Engine) -> Result<BTreeSet<DispatchId>, StoreError> {
    let mut held = BTreeSet::new();
    let mut after = None;
    loop {
        let page = engine.inner.store.live_page(after, LIVE_ROWS_MAX).await?;
        let parents = page.iter().filter_map(|record| record.spec.parent.as_ref());
        held.extend(parents.map(|parent| parent.dispatch_id));
        match page.last() {
            Some(last) if page.len() == LIVE_ROWS_MAX as usize => after = Some(last.id),
            _ => return Ok(held),
        }
    }
}

/// A way through what ended until an instant, in steps.
struct Walk {
    after: Option<(Timestamp, DispatchId)>,
    until: Timestamp,
    steps: usize,
}

impl Walk {
    const fn new(after: Option<(Timestamp, DispatchId)>, until: Timestamp) -> Self {
        Self { after, until, steps: 0 }
    }
}

/// Those of one step that are due.
struct Due {
    ended: Vec<Ended>,
    /// Some of the page are held: they are looked at again.
    some_held: bool,
}

impl Engine {
    /// One look: removes what had its time, as much as one look may.
    ///
    /// # Errors
    /// [`RetentionError`]: what was removed until then is gone, and the next look goes on.
    pub async fn remove_expired(&self) -> Result<Removed, RetentionError> {
        let mut reached = self.inner.reached.lock().await;
        let mut removed = Removed::default();
        reached.held = None;
        if !reached.swept {
            self.sweep_removed().await?;
            reached.swept = true;
        }
        self.remove_files(&mut reached, &mut removed).await?;
        self.forget_records(&mut reached, &mut removed).await?;
        self.remove_leftovers(&mut reached, &mut removed).await?;
        self.purge_rows(&mut removed).await?;
        Ok(removed)
    }

    /// Files of one kind, of dispatches whose record stays.
    async fn remove_files(
        &self,
        reached: &mut Reached,
        removed: &mut Removed,
    ) -> Result<(), RetentionError> {
        let (rules, now) = (self.inner.config.retention, self.now());
        for (index, kind) in Kept::ALL.into_iter().enumerate() {
            let Some(until) = rules.files_until(kind, now) else { continue };
            let (mut walk, mut passed) = (Walk::new(reached.with_record[index], until), true);
            while let Some(due) = self.step(&mut walk, &mut reached.held, removed).await? {
                removed.files += self.remove_kind(due.ended, kind).await?;
                passed &= !due.some_held;
                if passed {
                    reached.with_record[index] = walk.after;
                }
            }
        }
        Ok(())
    }

    /// Records, each with a note that its files are left.
    async fn forget_records(
        &self,
        reached: &mut Reached,
        removed: &mut Removed,
    ) -> Result<(), RetentionError> {
        let now = self.now();
        let Some(until) = self.inner.config.retention.records_until(now) else { return Ok(()) };
        let mut walk = Walk::new(None, until);
        while let Some(due) = self.step(&mut walk, &mut reached.held, removed).await? {
            let with_entry = |ended: Ended| (ended.id, audit::of_expired(&ended, now));
            let entries: Vec<(DispatchId, AuditEntry)> =
                due.ended.into_iter().map(with_entry).collect();
            removed.records += self.inner.store.forget(entries).await?;
        }
        Ok(())
    }

    /// Files of dispatches whose record is gone.
    async fn remove_leftovers(
        &self,
        reached: &mut Reached,
        removed: &mut Removed,
    ) -> Result<(), RetentionError> {
        let (rules, now) = (self.inner.config.retention, self.now());
        if let Some(until) = rules.all_files_until(now) {
            removed.more |= self.remove_directories(until, removed).await?;
        }
        for (kind, at) in Kept::ALL.into_iter().zip(&mut reached.leftover) {
            let Some(until) = rules.files_until(kind, now) else { continue };
            for step in 0..=STEPS_MAX {
                let range = EndedRange { after: *at, until, limit: ENDED_ROWS_MAX };
                let ended = self.inner.store.leftovers(range).await?;
                let Some(last) = ended.last() else { break };
                if step == STEPS_MAX {
                    removed.more = true;
                    break;
                }
                let next = (last.ended_at, last.id);
                removed.files += self.remove_kind(ended, kind).await?;
                *at = Some(next);
            }
        }
        Ok(())
    }

    /// Directories of which every file is due, and the notes of them; `true` when there are more.
    async fn remove_directories(
        &self,
        until: Timestamp,
        removed: &mut Removed,
    ) -> Result<bool, RetentionError> {
        for _ in 0..STEPS_MAX {
            let range = EndedRange { after: None, until, limit: ENDED_ROWS_MAX };
            let ended = self.inner.store.leftovers(range).await?;
            if ended.is_empty() {
                return Ok(false);
            }
            let ids: Vec<_> = ended.iter().map(|ended| ended.id).collect();
            let data_dir = self.inner.config.data_dir.clone();
            let remove = {
                let ids = ids.clone();
                move || ids.iter().try_for_each(|id| remove_directory(&data_dir, *id))
            };
            blocking(remove).await?;
            removed.directories += self.inner.store.drop_leftovers(&ids).await?;
        }
        Ok(true)
    }

    async fn purge_rows(&self, removed: &mut Removed) -> Result<(), RetentionError> {
        let (rules, now) = (self.inner.config.retention, self.now());
        let store = &self.inner.store;
        for _ in 0..STEPS_MAX {
            match store.purge_idempotency(now).await? {
                0 => break,
                rows => removed.rows += rows,
            }
        }
        let usage = days_before(now, rules.usage_days);
        let tables = [
            days_before(now, rules.expired_key_days).map(Purge::ExpiredKeys),
            usage.map(|until| Purge::UsageBefore(Day::of(until).number())),
            days_before(now, rules.delivery_days).map(Purge::Deliveries),
        ];
        for what in tables.into_iter().flatten() {
            for _ in 0..STEPS_MAX {
                match store.purge(what).await? {
                    0 => break,
                    rows => removed.rows += rows,
                }
            }
        }
        Ok(())
    }

    /// The next step of a walk, without those that are held; `None` at its end, or when this look may take no more.
    async fn step(
        &self,
        walk: &mut Walk,
        known: &mut Option<BTreeSet<DispatchId>>,
        removed: &mut Removed,
    ) -> Result<Option<Due>, StoreError> {
        let range = EndedRange { after: walk.after, until: walk.until, limit: ENDED_ROWS_MAX };
        let mut page = self.inner.store.ended(range).await?;
        let Some(last) = page.last() else { return Ok(None) };
        if walk.steps == STEPS_MAX {
            removed.more = true;
            return Ok(None);
        }
        walk.steps += 1;
        walk.after = Some((last.ended_at, last.id));
        let held = match known {
            Some(held) => held,
            None => known.insert(held(self).await?),
        };
        let all = page.len();
        page.retain(|ended| !held.contains(&ended.id));
        Ok(Some(Due { some_held: page.len() < all, ended: page }))
    }

    async fn remove_kind(&self, ended: Vec<Ended>, kind: Kept) -> Result<u64, RetentionError> {
        let data_dir = self.inner.config.data_dir.clone();
        let remove = move || {
            ended.iter().try_fold(0, |sum, ended| Ok(sum + remove_kind(&data_dir, ended.id, kind)?))
        };
        blocking(remove).await
    }

    /// Removes what an earlier server moved away and could not remove.
    async fn sweep_removed(&self) -> Result<(), RetentionError> {
        let dir = self.inner.config.data_dir.join(REMOVED_DIR);
        blocking(move || absent_is_fine(std::fs::remove_dir_all(dir))).await
    }

    /// Refuses what had its time, whether or not it is gone by now.
    pub(crate) fn check_kept(
        &self,
        ended_at: Option<Timestamp>,
        kind: Kept,
    ) -> Result<(), ApiError> {
        let rules = &self.inner.config.retention;
        match ended_at {
            Some(ended_at) if rules.is_due(kind, ended_at, self.now()) => Err(expired(kind)),
            _ => Ok(()),
        }
    }

    /// Whether the tenant has files of this kind of this dispatch, also when its record is gone.
    pub(crate) async fn check_leftover(
        &self,
        tenant: &TenantId,
        id: DispatchId,
        kind: Kept,
    ) -> Result<(), ApiError> {
        let left = self.inner.store.leftover(id).await.map_err(crate::api::store_error)?;
        let left = left.filter(|left| left.tenant == *tenant).ok_or_else(ApiError::not_found)?;
        self.check_kept(Some(left.ended_at), kind)
    }
}

fn expired(kind: Kept) -> ApiError {
    let what = match kind {
        Kept::Logs => "logs and events",
        Kept::Context => "context",
        Kept::Artifacts => "artifacts",
    };
    let message = format!("The {what} of this dispatch had their time and are not kept any more.");
    ApiError::new(ErrorCode::Expired, message)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RetentionError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.unwrap_or_else(|error| Err(io::Error::other(error)))?)
}

/// Removes files and directories of one kind right below the kept files; says how many.
fn remove_kind(data_dir: &Path, id: DispatchId, kind: Kept) -> io::Result<u64> {
    let dir = kept_dir(data_dir, id);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut gone = 0;
    for entry in entries.take(ENTRIES_COUNT_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        if Kept::of(&name.to_string_lossy()) != kind {
            continue;
        }
        if entry.file_type()?.is_dir() {
            let mut place = std::ffi::OsString::from(format!("{id}-"));
            place.push(&name);
            move_away(data_dir, &entry.path(), Path::new(&place))?;
        } else {
            absent_is_fine(std::fs::remove_file(entry.path()))?;
        }
        gone += 1;
    }
    Ok(gone)
}

/// Removes all kept files of a dispatch: they are gone at once, whatever happens in between.
fn remove_directory(data_dir: &Path, id: DispatchId) -> io::Result<()> {
    move_away(data_dir, &kept_dir(data_dir, id), Path::new(&id.to_string()))
}

fn move_away(data_dir: &Path, from: &Path, name: &Path) -> io::Result<()> {
    let removed = data_dir.join(REMOVED_DIR);
    std::fs::create_dir_all(&removed)?;
    let to = removed.join(name);
    // What an earlier try left there.
    absent_is_fine(std::fs::remove_dir_all(&to))?;
    match std::fs::rename(from, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    absent_is_fine(std::fs::remove_dir_all(to))
}

fn kept_dir(data_dir: &Path, id: DispatchId) -> PathBuf {
    data_dir.join("dispatches").join(id.to_string())
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
