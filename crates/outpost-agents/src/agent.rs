//! What the rest of Outpost knows of an agent: its profile, how it is started, what is masked.
//!
//! Bounded: [`TRACKED_FILES_MAX`]. Absent: anything that runs.

use std::fmt;
use std::path::PathBuf;

use outpost_types::{AgentId, Provider, Tier};
use thiserror::Error;

use crate::custom::CustomAgentConfig;
use crate::installed::Installed;
use crate::parse::OutputParser;
use crate::plan::InstallPlan;

/// Most runs of one agent at the same time, unless configured otherwise.
pub const CONCURRENCY_MAX: u32 = 5;
/// Most entries of [`RunSpec::tracked_files`]; a repository with more hands in the first ones.
pub const TRACKED_FILES_MAX: usize = 2_000;
/// Name the agent's commits carry.
pub const GIT_NAME: &str = "Outpost Agent";
/// Address the agent's commits carry; `.invalid` never resolves (RFC 2606).
pub const GIT_EMAIL: &str = "agent@outpost.invalid";

/// A coding agent.
pub trait Agent: Send + Sync + fmt::Debug {
    /// What it is and how much it may use.
    fn profile(&self) -> &AgentProfile;

    /// How to install it; `None` for agents the operator brings.
    ///
    /// # Errors
    /// [`AgentError::Platform`] when its vendor ships nothing for this machine.
    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError>;

    /// The declaration of an agent the operator brings.
    fn bring_your_own(&self) -> Option<&CustomAgentConfig> {
        None
    }

    /// The provider that serves `model_id`; the profile's unless the model's name says otherwise.
    fn provider(&self, model_id: &str) -> Option<Provider> {
        let _ = model_id;
        self.profile().provider
    }

    /// How to start one run.
    ///
    /// # Errors
    /// [`AgentError`] naming the input that does not fit this agent.
    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError>;

    /// Where below its HOME the sessions are that [`RunSpec::session_id`] can name; empty for an agent that cannot go
    /// on with one. Relative, without links.
    fn session_paths(&self) -> &'static [&'static str];

    /// A reader for the output of one run.
    fn parser(&self) -> Box<dyn OutputParser>;
}

/// What an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentProfile {
    /// Its name in requests.
    pub id: AgentId,
    /// Its name for people.
    pub title: String,
    /// Model used when a request names none; empty when the command needs none.
    pub default_model: String,
    /// Size of its sandbox when a request names none.
    pub tier: Tier,
    /// Whose API it calls by default; `None` when it calls none.
    pub provider: Option<Provider>,
    /// The version that is installed and tested; `None` for commands the operator brings.
    pub version: Option<String>,
    /// Most runs at the same time.
    pub concurrency_max: u32,
    /// Under what terms it is used.
    pub licence: String,
    /// What counts as success.
    pub success: SuccessRule,
}

/// What counts as success of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SuccessRule {
    /// The final event says so and the exit code does not contradict it.
    FinalEvent,
    /// The process ended with exit code 0.
    #[default]
    ExitCode,
}

/// One run, as the runner knows it. Paths are those inside the sandbox.
#[derive(Clone)]
pub struct RunSpec {
    /// The whole prompt. It is only looked at (Aider picks files it mentions); it travels by file.
    pub prompt: String,
    /// Absolute path of the file that holds the prompt.
    pub prompt_path: String,
    /// Model to use.
    pub model_id: String,
    /// Address of the gateway, such as `http://127.0.0.1:4100`, without a trailing slash.
    pub gateway_url: String,
    /// The key for that gateway. It works nowhere else and ends with the attempt.
    pub handle: String,
    /// Absolute path of the agent's home directory.
    pub home: String,
    /// Absolute path of the repository.
    pub workdir: String,
    /// `PATH` of the sandbox; the agent's own directories are put before it.
    pub path: String,
    /// Session of an earlier run to go on with; its HOME must be in place.
    pub session_id: Option<String>,
    /// Files git tracks, in its order; at most [`TRACKED_FILES_MAX`] are looked at.
    pub tracked_files: Vec<TrackedFile>,
}

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedFile {
    /// Path relative to the repository, with `/`.
    pub path: String,
    /// Size, bytes.
    pub size_bytes: u64,
}

