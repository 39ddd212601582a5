//! The fresh clone, and every check before anything is sent.

use std::path::{Path, PathBuf};

use outpost_core::{CheckedFacts, PromotionPlan, is_branch_name};
use outpost_types::ErrorCode;
use outpost_types::limits::PROTECTED_PATHS_COUNT_MAX;
use outpost_workspace::Secret;
use outpost_workspace::git::{GitCall, GitError};

use crate::error::explain_git;
use crate::locate::Target;
use crate::protected::is_protected;
use crate::words::cut;
use crate::{PromoteError, Promoter};

/// Longest fetch and longest push, seconds.
const NETWORK_SECONDS_MAX: u64 = 840;
/// Longest question about refs, seconds.
const REFS_SECONDS_MAX: u64 = 60;
/// Longest list of changed names, bytes.
const NAMES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Name of the result in the kept bundle, as the collection writes it.
const BUNDLE_REF: &str = "refs/heads/outpost";
/// Names in the clone.
const TARGET_REF: &str = "refs/heads/target";
const RESULT_REF: &str = "refs/heads/result";
const OLD_REF: &str = "refs/heads/old";
/// Branches that only Outpost pushes: one may be moved on, if nothing of it is lost.
const OWN_PREFIX: &str = "outpost/";
/// Most files named in a message.
const NAMED_COUNT_MAX: usize = 5;
/// Longest name of a file that is kept, characters.
const NAME_CHARS_MAX: usize = 300;

/// What is to be promoted, and with which token.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Where to.
    pub target: &'a Target,
    /// The token of that host.
    pub token: &'a Secret,
    /// What was asked for.
    pub plan: &'a PromotionPlan,
    /// The kept `changes.bundle`.
    pub bundle: &'a Path,
    /// Name of the clone's directory; one of a kind.
    pub name: &'a str,
    /// What was pushed to the branch before, which this adds to. Then only what is new is looked through, and
    /// nothing that was allowed before is allowed again.
    pub since: Option<&'a str>,
}

impl<'a> Work<'a> {
    /// The same, adding to what was pushed before.
    #[must_use]
    pub const fn after(self, commit: &'a str) -> Self {
        Self { since: Some(commit), ..self }
    }
}

/// A clone that has the commit to push. It is removed when this is dropped.
#[derive(Debug)]
pub struct Staged {
    dir: PathBuf,
    /// What the checks found.
    pub checked: CheckedFacts,
}

impl Drop for Staged {
    fn drop(&mut self) {
        drop(Cleared::new(self.dir.clone()));
    }
}

/// A directory that goes with its owner.
struct Cleared(Option<PathBuf>);

impl Cleared {
    const fn new(dir: PathBuf) -> Self {
        Self(Some(dir))
    }

    fn keep(mut self) -> PathBuf {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Cleared {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take()
            && let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %dir.display(), "a clone could not be removed");
        }
    }
}

impl Promoter {
    /// Clones, takes in the changes and checks everything.
    ///
    /// # Errors
    /// Why it cannot be promoted; nothing was sent.
    pub async fn stage(&self, work: Work<'_>) -> Result<Staged, PromoteError> {
        if !is_branch_name(&work.plan.branch) {
            let message = "The branch has a name that git refuses.";
            return Err(PromoteError::refused(ErrorCode::InvalidField, message, "Choose another."));
        }
        let dir = self.inner.config.dir.join(work.name);
        let cleared = Cleared::new(dir.clone());
        let clone = Clone { promoter: self, work, dir };
        let checked = Box::pin(clone.make()).await?;
        Ok(Staged { dir: cleared.keep(), checked })
    }

    /// Whether the branch is there with this commit: an earlier server may have pushed it.
    ///
    /// # Errors
    /// The code host does not say.
    pub async fn is_pushed(&self, work: Work<'_>, commit: &str) -> Result<bool, PromoteError> {
        let clone = Clone { promoter: self, work, dir: self.inner.config.dir.join(work.name) };
        Ok(clone.refs().await?.branch.as_deref() == Some(commit))
    }

