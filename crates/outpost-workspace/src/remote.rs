//! Asking a source what it has, and bringing it into a mirror.
//!
//! One question (`ls-remote`) tells what the source has; if the mirror has that commit nothing is fetched. Bounded: time, size on
//! disk (watched while git runs), the list of refs. Deliberately absent: pull request refs, notes and everything else that is
//! neither a branch nor a tag.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use url::Url;

use crate::cache::{Cache, Scratch, UNLOCKED};
use crate::git::{Git, GitCall, GitError};
use crate::source::{RepoSource, SourceKind, is_private};
use crate::{Inner, Note, PrepareError};

/// Longest clone or fetch, seconds.
const FETCH_SECONDS_MAX: u64 = 840;
/// Longest list of refs, bytes.
const REFS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest branch name, bytes (a file name below `refs/heads` has 255).
const BRANCH_BYTES_MAX: usize = 240;
/// Names offered when a branch is missing.
const CLOSE_NAMES_MAX: usize = 5;
/// What `ls-remote` told.
#[derive(Debug, Default)]
pub(crate) struct Refs {
    heads: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    head_branch: Option<String>,
    pub(crate) head_commit: Option<String>,
}

/// What is wanted, once the refs are known.
pub(crate) struct Wanted {
    pub(crate) commit: String,
    pub(crate) branch: Option<String>,
}

pub(crate) fn note(code: &'static str, message: String) -> Note {
    Note { code: code.into(), message }
}

/// A source with what git needs to reach it.
pub(crate) struct Remote<'a> {
    inner: &'a Inner,
    source: &'a RepoSource,
    /// The address given to git.
    url: String,
    /// The address for messages.
    pub(crate) shown: String,
    /// Settings for this source only.
    settings: Vec<(&'static str, String)>,
    /// Holds the configuration that lets git read a repository of another user.
    trust: Option<Scratch>,
}

impl<'a> Remote<'a> {
    pub(crate) async fn open(
        inner: &'a Inner,
        source: &'a RepoSource,
    ) -> Result<Self, PrepareError> {
        let shown = source.display();
        let mut remote =
            Remote { inner, source, url: shown.clone(), shown, settings: Vec::new(), trust: None };
        match &source.kind {
            SourceKind::Https { code_host: true, .. } => {}
            SourceKind::Https { url, code_host: false } => remote.pin(url).await?,
            SourceKind::Local { path } => remote.trust_owner(path)?,
        }
        Ok(remote)
    }

    /// Resolves a foreign host once, refuses inner addresses, and holds git to the answer: a name that changes its address
    /// between the check and the use would lead inside.
    async fn pin(&mut self, url: &str) -> Result<(), PrepareError> {
        self.settings.push(("http.followRedirects", "false".to_owned()));
        if ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
            .iter()
            .any(|name| std::env::var_os(name).is_some())
        {
            // The proxy resolves, and is the operator's place for such rules.
            return Ok(());
        }
        let network = |why: String| PrepareError::Network { repo: self.shown.clone(), why };
        let parsed = Url::parse(url).map_err(|error| network(error.to_string()))?;
        let host = parsed.host_str().unwrap_or_default().to_owned();
        let port = parsed.port_or_known_default().unwrap_or(443);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
            .await
            .map_err(|error| network(error.to_string()))?
            .collect();
        if found.iter().any(|address| is_private(address.ip())) {
            return Err(PrepareError::PrivateHost { repo: self.shown.clone() });
        }
        let list: Vec<String> = found
            .iter()
            .map(|address| {
                if address.is_ipv6() {
                    format!("[{}]", address.ip())
                } else {
                    address.ip().to_string()
                }
            })
            .collect();
        if !list.is_empty() && parsed.domain().is_some() {
            self.settings
                .push(("http.curloptResolve", format!("{host}:{port}:{}", list.join(","))));
        }
        Ok(())
    }

