//! Doors for the fuzzers in `fuzz/`: what reads bytes of an agent or a repository, without the git and
//! the disk around it. No part of the interface; nothing else may call it.

use std::ffi::CStr;

use crate::ingest::Status;
use crate::inspect::Tree;
use crate::remote::{self, Refs};
use crate::{ApplyError, Note, PrepareError, RepoSource, SourceError};

/// What a collect job said, as far as it is taken over.
#[derive(Debug)]
pub struct StatusSeen {
    /// It came to its end, found the repository gone, or found nothing changed.
    pub flags: [bool; 3],
    /// The commit that it named.
    pub result: Option<String>,
    /// The step that failed.
    pub failed: Option<String>,
    /// What is told the user.
    pub notes: Vec<Note>,
}

/// Reads a collect job's status file.
#[must_use]
pub fn status(text: &str) -> StatusSeen {
    let status = Status::parse(text);
    let notes = status.worded();
    let flags = [status.ended, status.gone, status.same];
    StatusSeen { flags, result: status.result, failed: status.failed, notes }
}

/// Reads `git ls-tree -r -l -z`: the tracked files, and the bytes of all.
#[must_use]
pub fn tree(listing: &[u8]) -> (Vec<String>, u64) {
    let tree = Tree::parse(listing);
    (tree.files, tree.bytes)
}

/// Reads `git ls-remote --symref` and finds the commit and branch that `asked` means.
///
/// # Errors
/// [`PrepareError::BranchMissing`].
pub fn find_base(
    refs: &str,
    asked: Option<&str>,
) -> Result<(String, Option<String>), PrepareError> {
    Refs::parse(refs).find("repository", asked).map(|wanted| (wanted.commit, wanted.branch))
}

/// Whether a request may name this branch.
#[must_use]
pub fn is_branch_name(name: &str) -> bool {
    remote::is_name(name)
}

/// The name under which a file of the agent's `artifacts/` is kept, if it may be kept.
#[must_use]
pub fn artifact_name(name: &CStr) -> Option<&str> {
    crate::artifacts::plain(name)
}

/// Reads the `repo` field where local repositories are not allowed.
///
/// # Errors
/// As [`crate::Workspaces::parse_source`].
pub fn source(repo: &str, github_base: &str) -> Result<RepoSource, SourceError> {
    RepoSource::parse(repo, github_base, false)
}

/// Counts the files of a patch, as [`crate::patch_stat`] does with git's list of them.
///
/// # Errors
/// [`ApplyError::Forbidden`] when a name leaves the repository or lies in `.git`.
pub fn patch_names(numstat: &[u8]) -> Result<u32, ApplyError> {
    crate::apply::count_names(numstat)
}

/// Makes git's words fit for a message, without the value of the header.
#[must_use]
pub fn scrub(stderr: &[u8], header: Option<&str>) -> String {
    crate::git::scrub(stderr, header)
}

/// Reads the last line of `git diff --shortstat`: files, insertions, deletions.
#[must_use]
pub fn shortstat(text: &str) -> (u32, u64, u64) {
    crate::ingest::parse_shortstat(text)
}

/// The first few of many names, for a message.
#[must_use]
pub fn names(all: &[String]) -> String {
    crate::inspect::names(all)
}