    /// Pushes what was staged, and only onto what `expected` says (nothing, or that commit).
    ///
    /// # Errors
    /// Why it was not pushed. `branch_exists` when the branch is there with another commit.
    pub async fn push(
        &self,
        work: Work<'_>,
        staged: &Staged,
        expected: Option<&str>,
    ) -> Result<(), PromoteError> {
        let clone = Clone { promoter: self, work, dir: staged.dir.clone() };
        clone.push(&staged.checked.commit, expected).await
    }
}

/// A clone at work.
pub(crate) struct Clone<'a> {
    pub(crate) promoter: &'a Promoter,
    pub(crate) work: Work<'a>,
    dir: PathBuf,
}

/// What the code host has.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    default_branch: Option<String>,
    target: Option<String>,
    pub(crate) branch: Option<String>,
}

impl Clone<'_> {
    async fn make(&self) -> Result<CheckedFacts, PromoteError> {
        self.init().await?;
        let remote = self.refs().await?;
        let host = &self.work.target.forge.host;
        let wanted = self.work.plan.target.clone().or(remote.default_branch);
        let Some(target_branch) = wanted.filter(|_| remote.target.is_some()) else {
            let name = self.work.plan.target.as_deref().unwrap_or("of its own choice");
            let message = format!("The code host {host} has no branch {}.", cut(name, 100));
            return Err(PromoteError::missing(message));
        };
        if target_branch == self.work.plan.branch {
            let message = format!("{target_branch} is the branch to merge into.");
            return Err(PromoteError::refused(
                ErrorCode::BranchExists,
                message,
                "Choose another name with `branch`.",
            ));
        }
        self.fetch(&[&format!("+refs/heads/{target_branch}:{TARGET_REF}")]).await?;
        self.have_base().await?;
        let commit = self.take_in().await?;
        let base = self.merge_base(&commit).await?;
        let expected = self.expected(&commit, remote.branch).await?;
        let from = self.work.since.unwrap_or(&base);
        let protected_paths = self.protected(from, &commit).await?;
        self.secrets(from, &commit).await?;
        self.merges(&commit).await?;
        let count = self.local("rev-list").args(["--count", &format!("{commit}..{TARGET_REF}")]);
        let count = count.text().await.map_err(|error| self.explain(&error, "counting commits"))?;
        let behind_by = count.parse().unwrap_or(u64::MAX);
        Ok(CheckedFacts { target_branch, commit, expected, behind_by, protected_paths })
    }

    async fn init(&self) -> Result<(), PromoteError> {
        let io = |error| PromoteError::internal("the clone", error);
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir).map_err(io)?;
        }
        std::fs::create_dir(&self.dir).map_err(io)?;
        let init = self.promoter.inner.git.run("init");
        let init = init.args(["--bare", "--quiet", "--template="]).arg(&self.dir);
        init.output().await.map(drop).map_err(|error| self.explain(&error, "the clone"))
    }

    /// A call in the clone that reaches nothing else.
    pub(crate) fn local(&self, what: &str) -> GitCall<'_> {
        self.promoter.inner.git.run(what).git_dir(&self.dir)
    }

    /// A call that may reach the code host, with its token and nowhere else.
    pub(crate) fn remote(&self, what: &str) -> GitCall<'_> {
        let target = self.work.target;
        let header = target.forge.header(self.work.token);
        // A question about refs needs no clone.
        let call = match what {
            "ls-remote" => self.promoter.inner.git.run(what),
            _ => self.local(what),
        };
        let call = call
            .https()
            .seconds(NETWORK_SECONDS_MAX)
            .setting("http.followRedirects", "false")
            .setting(&format!("http.{}.extraHeader", target.base()), header.reveal());
        // Only a loopback address can be a plain one: `Promoter::locate` refuses others.
        if target.url.scheme() == "http" {
            call.setting("protocol.http.allow", "always").setting("http.proxy", "")
        } else {
            call
        }
    }

    pub(crate) async fn refs(&self) -> Result<Remote, PromoteError> {
        let (url, plan) = (self.work.target.url.as_str(), self.work.plan);
        let branch = format!("refs/heads/{}", plan.branch);
        let target = plan.target.as_ref().map(|target| format!("refs/heads/{target}"));
        let call = self.remote("ls-remote").seconds(REFS_SECONDS_MAX);
        let call = call.args(["--symref", "--quiet", "--", url, "HEAD", &branch]).args(&target);
        let said = call.text().await.map_err(|error| self.explain(&error, "to be read"))?;
        Ok(read_refs(&said, &branch, target.as_deref()))
    }

    async fn fetch(&self, specs: &[&str]) -> Result<(), PromoteError> {
        let call = self.remote("fetch").args(["--quiet", "--no-tags", "--no-write-fetch-head"]);
        let call = call.args(["--", self.work.target.url.as_str()]).args(specs);
        let call = call.watch(&self.dir, self.promoter.inner.config.clone_bytes_max);
        call.output().await.map(drop).map_err(|error| self.explain(&error, "to be read"))
    }

    /// The commit the agent started from is in the target branch, or can be asked for by name.
    async fn have_base(&self) -> Result<(), PromoteError> {
        let base = &self.work.plan.base_commit;
        let has = || self.local("cat-file").args(["-e", &format!("{base}^{{commit}}")]).output();
        if has().await.is_ok() {
            return Ok(());
        }
        match self.fetch(&[base]).await {
            Err(hindered @ PromoteError::Hindered { .. }) if !is_internal(&hindered) => {
                return Err(hindered);
            }
            _ => {}
        }
        has().await.map(drop).map_err(|_| {
            let host = &self.work.target.forge.host;
            PromoteError::missing(format!(
                "The code host {host} does not have the commit {} that the dispatch started from.",
                base.get(..12).unwrap_or(base)
            ))
        })
    }

    /// Takes the kept commits in.
    async fn take_in(&self) -> Result<String, PromoteError> {
        let damaged = |error: &GitError| {
            tracing::error!(%error, "a kept bundle cannot be read");
            PromoteError::refused(
                ErrorCode::NothingToPromote,
                "The kept changes cannot be read.",
                "Their file was changed or damaged after the run; the server's log says more.",
            )
        };
        if !self.work.bundle.is_file() {
            return Err(nothing("The dispatch left no changes."));
        }
        let verify = self.local("bundle").args(["verify", "--quiet"]).arg(self.work.bundle);
        verify.output().await.map_err(|error| damaged(&error))?;
        let fetch = self.local("fetch").file().setting("fetch.fsckObjects", "true");
        let fetch = fetch.args(["--quiet", "--no-tags", "--no-write-fetch-head", "--"]);
        let fetch = fetch.arg(self.work.bundle).arg(format!("+{BUNDLE_REF}:{RESULT_REF}"));
        fetch.output().await.map_err(|error| damaged(&error))?;
        let commit = self.local("rev-parse").args(["--verify", RESULT_REF]).text().await;
        commit.map_err(|error| damaged(&error))
    }

    /// Where the changes leave the target branch.
    async fn merge_base(&self, commit: &str) -> Result<String, PromoteError> {
        let base = self.local("merge-base").args([TARGET_REF, commit]).text().await;
        let Ok(base) = base else {
            return Err(PromoteError::missing(
                "The changes have no commit in common with the target branch.",
            ));
        };
        if base == commit {
            return Err(nothing("The target branch has all of these changes already."));
        }
        let same = self.diff(&["--quiet"]).args([&base, commit]).output().await;
        match same {
            Ok(_) => Err(nothing("The commits of the dispatch change no file.")),
            Err(error) if error.code() == Some(1) => Ok(base),
            Err(error) => Err(self.explain(&error, "comparing")),
        }
    }

    pub(crate) fn diff(&self, options: &[&str]) -> GitCall<'_> {
        self.local("diff")
            .args(["--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=none"])
            .args(options)
    }

    async fn protected(&self, base: &str, commit: &str) -> Result<Vec<String>, PromoteError> {
        let call = self.diff(&["--name-only", "-z"]).args([base, commit]);
        let names = call.output_bytes_max(NAMES_BYTES_MAX).output().await;
        let names = names.map_err(|error| self.explain(&error, "comparing"))?;
        let names = String::from_utf8_lossy(&names);
        let found = names.split('\0').filter(|name| is_protected(name));
        let found: Vec<String> =
            found.take(PROTECTED_PATHS_COUNT_MAX).map(|name| cut(name, NAME_CHARS_MAX)).collect();
        let allowed = self.work.plan.allow_protected && self.work.since.is_none();
        if found.is_empty() || allowed {
            return Ok(found);
        }
        Err(PromoteError::refused(
            ErrorCode::ProtectedPaths,
            format!("The changes touch {}, which run in CI or instruct agents.", listed(&found)),
            "Read them. To promote them all the same: `allowProtected: true` (--allow-protected).",
        ))
    }

    async fn merges(&self, commit: &str) -> Result<(), PromoteError> {
        let call = self.local("merge-tree").args(["--write-tree", "--name-only", "--no-messages"]);
        let merged = call.args([TARGET_REF, commit]).output().await;
        let error = match merged {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if error.code() != Some(1) {
            return Err(self.explain(&error, "merging"));
        }
        let target = self.work.plan.target.as_deref().unwrap_or("the target branch");
        Err(PromoteError::refused(
            ErrorCode::MergeConflict,
            format!("The changes conflict with {}, which has moved on.", cut(target, 100)),
            "Dispatch the task again on the current branch, or merge by hand: `outpost apply`.",
        ))
    }

    /// What the branch may hold when it is pushed: nothing, these very changes, or, where only Outpost
    /// pushes, commits that they build on.
    async fn expected(
        &self,
        commit: &str,
        there: Option<String>,
    ) -> Result<Option<String>, PromoteError> {
        let since = self.work.since;
        let Some(there) = there else {
            return if since.is_some() { Err(self.taken()) } else { Ok(None) };
        };
        if there == commit {
            return Ok(Some(there));
        }
        let branch = &self.work.plan.branch;
        // What we pushed may be added to by any name; else only where nobody but Outpost pushes.
        if since.map_or_else(|| branch.starts_with(OWN_PREFIX), |since| since == there) {
            self.fetch(&[&format!("+refs/heads/{branch}:{OLD_REF}")]).await?;
            let older = self.local("merge-base").args(["--is-ancestor", &there, commit]);
            if older.output().await.is_ok() {
                return Ok(Some(there));
            }
        }
        Err(self.taken())
    }

    pub(crate) fn taken(&self) -> PromoteError {
        PromoteError::refused(
            ErrorCode::BranchExists,
            format!("The branch {} is there with other commits.", self.work.plan.branch),
            "Choose another name with `branch`, or delete it at the code host.",
        )
    }

    pub(crate) fn explain(&self, error: &GitError, what: &str) -> PromoteError {
        explain_git(error, &self.work.target.forge.host, what, Some(self.work.token.reveal()))
    }
}

