//! The command that gathers an agent's work.
//!
//! The agent's repository is only ever read inside a sealed sandbox, and never through its own repository directory: a fresh one,
//! made here, borrows the agent's objects and looks at its files. Bounded: sizes in the script, time by the caller. Deliberately
//! absent: trust in the result, which `ingest` checks.

use std::io;
use std::path::{Path, PathBuf};

use crate::gitdir::GitDir;
use crate::layers::RepoOverlay;
use crate::{CollectError, CollectJob, Inner, Prepared};

const SCRIPT: &str = include_str!("collect.sh");
/// Directory of the attempt that the collect job writes to.
pub(crate) const COLLECT_DIR: &str = "collect";

/// See [`crate::Workspaces::collect_job`].
pub(crate) fn collect_job(
    inner: &Inner,
    prepared: &Prepared,
    litter: &[String],
) -> Result<CollectJob, CollectError> {
    let io =
        |source| CollectError::Io { what: "making the directory for the agent's work", source };
    let dir = prepared.attempt_dir.join(COLLECT_DIR);
    let repo = prepared.inside.join("repo");
    crate::remove::remove_tree(&dir).map_err(io)?;
    lay_out(&dir, &repo, prepared).map_err(io)?;
    let excluded: String = litter.iter().map(|name| format!("/{name}\n")).collect();
    std::fs::write(dir.join("litter"), excluded).map_err(io)?;
    if let Some((uid, gid)) = prepared.owner {
        crate::prepare::give(&dir, uid, gid).map_err(io)?;
    }
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| io(io::Error::other("a path is not plain text")))
    };
    let argv = ["/bin/sh", "-c", SCRIPT, "collect"].map(str::to_owned).into_iter();
    let argv = argv.chain([text(&repo)?, text(&dir)?, prepared.base_commit.clone()]).collect();
    let same = |path: &PathBuf| (path.clone(), path.clone());
    // With layers nothing but the overlay is shown of the workspace: it is mounted where no name is the agent's.
    let overlay = prepared.overlay.as_ref().map(RepoOverlay::read_only);
    let mut ro_binds = vec![same(&prepared.mirror)];
    if overlay.is_none() {
        ro_binds.insert(0, (prepared.dir.clone(), prepared.inside.clone()));
    }
    Ok(CollectJob {
        argv,
        env: inner.git.sealed_env(&dir),
        cwd: "/".to_owned(),
        ro_binds,
        rw_binds: vec![same(&dir)],
        overlay,
    })
}

/// Makes the directory and the two repositories the script works with.
fn lay_out(dir: &Path, repo: &Path, prepared: &Prepared) -> io::Result<()> {
    std::fs::create_dir(dir)?;
    std::fs::create_dir(dir.join("out"))?;
    let mirror = prepared.mirror.join("objects");
    let agent = repo.join(".git/objects");
    let shallow = prepared.mirror.join("shallow");
    let base = GitDir {
        commit: &prepared.base_commit,
        head: Some("refs/heads/outpost"),
        refs: &["refs/heads/base".to_owned()],
        borrows: &[&mirror, &agent],
        shallow: Some(&shallow),
        settings: "[core]\n\tcompression = 1\n",
    };
    base.write(&dir.join("git"), false)?;
    GitDir { borrows: &[], refs: &[], shallow: None, ..base }.write(&dir.join("aux"), false)
}
