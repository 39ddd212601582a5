//! Taking in what the collect job left: one untrusted pack becomes `diff.patch` and `changes.bundle`.
//!
//! The pack goes into a fresh repository that borrows from the mirror; git checks every object of it, its ancestry and sizes are
//! checked here, and what is kept is written anew by this host's git. Bounded: all sizes and times. Deliberately absent: anything
//! the agent's or the job's words could decide; their status file only tells how to word the notes.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::artifacts::{self, Kept};
use crate::collect::COLLECT_DIR;
use crate::git::{Git, GitCall, GitError};
use crate::gitdir::GitDir;
use crate::inspect::names;
use crate::own::{self, OWN_NAME, OwnChange, Seen};
use crate::prepare::millis;
use crate::remote::{is_commit_id, note};
use crate::{CollectError, Collected, DIFF_BYTES_MAX, Inner, Note, PACK_BYTES_MAX, Prepared};

/// Longest status file, bytes.
const STATUS_BYTES_MAX: u64 = 256 * 1024;
/// Largest file and all new content of a result together when unpacked, bytes: git holds a file in memory to compare it.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
const CONTENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Time of each check, seconds.
const STEP_SECONDS_MAX: u64 = 300;
/// Where the pack is put in the fresh repository.
const PACK: &str = "objects/pack/pack-result.pack";
/// Files above this size are streamed and not searched for similar ones, bytes.
const BIG_FILE: &str = "33554432";
/// Ref of the result in the bundles.
const RESULT_REF: &str = "refs/heads/outpost";
pub(crate) const DIFF_NAME: &str = "diff.patch";
/// Name of the bundle of an agent's commits among the kept files; it has the one ref `refs/heads/outpost`.
pub const BUNDLE_NAME: &str = "changes.bundle";

/// What the job said.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Status {
    pub(crate) ended: bool,
    pub(crate) gone: bool,
    pub(crate) same: bool,
    pub(crate) result: Option<String>,
    pub(crate) failed: Option<String>,
    notes: Vec<(String, String)>,
}

/// See [`crate::Workspaces::ingest`].
pub(crate) async fn ingest(
    inner: &Inner,
    prepared: &Prepared,
    kept_dir: &Path,
) -> Result<Collected, CollectError> {
    let start = Instant::now();
    let (kept, mut notes) = keep_artifacts(prepared, kept_dir).await?;
    let status = read_status(&prepared.attempt_dir)?;
    if status.gone {
        return Err(CollectError::RepositoryGone);
    }
    if let Some(step) = &status.failed {
        return Err(CollectError::NoResult(format!("its files could not be packed (step {step})")));
    }
    notes.extend(status.worded());
    let mut collected = Collected {
        changed: false,
        result_commit: None,
        commits: 0,
        files_changed: 0,
        insertions: 0,
        deletions: 0,
        own: None,
        notes,
        artifacts: kept.files,
        millis: 0,
    };
    remove_file(&kept_dir.join(OWN_NAME))?;
    if let Some(result) = &status.result {
        let taken = take(inner, prepared, kept_dir, result, &mut collected).await;
        clear(&prepared.attempt_dir.join("ingest")).await?;
        taken?;
    } else if status.same && status.ended {
        replace(kept_dir, DIFF_NAME, b"")?;
        collected.artifacts.push((DIFF_NAME.to_owned(), 0));
        remove_file(&kept_dir.join(BUNDLE_NAME))?;
        let back = back_to_base(inner, prepared, kept_dir, &mut collected).await;
        clear(&prepared.attempt_dir.join("ingest")).await?;
        back?;
    } else {
        return Err(CollectError::NoResult(
            "the command that gathers it did not finish".to_owned(),
        ));
    }
    collected.artifacts.sort();
    collected.millis = millis(start);
    Ok(collected)
}

