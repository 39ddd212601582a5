//! The errors of this crate. Each message is for the user; [`std::error::Error::source`] has what lies below.

use std::io;
use std::path::PathBuf;

use crate::git::GitError;

/// Why a `repo` field is refused. All messages name the field.
#[derive(Debug, thiserror::Error, Eq, PartialEq)]
pub enum SourceError {
    /// Empty, over-long, or with characters that have no place in an address.
    #[error("repo: {0}. Use owner/name or https://host/owner/name.")]
    Malformed(&'static str),
    /// A scheme other than https (or file, where local repositories are allowed).
    #[error(
        "repo: addresses starting with {0}: are not accepted. Use owner/name or https://host/owner/name."
    )]
    Scheme(String),
    /// A user name or password in the address.
    #[error(
        "repo: remove the user name or password from the address. Credentials are set on the server."
    )]
    Credentials,
    /// An address inside the server's own network.
    #[error("repo: {0} is an address inside the server's network. Use a public host.")]
    PrivateHost(String),
    /// A local path where the operator does not allow it.
    #[error(
        "repo: paths on the server are not allowed here. Use owner/name or https://host/owner/name, or ask the operator to allow local repositories."
    )]
    LocalRefused,
    /// A path that is relative.
    #[error(
        "repo: give the whole path, starting with /. The server does not know your current directory."
    )]
    RelativePath,
    /// A path that has no repository.
    #[error("repo: there is no git repository at {0}. Check the path, or run git init there.")]
    NoRepository(PathBuf),
}

/// Why [`crate::Workspaces::new`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cache directory cannot be used.
    #[error(
        "the repository cache {path} cannot be used: make it writable for this user or set another directory"
    )]
    Cache {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Git does not run or is too old.
    #[error("git 2.38 or newer is needed at {path}: {why}. Install git or set its path.")]
    Git {
        /// The program that was tried.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Why a workspace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The host answered that there is no such repository, or hides it from this server.
    #[error("the repository {repo} was not found")]
    RepositoryMissing {
        /// As shown to the user; without credentials.
        repo: String,
    },
    /// The host wants a credential that is missing or refused.
    #[error(
        "the repository {repo} needs a credential that this server does not have, or the one it has was refused"
    )]
    NeedsAuth {
        /// As shown to the user.
        repo: String,
    },
    /// No such branch, tag or commit.
    #[error("the repository {repo} has no branch, tag or commit named {branch}")]
    BranchMissing {
        /// As shown to the user.
        repo: String,
        /// What was asked for.
        branch: String,
        /// Names that are close, best first, at most five.
        close: Vec<String>,
    },
    /// The name cannot be a branch.
    #[error("branch: {branch} is not a valid branch, tag or commit name")]
    BranchInvalid {
        /// What was asked for, shortened.
        branch: String,
    },
    /// Larger than the operator allows.
    #[error("the repository {repo} is larger than the {limit_bytes} bytes this server accepts")]
    TooLarge {
        /// As shown to the user.
        repo: String,
        /// The bound, bytes.
        limit_bytes: u64,
    },
    /// The host could not be reached, or broke off.
    #[error("the repository {repo} could not be fetched: {why}")]
    Network {
        /// As shown to the user.
        repo: String,
        /// The last lines of git, without credentials.
        why: String,
    },
    /// The host's name leads into the server's own network.
    #[error("the host of {repo} is inside the server's network")]
    PrivateHost {
        /// As shown to the user.
        repo: String,
    },
    /// Another fetch of the same repository took too long.
    #[error("another fetch of {repo} is still running")]
    Busy {
        /// As shown to the user.
        repo: String,
    },
    /// Somebody runs in the persistent workspace already.
    #[error("the persistent workspace {id} is in use by another run")]
    WorkspaceBusy {
        /// Its id.
        id: String,
    },
    /// The persistent workspace has grown beyond its bound.
    #[error(
        "the persistent workspace {id} is larger than the {limit_bytes} bytes it may have, or nested too deeply"
    )]
    WorkspaceTooLarge {
        /// Its id.
        id: String,
        /// The bound, bytes.
        limit_bytes: u64,
    },
    /// What is known of the persistent workspace cannot be read.
    #[error("the record of the persistent workspace {id} is missing or damaged")]
    WorkspaceDamaged {
        /// Its id.
        id: String,
    },
    /// The user of a persistent workspace has no name that can be one.
    #[error("the user of a persistent workspace must be named by 1 to 256 bytes of plain text")]
    UserInvalid,
    /// A persistent workspace where the sandbox has no overlays.
    #[error("persistent workspaces need overlay mounts, which this host does not offer")]
    LayersNeeded,
    /// A git command failed in a way that has no better name.
    #[error("git failed while preparing the workspace: {source}")]
    Git {
        /// What git said.
        #[from]
        source: GitError,
    },
    /// The disk.
    #[error("{what} failed: check free space and permissions of the data directory")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl PrepareError {
    /// Whether the same request may succeed later without anyone changing anything.
    pub fn retry(&self) -> bool {
        match self {
            Self::Network { .. }
            | Self::Busy { .. }
            | Self::WorkspaceBusy { .. }
            | Self::Io { .. } => true,
            Self::Git { source } => source.timed_out(),
            _ => false,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::RepositoryMissing { .. } => {
                "Check the spelling. If the repository is private, give the server a git token that can read it.".to_owned()
            }
            Self::NeedsAuth { .. } => "Give the server a git token that can read this repository.".to_owned(),
            Self::BranchMissing { close, .. } if close.is_empty() => {
                "Leave branch out to use the default branch.".to_owned()
            }
            Self::BranchMissing { close, .. } => format!("Did you mean {}?", close.join(", ")),
            Self::BranchInvalid { .. } => "Leave branch out to use the default branch.".to_owned(),
            Self::TooLarge { .. } => "Use a smaller repository or raise the server's bound on repository size.".to_owned(),
            Self::PrivateHost { .. } => "Use a public host, or make it the server's code host.".to_owned(),
            Self::Network { .. } | Self::Busy { .. } => "Try again in a minute.".to_owned(),
            Self::WorkspaceBusy { .. } => {
                "Wait until the other run has ended, or use an ephemeral workspace.".to_owned()
            }
            Self::WorkspaceTooLarge { id, .. } | Self::WorkspaceDamaged { id } => format!(
                "Fetch what you need of it, then delete it: DELETE /workspaces/{id}, or outpost workspaces rm {id}. The next run starts afresh."
            ),
            Self::LayersNeeded => "Use an ephemeral workspace.".to_owned(),
            Self::Git { .. } | Self::UserInvalid | Self::Io { .. } => return None,
        })
    }
}