    /// Git refuses repositories of other users; the operator allowed this path, so it is named as safe. The setting must be a
    /// file: git hides settings of the environment from the process that serves a local repository.
    fn trust_owner(&mut self, path: &Path) -> Result<(), PrepareError> {
        let io = |source| PrepareError::Io { what: "writing to the repository cache", source };
        let scratch = self.inner.cache.scratch(UNLOCKED);
        std::fs::create_dir(scratch.path()).map_err(io)?;
        let quote =
            |path: &Path| path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!(
            "[safe]\n\tdirectory = \"{}\"\n\tdirectory = \"{}\"\n",
            quote(path),
            quote(&path.join(".git"))
        );
        std::fs::write(scratch.path().join("gitconfig"), text).map_err(io)?;
        self.url = Url::from_file_path(path)
            .map_or_else(|()| path.display().to_string(), |_| format!("file://{}", path.display()));
        self.trust = Some(scratch);
        Ok(())
    }

    /// A call that may reach this source and nothing else.
    fn call(&self, what: &str) -> GitCall<'_> {
        let mut call = self.inner.git.run(what).seconds(FETCH_SECONDS_MAX);
        for (key, value) in &self.settings {
            call = call.setting(key, value);
        }
        match &self.trust {
            Some(scratch) => call.file().env("GIT_CONFIG_GLOBAL", scratch.path().join("gitconfig")),
            None => call.https(),
        }
    }

    pub(crate) async fn refs(&self) -> Result<Refs, PrepareError> {
        let output = self
            .call("ls-remote")
            .args(["--symref", "--quiet", "--", &self.url, "HEAD", "refs/heads/*", "refs/tags/*"])
            .output_bytes_max(REFS_BYTES_MAX)
            .seconds(60)
            .output()
            .await
            .map_err(|error| self.explain(error))?;
        Ok(Refs::parse(&String::from_utf8_lossy(&output)))
    }

    /// Makes sure that the mirror is there and has the commit.
    pub(crate) async fn fill(
        &self,
        mirror: &Path,
        key: &str,
        wanted: &Wanted,
        asked: Option<&str>,
    ) -> Result<String, PrepareError> {
        if !mirror.is_dir() {
            self.clone_into(&self.inner.cache.scratch(key), key).await?;
        } else if !has_commit(&self.inner.git, mirror, &wanted.commit).await? {
            self.fetch(mirror).await?;
        } else {
            return Ok(wanted.commit.clone());
        }
        self.settle(mirror, wanted, asked).await
    }

    async fn clone_into(&self, scratch: &Scratch, key: &str) -> Result<PathBuf, PrepareError> {
        let limit = self.inner.config.repo_bytes_max;
        // Readable for the agent's user whatever the umask is; see `Cache::publish`.
        self.call("clone")
            .args([
                "--bare",
                "--quiet",
                "--template=",
                "--no-local",
                "-c",
                "core.sharedRepository=0644",
                "--",
                &self.url,
            ])
            .arg(scratch.path())
            .setting("fetch.unpackLimit", "1")
            .watch(scratch.path(), limit)
            .output()
            .await
            .map_err(|error| self.explain(error))?;
        if crate::cache::disk_bytes(scratch.path()) > limit {
            return Err(PrepareError::TooLarge { repo: self.shown.clone(), limit_bytes: limit });
        }
        let git = &self.inner.git;
        git.run("config")
            .args(["--remove-section", "remote.origin"])
            .git_dir(scratch.path())
            .output()
            .await?;
        self.inner
            .cache
            .publish(scratch, key)
            .map_err(|source| PrepareError::Io { what: "adding to the repository cache", source })
    }

    /// Fetches branches and tags, or one commit when `extra` names it.
    async fn fetch(&self, mirror: &Path) -> Result<(), PrepareError> {
        self.fetch_specs(
            mirror,
            &["--prune", "--update-shallow"],
            &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"],
        )
        .await?;
        Cache::join_packs(&self.inner.git, mirror).await?;
        Ok(())
    }

    async fn fetch_specs(
        &self,
        mirror: &Path,
        options: &[&str],
        specs: &[&str],
    ) -> Result<(), PrepareError> {
        Cache::clear_stale(mirror);
        let result = self
            .call("fetch")
            .args(["--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"])
            .args(options)
            .args(["--", &self.url])
            .args(specs)
            .git_dir(mirror)
            .setting("fetch.unpackLimit", "1")
            .watch(mirror, self.inner.config.repo_bytes_max)
            .output()
            .await;
        if result.is_err() {
            Cache::clear_stale(mirror);
        }
        result.map(drop).map_err(|error| self.explain(error))
    }

    /// Makes sure the wanted commit is there; a branch may have moved, and a commit id may need to be asked for by name.
    async fn settle(
        &self,
        mirror: &Path,
        wanted: &Wanted,
        asked: Option<&str>,
    ) -> Result<String, PrepareError> {
        let git = &self.inner.git;
        if has_commit(git, mirror, &wanted.commit).await? {
            return Ok(wanted.commit.clone());
        }
        if let Some(branch) = &wanted.branch {
            let name = format!("refs/heads/{branch}^{{commit}}");
            if let Ok(commit) = git
                .run("rev-parse")
                .args(["--verify", "--quiet", &name])
                .git_dir(mirror)
                .text()
                .await
            {
                return Ok(commit);
            }
        } else {
            match self.fetch_specs(mirror, &[], &[&wanted.commit]).await {
                Ok(()) if has_commit(git, mirror, &wanted.commit).await? => {
                    return Ok(wanted.commit.clone());
                }
                Err(error @ (PrepareError::TooLarge { .. } | PrepareError::Busy { .. })) => {
                    return Err(error);
                }
                // A host that does not know the commit, or does not give out single ones: both mean "missing" here.
                Ok(()) | Err(_) => {}
            }
        }
        let branch = asked.unwrap_or(&wanted.commit).to_owned();
        Err(PrepareError::BranchMissing { repo: self.shown.clone(), branch, close: Vec::new() })
    }

    /// Turns git's words into an error with a name.
    fn explain(&self, error: GitError) -> PrepareError {
        let repo = self.shown.clone();
        match &error {
            GitError::TooLarge { limit_bytes, .. } => {
                return PrepareError::TooLarge { repo, limit_bytes: *limit_bytes };
            }
            GitError::Failed { .. } => {}
            GitError::TimedOut { .. } if !self.source.is_local() => {
                return PrepareError::Network { repo, why: error.to_string() };
            }
            _ => return PrepareError::Git { source: error },
        }
        classify(error, repo, self.source.is_local())
    }
}

