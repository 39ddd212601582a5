//! Applying a dispatch's patch to the user's own repository; for the command line, on the user's machine.
//!
//! Here the user's own git settings count (line endings, filters): it is his repository. The patch is still foreign: git refuses
//! paths that leave the repository or lie in `.git`, and that is checked here as well. Bounded: time and shown lines. Deliberately
//! absent: commits; the user looks first.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::ApplyError;
use crate::git::GitError;

/// Lines of git's words shown on a conflict.
const DETAIL_LINES_MAX: usize = 20;

/// What was, or would be, changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApplyReport {
    /// One line per file and a sum, as `git diff --stat` prints it.
    pub stat: String,
    /// Files the patch changes.
    pub files: u32,
    /// Whether the files were written; false for a dry run.
    pub applied: bool,
    /// Whether the files had moved on and git merged the change in three ways; the index then has it too.
    pub merged: bool,
}

/// What a patch changes, without a repository.
///
/// # Errors
/// The patch is empty or cannot be read.
pub fn patch_stat(patch: &[u8]) -> Result<(String, u32), ApplyError> {
    if patch.iter().all(u8::is_ascii_whitespace) {
        return Err(ApplyError::Empty);
    }
    let stat = run(Path::new("/"), &["apply", "--stat", "--summary", "-"], patch)?;
    check(&stat)?;
    let files = run(Path::new("/"), &["apply", "--numstat", "-z", "-"], patch)?;
    check(&files)?;
    Ok((String::from_utf8_lossy(&stat.stdout).trim_end().to_owned(), count_names(&files.stdout)?))
}

/// Counts the files of `git apply --numstat -z`; refuses names that leave the repository or lie in `.git`.
pub(crate) fn count_names(numstat: &[u8]) -> Result<u32, ApplyError> {
    let mut count = 0;
    for entry in numstat.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let name = entry.splitn(3, |byte| *byte == b'\t').nth(2).unwrap_or_default();
        if name
            .split(|byte| *byte == b'/')
            .any(|part| part.eq_ignore_ascii_case(b".git") || part == b"..")
        {
            return Err(ApplyError::Forbidden(String::from_utf8_lossy(name).into_owned()));
        }
        count += 1;
    }
    Ok(count)
}

/// Applies a patch to the repository that has `dir`, whole or not at all. With `dry_run` it only tells whether it would fit.
///
/// Files that moved on are merged in three ways if that leaves no conflict and they have no uncommitted changes.
///
/// # Errors
/// See [`ApplyError`]; nothing was changed then.
pub fn apply_patch_to(dir: &Path, patch: &[u8], dry_run: bool) -> Result<ApplyReport, ApplyError> {
    let top = run(dir, &["rev-parse", "--show-toplevel"], b"")?;
    let top = String::from_utf8_lossy(&top.stdout).trim_end_matches('\n').to_owned();
    if top.is_empty() {
        return Err(ApplyError::NotARepository(dir.to_owned()));
    }
    let top = Path::new(&top);
    let (stat, files) = patch_stat(patch)?;
    let plain = run(top, &["apply", "--check", "--binary", "-"], patch)?;
    let merged = !plain.status.success();
    if merged {
        // A dry run of the merge itself: `--check` with `--3way` does not tell conflicts, so a throwaway index tries it.
        check_merge(top, patch, &plain)?;
    }
    if !dry_run {
        let options: &[&str] = if merged {
            &["apply", "--3way", "--binary", "-"]
        } else {
            &["apply", "--binary", "-"]
        };
        check(&run(top, options, patch)?)?;
    }
    Ok(ApplyReport { stat, files, applied: !dry_run, merged })
}

/// Tries the merge on a copy of the index, without touching files.
fn check_merge(top: &Path, patch: &[u8], plain: &Output) -> Result<(), ApplyError> {
    let conflict = |output: &Output| ApplyError::Conflict { detail: detail(&output.stderr) };
    // The merge is made in the index and then written over the files: uncommitted changes of those files must be refused.
    let fits = run(top, &["apply", "--3way", "--check", "--binary", "-"], patch)?;
    if !fits.status.success() {
        return Err(conflict(plain));
    }
    let path = run(top, &["rev-parse", "--git-path", "index"], b"")?;
    let index = top.join(String::from_utf8_lossy(&path.stdout).trim_end_matches('\n'));
    let copy = index.with_file_name(format!("index.outpost-{}", std::process::id()));
    let start =
        |source| ApplyError::Git { source: GitError::Start { what: "apply".to_owned(), source } };
    std::fs::copy(&index, &copy).map_err(start)?;
    let tried = run_with(
        top,
        &["apply", "--3way", "--cached", "--binary", "-"],
        patch,
        &[("GIT_INDEX_FILE", copy.as_os_str())],
    );
    let _ = std::fs::remove_file(&copy);
    let _ = std::fs::remove_file(copy.with_extension("lock"));
    let tried = tried?;
    if tried.status.success() { Ok(()) } else { Err(conflict(&tried)) }
}

fn check(output: &Output) -> Result<(), ApplyError> {
    if output.status.success() {
        Ok(())
    } else {
        Err(ApplyError::Conflict { detail: detail(&output.stderr) })
    }
}

fn detail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("hint:"))
        .take(DETAIL_LINES_MAX)
        .map(|line| line.chars().filter(|c| !c.is_control()).take(300).collect())
        .collect();
    lines.join("\n")
}

pub(crate) fn run(dir: &Path, args: &[&str], input: &[u8]) -> Result<Output, ApplyError> {
    run_with(dir, args, input, &[])
}

/// Runs the user's git with the user's settings, in the C locale as its words are read.
fn run_with(
    dir: &Path,
    args: &[&str],
    input: &[u8],
    env: &[(&str, &OsStr)],
) -> Result<Output, ApplyError> {
    let start = |source| ApplyError::Git {
        source: GitError::Start {
            what: args.first().copied().unwrap_or_default().to_owned(),
            source,
        },
    };
    let mut child = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // Written beside the reading: both pipes may fill.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().map_err(start)
    })
}
