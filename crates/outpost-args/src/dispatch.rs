//! Flags of `outpost dispatch`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use outpost_types::{ContextLevel, NetworkLevel, Priority, Tier, WorkspaceMode};

use super::value;

const EXAMPLES: &str = "\
Examples:
  outpost dispatch \"add a test for the parser\"          on the repository you are in
  outpost dispatch claude \"fix the build\" --wait        stream it, then show the result
  outpost dispatch --task-file task.md --check \"cargo test\" --wait
  outpost dispatch --continue-from last \"now add a test\"  with the files and the session of the newest one
  git diff main | outpost dispatch --repo owner/name -     the task from standard input";

/// Flags of `outpost dispatch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DispatchArgs {
    /// The task in quotes, or - to read it from standard input; an agent's name may stand before it
    #[arg(value_name = "[AGENT] TASK", num_args = 0..)]
    pub words: Vec<String>,

    /// Agent: claude, codex, gemini, aider, grok or one of your own [default: the first available]
    #[arg(short, long, env = "OUTPOST_AGENT", value_name = "NAME")]
    pub agent: Option<String>,

    /// Read the task from a file
    #[arg(long, value_name = "FILE")]
    pub task_file: Option<PathBuf>,

    /// Repository: owner/name, an https URL or a path [default: the one you are in]
    #[arg(short, long, value_name = "REPO", conflicts_with = "no_repo")]
    pub repo: Option<String>,

    /// Start from an empty directory
    #[arg(long)]
    pub no_repo: bool,

    /// Branch to start from [default: the repository's own]
    #[arg(short, long, value_name = "NAME")]
    pub branch: Option<String>,

    /// Model [default: the agent's own]
    #[arg(short, long, value_name = "ID")]
    pub model: Option<String>,

    /// Longest running time: 90s, 10m, 2h [default: 10m]
    #[arg(short, long, value_name = "TIME", value_parser = value::timeout)]
    pub timeout: Option<u64>,

    /// Longest time until it is over, waiting for a slot included: 2h, 24h [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = value::deadline)]
    pub deadline: Option<u64>,

    /// Who goes first among your own dispatches [default: normal]
    #[arg(long, value_enum, value_name = "PRIORITY")]
    pub priority: Option<PriorityArg>,

    /// Label to find it by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,

    /// Command to run on the result in a fresh sandbox; may be given several times
    #[arg(long = "check", value_name = "COMMAND")]
    pub checks: Vec<String>,

    /// Command that sets the repository up before the agent starts, instead of those in outpost.toml; what it
    /// leaves is kept for later runs; may be given several times
    #[arg(long = "setup", value_name = "COMMAND")]
    pub setup: Vec<String>,

    /// Size of the sandbox [default: the agent's own]
    #[arg(long, value_enum, value_name = "SIZE")]
    pub tier: Option<TierArg>,

    /// Most its model calls may cost, US dollars: 0.50, 3 [default: no limit of its own]
    #[arg(long, value_name = "USD")]
    pub budget: Option<f64>,

    /// Secret of yours that the agent sees in its environment; may be given several times
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<String>,

    /// Who asks, in your own words; each has persistent workspaces of its own
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// How much project context goes before the task [default: standard]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub context_level: Option<ContextArg>,

    /// What the sandbox may reach beside its model [default: none]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub network: Option<NetworkArg>,

    /// With --network custom, or besides the usual ones of trusted: host it may reach: name, *.name or
    /// name:port; may be given several times
    #[arg(long = "allow-host", value_name = "HOST")]
    pub allow_hosts: Vec<String>,

    /// Go on from what an earlier dispatch left: its files, and with the same agent its session
    #[arg(long, value_name = "DISPATCH", conflicts_with_all = ["repo", "no_repo", "branch", "persistent"])]
    pub continue_from: Option<String>,

    /// Work in the workspace that is kept for this user and repository: with what earlier dispatches left
    #[arg(long, conflicts_with = "no_repo")]
    pub persistent: bool,

    /// Whether the workspace is kept for the next dispatch [default: ephemeral]
    #[arg(long, value_enum, value_name = "MODE", conflicts_with = "persistent")]
    pub workspace_mode: Option<WorkspaceArg>,

    /// Asking again with the same text within 24 h gives the same dispatch
    #[arg(long, value_name = "TEXT")]
    pub idempotency_key: Option<String>,

    /// Stream the work, then show the result; the exit code tells how it ended
    #[arg(short, long)]
    pub wait: bool,

    /// With --wait: Ctrl-C cancels the dispatch instead of leaving it running
    #[arg(long, requires = "wait")]
    pub cancel_on_interrupt: bool,
}

/// [`Tier`] as a flag value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TierArg {
    /// 0.5 cpu, 1 GB
    Fast,
    /// 1 cpu, 2 GB
    Balanced,
    /// 2 cpu, 4 GB
    Flagship,
}

impl From<TierArg> for Tier {
    fn from(arg: TierArg) -> Self {
        match arg {
            TierArg::Fast => Self::Fast,
            TierArg::Balanced => Self::Balanced,
            TierArg::Flagship => Self::Flagship,
        }
    }
}

/// [`Priority`] as a flag value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PriorityArg {
    /// After the others
    Low,
    /// As usual
    Normal,
    /// Before the others
    High,
}

impl From<PriorityArg> for Priority {
    fn from(arg: PriorityArg) -> Self {
        match arg {
            PriorityArg::Low => Self::Low,
            PriorityArg::Normal => Self::Normal,
            PriorityArg::High => Self::High,
        }
    }
}

/// [`ContextLevel`] as a flag value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ContextArg {
    /// 600 tokens
    Minimal,
    /// 1,200 tokens
    Standard,
    /// 1,800 tokens
    Full,
}

impl From<ContextArg> for ContextLevel {
    fn from(arg: ContextArg) -> Self {
        match arg {
            ContextArg::Minimal => Self::Minimal,
            ContextArg::Standard => Self::Standard,
            ContextArg::Full => Self::Full,
        }
    }
}

/// [`NetworkLevel`] as a flag value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkArg {
    /// Nothing
    None,
    /// Package registries and code hosts
    Trusted,
    /// A list of its own
    Custom,
}

impl From<NetworkArg> for NetworkLevel {
    fn from(arg: NetworkArg) -> Self {
        match arg {
            NetworkArg::None => Self::None,
            NetworkArg::Trusted => Self::Trusted,
            NetworkArg::Custom => Self::Custom,
        }
    }
}

/// [`WorkspaceMode`] as a flag value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkspaceArg {
    /// Removed after the dispatch
    Ephemeral,
    /// Kept per user and repository
    Persistent,
}

impl From<WorkspaceArg> for WorkspaceMode {
    fn from(arg: WorkspaceArg) -> Self {
        match arg {
            WorkspaceArg::Ephemeral => Self::Ephemeral,
            WorkspaceArg::Persistent => Self::Persistent,
        }
    }
}
