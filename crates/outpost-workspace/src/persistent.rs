//! Workspaces that outlive a run: one per tenant, user and repository.
//!
//! On disk: `<dir>/<tenant>/<id>/{record.json, holder, upper/, work/, seen/}`, where the names are hashes. `upper` is the layer the
//! runs write to, on a checkout that the workspace leases. One run at a time: `holder` is a link to its attempt's directory, and
//! counts as long as that is there, so a server that is killed takes no workspace with it. The record is written whole. Bounded:
//! bytes of a workspace (looked at after a run), its idle time, how many are listed. Deliberately absent: moving a workspace with
//! work in it to another commit: only its owner can merge.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cache::{Entry, Kind, digest};
use crate::layers::RepoOverlay;
use crate::prepare::{Job, Made, Placed};
use crate::remote::note;
use crate::remove::remove_tree;
use crate::snapshot::{self, Facts, Survey};
use crate::start::Point;
use crate::{Inner, Note, PrepareError, Prepared, WorkspaceError, checkout, own};

/// Largest persistent workspace unless the operator sets another bound, bytes (10 GiB).
pub const WORKSPACE_BYTES_MAX_DEFAULT: u64 = 10 * 1024 * 1024 * 1024;
/// Idle time after which a persistent workspace goes unless the operator sets another, seconds (30 days).
pub const WORKSPACE_IDLE_SECONDS_DEFAULT: u64 = 30 * 86_400;
/// Most persistent workspaces of a tenant that are listed.
pub const WORKSPACES_LISTED_MAX: usize = 10_000;
/// Longest name of a user, bytes.
const USER_BYTES_MAX: usize = 256;
/// Largest record, bytes.
const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// Commits that are counted when a branch has moved.
const COMMITS_COUNTED_MAX: u32 = 10_000;
const VERSION: u32 = 1;
const RECORD: &str = "record.json";
const HOLDER: &str = "holder";
/// Folders beside those of the tenants: what is being removed, and locks.
const GONE: &str = "gone";
const LOCKS: &str = "locks";

/// Where persistent workspaces are, and what bounds them.
#[derive(Clone, Debug)]
pub struct PersistentConfig {
    /// Their directory; made when the first one is (mode 0700). Only this crate writes there, and agents into their layers.
    pub dir: PathBuf,
    /// Most that one holds after a run, bytes; see [`WORKSPACE_BYTES_MAX_DEFAULT`].
    pub bytes_max: u64,
    /// How long an unused one is kept, seconds; see [`WORKSPACE_IDLE_SECONDS_DEFAULT`].
    pub idle_seconds_max: u64,
}

/// Asks for the persistent workspace of a user.
#[derive(Clone, Debug)]
pub struct PersistentRequest {
    /// The user within the tenant, 1 to 256 bytes without control characters.
    pub user: String,
}

/// The persistent workspace that a [`Prepared`] stands on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PersistentUse {
    /// Its id.
    pub id: String,
    /// Its directory. Never shown to the agent.
    pub dir: PathBuf,
    /// Whether it has work of earlier runs.
    pub resumed: bool,
}

/// What is known of a persistent workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PersistentWorkspace {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// Its repository, as shown to users; none for one without.
    pub repo: Option<String>,
    /// The branch it began with, if it was one.
    pub branch: Option<String>,
    /// The commit it stands on.
    pub base_commit: String,
    /// What its runs left, bytes, as of the last one that ended.
    pub bytes: u64,
    /// It is beyond its bound: no run starts in it any more.
    pub too_large: bool,
    /// A run is in it now.
    pub busy: bool,
    /// Runs it has had.
    pub runs: u64,
    /// When it was made and last used, seconds since 1970.
    pub created_at: u64,
    /// See `created_at`.
    pub used_at: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Record {
    version: u32,
    id: String,
    user: String,
    repo: Option<String>,
    branch: Option<String>,
    base_commit: String,
    /// The commit is that of nothing.
    empty: bool,
    /// Keys of the layers it stands on.
    checkout: String,
    snapshot: Option<String>,
    created_at: u64,
    used_at: u64,
    runs: u64,
    bytes: u64,
    /// The last run's end was seen: then the rest is true.
    measured: bool,
    untouched: bool,
    too_large: bool,
}

