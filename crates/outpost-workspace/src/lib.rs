//! Repositories for agents: sources, the cache of mirrors and checkouts, layers, and the collection of what an agent changed.
//!
//! The crate holds one rule above all: a repository, and everything an agent wrote, is hostile. The host runs git only
//! through [`git::Git`] (no configuration, hooks, filters, helpers or prompts) and only on repositories it made itself.
//! Whatever must read the agent's own tree is handed out as a [`CollectJob`] for a sealed sandbox; what comes back is one
//! pack of objects, which is checked object by object before it is believed.
//!
//! Bounded: sizes of repositories, bundles, diffs, artifacts and git's output; time of every git process; wait for locks.
//! Deliberately absent: sandboxes (the caller runs the collect job), pull requests, and retries (errors say whether one helps).

mod apply;
mod artifacts;
mod cache;
mod checkout;
mod collect;
mod error;
mod evict;
mod flight;
#[doc(hidden)]
pub mod fuzzing;
pub mod git;
mod gitdir;
mod index;
mod ingest;
mod inspect;
mod layers;
mod lease;
mod local;
mod own;
mod persistent;
mod prepare;
mod reflink;
mod remote;
mod remove;
mod secret;
mod setup;
mod snapshot;
mod source;
mod start;
mod told;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use apply::{ApplyReport, apply_patch_to, patch_stat};
pub use error::{ApplyError, CollectError, OpenError, PrepareError, SourceError, WorkspaceError};
pub use ingest::BUNDLE_NAME;
pub use layers::{Layers, RepoOverlay};
pub use own::OwnChange;
pub use persistent::{
    PersistentConfig, PersistentRequest, PersistentUse, PersistentWorkspace,
    WORKSPACE_BYTES_MAX_DEFAULT, WORKSPACE_IDLE_SECONDS_DEFAULT, WORKSPACES_LISTED_MAX,
};
pub use secret::Secret;
pub use setup::{
    SETUP_COMMAND_BYTES_MAX, SETUP_COMMANDS_MAX, SETUP_FILE, SETUP_FILE_BYTES_MAX,
    SETUP_LOCKFILE_NAME_BYTES_MAX, SETUP_LOCKFILES_MAX, SETUP_SECONDS_DEFAULT, SETUP_SECONDS_MAX,
    Setup, SetupError, SetupJob, SetupNetwork, SetupRequest, SetupSpec,
};
pub use source::RepoSource;
pub use told::{Beginning, beginning_of, tracked_files_of};

/// Largest repository kept in the cache unless the operator sets another bound, bytes on disk (5 GiB).
pub const REPO_BYTES_MAX_DEFAULT: u64 = 5 * 1024 * 1024 * 1024;
/// Most that mirrors, checkouts and snapshots take together unless the operator sets another bound, bytes (20 GiB).
pub const CACHE_BYTES_MAX_DEFAULT: u64 = 20 * 1024 * 1024 * 1024;
/// Longest list of tracked files in [`Prepared`], files.
pub const TRACKED_FILES_MAX: usize = 50_000;
/// Largest result (the packed objects of the agent's commits) that is taken in, bytes.
pub const PACK_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Largest `diff.patch`, bytes. A larger one is left out with a note; the bundle still has the commits.
pub const DIFF_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a [`Workspaces`] works with. All paths are absolute.
#[derive(Clone, Debug)]
pub struct WorkspacesConfig {
    /// Directory of mirrors, checkouts and snapshots; made if missing (mode 0700). Only this crate writes there.
    pub cache_dir: PathBuf,
    /// Whether `repo` may be a path or a `file://` address of this host.
    pub allow_local: bool,
    /// Where `owner/name` lives, for example `https://github.com`; an enterprise server has its own.
    pub github_base: String,
    /// Largest repository, bytes on disk; see [`REPO_BYTES_MAX_DEFAULT`].
    pub repo_bytes_max: u64,
    /// Most that the whole cache takes, bytes; see [`CACHE_BYTES_MAX_DEFAULT`]. What is in use stays even beyond it.
    pub cache_bytes_max: u64,
    /// Where persistent workspaces are, and what bounds them.
    pub persistent: PersistentConfig,
    /// The git program, for example `/usr/bin/git`; 2.38 or newer.
    pub git: PathBuf,
    /// Token for `github_base`; sent to that host only, never in arguments, files or messages.
    pub token: Option<Secret>,
}

