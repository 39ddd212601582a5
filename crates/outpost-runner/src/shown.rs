//! What the sandboxes of an attempt show of the host.
//!
//! Bounded by the sandbox's own bounds. Absent: the userland, which every sandbox shows by itself.

use std::io;
use std::path::{Path, PathBuf};

use outpost_agents::Invocation;
use outpost_sandbox::{Bind, HOME_INSIDE};
use outpost_workspace::{Prepared, RepoOverlay};

/// Programs of the host that an agent's command needs. What is shown is the thing itself, wherever the links
/// of the host lead.
pub(crate) fn programs<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> io::Result<Vec<Bind>> {
    let paths = paths.into_iter().filter(|path| !is_userland(path));
    paths.map(|path| Ok(Bind::read_only(path.canonicalize()?, path))).collect()
}

/// Whether every sandbox shows this path already.
fn is_userland(path: &Path) -> bool {
    ["/usr", "/bin", "/sbin", "/lib", "/lib64"].iter().any(|root| path.starts_with(root))
}

/// The agent's workspace and home, and what covers files of the repository. `home` is the agent's.
pub(crate) fn workspace(
    prepared: &Prepared,
    invocation: &Invocation,
    home: &Path,
) -> io::Result<Vec<Bind>> {
    let mut binds = vec![
        Bind::read_write(&prepared.dir, &prepared.inside),
        Bind::read_write(home, HOME_INSIDE),
    ];
    binds.extend(prepared.overlay.iter().map(|overlay| repository(overlay, &prepared.inside)));
    let borrowed = prepared.ro_binds.iter();
    binds.extend(borrowed.map(|(host, inside)| Bind::read_only(host, inside)));
    for (index, mask) in invocation.repo_masks.iter().enumerate() {
        if !prepared.shows_file(&mask.path) {
            continue;
        }
        // A name that leads through a link of the repository is covered too: the bind lands where
        // the agent's own open would.
        let cover = prepared.attempt_dir.join(format!("cover-{index}"));
        std::fs::write(&cover, &mask.contents)?;
        binds.push(Bind::read_only(&cover, prepared.inside.join("repo").join(&mask.path)));
    }
    Ok(binds)
}

/// The repository as layers, where the workspace is shown at `inside`.
pub(crate) fn repository(overlay: &RepoOverlay, inside: &Path) -> Bind {
    let RepoOverlay { lower, upper, work } = overlay.clone();
    Bind::overlay(upper, work, lower, inside.join("repo"))
}
