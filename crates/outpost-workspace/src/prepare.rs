//! Making a workspace: directories, files of the base commit, `task.md`, `context.json`, owner.
//!
//! The files are a checkout of the cache with an empty layer above it, which costs no more than the layer; or a copy of their own
//! where the caller's sandbox has no overlays. They borrow their objects from the mirror (an alternates file), which is bound
//! read-only into the sandbox at its own path. The other ways are worse: hard links would let the agent write into the cache, and
//! a copy costs seconds for a large repository. Bounded: bytes and files of the checkout (a few kilobytes of trees can name
//! billions of files), and time. Deliberately absent: submodules and large files kept elsewhere (LFS), which would need the network
//! and run foreign code.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::checkout::{self, Checkout, Found, Want};
use crate::gitdir::GitDir;
use crate::inspect::{self, Tree};
use crate::layers::{Layers, RepoOverlay};
use crate::persistent::{self, PersistentUse};
use crate::source::SourceKind;
use crate::start::{self, Base, Point};
use crate::{Inner, Note, PrepareError, PrepareRequest, Prepared, reflink};

/// Longest checkout, seconds.
const CHECKOUT_SECONDS_MAX: u64 = 600;
/// Local branch of a checkout that does not start from a branch.
const OWN_BRANCH: &str = "outpost";

/// In the directory of an attempt: what the agent sees, and the layers of its repository.
const WORKSPACE: &str = "workspace";
const LAYERS: &str = "layers";

/// Settings of the checkout. The agent may change them: the host never runs git with them. Only time and size tell whether a file
/// changed, as the numbers of owner and device differ between the host and the sandbox and every `git status` would read
/// every file again.
const SETTINGS: &str = "[core]\n\tlogAllRefUpdates = true\n\tcheckStat = minimal\n\ttrustctime = false\n[user]\n\tname = Outpost Agent\n\
    \temail = agent@outpost.invalid\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[commit]\n\tgpgSign = false\n\
    [advice]\n\tdetachedHead = false\n";

/// See [`crate::Workspaces::prepare`].
pub(crate) async fn prepare(
    inner: &Inner,
    request: PrepareRequest,
) -> Result<Prepared, PrepareError> {
    if let Some(name) = &request.branch {
        crate::remote::check_name(name)?;
    }
    let job = Job::new(inner, &request);
    job.begin().map_err(|source| PrepareError::Io { what: "making the workspace", source })?;
    let made = match (request.layers, &request.persistent) {
        (Layers::Overlay, None) => job.layered().await?,
        (Layers::Overlay, Some(of)) => Box::pin(persistent::prepare(&job, of)).await?,
        (Layers::Copy, None) => job.copied().await?,
        (Layers::Copy, Some(_)) => return Err(PrepareError::LayersNeeded),
    };
    let Made { base, files, sizes, notes, overlay, fetch_millis, persistent } = made;
    let local = match request.source.as_ref().map(|source| &source.kind) {
        Some(SourceKind::Local { path }) if base.checked_out => Some(path.clone()),
        _ => None,
    };
    Ok(Prepared {
        dir: job.dir,
        repo_dir: job.repo_dir,
        branch: base.branch,
        base_commit: base.commit,
        notes,
        tracked_files: files,
        tracked_sizes: sizes,
        ro_binds: vec![(base.mirror.clone(), base.mirror.clone())],
        owner: job.owner,
        fetch_millis,
        checkout_millis: millis(job.start).saturating_sub(fetch_millis),
        mirror: base.mirror,
        overlay,
        local,
        persistent,
        scope: crate::cache::Cache::key(&request.tenant, &job.shown),
        attempt_dir: request.dir,
        inside: request.inside,
    })
}

/// One workspace that is being made.
pub(crate) struct Job<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) request: &'a PrepareRequest,
    /// The source, for messages and keys.
    pub(crate) shown: String,
    dir: PathBuf,
    repo_dir: PathBuf,
    pub(crate) owner: Option<(u32, u32)>,
    start: Instant,
}

/// What was made.
pub(crate) struct Made {
    base: Base,
    files: Vec<String>,
    sizes: Vec<u64>,
    pub(crate) notes: Vec<Note>,
    overlay: Option<RepoOverlay>,
    fetch_millis: u64,
    pub(crate) persistent: Option<PersistentUse>,
}