/// The repositories and workspaces of one server. Cheap to clone; all clones share the cache and its locks.
#[derive(Clone, Debug)]
pub struct Workspaces {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: WorkspacesConfig,
    pub(crate) git: git::Git,
    pub(crate) cache: cache::Cache,
    pub(crate) known: checkout::Known,
    pub(crate) questions: flight::Flights<Arc<remote::Refs>, PrepareError>,
}

/// What [`Workspaces::prepare`] is to make.
#[derive(Clone, Debug)]
pub struct PrepareRequest {
    /// Whose cache is used; mirrors are never shared between tenants.
    pub tenant: String,
    /// The repository; none means an empty one with one empty commit.
    pub source: Option<RepoSource>,
    /// A branch, tag or full commit id; none means the default branch.
    pub branch: Option<String>,
    /// Directory of this attempt, absolute. It must not exist or be empty; it is made (mode 0700) and later given to
    /// [`Workspaces::remove`]. Its parent exists.
    pub dir: PathBuf,
    /// The directory is one that [`Workspaces::lay_out`] made for the same owner.
    pub laid_out: bool,
    /// Where the sandbox shows [`Prepared::dir`], for example `/workspace/<id>`.
    pub inside: PathBuf,
    /// User and group that own what the agent sees. Used only where this process may change owners (root).
    pub owner: Option<(u32, u32)>,
    /// The task text, written to `task.md`.
    pub task: String,
    /// Whether the caller's sandbox can mount overlays.
    pub layers: Layers,
    /// Whether the files outlive the run, for whom; needs [`Layers::Overlay`].
    pub persistent: Option<PersistentRequest>,
}

/// Something worth telling the user that is not an error.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Note {
    /// Stable name such as `lfs_pointers`; lower case with underscores.
    pub code: Cow<'static, str>,
    /// Plain English, one or two sentences, says what to do next where something can be done.
    pub message: String,
}

/// A workspace ready for an agent. It can be stored as JSON and read back after a restart: it has no open resource.
///
/// On disk: `<request.dir>/workspace/{repo, task.md, context.json, artifacts/}`; only `workspace` is shown to the agent. With
/// layers, `repo` is empty and the overlay is to be shown in its place.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Prepared {
    /// The attempt's directory, as requested. Never shown to the agent.
    pub attempt_dir: PathBuf,
    /// Host directory to bind read-write at [`Prepared::inside`] (`<attempt_dir>/workspace`).
    pub dir: PathBuf,
    /// The repository on the host (`<dir>/repo`); with layers an empty directory, see [`Prepared::overlay`].
    pub repo_dir: PathBuf,
    /// Where the sandbox shows `dir`; the checkout is `<inside>/repo` there.
    pub inside: PathBuf,
    /// The branch of the source that the work starts from; none for a tag, a commit id, or no source.
    pub branch: Option<String>,
    /// Full id of the commit the agent starts from.
    pub base_commit: String,
    /// Facts about the source that the user should know.
    pub notes: Vec<Note>,
    /// Names of tracked files, `/`-separated, at most [`TRACKED_FILES_MAX`]; names that are not UTF-8 are left out.
    /// Known after preparing only: they are no part of the JSON, which is written for every attempt.
    #[serde(default, skip_serializing)]
    pub tracked_files: Vec<String>,
    /// Bytes of each of `tracked_files` at the base commit.
    #[serde(default, skip_serializing)]
    pub tracked_sizes: Vec<u64>,
    /// (host, inside) pairs to bind read-only: the mirror, at its own path, whose objects the checkout borrows.
    pub ro_binds: Vec<(PathBuf, PathBuf)>,
    /// Owner of what the agent sees, if it was changed.
    pub owner: Option<(u32, u32)>,
    /// Time to bring the mirror up to date, milliseconds.
    pub fetch_millis: u64,
    /// Time to make the checkout and its facts, milliseconds.
    pub checkout_millis: u64,
    /// The mirror (a bare repository of the cache).
    pub mirror: PathBuf,
    /// What the sandbox is to show at `<inside>/repo`, if there are layers.
    #[serde(default)]
    pub overlay: Option<RepoOverlay>,
    /// The local repository whose checked out commit is the base; see [`Workspaces::late_notes`].
    #[serde(default)]
    pub local: Option<PathBuf>,
    /// The persistent workspace it stands on, if it was asked for one.
    #[serde(default)]
    pub persistent: Option<PersistentUse>,
    /// A hash of tenant and source: what is kept for later runs is kept under it.
    #[serde(default)]
    pub scope: String,
}