/// Words of git and curl (in the C locale) that tell why a source cannot be read.
fn classify(error: GitError, repo: String, local: bool) -> PrepareError {
    const MISSING: &[&str] = &[
        "not found",
        "does not appear to be a git repository",
        "does not exist",
        "error: 404",
        "error: 410",
    ];
    const AUTH: &[&str] = &[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "terminal prompts disabled",
        "error: 401",
        "error: 403",
        "Invalid username",
        "Permission denied",
    ];
    const NETWORK: &[&str] = &[
        "Could not resolve",
        "SSL",
        "certificate",
        "timed out",
        "Failed to connect",
        "early EOF",
        "RPC failed",
    ];
    let words = error.stderr();
    let has = |list: &[&str]| list.iter().any(|part| words.contains(part));
    if !local && has(NETWORK) && !has(AUTH) {
        return PrepareError::Network { repo, why: words.to_owned() };
    }
    if has(AUTH) {
        return PrepareError::NeedsAuth { repo };
    }
    if has(MISSING) {
        return PrepareError::RepositoryMissing { repo };
    }
    if local {
        return PrepareError::Git { source: error };
    }
    PrepareError::Network { repo, why: words.to_owned() }
}

impl Refs {
    /// Whether the source has nothing yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.tags.is_empty() && self.head_commit.is_none()
    }

    /// Reads lines of `<id>\t<ref>` and `ref: <ref>\tHEAD`. Names that no request may use are passed over:
    /// the other side is not to be trusted to keep git's rules.
    pub(crate) fn parse(text: &str) -> Self {
        let mut refs = Self::default();
        for line in text.lines() {
            let Some((left, name)) = line.split_once('\t') else { continue };
            if let Some(target) = left.strip_prefix("ref: ") {
                if name == "HEAD" {
                    let branch = target.strip_prefix("refs/heads/");
                    refs.head_branch = branch.filter(|name| is_name(name)).map(str::to_owned);
                }
            } else if !is_commit_id(left) {
            } else if name == "HEAD" {
                refs.head_commit = Some(left.to_owned());
            } else if let Some(branch) = name.strip_prefix("refs/heads/") {
                if is_name(branch) {
                    refs.heads.insert(branch.to_owned(), left.to_owned());
                }
            } else if let Some(tag) = name.strip_prefix("refs/tags/") {
                // The peeled line of an annotated tag follows the tag's own and replaces it.
                let tag = tag.strip_suffix("^{}").unwrap_or(tag);
                if is_name(tag) {
                    refs.tags.insert(tag.to_owned(), left.to_owned());
                }
            }
        }
        refs
    }

    pub(crate) fn find(&self, repo: &str, asked: Option<&str>) -> Result<Wanted, PrepareError> {
        let Some(asked) = asked else { return self.default_branch(repo) };
        let name = asked.strip_prefix("refs/heads/").unwrap_or(asked);
        if let Some(commit) = self.heads.get(name) {
            return Ok(Wanted { commit: commit.clone(), branch: Some(name.to_owned()) });
        }
        if let Some(commit) = self.tags.get(asked.strip_prefix("refs/tags/").unwrap_or(asked)) {
            return Ok(Wanted { commit: commit.clone(), branch: None });
        }
        if is_commit_id(asked) {
            return Ok(Wanted { commit: asked.to_ascii_lowercase(), branch: None });
        }
        let close = close_names(name, self.heads.keys().chain(self.tags.keys()));
        Err(PrepareError::BranchMissing { repo: repo.to_owned(), branch: asked.to_owned(), close })
    }

    fn default_branch(&self, repo: &str) -> Result<Wanted, PrepareError> {
        let named = [self.head_branch.as_deref(), Some("main"), Some("master")];
        for branch in named.into_iter().flatten() {
            if let Some(commit) = self.heads.get(branch)
                && (self.head_commit.as_ref().is_none_or(|head| head == commit)
                    || self.head_branch.is_some())
            {
                return Ok(Wanted { commit: commit.clone(), branch: Some(branch.to_owned()) });
            }
        }
        if let Some(commit) = &self.head_commit {
            return Ok(Wanted { commit: commit.clone(), branch: None });
        }
        match self.heads.iter().next() {
            Some((branch, commit)) => {
                Ok(Wanted { commit: commit.clone(), branch: Some(branch.clone()) })
            }
            None => Err(PrepareError::BranchMissing {
                repo: repo.to_owned(),
                branch: "HEAD".to_owned(),
                close: self.tags.keys().take(CLOSE_NAMES_MAX).cloned().collect(),
            }),
        }
    }
}

