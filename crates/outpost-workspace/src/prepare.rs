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
use crate::remote::{self, Base, Point};
use crate::source::SourceKind;
use crate::{Inner, Note, PrepareError, PrepareRequest, Prepared, reflink};

/// Longest checkout, seconds.
const CHECKOUT_SECONDS_MAX: u64 = 600;
/// Local branch of a checkout that does not start from a branch.
const OWN_BRANCH: &str = "outpost";

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
        remote::check_name(name)?;
    }
    let job = Job::new(inner, &request);
    job.lay_out().map_err(|source| PrepareError::Io { what: "making the workspace", source })?;
    let Made { base, files, sizes, notes, overlay, fetch_millis } = match request.layers {
        Layers::Overlay => job.layered().await?,
        Layers::Copy => job.copied().await?,
    };
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
        attempt_dir: request.dir,
        inside: request.inside,
    })
}

/// One workspace that is being made.
struct Job<'a> {
    inner: &'a Inner,
    request: &'a PrepareRequest,
    /// The source, for messages and keys.
    shown: String,
    dir: PathBuf,
    repo_dir: PathBuf,
    owner: Option<(u32, u32)>,
    start: Instant,
}

/// What was made.
struct Made {
    base: Base,
    files: Vec<String>,
    sizes: Vec<u64>,
    notes: Vec<Note>,
    overlay: Option<RepoOverlay>,
    fetch_millis: u64,
}

impl<'a> Job<'a> {
    fn new(inner: &'a Inner, request: &'a PrepareRequest) -> Self {
        let dir = request.dir.join("workspace");
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
    fn lay_out(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.request.dir)?;
        for path in [&self.dir, &self.repo_dir, &self.dir.join("artifacts")] {
            make_dir(path)?;
        }
        std::fs::write(self.dir.join("task.md"), &self.request.task)?;
        std::fs::write(
            self.dir.join("context.json"),
            "{\"version\":1,\"level\":\"minimal\",\"sections\":[]}\n",
        )?;
        match self.owner {
            Some((uid, gid)) => give(&self.dir, uid, gid),
            None => Ok(()),
        }
    }

    fn want<'b>(&'b self, point: &'b Point) -> Want<'b> {
        let (tenant, shown) = point.names(&self.request.tenant, &self.shown);
        let (commit, branch) = (&point.commit, point.branch.as_deref());
        Want { tenant, shown, commit, branch, owner: self.owner }
    }

    async fn ask(&self) -> Result<Point, PrepareError> {
        let (source, branch) = (self.request.source.as_ref(), self.request.branch.as_deref());
        remote::ask(self.inner, &self.request.tenant, source, branch).await
    }

    async fn bring(&self, point: Point) -> Result<Base, PrepareError> {
        let (request, source) = (self.request, self.request.source.as_ref());
        let branch = request.branch.as_deref();
        Box::pin(remote::bring(self.inner, &request.tenant, source, point, branch, &request.dir))
            .await
    }

    /// The files as a layer of the cache, and one above it.
    async fn layered(&self) -> Result<Made, PrepareError> {
        let (base, checkout, notes, fetch_millis) = self.checkout().await?;
        let io = |source| PrepareError::Io { what: "making the layer of the run", source };
        let overlay = RepoOverlay::make(&self.request.dir, vec![checkout.tree], self.owner);
        Ok(Made {
            base,
            files: checkout.facts.files.clone(),
            sizes: checkout.facts.sizes.clone(),
            notes,
            overlay: Some(overlay.map_err(io)?),
            fetch_millis,
        })
    }