/// A command to run once, after the agent's last process is gone, in a fresh sandbox without network.
///
/// It needs `/bin/sh` and git inside. It runs as the agent's user, changes nothing of the agent's, and writes only below its
/// read-write bind. Give it a time limit; its exit code may be ignored: [`Workspaces::ingest`] judges what it left.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CollectJob {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub cwd: String,
    /// (host, inside) pairs to bind read-only: the agent's workspace where the agent saw it (unless there is an overlay),
    /// and the mirror at its own path.
    pub ro_binds: Vec<(PathBuf, PathBuf)>,
    /// (host, inside) pairs to bind read-write: the directory for the result, at its own path.
    pub rw_binds: Vec<(PathBuf, PathBuf)>,
    /// What to show read-only at `<inside>/repo`, if the workspace has layers; the workspace itself is not shown then.
    #[serde(default)]
    pub overlay: Option<RepoOverlay>,
}

/// What an agent left, checked and kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Collected {
    /// Whether the files differ from the base commit's, or there are commits on top of it.
    pub changed: bool,
    /// The commit that holds all of the agent's work; a descendant of the base commit. None if nothing changed.
    pub result_commit: Option<String>,
    /// Commits from the base to the result.
    pub commits: u32,
    /// Files that differ between base and result.
    pub files_changed: u32,
    /// Lines added, as git counts them; binary files count none.
    pub insertions: u64,
    /// Lines removed.
    pub deletions: u64,
    /// What the run changed by itself, in a persistent workspace where earlier runs left work; all other figures are against
    /// the base commit. None elsewhere: there it is the same.
    #[serde(default)]
    pub own: Option<OwnChange>,
    /// What was left out or had to be judged, and why.
    pub notes: Vec<Note>,
    /// (name relative to the kept directory, bytes) of every file kept: `diff.patch` (always), `changes.bundle` (if changed),
    /// `run.patch` (if there is `own`) and `artifacts/...`.
    pub artifacts: Vec<(String, u64)>,
    /// Time of the ingestion, milliseconds.
    pub millis: u64,
}

impl Workspaces {
    /// Opens the cache: makes its directory, clears what a crash left half made, and checks that git runs.
    ///
    /// # Errors
    /// The cache directory cannot be made, or git is missing or older than 2.38.
    pub fn new(config: WorkspacesConfig) -> Result<Self, OpenError> {
        // The cache first: it makes its directory private before anything is put there.
        let cache = cache::Cache::open(&config.cache_dir, config.cache_bytes_max)?;
        let git = git::Git::open(&config, cache.home())?;
        let (known, questions) = Default::default();
        Ok(Self { inner: Arc::new(Inner { config, git, cache, known, questions }) })
    }

    /// The git that was checked, without any credential: for whoever brings one of its own.
    pub fn bare_git(&self) -> git::Git {
        self.inner.git.bare()
    }