fn is_internal(error: &PromoteError) -> bool {
    matches!(error, PromoteError::Hindered { failure, .. } if failure.code == ErrorCode::Internal)
}

fn nothing(message: &str) -> PromoteError {
    PromoteError::refused(ErrorCode::NothingToPromote, message, "There is nothing to push.")
}

pub(crate) fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMED_COUNT_MAX).map(String::as_str).collect::<Vec<_>>();
    match names.len().saturating_sub(NAMED_COUNT_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Reads what `ls-remote --symref` says.
fn read_refs(said: &str, branch: &str, target: Option<&str>) -> Remote {
    let mut remote = Remote::default();
    for line in said.lines() {
        let Some((value, name)) = line.split_once('\t') else { continue };
        if let Some(head) = value.strip_prefix("ref: ") {
            if name == "HEAD" {
                remote.default_branch = head.strip_prefix("refs/heads/").map(str::to_owned);
            }
            continue;
        }
        if name == branch {
            remote.branch = Some(value.to_owned());
        }
        if name == target.unwrap_or("HEAD") {
            remote.target = Some(value.to_owned());
        }
    }
    remote
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_read_by_their_whole_name() {
        let said = "ref: refs/heads/main\tHEAD\naaa\tHEAD\naaa\trefs/heads/main\nbbb\trefs/heads/x\n\
            ccc\trefs/remotes/o/refs/heads/y\n";
        let with = read_refs(said, "refs/heads/x", None);
        assert_eq!(with.default_branch.as_deref(), Some("main"));
        assert_eq!((with.target.as_deref(), with.branch.as_deref()), (Some("aaa"), Some("bbb")));
        let without = read_refs(said, "refs/heads/y", Some("refs/heads/z"));
        assert_eq!((without.target, without.branch), (None, None));
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!(listed(&names), "0, 1, 2, 3, 4 and 2 more");
        assert_eq!(listed(&names[..2]), "0, 1");
    }
}