/// A full commit id, SHA-1 or SHA-256.
pub(crate) fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The rules of `git check-ref-format` that keep a name from being something else than a name.
pub(crate) fn is_name(name: &str) -> bool {
    let parts_fit = name
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"));
    !name.is_empty()
        && name.len() <= BRANCH_BYTES_MAX
        && !name.starts_with('-')
        && !name.ends_with('.')
        && name != "@"
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
        && parts_fit
}

pub(crate) fn check_name(name: &str) -> Result<(), PrepareError> {
    if is_name(name) {
        return Ok(());
    }
    Err(PrepareError::BranchInvalid {
        branch: name.chars().filter(|c| !c.is_control()).take(80).collect(),
    })
}

/// Names that share a part with the one asked for or differ in few letters, best first.
fn close_names<'a>(asked: &str, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    const COMPARED_MAX: usize = 10_000;
    let lower = asked.to_lowercase();
    let mut scored: Vec<(usize, &String)> = names
        .take(COMPARED_MAX)
        .filter_map(|name| {
            let other = name.to_lowercase();
            let distance = edits(&lower, &other);
            let near = distance <= (lower.len() / 3).max(2)
                || other.contains(&lower)
                || lower.contains(&other);
            near.then_some((distance, name))
        })
        .collect();
    scored.sort();
    scored.into_iter().take(CLOSE_NAMES_MAX).map(|(_, name)| name.clone()).collect()
}