    /// Reads the `repo` field of a dispatch: `owner/name`, an https address, or (where allowed) a local repository.
    ///
    /// Pure but for one look at the disk for local paths. Relative paths are refused: the server's directory is not the
    /// caller's.
    ///
    /// # Errors
    /// Says what is wrong with the field and which forms are accepted.
    pub fn parse_source(&self, repo: &str) -> Result<RepoSource, SourceError> {
        RepoSource::parse(repo, &self.inner.config.github_base, self.inner.config.allow_local)
    }

    /// Makes in `dir`, whose parent exists, what is the same in every attempt's directory, before there is a request.
    ///
    /// # Errors
    /// It exists already, or the disk.
    pub fn lay_out(dir: &Path, owner: Option<(u32, u32)>) -> std::io::Result<()> {
        prepare::lay_out(dir, owner)
    }

    /// Makes a workspace: finds the base commit, shows or writes its files, writes `task.md`; `context.json` is
    /// there, empty, for whoever knows the context.
    ///
    /// What it takes from the cache is in use for as long as `request.dir` exists. On an error or when the future is dropped nothing is left in the cache; `request.dir` may hold a part and is to be
    /// given to [`Workspaces::remove`].
    ///
    /// # Errors
    /// See [`PrepareError`]; [`PrepareError::retry`] says whether trying again can help.
    pub async fn prepare(&self, request: PrepareRequest) -> Result<Prepared, PrepareError> {
        let prepared = Box::pin(prepare::prepare(&self.inner, request)).await?;
        if self.inner.cache.is_over() {
            let workspaces = self.clone();
            tokio::spawn(async move { workspaces.evict_cache().await });
        }
        Ok(prepared)
    }

    /// What is worth telling of a local source, and takes too long to look up before the agent starts: its uncommitted
    /// files. Empty for a workspace without layers, which has these notes already. At most 20 seconds.
    pub async fn late_notes(&self, prepared: &Prepared) -> Vec<Note> {
        let (Some(source), Some(_)) = (&prepared.local, &prepared.overlay) else {
            return Vec::new();
        };
        let scratch = prepared.attempt_dir.join("status.git");
        let (mirror, commit) = (&prepared.mirror, &prepared.base_commit);
        let note = inspect::uncommitted_note(&self.inner, source, &scratch, mirror, commit);
        Box::pin(note).await.into_iter().collect()
    }

    /// Finds out what is to be done before the agent starts, after [`Workspaces::prepare`]: nothing, or setup commands of the
    /// repository (see [`SetupSpec`]), unless the layer of an earlier setup fits, which is then part of `prepared`. Waits while
    /// another run sets up the same, up to 15 minutes. A persistent workspace that was used before has what its first run set up.
    ///
    /// # Errors
    /// See [`SetupError`]; [`SetupError::retry`] says whether trying again can help.
    pub async fn setup(
        &self,
        prepared: &mut Prepared,
        request: SetupRequest,
    ) -> Result<Setup, SetupError> {
        Box::pin(setup::setup(&self.inner, prepared, request)).await
    }

    /// Takes what the commands of a job left as a layer of `prepared`, and keeps it for later runs; with `ok` false (a command
    /// failed, or time was up) it is dropped. To be called when the last process of the job is gone. The notes are for the user.
    ///
    /// # Errors
    /// See [`SetupError`]; then the workspace is as before.
    pub async fn keep_setup(
        &self,
        prepared: &mut Prepared,
        job: SetupJob,
        ok: bool,
    ) -> Result<Vec<Note>, SetupError> {
        Box::pin(setup::keep(&self.inner, prepared, job, ok)).await
    }

    /// Describes the command that gathers the agent's work. Call it when the agent's last process is gone; it makes the
    /// directory the command writes to, and replaces one of an earlier call.
    ///
    /// `litter` are names at the top of the repository (a trailing `*` is a wildcard) that the agent's program leaves behind by
    /// itself: where they are new they are no part of the result.
    ///
    /// # Errors
    /// That directory cannot be made.
    pub fn collect_job(
        &self,
        prepared: &Prepared,
        litter: &[String],
    ) -> Result<CollectJob, CollectError> {
        collect::collect_job(&self.inner, prepared, litter)
    }

