//! The push: onto what is expected, or not at all.

use outpost_workspace::git::GitError;

use crate::PromoteError;
use crate::stage::Clone;

/// Words of git for a branch that is not what the push expects.
const STALE: &[&str] = &["stale info", "non-fast-forward", "fetch first", "already exists"];

impl Clone<'_> {
    /// An earlier try may have pushed already: then there is nothing to do. The lease makes the look and the
    /// push one: whoever is between them wins.
    pub(crate) async fn push(
        &self,
        commit: &str,
        expected: Option<&str>,
    ) -> Result<(), PromoteError> {
        let there = self.refs().await?.branch;
        if there.as_deref() == Some(commit) {
            return Ok(());
        }
        if there.as_deref() != expected {
            return Err(self.taken());
        }
        let name = format!("refs/heads/{}", self.work.plan.branch);
        let lease = format!("--force-with-lease={name}:{}", expected.unwrap_or_default());
        let call = self.remote("push").args(["--quiet", "--no-verify", "--no-signed", &lease]);
        let call = call.args(["--", self.work.target.url.as_str(), &format!("{commit}:{name}")]);
        let Err(error) = call.output().await else { return Ok(()) };
        // The answer may be lost and the branch there, or somebody else was first: a look tells.
        if self.refs().await.is_ok_and(|remote| remote.branch.as_deref() == Some(commit)) {
            return Ok(());
        }
        if is_stale(&error) {
            return Err(self.taken());
        }
        Err(self.explain(&error, &format!("to take the branch {}", self.work.plan.branch)))
    }
}

fn is_stale(error: &GitError) -> bool {
    STALE.iter().any(|word| error.stderr().contains(word))
}