/// Levenshtein distance in bytes; both are bounded by the length of a branch name.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<u8> = right.bytes().take(BRANCH_BYTES_MAX).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().take(BRANCH_BYTES_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replace = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// Whether the mirror has the commit. It then has all below it: git takes in only complete fetches.
async fn has_commit(git: &Git, mirror: &Path, commit: &str) -> Result<bool, GitError> {
    let spec = format!("{commit}^{{commit}}");
    match git.run("cat-file").args(["-e", &spec]).git_dir(mirror).output().await {
        Ok(_) => Ok(true),
        Err(error) if error.code().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{Refs, check_name, classify, close_names, edits};
    use crate::PrepareError;
    use crate::git::GitError;

    fn explained(stderr: &str) -> PrepareError {
        let error = GitError::Failed {
            what: "clone".to_owned(),
            code: Some(128),
            stderr_tail: stderr.to_owned(),
        };
        classify(error, "x/y".to_owned(), false)
    }

    #[test]
    fn words_of_git_get_names() {
        assert!(matches!(
            explained("fatal: repository 'https://h/x/y/' not found"),
            PrepareError::RepositoryMissing { .. }
        ));
        let prompt =
            "fatal: could not read Username for 'https://github.com': terminal prompts disabled";
        assert!(matches!(explained(prompt), PrepareError::NeedsAuth { .. }));
        let resolve = explained("fatal: unable to access 'https://h/': Could not resolve host: h");
        assert!(matches!(resolve, PrepareError::Network { .. }) && resolve.retry());
        assert!(matches!(
            explained("fatal: the remote end hung up: early EOF"),
            PrepareError::Network { .. }
        ));
    }

    #[test]
    fn names_are_names() {
        for good in
            ["main", "feature/x-1", "v1.2", "ünïcode", "0123456789012345678901234567890123456789"]
        {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a~1", "HEAD@{1}", "a:b", "/a", "a/", "a//b", ".a", "a/.b",
            "x.lock", "a.", "@", "a\nb", "a*",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn near_names_are_offered() {
        assert_eq!(edits("kitten", "sitting"), 3);
        let names: Vec<String> =
            ["main", "develop", "feature/login", "release"].map(str::to_owned).to_vec();
        assert_eq!(close_names("mian", names.iter()), ["main"]);
        assert_eq!(close_names("login", names.iter()), ["feature/login"]);
        assert!(close_names("zzzzzz", names.iter()).is_empty());
    }

    #[test]
    fn names_of_a_host_are_names_too() {
        let id = "a".repeat(40);
        let refs = Refs::parse(&format!(
            "ref: refs/heads/a b\tHEAD\n{id}\tHEAD\n{id}\trefs/heads/a b\n{id}\trefs/tags/\u{1b}[31m\n{id}\trefs/heads/ok\n"
        ));
        assert!(refs.head_branch.is_none() && refs.tags.is_empty());
        assert_eq!(refs.heads.into_keys().collect::<Vec<_>>(), ["ok"]);
    }

    #[test]
    fn annotated_tags_are_peeled() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let refs = Refs::parse(&format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/main\n{a}\trefs/tags/v1\n{b}\trefs/tags/v1^{{}}\n"
        ));
        assert_eq!(refs.find("r", Some("v1")).unwrap().commit, b);
        assert_eq!(refs.find("r", None).unwrap().branch.as_deref(), Some("main"));
    }
}