    /// A checkout of the cache, made if it is not there. Without git where the commit is known and was wanted before.
    async fn checkout(&self) -> Result<(Base, Checkout, Vec<Note>, u64), PrepareError> {
        let (source, branch) = (self.request.source.as_ref(), self.request.branch.as_deref());
        let mut damaged = false;
        let mut point = remote::quiet(self.inner, source, branch);
        if let Some(point) = &point
            && let Some(here) = self.take(point, &mut damaged).await?
        {
            return Ok(here);
        }
        let point = match point.take_if(|point| !point.is_guess()) {
            Some(point) => point,
            None => {
                let point = self.ask().await?;
                if let Some(here) = self.take(&point, &mut damaged).await? {
                    return Ok(here);
                }
                point
            }
        };
        let base = self.bring(point.clone()).await;
        let made = match base {
            Ok(base) => self.make(base, &point).await,
            Err(error) => Err(error),
        };
        let (base, checkout, fetch_millis) = match made {
            Err(error) if error.tells_of_damage() => {
                damaged = true;
                let mirror = point.mirror(self.inner, &self.request.tenant, &self.shown);
                remote::discard(self.inner, &mirror, &self.shown).await?;
                let base = self.bring(point.clone()).await?;
                self.make(base, &point).await?
            }
            made => made?,
        };
        let notes = all_notes(&base, &checkout, damaged);
        Ok((base, checkout, notes, fetch_millis))
    }

    async fn take(
        &self,
        point: &Point,
        damaged: &mut bool,
    ) -> Result<Option<(Base, Checkout, Vec<Note>, u64)>, PrepareError> {
        let want = self.want(point);
        let key = want.key(&self.inner.cache);
        let mirror = point.mirror(self.inner, &self.request.tenant, &self.shown);
        match checkout::take(self.inner, &key, &mirror, &self.request.dir, &self.shown).await? {
            Found::Here(checkout) => {
                let local = self.request.source.as_ref().is_some_and(crate::RepoSource::is_local);
                let base = point.clone().found(mirror, local);
                let notes = all_notes(&base, &checkout, *damaged);
                Ok(Some((base, checkout, notes, millis(self.start))))
            }
            Found::Missing => Ok(None),
            Found::Damaged => {
                *damaged = true;
                Ok(None)
            }
        }
    }

    async fn make(&self, base: Base, point: &Point) -> Result<(Base, Checkout, u64), PrepareError> {
        let fetch_millis = millis(self.start);
        let want = Want { commit: &base.commit, ..self.want(point) };
        let made = checkout::make(self.inner, &want, &base, &self.request.dir);
        let checkout = Box::pin(made).await?;
        Ok((base, checkout, fetch_millis))
    }

    /// The files as the workspace's own: cloned from a checkout of the cache where the disk can, else written anew.
    async fn copied(&self) -> Result<Made, PrepareError> {
        if reflink::works(&self.inner.cache.dir, &self.request.dir) {
            return self.cloned().await;
        }
        let (source, branch) = (self.request.source.as_ref(), self.request.branch.as_deref());
        let quiet = remote::quiet(self.inner, source, branch);
        let point = match quiet.filter(|point| !point.is_guess()) {
            Some(point) => point,
            None => self.ask().await?,
        };
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
        Ok(Made { base, files, sizes, notes, overlay: None, fetch_millis })
    }

    async fn cloned(&self) -> Result<Made, PrepareError> {
        let (base, checkout, mut notes, fetch_millis) = self.checkout().await?;
        let (from, to, owner) = (checkout.tree.clone(), self.repo_dir.clone(), self.owner);
        let clone = move || reflink::clone_tree(&from, &to, owner);
        let done = tokio::task::spawn_blocking(clone).await.map_err(io::Error::other);
        done.and_then(|result| result)
            .map_err(|source| PrepareError::Io { what: "copying the checkout", source })?;
        notes.extend(self.uncommitted(&base).await);
        let (files, sizes) = (checkout.facts.files.clone(), checkout.facts.sizes.clone());
        Ok(Made { base, files, sizes, notes, overlay: None, fetch_millis })
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

fn all_notes(base: &Base, checkout: &Checkout, damaged: bool) -> Vec<Note> {
    let mut notes = base.notes.clone();
    notes.extend(damaged.then(remote::repaired));
    notes.extend(checkout.facts.notes.iter().cloned());
    notes
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