impl fmt::Debug for RunSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSpec")
            .field("prompt_bytes", &self.prompt.len())
            .field("prompt_path", &self.prompt_path)
            .field("model_id", &self.model_id)
            .field("gateway_url", &self.gateway_url)
            .field("home", &self.home)
            .field("workdir", &self.workdir)
            .field("session_id", &self.session_id)
            .field("tracked_files", &self.tracked_files.len())
            .finish_non_exhaustive()
    }
}

/// How to start one run.
#[derive(Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Program (an absolute path, or a name looked up in `PATH` inside) and its arguments.
    pub argv: Vec<String>,
    /// The complete environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Files to put under HOME before the start.
    pub home_files: Vec<HomeFile>,
    /// The prompt file is standard input; otherwise standard input is `/dev/null`.
    pub stdin_prompt: bool,
    /// Paths of the host to show read-only at the same place inside.
    pub ro_paths: Vec<PathBuf>,
    /// Files of the repository to cover where they exist, because the CLI obeys them over its flags.
    pub repo_masks: Vec<RepoMask>,
    /// Names (a trailing `*` is a wildcard) at the top of the repository that the CLI leaves behind
    /// by itself; they are no part of its work and stay out of the diff.
    pub litter: Vec<String>,
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Invocation")
            .field("argv", &self.argv)
            .field("env_names", &names)
            .field("home_files", &self.home_files)
            .field("stdin_prompt", &self.stdin_prompt)
            .field("ro_paths", &self.ro_paths)
            .field("repo_masks", &self.repo_masks)
            .field("litter", &self.litter)
            .finish()
    }
}

/// A file under the agent's HOME. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeFile {
    /// Path relative to HOME.
    pub path: String,
    /// Content.
    pub contents: String,
    /// Permission bits.
    pub mode: u32,
}

/// A file of the repository that the agent sees with other content. The repository itself stays as it
/// is: the cover is a read-only bind mount, and only over a file that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoMask {
    /// Path relative to the repository.
    pub path: String,
    /// What the agent sees: nothing, or an empty object where nothing is no valid file.
    pub contents: String,
}

/// Why a run of an agent cannot be described.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AgentError {
    /// The vendor ships nothing for this machine.
    #[error("{agent} has no package for {platform}; use an x86_64 or aarch64 Linux with glibc")]
    Platform {
        /// The agent.
        agent: AgentId,
        /// Processor and system.
        platform: String,
    },
    /// A field of the run is not usable.
    #[error("{field} {problem}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// The agent cannot go on with an earlier session.
    #[error("{0} cannot continue an earlier session; dispatch the task without one")]
    NoResume(AgentId),
}

impl RunSpec {
    /// Checks what every agent relies on: absolute paths, and names that cannot be taken for a flag.
    ///
    /// # Errors
    /// [`AgentError::Field`] naming the field.
    pub fn validate(&self) -> Result<(), AgentError> {
        let field = |field, problem: &str| AgentError::Field { field, problem: problem.to_owned() };
        for (name, path) in
            [("promptPath", &self.prompt_path), ("home", &self.home), ("workdir", &self.workdir)]
        {
            if !path.starts_with('/') || path.contains(char::is_control) {
                return Err(field(name, "must be an absolute path"));
            }
        }
        if !is_token(&self.model_id) {
            return Err(field(
                "modelId",
                "must be letters, digits and . _ - / : @ + only, and not begin with a hyphen",
            ));
        }
        if !self.gateway_url.starts_with("http://") || self.gateway_url.ends_with('/') {
            return Err(field("gatewayUrl", "must be http://HOST:PORT"));
        }
        match &self.session_id {
            Some(id) if !is_token(id) => Err(field("sessionId", "is not an id the agent gave")),
            _ => Ok(()),
        }
    }

    /// Address of `provider` at the gateway, without a trailing slash.
    #[must_use]
    pub fn base_url(&self, provider: Provider) -> String {
        format!("{}/{}", self.gateway_url, provider.as_str())
    }

    /// Whether git tracks `path`.
    #[must_use]
    pub fn tracks(&self, path: &str) -> bool {
        self.tracked_files.iter().take(TRACKED_FILES_MAX).any(|file| file.path == path)
    }
}

/// Safe as an argument, in TOML and in JSON: no quote, no white space, no leading hyphen.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= outpost_types::limits::MODEL_ID_BYTES_MAX
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte))
}
