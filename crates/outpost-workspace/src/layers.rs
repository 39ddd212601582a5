//! The layers a repository is shown by, named but not mounted: the sandbox does that.
//!
//! Bounded: names of layers for checks. Deliberately absent: a look into what a run has written.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Prepared;
use crate::prepare::make_dir;

/// Longest name of a layer for a check, bytes.
const NAME_BYTES_MAX: usize = 32;

/// How the files of a repository come into a workspace.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Layers {
    /// As an overlay on a shared checkout; the caller's sandbox mounts it. Costs the same for every repository.
    Overlay,
    /// As the workspace's own files: works everywhere, and takes as long as writing them.
    #[default]
    Copy,
}

/// An overlay to be shown at `<inside>/repo`. The sandbox mounts it, with extended attributes of the `user` kind (`userxattr`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RepoOverlay {
    /// Layers that are only read, top first.
    pub lower: Vec<PathBuf>,
    /// The topmost layer. It is written if there is a `work`.
    pub upper: PathBuf,
    /// Directory the kernel needs beside `upper` for writing; none for a view that is only read.
    pub work: Option<PathBuf>,
}

impl RepoOverlay {
    /// Makes `upper` and `work` in `dir` above the given layers. The directory becomes one that the agent's user may
    /// search, because the overlay is mounted with that user's rights; what it lies in keeps others out.
    pub(crate) fn make(
        dir: &Path,
        lower: Vec<PathBuf>,
        owner: Option<(u32, u32)>,
    ) -> io::Result<Self> {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        for path in [&upper, &work] {
            make_dir(path)?;
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
            }
        }
        Ok(Self { lower, upper, work: Some(work) })
    }

    /// The `upper` and `work` of an earlier [`RepoOverlay::make`].
    pub(crate) fn again(dir: &Path, lower: Vec<PathBuf>) -> Self {
        Self { lower, upper: dir.join("upper"), work: Some(dir.join("work")) }
    }

    /// The same files, only to be read.
    pub(crate) fn read_only(&self) -> Self {
        Self { work: None, ..self.clone() }
    }

    /// All layers, top first.
    fn all(&self) -> Vec<PathBuf> {
        let mut all = vec![self.upper.clone()];
        all.extend(self.lower.iter().cloned());
        all
    }
}

impl Prepared {
    /// Makes an empty layer above what the run left, for a check that may write without changing what is collected.
    ///
    /// `name` is 1 to 32 of `a-z 0-9 -`; one of an earlier call is replaced. It goes with the attempt's directory.
    ///
    /// # Errors
    /// The workspace has no layers (`Unsupported`), the name is none (`InvalidInput`), or the directory cannot be made.
    pub fn check_layers(&self, name: &str) -> io::Result<RepoOverlay> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.chars().all(fits) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of a check's layer must be 1 to 32 of a-z, 0-9 and -",
            ));
        }
        let Some(overlay) = &self.overlay else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the workspace is a copy and has no layers: run the check on its files",
            ));
        };
        let dir = self.attempt_dir.join(format!("check-{name}"));
        crate::remove::remove_tree(&dir)?;
        std::fs::create_dir(&dir)?;
        RepoOverlay::make(&dir, overlay.all(), self.owner)
    }

    /// Whether the agent sees a regular file of this name in the repository when it starts. `path` is relative, with `/`.
    ///
    /// Each layer is asked, from the top, without following links out of it; in a persistent workspace the topmost is an agent's
    /// work, so an answer may be wrong where that agent wants it to be, which is its own loss.
    pub fn shows_file(&self, path: &str) -> bool {
        let layers = match &self.overlay {
            Some(overlay) => overlay.all(),
            None => vec![self.repo_dir.clone()],
        };
        layers.iter().any(|layer| crate::artifacts::open_below(layer, path, u64::MAX).is_ok())
    }
}
