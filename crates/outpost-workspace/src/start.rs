//! Where work starts: the commit, and the mirror that has it.
//!
//! Where the answer can be known without asking ([`quiet`]), nobody is asked; several who want to know the same ask once. Bounded:
//! by what asks and fetches (`remote`). Deliberately absent: the files of the commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::{Cache, Entry, Kind};
use crate::remote::{Remote, Wanted, is_commit_id, note};
use crate::source::{RepoSource, SourceKind};
use crate::{Inner, Note, PrepareError, local};

/// Message and date of the commit that stands for "nothing yet"; fixed, so that it is the same everywhere.
const EMPTY_MESSAGE: &str = "Empty start\n";
const EMPTY_DATE: &str = "1700000000 +0000";
/// Key of the mirror that has nothing but that commit. It has nothing of anybody, so all tenants share it.
const EMPTY_KEY: &str = "empty";

/// Code of the note of [`repaired`].
pub(crate) const REPAIRED: &str = "cache_repaired";

/// Where work is to start, before anything is fetched.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) commit: String,
    /// The source's branch, if it is one.
    pub(crate) branch: Option<String>,
    pub(crate) notes: Vec<Note>,
    /// The commit that the source has checked out, if it tells.
    head: Option<String>,
    /// There is no source, or nothing in it.
    nothing: bool,
    /// The source may know better: this only serves to find what is in the cache already.
    guess: bool,
}

/// Where work starts.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) mirror: PathBuf,
    pub(crate) commit: String,
    /// The source's branch, if it is one.
    pub(crate) branch: Option<String>,
    pub(crate) notes: Vec<Note>,
    /// The commit is the one a local source has checked out.
    pub(crate) checked_out: bool,
}

impl Point {
    /// A commit that a mirror has, or had.
    pub(crate) fn of_commit(commit: String) -> Self {
        Self { commit, branch: None, notes: Vec::new(), head: None, nothing: false, guess: false }
    }

    /// Another commit of the same source.
    pub(crate) fn at(&self, commit: &str, branch: Option<String>, nothing: bool) -> Self {
        Self { branch, nothing, ..Self::of_commit(commit.to_owned()) }
    }

    /// Whether it is the commit that stands for nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// What the cache may be asked for without anybody else's word.
    pub(crate) fn is_guess(&self) -> bool {
        self.guess
    }

    /// Whose checkouts of it are: nobody's, where there is nothing in it.
    pub(crate) fn names<'a>(&self, tenant: &'a str, shown: &'a str) -> (&'a str, &'a str) {
        if self.nothing { ("", "") } else { (tenant, shown) }
    }

    /// The mirror that has it, or will.
    pub(crate) fn mirror(&self, inner: &Inner, tenant: &str, shown: &str) -> PathBuf {
        if self.nothing {
            return inner.cache.mirror(EMPTY_KEY);
        }
        inner.cache.mirror(&Cache::key(tenant, shown))
    }

    /// The same, once its objects are in the mirror.
    pub(crate) fn found(self, mirror: PathBuf, local: bool) -> Base {
        let checked_out = local && !self.nothing && self.head.as_ref() == Some(&self.commit);
        let mut notes = self.notes;
        if mirror.join("shallow").exists() {
            notes.push(note(
                "shallow_source",
                "The source repository is shallow: its older history is missing here too."
                    .to_owned(),
            ));
        }
        Base { mirror, commit: self.commit, branch: self.branch, notes, checked_out }
    }
}

/// What can be known without asking: a commit that was named, a branch of a plain repository on this disk, or nothing at all.
pub(crate) fn quiet(
    inner: &Inner,
    source: Option<&RepoSource>,
    asked: Option<&str>,
) -> Option<Point> {
    let Some(source) = source else {
        let commit = local::look(&inner.cache.mirror(EMPTY_KEY), None)?.commit;
        return Some(Point { nothing: true, ..Point::of_commit(commit) });
    };
    if let Some(commit) = asked.filter(|asked| is_commit_id(asked)) {
        return Some(Point { guess: true, ..Point::of_commit(commit.to_ascii_lowercase()) });
    }
    let SourceKind::Local { path } = &source.kind else { return None };
    let seen = local::look(path, asked)?;
    let (branch, head) = (Some(seen.branch), Some(seen.head));
    Some(Point { branch, head, ..Point::of_commit(seen.commit) })
}

/// Asks the source. One that has nothing yet is like none.
pub(crate) async fn ask(
    inner: &Inner,
    tenant: &str,
    source: Option<&RepoSource>,
    asked: Option<&str>,
) -> Result<Point, PrepareError> {
    let Some(source) = source else { return nothing(inner, Vec::new()).await };
    let shown = source.display();
    let question = async { Remote::open(inner, source).await?.refs().await.map(Arc::new) };
    let key = Cache::key(tenant, &shown);
    let refs = inner.questions.join(&key, PrepareError::copied, Box::pin(question)).await?;
    if refs.is_empty() {
        let message =
            format!("{shown} has no commits yet. The work starts from an empty directory.");
        return nothing(inner, vec![note("empty_repository", message)]).await;
    }
    let Wanted { commit, branch } = refs.find(&shown, asked)?;
    let head = refs.head_commit.clone();
    Ok(Point { commit, branch, notes: Vec::new(), head, nothing: false, guess: false })
}

