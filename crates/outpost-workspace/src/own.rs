//! What one run of a persistent workspace changed by itself.
//!
//! The work of a run is kept against the commit the workspace stands on, so that it fits the source whatever runs came before.
//! What the run itself did is the difference to the work that the run before ended with; that work is remembered beside the
//! workspace as the pack that was checked when it was taken in. Bounded: by what is taken in. Deliberately absent: what a run did
//! whose work could not be collected; it counts to the next one.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Prepared;
use crate::persistent::SEEN;
use crate::remote::is_commit_id;
use crate::remove::remove_tree;

/// Name of the patch of what a run changed by itself.
pub(crate) const OWN_NAME: &str = "run.patch";
/// Where the work of the run that is being collected waits until the run has ended.
pub(crate) const NEXT: &str = "seen.next";
const COMMIT: &str = "commit";
const PACKS: &str = "objects/pack";

/// What a run changed by itself, as git counts it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct OwnChange {
    /// Files that differ from what the run before left.
    pub files_changed: u32,
    /// Lines added.
    pub insertions: u64,
    /// Lines removed.
    pub deletions: u64,
}

/// The work that an earlier run ended with.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) commit: String,
    pub(crate) objects: PathBuf,
}

impl Seen {
    /// None for the first run of a workspace, and for workspaces that are not persistent.
    pub(crate) fn of(prepared: &Prepared) -> Option<Self> {
        let dir = prepared.persistent.as_ref()?.dir.join(SEEN);
        let commit = std::fs::read_to_string(dir.join(COMMIT)).ok()?;
        is_commit_id(&commit).then(|| Self { commit, objects: dir.join("objects") })
    }
}

/// Remembers the work of a run: its commit, and the pack that has it, if there is one.
pub(crate) fn remember(prepared: &Prepared, commit: &str, packs: Option<&Path>) -> io::Result<()> {
    let Some(used) = &prepared.persistent else { return Ok(()) };
    let next = used.dir.join(NEXT);
    remove_tree(&next)?;
    std::fs::create_dir_all(next.join(PACKS))?;
    for entry in packs.map(std::fs::read_dir).transpose()?.into_iter().flatten() {
        let (from, to) = {
            let entry = entry?;
            (entry.path(), next.join(PACKS).join(entry.file_name()))
        };
        // Another file system takes a copy.
        std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop))?;
    }
    std::fs::write(next.join(COMMIT), commit)
}

/// The run has ended: its work is what the next one begins with.
pub(crate) fn settle(workspace: &Path) -> io::Result<()> {
    let next = workspace.join(NEXT);
    if next.join(COMMIT).is_file() {
        remove_tree(&workspace.join(SEEN))?;
        std::fs::rename(next, workspace.join(SEEN))?;
    }
    Ok(())
}