impl Record {
    fn shown(self, busy: bool) -> PersistentWorkspace {
        let Self { id, user, repo, branch, base_commit, bytes, too_large, runs, .. } = self;
        let (created_at, used_at) = (self.created_at, self.used_at);
        PersistentWorkspace {
            id,
            user,
            repo,
            branch,
            base_commit,
            bytes,
            too_large,
            busy,
            runs,
            created_at,
            used_at,
        }
    }

    fn measure(&mut self, survey: &Survey) {
        self.measured = true;
        (self.bytes, self.too_large) = (survey.bytes, survey.too_large);
        self.untouched = survey.is_untouched();
    }
}

/// One workspace's directory.
#[derive(Clone, Debug)]
struct Place {
    root: PathBuf,
    dir: PathBuf,
    id: String,
}

fn io(source: io::Error) -> PrepareError {
    PrepareError::Io { what: "opening the persistent workspace", source }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> WorkspaceError {
    move |source| WorkspaceError::Io { what, source }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Place {
    fn new(root: &Path, tenant: &str, id: String) -> Self {
        let dir = root.join(digest([tenant.as_bytes()])).join(&id);
        Self { root: root.to_owned(), dir, id }
    }

    /// The right to change who is in it; held for moments only.
    fn lock(&self) -> io::Result<File> {
        let locks = self.root.join(LOCKS);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&locks)?;
        // A few for all: a lock of a workspace's own would have to outlive it.
        let file = File::create(locks.join(&self.id[..2]))?;
        file.lock()?;
        Ok(file)
    }

    fn is_held(&self) -> bool {
        std::fs::metadata(self.dir.join(HOLDER)).is_ok()
    }

    /// Makes the attempt the one that is in it; false if another is.
    fn claim(&self, attempt: &Path) -> io::Result<bool> {
        let _lock = self.lock()?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let holder = self.dir.join(HOLDER);
        if self.is_held() {
            return Ok(std::fs::read_link(&holder)? == attempt);
        }
        match std::fs::remove_file(&holder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(attempt, &holder)?,
        }
        Ok(true)
    }

    fn let_go(&self, attempt: &Path) -> io::Result<()> {
        let _lock = self.lock()?;
        let holder = self.dir.join(HOLDER);
        match std::fs::read_link(&holder) {
            Ok(other) if other == attempt => std::fs::remove_file(holder),
            _ => Ok(()),
        }
    }

    /// None if there is none; an error of the kind `InvalidData` if it is not one.
    fn read(&self) -> io::Result<Option<Record>> {
        let path = self.dir.join(RECORD);
        let text = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(meta) if meta.len() > RECORD_BYTES_MAX => Vec::new(),
            _ => std::fs::read(&path)?,
        };
        let record: Record =
            serde_json::from_slice(&text).map_err(|_| io::ErrorKind::InvalidData)?;
        if record.version == VERSION && record.id == self.id {
            return Ok(Some(record));
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        use std::io::Write as _;
        let part = self.dir.join(".record.part");
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(part, self.dir.join(RECORD))
    }

    /// Empties it, and makes its layers.
    fn lay_out(&self, tree: PathBuf, owner: Option<(u32, u32)>) -> io::Result<RepoOverlay> {
        for name in ["upper", "work", SETUP, SEEN, own::NEXT] {
            remove_tree(&self.dir.join(name))?;
        }
        RepoOverlay::make(&self.dir, vec![tree], owner)
    }

    /// Looks through what its runs left.
    fn survey(&self, inner: &Inner, record: &Record) -> io::Result<Survey> {
        let entry = Entry { kind: Kind::Checkout, key: record.checkout.clone() };
        let facts = checkout::files_of(inner, &checkout::tree(&inner.cache.path(&entry)));
        let files = facts.as_ref().map_or(&[][..], |facts| &facts.files);
        let bytes_max = inner.config.persistent.bytes_max;
        let mut survey = snapshot::survey(&self.dir.join("upper"), files, bytes_max)?;
        // Without the files below it nothing can be said of what it hides.
        survey.unlisted |= facts.is_err();
        Ok(survey)
    }
}

/// Directory of a setup that was too large to be kept for others.
pub(crate) const SETUP: &str = "setup";
/// Directory of the work that the last run ended with, so that the next one's own can be told.
pub(crate) const SEEN: &str = "seen";

/// Makes a workspace on the layers of the user's persistent one.
pub(crate) async fn prepare(job: &Job<'_>, of: &PersistentRequest) -> Result<Made, PrepareError> {
    let user = &of.user;
    if user.is_empty() || user.len() > USER_BYTES_MAX || user.contains(char::is_control) {
        return Err(PrepareError::UserInvalid);
    }
    let tenant = &job.request.tenant;
    let repo = job.request.source.as_ref().map(crate::RepoSource::display);
    let parts = [tenant.as_str(), user, repo.as_deref().unwrap_or_default()];
    let id = digest(parts.map(str::as_bytes));
    let place = Place::new(&job.inner.config.persistent.dir, tenant, id);
    let attempt = &job.request.dir;
    if !place.claim(attempt).map_err(io)? {
        return Err(PrepareError::WorkspaceBusy { id: place.id });
    }
    let made = enter(job, &place, user, repo).await;
    if made.is_err() {
        place.let_go(attempt).map_err(io)?;
    }
    made
}

async fn enter(
    job: &Job<'_>,
    place: &Place,
    user: &str,
    repo: Option<String>,
) -> Result<Made, PrepareError> {
    let damaged = || PrepareError::WorkspaceDamaged { id: place.id.clone() };
    let upper = place.dir.join("upper");
    let mut record = match place.read() {
        Ok(None) if std::fs::read_dir(&upper).is_ok_and(|mut entries| entries.next().is_some()) => {
            return Err(damaged());
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        read => read.map_err(io)?,
    };
    own::settle(&place.dir).map_err(io)?;
    if let Some(record) = record.as_mut().filter(|record| !record.measured && upper.is_dir()) {
        // Its last run ended with its server.
        record.measure(&place.survey(job.inner, record).map_err(io)?);
    }
    if record.as_ref().is_some_and(|record| record.too_large) {
        let limit_bytes = job.inner.config.persistent.bytes_max;
        return Err(PrepareError::WorkspaceTooLarge { id: place.id.clone(), limit_bytes });
    }
    let point = job.point().await?;
    match record {
        Some(record) if !record.untouched && upper.is_dir() => {
            resume(job, place, record, point).await
        }
        old => begin(job, place, old, point, (user, repo)).await,
    }
}

/// A workspace without work in it starts where the branch is now.
async fn begin(
    job: &Job<'_>,
    place: &Place,
    old: Option<Record>,
    point: Point,
    (user, repo): (&str, Option<String>),
) -> Result<Made, PrepareError> {
    let empty = point.is_nothing();
    let placed = job.checkout_at(point, false).await?;
    let now = seconds(SystemTime::now());
    let record = Record {
        version: VERSION,
        id: place.id.clone(),
        user: user.to_owned(),
        repo,
        branch: placed.base.branch.clone(),
        base_commit: placed.base.commit.clone(),
        empty,
        checkout: placed.checkout.key.clone(),
        snapshot: None,
        created_at: old.as_ref().map_or(now, |old| old.created_at),
        used_at: now,
        runs: old.as_ref().map_or(0, |old| old.runs) + 1,
        bytes: 0,
        measured: false,
        untouched: false,
        too_large: false,
    };
    let leases = &job.inner.cache.leases;
    // The attempt has a lease already, so nobody takes the checkout away meanwhile.
    leases.hold(&record.checkout, &place.dir).map_err(io)?;
    let (place_of, tree, owner) = (place.clone(), placed.checkout.tree.clone(), job.owner);
    let laid = tokio::task::spawn_blocking(move || place_of.lay_out(tree, owner)).await;
    let overlay = laid.map_err(io::Error::other).and_then(|laid| laid).map_err(io)?;
    place.write(&record).map_err(io)?;
    let old_keys = old.into_iter().flat_map(|old| [Some(old.checkout), old.snapshot]).flatten();
    for key in old_keys.filter(|key| *key != record.checkout) {
        leases.release(&key, &place.dir);
    }
    let (id, dir) = (place.id.clone(), place.dir.clone());
    let mut made = placed.with(overlay);
    made.persistent = Some(PersistentUse { id, dir, resumed: false });
    Ok(made)
}

/// A workspace with work in it stays on its commit, wherever the branch is.
async fn resume(
    job: &Job<'_>,
    place: &Place,
    mut record: Record,
    point: Point,
) -> Result<Made, PrepareError> {
    let old = point.at(&record.base_commit, record.branch.clone(), record.empty);
    let placed = job.checkout_of(old).await?;
    job.inner.cache.leases.hold(&placed.checkout.key, &place.dir).map_err(io)?;
    let mut notes = Vec::new();
    if point.commit != record.base_commit {
        notes.push(moved(job, &record, point).await);
    }
    let mut lower = vec![placed.checkout.tree.clone()];
    if let Some(key) = &record.snapshot {
        let dir = job.inner.cache.path(&Entry { kind: Kind::Snapshot, key: key.clone() });
        match Facts::read(&dir, key, &job.inner.cache.boot) {
            Some(_) => lower.insert(0, snapshot::layer(&dir)),
            None => notes.push(note(
                "setup_lost",
                "What the setup commands of this workspace had installed is gone. Install it again, or delete the workspace."
                    .to_owned(),
            )),
        }
    }
    // What its first run set up, and was too large for others.
    lower.splice(0..0, Some(place.dir.join(SETUP)).filter(|dir| dir.is_dir()));
    record.checkout = placed.checkout.key.clone();
    (record.used_at, record.runs, record.measured) =
        (seconds(SystemTime::now()), record.runs + 1, false);
    place.write(&record).map_err(io)?;
    let overlay = RepoOverlay::again(&place.dir, lower);
    let (id, dir) = (place.id.clone(), place.dir.clone());
    let mut made = Placed::with(placed, overlay);
    made.notes.extend(notes);
    made.persistent = Some(PersistentUse { id, dir, resumed: true });
    Ok(made)
}

/// Says how far the branch has moved on since.
async fn moved(job: &Job<'_>, record: &Record, point: Point) -> Note {
    let (new, name) = (point.commit.clone(), point.branch.clone());
    let short = |commit: &str| commit.chars().take(12).collect::<String>();
    let count = match job.bring(point).await {
        Ok(base) => {
            let list = ["--count", "--max-count", &COMMITS_COUNTED_MAX.to_string()]
                .map(str::to_owned)
                .into_iter()
                .chain([new.clone(), "--not".to_owned(), record.base_commit.clone()]);
            job.inner.git.run("rev-list").args(list).git_dir(&base.mirror).text().await.ok()
        }
        Err(error) => {
            tracing::debug!(%error, "how far a branch has moved could not be counted");
            None
        }
    };
    let message = format!(
        "The persistent workspace has work on commit {}; {} is at {} now and has {} commits more. Ask the agent to run \
         git merge {}, or delete the workspace {} to start from there.",
        short(&record.base_commit),
        name.as_deref().unwrap_or("what was asked for"),
        short(&new),
        count.as_deref().unwrap_or("some"),
        short(&new),
        record.id,
    );
    note("branch_moved", message)
}

/// Puts down that a workspace stands on a snapshot, which then outlives the attempt and the host's next start.
pub(crate) fn note_snapshot(inner: &Inner, prepared: &Prepared, key: &str) -> io::Result<()> {
    let Some(used) = &prepared.persistent else { return Ok(()) };
    inner.cache.leases.hold(key, &used.dir)?;
    let place = Place {
        root: inner.config.persistent.dir.clone(),
        dir: used.dir.clone(),
        id: used.id.clone(),
    };
    if let Some(mut record) = place.read()? {
        record.snapshot = Some(key.to_owned());
        place.write(&record)?;
    }
    let dir = inner.cache.path(&Entry { kind: Kind::Snapshot, key: key.to_owned() });
    tokio::task::spawn_blocking(move || {
        if let Err(error) = snapshot::sync(&dir) {
            tracing::warn!(%error, "a setup could not be made to last; after a power cut it is gone");
        }
    });
    Ok(())
}

/// See [`crate::Workspaces::release_persistent`]. Looks at many files.
pub(crate) fn release(inner: &Inner, prepared: &Prepared) -> Result<Vec<Note>, WorkspaceError> {
    let io = failed("releasing the persistent workspace");
    let Some(used) = &prepared.persistent else { return Ok(Vec::new()) };
    let root = inner.config.persistent.dir.clone();
    let place = Place { root, dir: used.dir.clone(), id: used.id.clone() };
    let holder = std::fs::read_link(place.dir.join(HOLDER));
    if !holder.is_ok_and(|holder| holder == prepared.attempt_dir) {
        return Ok(Vec::new());
    }
    let mut notes = Vec::new();
    if let Some(mut record) = place.read().map_err(&io)? {
        record.measure(&place.survey(inner, &record).map_err(&io)?);
        record.used_at = seconds(SystemTime::now());
        place.write(&record).map_err(&io)?;
        if record.too_large {
            let message = format!(
                "The persistent workspace {} is beyond its {} bytes or nested too deeply. No further run starts in it: \
                 delete it with outpost workspaces rm {}.",
                place.id, inner.config.persistent.bytes_max, place.id
            );
            notes.push(note("workspace_too_large", message));
        }
    }
    own::settle(&place.dir).map_err(&io)?;
    place.let_go(&prepared.attempt_dir).map_err(&io)?;
    Ok(notes)
}

/// See [`crate::Workspaces::persistent_list`].
pub(crate) fn list(
    config: &PersistentConfig,
    tenant: &str,
) -> Result<Vec<PersistentWorkspace>, WorkspaceError> {
    let dir = config.dir.join(digest([tenant.as_bytes()]));
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("listing the persistent workspaces"))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten().take(WORKSPACES_LISTED_MAX) {
        let id = entry.file_name().to_string_lossy().into_owned();
        match get(config, tenant, &id) {
            Ok(workspace) => found.extend(workspace),
            Err(error) => tracing::warn!(%error, id, "a persistent workspace cannot be read"),
        }
    }
    found.sort_by(|a, b| (b.used_at, &a.id).cmp(&(a.used_at, &b.id)));
    Ok(found)
}

/// See [`crate::Workspaces::persistent_get`].
pub(crate) fn get(
    config: &PersistentConfig,
    tenant: &str,
    id: &str,
) -> Result<Option<PersistentWorkspace>, WorkspaceError> {
    if !is_id(id) {
        return Ok(None);
    }
    let place = Place::new(&config.dir, tenant, id.to_owned());
    let record = place.read().map_err(failed("reading the persistent workspace"))?;
    Ok(record.map(|record| record.shown(place.is_held())))
}

/// See [`crate::Workspaces::persistent_delete`]. Removes many files.
pub(crate) fn delete(
    config: &PersistentConfig,
    tenant: &str,
    id: &str,
) -> Result<bool, WorkspaceError> {
    if !is_id(id) {
        return Ok(false);
    }
    remove(&Place::new(&config.dir, tenant, id.to_owned()))
}

fn remove(place: &Place) -> Result<bool, WorkspaceError> {
    let io = failed("deleting the persistent workspace");
    if !place.dir.is_dir() {
        return Ok(false);
    }
    let gone = place.root.join(GONE).join(&place.id);
    {
        let _lock = place.lock().map_err(&io)?;
        if place.is_held() {
            return Err(WorkspaceError::Busy);
        }
        std::fs::create_dir_all(place.root.join(GONE)).map_err(&io)?;
        // One that an earlier server did not come to the end of.
        remove_tree(&gone).map_err(&io)?;
        match std::fs::rename(&place.dir, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            renamed => renamed.map_err(&io)?,
        }
    }
    remove_tree(&gone).map_err(&io)?;
    Ok(true)
}

/// See [`crate::Workspaces::sweep_persistent`].
pub(crate) fn sweep(config: &PersistentConfig, now: SystemTime) -> usize {
    let tenants = std::fs::read_dir(&config.dir).into_iter().flatten().flatten();
    let mut dropped = 0;
    for tenant in tenants.filter(|entry| is_id(&entry.file_name().to_string_lossy())) {
        for entry in std::fs::read_dir(tenant.path()).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !is_id(&id) {
                continue;
            }
            let place = Place { root: config.dir.clone(), dir: entry.path(), id };
            // One without a record was never used.
            let made = entry.metadata().and_then(|meta| meta.modified()).map_or(0, seconds);
            let used = place.read().ok().flatten().map_or(made, |record| record.used_at);
            if used.saturating_add(config.idle_seconds_max) > seconds(now) {
                continue;
            }
            match remove(&place) {
                Ok(removed) => dropped += usize::from(removed),
                Err(WorkspaceError::Busy) => {}
                Err(error) => tracing::warn!(%error, "an idle persistent workspace stays"),
            }
        }
    }
    for entry in std::fs::read_dir(config.dir.join(GONE)).into_iter().flatten().flatten() {
        if let Err(error) = remove_tree(&entry.path()) {
            tracing::warn!(%error, "a part of a deleted workspace is left behind");
        }
    }
    dropped
}