/// Words of git (in the C locale) that tell that a repository on this disk is damaged.
const DAMAGE: &[&str] = &[
    "corrupt",
    "bad object",
    "bad tree object",
    "inflate:",
    "unable to read",
    "unable to unpack",
    "index unavailable",
    "not a GIT packfile",
    "does not match index",
    "bad pack header",
    "could not parse",
    "invalid gitfile",
    "bad config",
];

impl PrepareError {
    /// Whether git complained about a repository rather than about the way to it.
    pub(crate) fn tells_of_damage(&self) -> bool {
        let words = match self {
            Self::Git { source } => source.stderr(),
            Self::Network { why, .. } => why,
            _ => return false,
        };
        DAMAGE.iter().any(|part| words.contains(part))
    }

    /// A copy for others who asked the same, where it can be copied.
    pub(crate) fn copied(&self) -> Option<Self> {
        Some(match self {
            Self::RepositoryMissing { repo } => Self::RepositoryMissing { repo: repo.clone() },
            Self::NeedsAuth { repo } => Self::NeedsAuth { repo: repo.clone() },
            Self::PrivateHost { repo } => Self::PrivateHost { repo: repo.clone() },
            Self::Network { repo, why } => Self::Network { repo: repo.clone(), why: why.clone() },
            _ => return None,
        })
    }
}

/// Why a persistent workspace cannot be looked at or deleted.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A run is in it.
    #[error("the workspace is in use by a run: cancel the run or wait for its end, then try again")]
    Busy,
    /// The disk.
    #[error("{what} failed: check free space and permissions of the data directory")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an agent's work could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The collect job has not run, was stopped, or left something that is not its output.
    #[error("the agent's work could not be read: {0}")]
    NoResult(String),
    /// The repository directory is gone or is a link.
    #[error(
        "the agent removed or replaced the repository directory: there is nothing to collect but its artifacts"
    )]
    RepositoryGone,
    /// The result breaks a bound.
    #[error(
        "the agent's work is larger than {limit_bytes} bytes ({what}): ask it to leave build products out of the repository"
    )]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// The bound, bytes.
        limit_bytes: u64,
    },
    /// The result failed a check, for example a malformed object.
    #[error("the agent's commits were refused: {why}")]
    Refused {
        /// What was found.
        why: String,
    },
    /// Git failed on the host's side.
    #[error("git failed while taking in the agent's work: {source}")]
    Git {
        /// What git said.
        #[from]
        source: GitError,
    },
    /// The disk.
    #[error("{what} failed: check free space and permissions of the data directory")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a patch could not be applied to the user's repository. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not a repository, or not a directory.
    #[error(
        "{0} is not inside a git repository: run this in the repository the dispatch was made for"
    )]
    NotARepository(PathBuf),
    /// The patch is empty.
    #[error("the dispatch changed nothing: there is nothing to apply")]
    Empty,
    /// The patch does not fit.
    #[error(
        "the change does not fit this repository: commit or stash your own changes, check out the commit the dispatch started from, and try again\n{detail}"
    )]
    Conflict {
        /// Git's own lines, bounded.
        detail: String,
    },
    /// The patch names a path that no patch may touch.
    #[error("the change was refused: it touches {0}")]
    Forbidden(String),
    /// Git could not be run.
    #[error("git could not be run: check that it is installed")]
    Git {
        /// What git said.
        #[from]
        source: GitError,
    },
}