    /// Checks what the collect job left and keeps it: `diff.patch`, `changes.bundle`, `artifacts/...` below `kept_dir` (made
    /// if missing; nothing the agent can reach). Safe to call again after a crash: files are replaced whole.
    ///
    /// # Errors
    /// The job left nothing readable, or its result breaks a bound or a check. Artifacts are kept before that is found out.
    pub async fn ingest(
        &self,
        prepared: &Prepared,
        kept_dir: &Path,
    ) -> Result<Collected, CollectError> {
        Box::pin(ingest::ingest(&self.inner, prepared, kept_dir)).await
    }

    /// Removes an attempt's directory whatever the agent did to it: never follows a link, takes unreadable and very deep
    /// directories. A missing one is fine.
    ///
    /// # Errors
    /// Something could not be removed, for example because it is still mounted.
    pub async fn remove(&self, dir: &Path) -> std::io::Result<()> {
        let dir = dir.to_path_buf();
        tokio::task::spawn_blocking(move || remove::remove_tree(&dir))
            .await
            .map_err(std::io::Error::other)?
    }

    /// Ends a run's stay in its persistent workspace, when its last sandbox is gone and its work is collected: the next run may
    /// start then. Without this call that is when the attempt's directory is removed. The notes are for the user: one that
    /// has grown too large takes no further run. Nothing for other workspaces.
    ///
    /// # Errors
    /// The disk.
    pub async fn release_persistent(
        &self,
        prepared: &Prepared,
    ) -> Result<Vec<Note>, WorkspaceError> {
        let prepared = prepared.clone();
        self.aside(move |inner| persistent::release(inner, &prepared)).await
    }

    /// The tenant's persistent workspaces, the last used first; at most [`WORKSPACES_LISTED_MAX`].
    ///
    /// # Errors
    /// The disk.
    pub async fn persistent_list(
        &self,
        tenant: &str,
    ) -> Result<Vec<PersistentWorkspace>, WorkspaceError> {
        let tenant = tenant.to_owned();
        self.aside(move |inner| persistent::list(&inner.config.persistent, &tenant)).await
    }

    /// One of the tenant's; none if there is none of this id, or it is another tenant's.
    ///
    /// # Errors
    /// Its record cannot be read; it can still be deleted.
    pub async fn persistent_get(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<PersistentWorkspace>, WorkspaceError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.aside(move |inner| persistent::get(&inner.config.persistent, &tenant, &id)).await
    }

    /// Deletes one of the tenant's with all its files; false if there is none of this id.
    ///
    /// # Errors
    /// [`WorkspaceError::Busy`] while a run is in it, or the disk.
    pub async fn persistent_delete(&self, tenant: &str, id: &str) -> Result<bool, WorkspaceError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.aside(move |inner| persistent::delete(&inner.config.persistent, &tenant, &id)).await
    }

    /// Deletes persistent workspaces that were not used for their idle time before `now`, whoever's they are. Returns how many.
    pub async fn sweep_persistent(&self, now: std::time::SystemTime) -> usize {
        let swept = self.aside(move |inner| Ok(persistent::sweep(&inner.config.persistent, now)));
        swept.await.unwrap_or(0)
    }

    /// Runs what takes its time on the disk.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or_else(|error| {
            let source = std::io::Error::other(error);
            Err(WorkspaceError::Io { what: "looking at persistent workspaces", source })
        })
    }

    /// Drops what of the cache nobody has used for `idle_seconds` (at least two days) and nobody uses now. Returns how many
    /// mirrors, checkouts and snapshots went.
    pub async fn sweep_cache(&self, idle_seconds: u64) -> usize {
        self.inner.cache.sweep(idle_seconds).await
    }

    /// Drops the longest unused of the cache until it is within its bound; what is in use stays. Called by
    /// [`Workspaces::prepare`] where needed. Returns how many mirrors, checkouts and snapshots went.
    pub async fn evict_cache(&self) -> usize {
        self.inner.cache.evict().await
    }
}
