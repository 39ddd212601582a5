//! Where a branch of a repository on this disk stands, read without git.
//!
//! It answers only for the plain case: a repository directory with loose or packed refs whose `HEAD` names a branch. In every
//! other case, and in doubt, it says nothing and git is asked. What it reads is the user's, so links are not followed, only
//! regular files are read, and each has a bound. Deliberately absent: linked work trees, reftables, tags, detached heads.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::remote::{is_commit_id, is_name};

/// Longest `HEAD` or loose ref, bytes.
const REF_BYTES_MAX: u64 = 1024;
/// Longest `packed-refs` that is read here, bytes; above it git is asked.
const PACKED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A branch and where it stands.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) branch: String,
    pub(crate) commit: String,
    /// The commit that the repository has checked out.
    pub(crate) head: String,
}

/// Looks for a branch, or the default one, in the repository at `path`.
pub(crate) fn look(path: &Path, asked: Option<&str>) -> Option<Seen> {
    let dir = open_git_dir(path)?;
    let head = read(&dir, "HEAD", REF_BYTES_MAX)??;
    let head_branch = head.strip_prefix("ref: refs/heads/")?.strip_suffix('\n')?;
    let head = tip(&dir, head_branch)?;
    let branch = asked.unwrap_or(head_branch);
    let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    let commit = if branch == head_branch { head.clone() } else { tip(&dir, branch)? };
    Some(Seen { branch: branch.to_owned(), commit, head })
}

fn open_git_dir(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, path, flags, Mode::empty()).ok()?;
    match openat(&top, ".git", flags, Mode::empty()) {
        Ok(dir) => Some(dir),
        Err(rustix::io::Errno::NOENT) => Some(top),
        Err(_) => None,
    }
}

/// The commit of a branch. A loose ref wins over a packed one, and is read first: git packs a ref before it removes the loose one.
fn tip(dir: &OwnedFd, branch: &str) -> Option<String> {
    if !is_name(branch) {
        return None;
    }
    let name = format!("refs/heads/{branch}");
    if let Some(text) = read(dir, &name, REF_BYTES_MAX)? {
        let id = text.strip_suffix('\n')?;
        return is_commit_id(id).then(|| id.to_ascii_lowercase());
    }
    let packed = read(dir, "packed-refs", PACKED_BYTES_MAX)??;
    let id = packed.lines().find_map(|line| {
        let (id, other) = line.split_once(' ')?;
        (other == name && is_commit_id(id)).then(|| id.to_ascii_lowercase())
    });
    // It may have been made while the packed ones were read.
    id.filter(|_| read(dir, &name, REF_BYTES_MAX) == Some(None))
}

/// `Some(None)` if there is no such file, `None` if there is something that is not read here.
fn read(dir: &OwnedFd, name: &str, bytes_max: u64) -> Option<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Some(None),
        Err(_) => return None,
    };
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > bytes_max {
        return None;
    }
    let mut text = String::new();
    let read = file.take(bytes_max + 1).read_to_string(&mut text).ok()?;
    (read as u64 <= bytes_max).then_some(Some(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::look;

    #[test]
    fn plain_repositories_are_read_and_all_else_is_left_to_git() {
        let dir = tempfile::tempdir().unwrap();
        let (path, git) = (dir.path(), dir.path().join(".git"));
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        assert_eq!(look(path, None), None);
        std::fs::create_dir_all(git.join("refs/heads/feature")).unwrap();
        std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(look(path, None), None);
        let packed = format!("# pack-refs\n{b} refs/heads/main\n{a} refs/tags/v1\n^{b}\n");
        std::fs::write(git.join("packed-refs"), packed).unwrap();
        assert_eq!(look(path, None).unwrap().commit, b);
        std::fs::write(git.join("refs/heads/main"), format!("{a}\n")).unwrap();
        let seen = look(path, None).unwrap();
        assert_eq!((seen.branch.as_str(), &seen.commit, &seen.head), ("main", &a, &a));
        std::fs::write(git.join("refs/heads/feature/x"), format!("{b}\n")).unwrap();
        for name in ["feature/x", "refs/heads/feature/x"] {
            let seen = look(path, Some(name)).unwrap();
            assert_eq!((seen.branch.as_str(), &seen.commit, &seen.head), ("feature/x", &b, &a));
        }
        // The same repository, bare.
        assert_eq!(look(&git, None).unwrap().commit, a);
        for other in ["v1", "none", &a, "feature", "../HEAD", "feature/../main"] {
            assert_eq!(look(path, Some(other)), None, "{other}");
        }
        for (name, text) in [
            ("refs/heads/main", "ref: refs/heads/feature/x\n"),
            ("refs/heads/main", "abc\n"),
            ("HEAD", &format!("{a}\n")),
            ("HEAD", "ref: refs/heads/.invalid\n"),
            ("HEAD", &format!("ref: refs/heads/{}\n", "x".repeat(2000))),
        ] {
            let before = std::fs::read(git.join(name)).unwrap();
            std::fs::write(git.join(name), text).unwrap();
            assert_eq!(look(path, None), None, "{name} {text}");
            std::fs::write(git.join(name), before).unwrap();
        }
        std::fs::rename(git.join("refs/heads/main"), git.join("moved")).unwrap();
        symlink("../../moved", git.join("refs/heads/main")).unwrap();
        assert_eq!(look(path, None), None);
    }
}