/// Brings the objects into the mirror, which `holder` then has a lease on.
pub(crate) async fn bring(
    inner: &Inner,
    tenant: &str,
    source: Option<&RepoSource>,
    mut point: Point,
    asked: Option<&str>,
    holder: &Path,
) -> Result<Base, PrepareError> {
    let io = |source| PrepareError::Io { what: "noting who uses the repository cache", source };
    let (Some(source), false) = (source, point.nothing) else {
        let mirror = inner.cache.mirror(EMPTY_KEY);
        let _lock = inner.cache.lock(EMPTY_KEY, "the empty repository").await?;
        if !mirror.is_dir() {
            make_empty(inner).await?;
        }
        inner.cache.leases.hold(EMPTY_KEY, holder).map_err(io)?;
        Cache::touch(&mirror);
        return Ok(point.found(mirror, false));
    };
    let remote = Remote::open(inner, source).await?;
    let key = Cache::key(tenant, &remote.shown);
    let _lock = inner.cache.lock(&key, &remote.shown).await?;
    let mirror = inner.cache.mirror(&key);
    if mirror.is_dir() && !mirror.join("HEAD").is_file() {
        let entry = Entry { kind: Kind::Mirror, key: key.clone() };
        inner.cache.set_aside(&entry).map_err(io)?;
        point.notes.push(repaired());
    }
    let wanted = Wanted { commit: point.commit, branch: point.branch.clone() };
    point.commit = remote.fill(&mirror, &key, &wanted, asked).await?;
    inner.cache.leases.hold(&key, holder).map_err(io)?;
    inner.cache.weigh(&key);
    Cache::touch(&mirror);
    Ok(point.found(mirror, source.is_local()))
}

/// Puts a damaged mirror out of the way.
pub(crate) async fn discard(inner: &Inner, mirror: &Path, shown: &str) -> Result<(), PrepareError> {
    let key = Cache::key_of_mirror(mirror);
    let _lock = inner.cache.lock(&key, shown).await?;
    if !mirror.is_dir() {
        return Ok(());
    }
    let entry = Entry { kind: Kind::Mirror, key };
    inner
        .cache
        .set_aside(&entry)
        .map_err(|source| PrepareError::Io { what: "putting a damaged mirror aside", source })
}

/// What users are told when something of the cache had to be made anew.
pub(crate) fn repaired() -> Note {
    let message = "A damaged part of the server's repository cache was made anew, which took longer. If it happens again, \
                   check the disk of the data directory.";
    note(REPAIRED, message.to_owned())
}

/// The start where there is no repository: a commit without files.
async fn nothing(inner: &Inner, notes: Vec<Note>) -> Result<Point, PrepareError> {
    let mirror = inner.cache.mirror(EMPTY_KEY);
    let _lock = inner.cache.lock(EMPTY_KEY, "the empty repository").await?;
    if !mirror.is_dir() {
        make_empty(inner).await?;
    }
    let git = &inner.git;
    let commit = match local::look(&mirror, None) {
        Some(seen) => seen.commit,
        None => {
            let name = ["--verify", "refs/heads/main"];
            git.run("rev-parse").args(name).git_dir(&mirror).text().await?
        }
    };
    Ok(Point { commit, branch: None, notes, head: None, nothing: true, guess: false })
}

async fn make_empty(inner: &Inner) -> Result<(), PrepareError> {
    let git = &inner.git;
    let scratch = inner.cache.scratch(EMPTY_KEY);
    git.run("init")
        .args(["--bare", "--quiet", "--template=", "--shared=0644", "--object-format=sha1"])
        .arg(scratch.path())
        .output()
        .await?;
    let tree = git.run("mktree").git_dir(scratch.path()).text().await?;
    let commit = git
        .run("commit-tree")
        .args([&tree, "-F", "-"])
        .stdin(EMPTY_MESSAGE.into())
        .env("GIT_AUTHOR_DATE", EMPTY_DATE)
        .env("GIT_COMMITTER_DATE", EMPTY_DATE)
        .git_dir(scratch.path())
        .text()
        .await?;
    git.run("update-ref")
        .args(["refs/heads/main", &commit])
        .git_dir(scratch.path())
        .output()
        .await?;
    inner
        .cache
        .publish(&scratch, EMPTY_KEY)
        .map(drop)
        .map_err(|source| PrepareError::Io { what: "adding to the repository cache", source })
}