impl<'a> Job<'a> {
    fn new(inner: &'a Inner, request: &'a PrepareRequest) -> Self {
        let dir = request.dir.join(WORKSPACE);
        let shown = request.source.as_ref();
        Self {
            inner,
            request,
            shown: shown
                .map_or_else(|| "the empty repository".to_owned(), crate::RepoSource::display),
            repo_dir: dir.join("repo"),
            dir,
            owner: request.owner.filter(|_| rustix::process::geteuid().is_root()),
            start: Instant::now(),
        }
    }

    /// Makes all directories and files but those of the repository.
    fn begin(&self) -> io::Result<()> {
        if !self.request.laid_out {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.request.dir)?;
            lay_out_in(&self.request.dir, self.owner)?;
        }
        std::fs::write(self.dir.join("task.md"), &self.request.task)
    }

    fn want<'b>(&'b self, point: &'b Point) -> Want<'b> {
        let (tenant, shown) = point.names(&self.request.tenant, &self.shown);
        let (commit, branch) = (&point.commit, point.branch.as_deref());
        Want { tenant, shown, commit, branch, owner: self.owner }
    }

    async fn ask(&self) -> Result<Point, PrepareError> {
        let (source, branch) = (self.request.source.as_ref(), self.request.branch.as_deref());
        start::ask(self.inner, &self.request.tenant, source, branch).await
    }

    pub(crate) async fn bring(&self, point: Point) -> Result<Base, PrepareError> {
        let (request, source) = (self.request, self.request.source.as_ref());
        let branch = request.branch.as_deref();
        Box::pin(start::bring(self.inner, &request.tenant, source, point, branch, &request.dir))
            .await
    }

    /// The files as a layer of the cache, and one above it.
    async fn layered(&self) -> Result<Made, PrepareError> {
        let placed = self.checkout().await?;
        let io = |source| PrepareError::Io { what: "making the layer of the run", source };
        let lower = vec![placed.checkout.tree.clone()];
        let dir = self.request.dir.join(LAYERS);
        let overlay = if self.request.laid_out {
            RepoOverlay::again(&dir, lower)
        } else {
            make_dir(&dir).and_then(|()| RepoOverlay::make(&dir, lower, self.owner)).map_err(io)?
        };
        Ok(placed.with(overlay))
    }

    /// A checkout of the cache, made if it is not there. Without git where the commit is known and was wanted before.
    async fn checkout(&self) -> Result<Placed, PrepareError> {
        let mut damaged = false;
        if let Some(guess) = self.quiet().filter(Point::is_guess)
            && let Some(placed) = self.take(&guess, &mut damaged).await?
        {
            return Ok(placed);
        }
        let point = self.point().await?;
        self.checkout_at(point, damaged).await
    }

    fn quiet(&self) -> Option<Point> {
        let (source, branch) = (self.request.source.as_ref(), self.request.branch.as_deref());
        start::quiet(self.inner, source, branch)
    }

    /// Where the work is to start, by the source's own word.
    pub(crate) async fn point(&self) -> Result<Point, PrepareError> {
        match self.quiet().filter(|point| !point.is_guess()) {
            Some(point) => Ok(point),
            None => self.ask().await,
        }
    }

    pub(crate) async fn checkout_at(
        &self,
        point: Point,
        mut damaged: bool,
    ) -> Result<Placed, PrepareError> {
        if let Some(placed) = self.take(&point, &mut damaged).await? {
            return Ok(placed);
        }
        let made = match self.bring(point.clone()).await {
            Ok(base) => self.make(base, &point, damaged).await,
            Err(error) => Err(error),
        };
        match made {
            Err(error) if error.tells_of_damage() => {
                self.discard_mirror(&point).await?;
                let base = self.bring(point.clone()).await?;
                self.make(base, &point, true).await
            }
            made => made,
        }
    }

    /// The checkout of a commit that once was a branch's.
    pub(crate) async fn checkout_of(&self, old: Point) -> Result<Placed, PrepareError> {
        let mut damaged = false;
        if let Some(placed) = self.take(&old, &mut damaged).await? {
            return Ok(placed);
        }
        // The branch may stand elsewhere by now: what is brought is this commit, whatever names it.
        let base = self.bring(old.at(&old.commit, None, old.is_nothing())).await?;
        self.make(Base { branch: old.branch.clone(), ..base }, &old, damaged).await
    }

    async fn take(
        &self,
        point: &Point,
        damaged: &mut bool,
    ) -> Result<Option<Placed>, PrepareError> {
        let key = self.want(point).key(&self.inner.cache);
        let mirror = point.mirror(self.inner, &self.request.tenant, &self.shown);
        match checkout::take(self.inner, &key, &mirror, &self.request.dir, &self.shown).await? {
            Found::Here(checkout) => {
                let source = self.request.source.as_ref();
                let local = source.is_some_and(crate::RepoSource::is_local);
                let base = point.clone().found(mirror, local);
                let fetch_millis = millis(self.start);
                Ok(Some(Placed { base, checkout, damaged: *damaged, fetch_millis }))
            }
            Found::Missing => Ok(None),
            Found::Damaged => {
                *damaged = true;
                Ok(None)
            }
        }
    }

    async fn make(&self, base: Base, point: &Point, damaged: bool) -> Result<Placed, PrepareError> {
        let fetch_millis = millis(self.start);
        let want = Want { commit: &base.commit, ..self.want(point) };
        let made = checkout::make(self.inner, &want, &base, &self.request.dir);
        let checkout = Box::pin(made).await?;
        Ok(Placed { base, checkout, damaged, fetch_millis })
    }

    /// The files as the workspace's own: cloned from a checkout of the cache where the disk can, else written anew.
    async fn copied(&self) -> Result<Made, PrepareError> {
        if reflink::works(&self.inner.cache.dir, &self.request.dir) {
            return self.cloned().await;
        }
        let point = self.point().await?;
        match self.written(point.clone()).await {
            Err(error) if error.tells_of_damage() => {
                self.discard_mirror(&point).await?;
                let anew = || {
                    crate::remove::remove_tree(&self.repo_dir)?;
                    make_dir(&self.repo_dir)
                };
                anew().map_err(|source| PrepareError::Io { what: "starting anew", source })?;
                let mut made = self.written(point).await?;
                made.notes.push(start::repaired());
                Ok(made)
            }
            made => made,
        }
    }

    async fn discard_mirror(&self, point: &Point) -> Result<(), PrepareError> {
        let mirror = point.mirror(self.inner, &self.request.tenant, &self.shown);
        start::discard(self.inner, &mirror, &self.shown).await
    }

    async fn written(&self, point: Point) -> Result<Made, PrepareError> {
        let base = self.bring(point).await?;
        let fetch_millis = millis(self.start);
        write_git_dir(&self.repo_dir, &base)
            .map_err(|source| PrepareError::Io { what: "making the workspace", source })?;
        let (tree, (), dirty) = tokio::try_join!(
            inspect::tree(self.inner, &base, &self.shown),
            check_out(self.inner, &self.repo_dir, &base),
            async { Ok(self.uncommitted(&base).await) },
        )?;
        let mut notes = base.notes.clone();
        notes.extend(dirty);
        let (tree, more) = finish(self.repo_dir.clone(), tree, self.owner).await?;
        notes.extend(more);
        let Tree { files, sizes, .. } = tree;
        Ok(Made { base, files, sizes, notes, overlay: None, fetch_millis, persistent: None })
    }

    async fn cloned(&self) -> Result<Made, PrepareError> {
        let placed = self.checkout().await?;
        let (from, to) = (placed.checkout.tree.clone(), self.repo_dir.clone());
        let owner = self.owner;
        let clone = move || reflink::clone_tree(&from, &to, owner);
        let done = tokio::task::spawn_blocking(clone).await.map_err(io::Error::other);
        done.and_then(|result| result)
            .map_err(|source| PrepareError::Io { what: "copying the checkout", source })?;
        let dirty = self.uncommitted(&placed.base).await;
        let mut made = placed.made();
        made.notes.extend(dirty);
        Ok(made)
    }

    /// Counts what a local source has not committed: it is not part of the work, and users wonder.
    async fn uncommitted(&self, base: &Base) -> Option<Note> {
        let source = self.request.source.as_ref().map(|source| &source.kind);
        let Some(SourceKind::Local { path }) = source.filter(|_| base.checked_out) else {
            return None;
        };
        let scratch = self.request.dir.join("status.git");
        inspect::uncommitted_note(self.inner, path, &scratch, &base.mirror, &base.commit).await
    }
}

