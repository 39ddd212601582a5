//! Making a workspace: directories, checkout, `task.md`, `context.json`, owner.
//!
//! The checkout borrows its objects from the mirror (an alternates file) and the mirror is bound read-only into the sandbox at its
//! own path. The other ways are worse: hard links would let the agent write into the cache, and a copy costs seconds for a
//! large repository. Bounded: bytes and files of the checkout (a few kilobytes of trees can name billions of files), and time.
//! Deliberately absent: submodules and large files kept elsewhere (LFS), which would need the network and run foreign code.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::gitdir::GitDir;
use crate::inspect::{self, Tree};
use crate::remote::{self, Base};
use crate::source::SourceKind;
use crate::{Inner, Note, PrepareError, PrepareRequest, Prepared};

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
    let start = Instant::now();
    let base =
        remote::base(inner, &request.tenant, request.source.as_ref(), request.branch.as_deref())
            .await?;
    let fetch_millis = millis(start);
    let start = Instant::now();
    let dir = request.dir.join("workspace");
    let repo_dir = dir.join("repo");
    lay_out(&request, &dir, &base)
        .map_err(|source| PrepareError::Io { what: "making the workspace", source })?;
    let shown = request
        .source
        .as_ref()
        .map_or_else(|| "the empty repository".to_owned(), crate::RepoSource::display);
    let (tree, (), dirty) = tokio::try_join!(
        inspect::tree(inner, &base, &shown),
        check_out(inner, &repo_dir, &base),
        uncommitted(inner, &request, &base),
    )?;
    let owner = request.owner.filter(|_| rustix::process::geteuid().is_root());
    let mut notes = base.notes.clone();
    notes.extend(dirty);
    let (tree, more) = finish(dir.clone(), repo_dir.clone(), tree, owner).await?;
    notes.extend(more);
    Ok(Prepared {
        attempt_dir: request.dir,
        dir,
        repo_dir,
        inside: request.inside,
        branch: base.branch,
        base_commit: base.commit,
        notes,
        tracked_files: tree.files,
        ro_binds: vec![(base.mirror.clone(), base.mirror.clone())],
        owner,
        fetch_millis,
        checkout_millis: millis(start),
        mirror: base.mirror,
    })
}

pub(crate) fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Makes all directories and files but the checkout itself.
fn lay_out(request: &PrepareRequest, dir: &Path, base: &Base) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&request.dir)?;
    for path in [dir.to_owned(), dir.join("repo"), dir.join("artifacts")] {
        std::fs::create_dir(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::write(dir.join("task.md"), &request.task)?;
    std::fs::write(
        dir.join("context.json"),
        "{\"version\":1,\"level\":\"minimal\",\"sections\":[]}\n",
    )?;
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
    .write(&dir.join("repo/.git"), false)
}

/// Writes the files of the base commit. No filter can run: none is configured.
async fn check_out(inner: &Inner, repo_dir: &Path, base: &Base) -> Result<(), PrepareError> {
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

/// Counts what a local source has not committed: it is not part of the work, and users wonder.
async fn uncommitted(
    inner: &Inner,
    request: &PrepareRequest,
    base: &Base,
) -> Result<Option<Note>, PrepareError> {
    let Some(SourceKind::Local { path }) = request.source.as_ref().map(|source| &source.kind)
    else {
        return Ok(None);
    };
    if !base.checked_out || !path.join(".git/index").is_file() {
        return Ok(None);
    }
    match inspect::uncommitted(inner, path, &request.dir.join("status.git"), base).await {
        Ok(0) => Ok(None),
        Ok(count) => {
            let message = format!(
                "{count} uncommitted files in {} are not part of the work. Commit them to include them.",
                path.display()
            );
            Ok(Some(remote::note("uncommitted_changes", message)))
        }
        Err(error) => {
            tracing::debug!(%error, "uncommitted changes of a local source could not be counted");
            Ok(None)
        }
    }
}

/// Facts that need the files, then the owner of everything.
async fn finish(
    dir: PathBuf,
    repo_dir: PathBuf,
    tree: Tree,
    owner: Option<(u32, u32)>,
) -> Result<(Tree, Vec<Note>), PrepareError> {
    let work = move || {
        let notes = inspect::notes(&tree, &repo_dir);
        if let Some((uid, gid)) = owner {
            give(&dir, uid, gid)?;
        }
        Ok::<_, io::Error>((tree, notes))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .and_then(|result| result)
        .map_err(|source| PrepareError::Io {
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