/// Takes in a result.
async fn take(
    inner: &Inner,
    prepared: &Prepared,
    kept_dir: &Path,
    result: &str,
    collected: &mut Collected,
) -> Result<(), CollectError> {
    let taken = Taken::open(inner, prepared, kept_dir, result).await?;
    taken.keep(collected).await?;
    taken.keep_own(collected).await?;
    let packs = taken.git_dir.join("objects/pack");
    own::remember(prepared, result, Some(&packs)).map_err(broken("remembering the work of a run"))
}

/// A persistent workspace that has nothing of its own: if it had before, this run took it back.
async fn back_to_base(
    inner: &Inner,
    prepared: &Prepared,
    kept_dir: &Path,
    collected: &mut Collected,
) -> Result<(), CollectError> {
    if Seen::of(prepared).is_some() {
        let base = &prepared.base_commit;
        Taken::lay_out(inner, prepared, kept_dir, base).await?.keep_own(collected).await?;
    }
    own::remember(prepared, &prepared.base_commit, None)
        .map_err(broken("remembering the work of a run"))
}

fn broken(what: &'static str) -> impl Fn(io::Error) -> CollectError {
    move |source| CollectError::Io { what, source }
}

async fn keep_artifacts(
    prepared: &Prepared,
    kept_dir: &Path,
) -> Result<(Kept, Vec<Note>), CollectError> {
    let (workspace, kept_dir) = (prepared.dir.clone(), kept_dir.to_owned());
    let work = move || {
        std::fs::create_dir_all(&kept_dir)?;
        artifacts::keep(&workspace, &kept_dir)
    };
    let done =
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|result| result);
    done.map_err(broken("keeping the artifacts"))
}

async fn clear(dir: &Path) -> Result<(), CollectError> {
    let dir = dir.to_owned();
    let done = tokio::task::spawn_blocking(move || crate::remove::remove_tree(&dir)).await;
    done.map_err(io::Error::other)
        .and_then(|result| result)
        .map_err(broken("removing a work directory"))
}

fn remove_file(path: &Path) -> Result<(), CollectError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(broken("removing an old artifact")(error))
        }
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all.
fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<(), CollectError> {
    let part = dir.join(format!(".{name}.part"));
    let write = || {
        std::fs::write(&part, content)?;
        std::fs::rename(&part, dir.join(name))
    };
    write().map_err(broken("keeping the result"))
}

fn read_status(attempt_dir: &Path) -> Result<Status, CollectError> {
    let name = format!("{COLLECT_DIR}/out/status");
    let file = artifacts::open_below(attempt_dir, &name, STATUS_BYTES_MAX).map_err(|error| {
        CollectError::NoResult(format!("the command that gathers it left no status ({error})"))
    })?;
    let mut bytes = Vec::new();
    file.take(STATUS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(broken("reading the agent's work"))?;
    Ok(Status::parse(&String::from_utf8_lossy(&bytes)))
}

impl Status {
    pub(crate) fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "end" => status.ended = true,
                "gone" => status.gone = true,
                "same" => status.same = true,
                "result" => status.result = is_commit_id(rest).then(|| rest.to_owned()),
                "failed" => {
                    let step: String = rest
                        .chars()
                        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
                        .take(20)
                        .collect();
                    status.failed = Some(step);
                }
                "note" => {
                    let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
                    status.notes.push((code.to_owned(), text.to_owned()));
                }
                _ => {}
            }
        }
        status
    }

    /// The notes in plain words. Only codes known here are taken over.
    pub(crate) fn worded(&self) -> Vec<Note> {
        let texts = |code: &str| -> Vec<String> {
            self.notes
                .iter()
                .filter(|(other, _)| other == code)
                .map(|(_, text)| text.clone())
                .collect()
        };
        let has = |code: &str| self.notes.iter().any(|(other, _)| other == code);
        let mut notes = Vec::new();
        let fixed: [(&'static str, &str); 5] = [
            (
                "git_dir_missing",
                "The agent removed the .git directory. Its files are kept as one commit; its own commits are lost.",
            ),
            (
                "head_unreadable",
                "The agent's repository has no readable commit. Its files are kept as one commit.",
            ),
            (
                "commits_unreadable",
                "The agent's commits are incomplete. Its files are kept as one commit.",
            ),
            (
                "history_rewritten",
                "The agent rewrote the history it started from. Its files are kept as one commit on top of the start.",
            ),
            (
                "attributes_ignored",
                "Git cannot obey the .gitattributes of the agent's files. They are kept as they are, without conversion.",
            ),
        ];
        notes.extend(
            fixed
                .into_iter()
                .filter(|(code, _)| has(code))
                .map(|(code, text)| note(code, text.to_owned())),
        );
        let listed: [(&'static str, &str); 3] = [
            ("nested_repository", "Repositories inside the repository are kept as plain files:"),
            ("large_file", "New files above 100 MiB are not part of the result:"),
            ("files_unreadable", "Some files could not be read and are not part of the result:"),
        ];
        for (code, text) in listed.into_iter().filter(|(code, _)| has(code)) {
            notes.push(note(code, format!("{text} {}.", names(&texts(code)))));
        }
        notes
    }
}

/// A result in a repository of this host.
struct Taken<'a> {
    git: &'a Git,
    git_dir: PathBuf,
    kept_dir: &'a Path,
    base: &'a str,
    result: String,
    /// What the run before ended with.
    seen: Option<Seen>,
}

