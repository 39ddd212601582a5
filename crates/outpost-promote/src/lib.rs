//! From the kept changes of a dispatch to a branch and a pull request at a code host.
//!
//! Everything happens in a fresh bare clone that is never checked out: no hook, filter, driver, helper or
//! command of a repository runs. What is pushed is the commit of `changes.bundle`, which was checked object
//! by object when it was collected; a push names what it expects to find there, and a pull request is looked
//! for before it is opened. Only code hosts that the operator named are contacted, each with its own token,
//! which travels in the environment of git and in a header, and is in no argument, file or message.
//!
//! A pull request that is followed is looked at for failed checks and comments; nothing is written there.
//!
//! Bounded: time and size of the clone, answers of the code host and their pages, the body of a pull request.
//! Deliberately absent: what may happen when (`outpost-core`), records and retries (`outpost-engine`), ssh,
//! merging, and any host that no configuration names.

mod body;
mod error;
mod feedback;
mod forge;
mod github;
mod gitlab;
mod http;
mod locate;
mod protected;
mod push;
mod secrets;
mod stage;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use outpost_workspace::{Secret, Workspaces, git::Git};

pub use body::{BODY_BYTES_MAX, RunFacts, compose};
pub use error::PromoteError;
pub use feedback::{LookAsk, LookCache};
pub use forge::{ForgeHost, ForgeHostError, ForgeKind, default_forges};
pub use locate::Target;
pub use protected::is_protected;
pub use stage::{Staged, Work};

/// What a [`Promoter`] works with.
#[derive(Debug)]
pub struct PromoterConfig {
    /// Where clones are made and removed again; made if missing (mode 0700).
    pub dir: PathBuf,
    /// The code hosts that are known, at most [`FORGES_COUNT_MAX`].
    pub forges: Vec<ForgeHost>,
    /// Tokens of the operator by the name of the secret, used where no secret has that name.
    pub tokens: Vec<(String, Secret)>,
    /// Largest clone, bytes on disk.
    pub clone_bytes_max: u64,
    /// Time between two looks at a pull request that is followed, milliseconds; see [`POLL_MILLIS`].
    pub poll_millis: u64,
}

/// Usual time between two looks at a pull request that is followed, milliseconds: at most 60 in an hour.
pub const POLL_MILLIS: u64 = 60_000;

/// Most code hosts of a configuration.
pub const FORGES_COUNT_MAX: usize = 32;

/// Pushes branches and opens pull requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Promoter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: PromoterConfig,
    workspaces: Workspaces,
    git: Git,
    http: http::Http,
}

impl Promoter {
    /// Makes one. What an earlier server left half done in its directory is removed.
    ///
    /// # Errors
    /// The directory cannot be made, or TLS cannot be set up.
    pub fn new(config: PromoterConfig, workspaces: Workspaces) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        if config.dir.exists() {
            std::fs::remove_dir_all(&config.dir)?;
        }
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&config.dir)?;
        let (git, http) = (workspaces.bare_git(), http::Http::new()?);
        Ok(Self { inner: Arc::new(Inner { config, workspaces, git, http }) })
    }

    /// Time between two looks at a pull request that is followed, milliseconds.
    #[must_use]
    pub fn poll_millis(&self) -> u64 {
        self.inner.config.poll_millis
    }

    /// The operator's token of this name.
    #[must_use]
    pub fn operator_token(&self, name: &str) -> Option<Secret> {
        let tokens = &self.inner.config.tokens;
        tokens.iter().find(|(known, _)| known == name).map(|(_, token)| token.clone())
    }
}