/// A checkout that serves the request.
pub(crate) struct Placed {
    pub(crate) base: Base,
    pub(crate) checkout: Checkout,
    damaged: bool,
    fetch_millis: u64,
}

impl Placed {
    fn made(self) -> Made {
        let Self { base, checkout, damaged, fetch_millis } = self;
        let mut notes = base.notes.clone();
        if damaged && notes.iter().all(|note| note.code != start::REPAIRED) {
            notes.push(start::repaired());
        }
        notes.extend(checkout.facts.notes.iter().cloned());
        let (files, sizes) = (checkout.facts.files.clone(), checkout.facts.sizes.clone());
        Made { base, files, sizes, notes, overlay: None, fetch_millis, persistent: None }
    }

    pub(crate) fn with(self, overlay: RepoOverlay) -> Made {
        Made { overlay: Some(overlay), ..self.made() }
    }
}

/// See [`crate::Workspaces::lay_out`].
pub(crate) fn lay_out(dir: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let owner = owner.filter(|_| rustix::process::geteuid().is_root());
    std::fs::DirBuilder::new().mode(0o700).create(dir)?;
    lay_out_in(dir, owner)?;
    let layers = dir.join(LAYERS);
    make_dir(&layers)?;
    RepoOverlay::make(&layers, Vec::new(), owner).map(drop)
}