impl<'a> Taken<'a> {
    /// Makes the repository.
    async fn lay_out(
        inner: &'a Inner,
        prepared: &'a Prepared,
        kept_dir: &'a Path,
        result: &str,
    ) -> Result<Self, CollectError> {
        let dir = prepared.attempt_dir.join("ingest");
        clear(&dir).await?;
        std::fs::create_dir(&dir).map_err(broken("taking in the agent's work"))?;
        let git_dir = dir.join("git");
        let objects = prepared.mirror.join("objects");
        let seen = Seen::of(prepared);
        let mut borrows = vec![objects.as_path()];
        borrows.extend(seen.as_ref().map(|seen| seen.objects.as_path()));
        GitDir {
            commit: &prepared.base_commit,
            head: Some(RESULT_REF),
            refs: &["refs/heads/base".to_owned()],
            borrows: &borrows,
            shallow: Some(&prepared.mirror.join("shallow")),
            settings: "",
        }
        .write(&git_dir, true)
        .map_err(broken("taking in the agent's work"))?;
        let (base, result) = (&prepared.base_commit, result.to_owned());
        Ok(Self { git: &inner.git, git_dir, kept_dir, base, result, seen })
    }

    /// Copies the pack, and checks what came.
    async fn open(
        inner: &'a Inner,
        prepared: &'a Prepared,
        kept_dir: &'a Path,
        result: &str,
    ) -> Result<Self, CollectError> {
        let taken = Self::lay_out(inner, prepared, kept_dir, result).await?;
        copy_pack(&prepared.attempt_dir, &taken.git_dir.join(PACK)).await?;
        taken.index(&prepared.attempt_dir.join("ingest")).await?;
        taken.check_connection().await?;
        taken.check_ancestry().await?;
        taken.check_sizes().await?;
        Ok(taken)
    }

