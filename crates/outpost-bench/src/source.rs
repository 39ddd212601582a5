//! A repository of any size, made in moments: git reads all of it from one stream.
//!
//! Its files are texts of random digits, so that they compress about as source code does. It has no checkout, as
//! nothing here looks at one. Git is run without the settings of whoever runs the bench. Bounded by the options
//! of the benches. Absent: history; a commit is one more with a few files changed.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::dataset::mix;
use crate::error::BenchError;

/// Files of one directory of the repository.
const DIRECTORY_FILES: u32 = 100;
/// Files that a further commit changes, at most.
const CHANGED_FILES: u32 = 10;
/// Characters of a line, without its end.
const LINE_CHARS: usize = 63;
/// Where programs are looked for.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A repository on this disk.
pub(crate) struct Source {
    pub(crate) dir: PathBuf,
    files: u32,
    file_bytes: u64,
    commits: u64,
}

impl Source {
    /// Makes one of this many files and, as far as that can be divided, bytes.
    pub(crate) fn make(dir: PathBuf, files: u32, bytes: u64) -> Result<Self, BenchError> {
        std::fs::create_dir_all(&dir)?;
        git(&dir, &["init", "--quiet", "--initial-branch=main", "."])?;
        let file_bytes = bytes / u64::from(files.max(1));
        let mut source = Self { dir, files, file_bytes, commits: 0 };
        source.import(files)?;
        Ok(source)
    }

    /// Commits a change of a few files to its branch.
    pub(crate) fn commit(&mut self) -> Result<(), BenchError> {
        self.import(self.files.min(CHANGED_FILES))
    }

    fn import(&mut self, files: u32) -> Result<(), BenchError> {
        let mut child = command(&self.dir)
            .args(["fast-import", "--quiet", "--date-format=raw"])
            .stdin(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let written = self.write(BufWriter::new(stdin), files);
        let ended = child.wait()?;
        written?;
        self.commits += 1;
        checked(ended.success(), "fast-import")
    }

    /// The stream of `git-fast-import(1)`.
    fn write(&self, mut to: impl Write, files: u32) -> io::Result<()> {
        let commits = self.commits;
        let at = 1_700_000_000 + commits;
        write!(to, "commit refs/heads/main\ncommitter Bench <bench@outpost.invalid> {at} +0000\n")?;
        write!(to, "data 5\nbench\n")?;
        if commits > 0 {
            writeln!(to, "from refs/heads/main^0")?;
        }
        for file in 0..files {
            let directory = file / DIRECTORY_FILES;
            write!(to, "M 100644 inline src/d{directory}/f{file}.txt\ndata {}\n", self.file_bytes)?;
            to.write_all(&text(commits << 32 | u64::from(file), self.file_bytes))?;
            writeln!(to)?;
        }
        to.flush()
    }

    /// Clones it to `to`, which is not there yet.
    pub(crate) fn clone_to(&self, to: &Path, kind: &str) -> Result<(), BenchError> {
        let (from, to) = (self.dir.to_string_lossy(), to.to_string_lossy());
        git(&self.dir, &["clone", "--quiet", kind, &from, &to])
    }
}

/// Lines of random hexadecimal digits.
fn text(seed: u64, bytes: u64) -> Vec<u8> {
    let digits = (0..bytes.div_ceil(16)).flat_map(|word| {
        let random = mix(mix(seed) ^ word);
        (0..16).map(move |at| b"0123456789abcdef"[(random >> (at * 4) & 15) as usize])
    });
    let mut text: Vec<u8> = digits.take(bytes as usize).collect();
    text.iter_mut().skip(LINE_CHARS).step_by(LINE_CHARS + 1).for_each(|byte| *byte = b'\n');
    text
}

/// Git in a directory, with no settings but its own.
fn command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env_clear().env("PATH", SEARCH_PATH).env("HOME", dir);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn git(dir: &Path, arguments: &[&str]) -> Result<(), BenchError> {
    let ended = command(dir).args(arguments).status()?;
    checked(ended.success(), arguments[0])
}

fn checked(success: bool, what: &str) -> Result<(), BenchError> {
    if success {
        return Ok(());
    }
    Err(BenchError::failed(format!("git {what} failed in the repository of the bench"))
        .with_hint("what git said stands above; is there room on the disk?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_its_size_and_moves_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Source::make(dir.path().join("source"), 250, 250_000).unwrap();
        let commits = |name: &str, kind: &str| {
            let clone = dir.path().join(name);
            source.clone_to(&clone, kind).unwrap();
            let files = std::fs::read_dir(clone.join("src")).unwrap().flatten();
            let files = files.flat_map(|dir| std::fs::read_dir(dir.path()).unwrap().flatten());
            let sizes: Vec<u64> = files.map(|file| file.metadata().unwrap().len()).collect();
            assert_eq!((sizes.len(), sizes.iter().sum()), (250, 250_000_u64));
            let log = command(&clone).args(["rev-list", "HEAD"]).stdout(Stdio::piped()).output();
            let text = String::from_utf8(log.unwrap().stdout).unwrap();
            text.lines().count()
        };
        assert_eq!(commits("one", "--no-hardlinks"), 1);
        source.commit().unwrap();
        let again = dir.path().join("two");
        source.clone_to(&again, "--shared").unwrap();
        let first = std::fs::read(dir.path().join("one/src/d0/f0.txt")).unwrap();
        assert_ne!(std::fs::read(again.join("src/d0/f0.txt")).unwrap(), first);
        assert_eq!(std::fs::read(again.join("src/d2/f249.txt")).unwrap().len(), 1_000);
        assert!(source.clone_to(&again, "--shared").is_err(), "what git refuses is an error");
    }
}