/// Makes what every workspace has, empty, in the directory of an attempt.
fn lay_out_in(dir: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let dir = dir.join(WORKSPACE);
    for path in [&dir, &dir.join("repo"), &dir.join("artifacts")] {
        make_dir(path)?;
    }
    for name in ["task.md", "context.json"] {
        std::fs::write(dir.join(name), "")?;
    }
    match owner {
        Some((uid, gid)) => give(&dir, uid, gid),
        None => Ok(()),
    }
}

/// Makes a directory that everybody may enter, whatever the umask is.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

pub(crate) fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Writes the repository directory of a checkout at the base commit.
pub(crate) fn write_git_dir(repo_dir: &Path, base: &Base) -> io::Result<()> {
    let local = format!("refs/heads/{}", base.branch.as_deref().unwrap_or(OWN_BRANCH));
    let mut refs = vec![local.clone()];
    refs.extend(base.branch.as_ref().map(|branch| format!("refs/remotes/origin/{branch}")));
    GitDir {
        commit: &base.commit,
        head: Some(&local),
        refs: &refs,
        borrows: &[&base.mirror.join("objects")],
        shallow: Some(&base.mirror.join("shallow")),
        settings: SETTINGS,
    }
    .write(&repo_dir.join(".git"), false)
}

/// Writes the files of the base commit. No filter can run: none is configured.
pub(crate) async fn check_out(
    inner: &Inner,
    repo_dir: &Path,
    base: &Base,
) -> Result<(), PrepareError> {
    inner
        .git
        .run("read-tree")
        .args(["-u", "--reset", &base.commit])
        .git_dir(&repo_dir.join(".git"))
        .env("GIT_WORK_TREE", repo_dir)
        .dir(repo_dir)
        .seconds(CHECKOUT_SECONDS_MAX)
        .output()
        .await?;
    Ok(())
}

/// Facts that need the files, then the owner of everything.
async fn finish(
    repo_dir: PathBuf,
    tree: Tree,
    owner: Option<(u32, u32)>,
) -> Result<(Tree, Vec<Note>), PrepareError> {
    let work = move || {
        let notes = inspect::notes(&tree, &repo_dir);
        if let Some((uid, gid)) = owner {
            give(&repo_dir, uid, gid)?;
        }
        Ok::<_, io::Error>((tree, notes))
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|result| result).map_err(|source| PrepareError::Io {
        what: "giving the workspace to the agent's user",
        source,
    })
}

/// Changes the owner of a tree this process has just written and nobody else can reach; links are changed, not followed.
pub(crate) fn give(dir: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                std::os::unix::fs::lchown(entry.path(), Some(uid), Some(gid))?;
            }
        }
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
    }
    Ok(())
}