    fn call(&self, what: &str) -> GitCall<'_> {
        self.git
            .run(what)
            .git_dir(&self.git_dir)
            .setting("core.bigFileThreshold", BIG_FILE)
            .seconds(STEP_SECONDS_MAX)
    }

    /// Lets git read and check every object of the pack.
    async fn index(&self, dir: &Path) -> Result<(), CollectError> {
        // What the source itself has is no fault of the agent: its own .gitmodules is not judged again.
        let own = format!("{}:.gitmodules", self.base);
        let known = self.call("rev-parse").args(["--verify", "--quiet", &own]).text().await;
        std::fs::write(dir.join("skip"), known.unwrap_or_default() + "\n")
            .map_err(broken("taking in the agent's work"))?;
        let indexed = self
            .call("index-pack")
            .args(["--threads=1", "--strict=skiplist=skip"])
            .arg(self.git_dir.join(PACK))
            // The list is named from here: git splits that option at spaces.
            .dir(dir)
            .watch(dir, 2 * PACK_BYTES_MAX)
            .output()
            .await;
        match indexed {
            Ok(_) => Ok(()),
            Err(GitError::TooLarge { .. }) => Err(too_large("its packed size", PACK_BYTES_MAX)),
            Err(GitError::Failed { stderr_tail, .. }) => {
                Err(CollectError::Refused { why: stderr_tail })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The result must be a commit with all that it names; then it gets its ref.
    async fn check_connection(&self) -> Result<(), CollectError> {
        let walk = ["--objects", "--quiet", &self.result, "--not", self.base];
        match self.call("rev-list").args(walk).output().await {
            Ok(_) => {}
            Err(GitError::Failed { stderr_tail, .. }) => {
                return Err(CollectError::Refused { why: stderr_tail });
            }
            Err(error) => return Err(error.into()),
        }
        match self.call("update-ref").args([RESULT_REF, &self.result]).output().await {
            Ok(_) => Ok(()),
            Err(GitError::Failed { stderr_tail, .. }) => {
                Err(CollectError::Refused { why: stderr_tail })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn check_ancestry(&self) -> Result<(), CollectError> {
        match self
            .call("merge-base")
            .args(["--is-ancestor", self.base, &self.result])
            .output()
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(1) => Err(CollectError::Refused {
                why: "they do not start from the commit the dispatch started from".to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// A few bytes can unpack to very many; nothing below looks at content before this has passed.
    async fn check_sizes(&self) -> Result<(), CollectError> {
        let new = ["--objects", "--no-object-names", &self.result, "--not", self.base];
        let ids = self.call("rev-list").args(new).output().await?;
        let sizes =
            self.call("cat-file").arg("--batch-check=%(objectsize)").stdin(ids).text().await?;
        let mut total = 0_u64;
        for line in sizes.lines() {
            let size: u64 = line
                .parse()
                .map_err(|_| CollectError::Refused { why: "an object is missing".to_owned() })?;
            if size > FILE_BYTES_MAX {
                return Err(too_large("one file", FILE_BYTES_MAX));
            }
            total = total.saturating_add(size);
        }
        if total > CONTENT_BYTES_MAX {
            Err(too_large("all new files", CONTENT_BYTES_MAX))
        } else {
            Ok(())
        }
    }

    /// Writes diff and bundle, and fills in the figures.
    async fn keep(&self, collected: &mut Collected) -> Result<(), CollectError> {
        let range = format!("{}..{}", self.base, self.result);
        let count = self.call("rev-list").args(["--count", &range]).text().await?;
        collected.commits = count.parse().unwrap_or(u32::MAX);
        (collected.files_changed, collected.insertions, collected.deletions) =
            self.keep_diff(self.base, DIFF_NAME, collected).await?;
        let part = self.kept_dir.join(format!(".{BUNDLE_NAME}.part"));
        remove_file(&part)?;
        self.call("bundle")
            .args(["create", "--quiet"])
            .arg(&part)
            .args([RESULT_REF, &format!("^{}", self.base)])
            .output()
            .await?;
        let bytes = std::fs::metadata(&part).map_err(broken("keeping the result"))?.len();
        rename(&part, &self.kept_dir.join(BUNDLE_NAME))?;
        collected.artifacts.push((BUNDLE_NAME.to_owned(), bytes));
        collected.changed = true;
        collected.result_commit = Some(self.result.clone());
        Ok(())
    }

    /// Tells what the run changed by itself, if there was work before it.
    async fn keep_own(&self, collected: &mut Collected) -> Result<(), CollectError> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let (files_changed, insertions, deletions) =
            self.keep_diff(&seen.commit, OWN_NAME, collected).await?;
        collected.own = Some(OwnChange { files_changed, insertions, deletions });
        Ok(())
    }

    /// Writes the difference between a commit and the result to a patch of that name; its figures.
    async fn keep_diff(
        &self,
        from: &str,
        name: &str,
        collected: &mut Collected,
    ) -> Result<(u32, u64, u64), CollectError> {
        let stat = self.diff(from, &["--shortstat"]).text().await?;
        let part = self.kept_dir.join(format!(".{name}.part"));
        remove_file(&part)?;
        match self
            .diff(from, &["--patch", "--binary", "--full-index"])
            .to_file(&part, DIFF_BYTES_MAX)
            .await
        {
            Ok(bytes) => {
                rename(&part, &self.kept_dir.join(name))?;
                collected.artifacts.push((name.to_owned(), bytes));
            }
            Err(GitError::TooMuchOutput { .. }) => {
                remove_file(&part)?;
                remove_file(&self.kept_dir.join(name))?;
                let message =
                    "The difference is too large to be kept as a patch. Use changes.bundle."
                        .to_owned();
                collected.notes.push(note("diff_too_large", message));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(parse_shortstat(&stat))
    }

    fn diff(&self, from: &str, options: &[&str]) -> GitCall<'_> {
        self.call("diff")
            .args([
                "--no-ext-diff",
                "--no-textconv",
                "--no-color",
                "--ignore-submodules=none",
                "-M",
                "-l2000",
            ])
            .args(options)
            .args([from, &self.result, "--"])
    }
}

fn too_large(what: &'static str, limit_bytes: u64) -> CollectError {
    CollectError::TooLarge { what, limit_bytes }
}

fn rename(from: &Path, to: &Path) -> Result<(), CollectError> {
    std::fs::rename(from, to).map_err(broken("keeping the result"))
}

/// Copies the pack to where nobody else writes.
async fn copy_pack(attempt_dir: &Path, target: &Path) -> Result<(), CollectError> {
    let (attempt_dir, target) = (attempt_dir.to_owned(), target.to_owned());
    let work = move || {
        let source = artifacts::open_below(
            &attempt_dir,
            &format!("{COLLECT_DIR}/out/result.pack"),
            PACK_BYTES_MAX,
        )?;
        let mut copy = std::fs::File::create_new(&target)?;
        io::copy(&mut source.take(PACK_BYTES_MAX), &mut copy)?;
        copy.flush()
    };
    let done =
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|result| result);
    done.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => too_large("its packed size", PACK_BYTES_MAX),
        io::ErrorKind::NotFound => CollectError::NoResult("its pack is missing".to_owned()),
        _ => broken("taking in the agent's work")(error),
    })
}

/// Reads ` 3 files changed, 5 insertions(+), 2 deletions(-)`, any part of which may be missing.
pub(crate) fn parse_shortstat(text: &str) -> (u32, u64, u64) {
    let mut figures = (0, 0, 0);
    for part in text.trim().split(", ") {
        let Some((number, what)) = part.split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        if what.starts_with("file") {
            figures.0 = u32::try_from(number).unwrap_or(u32::MAX);
        } else if what.starts_with("insertion") {
            figures.1 = number;
        } else if what.starts_with("deletion") {
            figures.2 = number;
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::{Status, parse_shortstat};

    #[test]
    fn short_statistics() {
        assert_eq!(parse_shortstat(" 3 files changed, 5 insertions(+), 2 deletions(-)"), (3, 5, 2));
        assert_eq!(parse_shortstat(" 1 file changed, 1 deletion(-)"), (1, 0, 1));
        assert_eq!(parse_shortstat(""), (0, 0, 0));
    }

    #[test]
    fn status_takes_only_known_words() {
        let status = Status::parse(
            "note history_rewritten\nnote made_up x\nnote nested_repository a\u{1b}[0m\nresult --x\nhello\nend\n",
        );
        assert!(status.ended && status.result.is_none() && !status.same);
        let notes = status.worded();
        assert_eq!(notes.len(), 2);
        assert!(notes[1].message.contains("a?[0m"));
    }
}
