//! The command line as types: global flags and the list of commands.
//!
//! Keys are never arguments, since every user of the machine can read those: a key comes from
//! `OUTPOST_API_KEY` or from a file.

mod access;
mod artifacts;
mod backup;
mod bench;
mod context;
mod dispatch;
mod fleet;
mod mcp;
mod operate;
mod promote;
mod read;
mod secrets;
mod server;
mod value;
mod webhooks;
mod workspaces;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use access::{
    AuditArgs, AuditCommand, AuditExportArgs, AuditLsArgs, AuditVerifyArgs, KeyArgs, KeyCreateArgs,
    KeyLsArgs, KeyRotateArgs, KeysArgs, KeysCommand, TenantArgs, TenantSetArgs, TenantsArgs,
    TenantsCommand,
};
pub use artifacts::{ArtifactGetArgs, ArtifactsArgs, ArtifactsCommand, ArtifactsLsArgs};
pub use backup::{BackupArgs, RestoreArgs};
pub use bench::{BenchArgs, BenchCommand, BenchData, BenchPlace, FairBench, PoolBench};
pub use context::{ContextArgs, ContextCommand, PreviewArgs, ShowContextArgs};
pub use dispatch::{ContextArg, DispatchArgs};
pub use fleet::{DrainArgs, FleetArgs, FleetCommand, ResumeArgs};
pub use mcp::{McpArgs, McpClient, McpCommand, McpInstallArgs};
pub use operate::{
    AgentsArgs, AgentsCommand, CompletionsArgs, DemoArgs, DoctorArgs, InstallArgs, LogFormat,
    ScriptedArgs, ServeArgs,
};
pub use promote::PromoteArgs;
pub use read::{
    ApplyArgs, CancelArgs, DiffArgs, EventsArgs, LogsArgs, LsArgs, NetworkArgs, StatusArgs,
    UsageArgs,
};
pub use secrets::{SecretSetArgs, SecretsArgs, SecretsCommand};
pub use server::{IsolationMinimum, ModelSource};
pub use webhooks::{WebhookAddArgs, WebhookArgs, WebhookReplayArgs, WebhooksArgs, WebhooksCommand};
pub use workspaces::{WorkspacesArgs, WorkspacesCommand};

const EXAMPLES: &str = "\
Examples:
  outpost demo                               see it work on a sample repository
  outpost dispatch \"fix the build\" --wait    run it on the repository you are in
  outpost ls                                 what ran and what runs
  outpost logs -f last                       watch the newest one
  outpost apply last                         take its changes

Exit codes:
  0 done, or the dispatch completed      124 the dispatch ran into its timeout
  1 failed                               130 cancelled, or waiting was interrupted
  2 wrong usage or configuration

Environment:
  OUTPOST_URL, OUTPOST_API_KEY, OUTPOST_KEY_FILE, OUTPOST_DATA_DIR, OUTPOST_CONFIG, OUTPOST_AGENT,
  NO_COLOR; the server's own are shown by `outpost serve --help`";

/// Gives coding tasks to AI coding agents, each in its own sandbox, and hands back a diff.
#[derive(Debug, Parser)]
#[command(
    name = "outpost",
    version,
    after_help = EXAMPLES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    propagate_version = true
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Server to talk to; without it the one of the data directory, started when needed
    #[arg(long, global = true, env = "OUTPOST_URL", hide_env = true, value_name = "URL", value_parser = value::server_url)]
    pub server: Option<String>,

    /// File that holds the API key (or set OUTPOST_API_KEY)
    #[arg(long, global = true, env = "OUTPOST_KEY_FILE", hide_env = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Where Outpost keeps its data [default: $XDG_DATA_HOME/outpost or ~/.local/share/outpost]
    #[arg(long, global = true, env = "OUTPOST_DATA_DIR", hide_env = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Configuration file [default: config.toml in the data directory, if there is one]
    #[arg(long, global = true, env = "OUTPOST_CONFIG", hide_env = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print data as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colour
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: ColorChoice,

    /// No notes and no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more about what happens; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    // Plain comments, since a documented value would make all of --help twice as long.
    // On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Give a task to an agent
    #[command(visible_alias = "run")]
    Dispatch(Box<DispatchArgs>),
    /// List dispatches, newest first
    #[command(visible_alias = "runs")]
    Ls(LsArgs),
    /// Show one dispatch: state, result, timings, cost
    Status(StatusArgs),
    /// Show what the agent did
    Logs(LogsArgs),
    /// Print the events of a dispatch, one JSON document a line
    Events(EventsArgs),
    /// Print the agent's changes
    Diff(DiffArgs),
    /// The files a dispatch left
    Artifacts(ArtifactsArgs),
    /// What agents are told of a repository before their task
    Context(ContextArgs),
    /// Apply the agent's changes to your repository
    Apply(ApplyArgs),
    /// Push the agent's changes as a branch and open a pull request
    Promote(Box<PromoteArgs>),
    /// Stop a dispatch
    Cancel(CancelArgs),
    /// Change what a dispatch may reach, also while it runs
    Network(NetworkArgs),
    /// The agents: which there are, and installing them
    Agents(AgentsArgs),
    /// Keys and other secrets of dispatches, encrypted
    Secrets(SecretsArgs),
    /// Persistent workspaces: files that dispatches leave for the next one
    Workspaces(WorkspacesArgs),
    /// Webhooks: addresses that are told what happens
    Webhooks(WebhooksArgs),
    /// API keys: make, list, replace and take them back
    Keys(KeysArgs),
    /// Tenants: who may use the server, and how much
    Tenants(TenantsArgs),
    /// The audit trail: who did what
    Audit(AuditArgs),
    /// What was used: tokens and dollars, summed up
    Usage(UsageArgs),
    /// What can run on the server, and what runs now; draining it
    Fleet(FleetArgs),
    /// Serve AI assistants: an MCP server on standard input and output
    Mcp(McpArgs),
    /// Check this machine and say what to do
    Doctor(DoctorArgs),
    /// Attack a sandbox of this machine from inside and say what held
    Selftest,
    /// See it work: an agent fixes a failing test in a sample repository
    Demo(DemoArgs),
    /// Measure this machine: goal, measured, floor
    Bench(Box<BenchArgs>),
    /// Run the server
    Serve(Box<ServeArgs>),
    /// Copy the records and kept files, also while the server runs
    Backup(BackupArgs),
    /// Put a backup into an empty data directory
    Restore(RestoreArgs),
    /// Run only the scripted model provider
    Scripted(ScriptedArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_key() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                assert_ne!(arg.get_long(), Some("key"), "{}", command.get_name());
                assert_ne!(arg.get_long(), Some("api-key"), "{}", command.get_name());
            }
        }
    }

    #[test]
    fn global_flags_work_on_both_sides() {
        for line in [["outpost", "--json", "ls"], ["outpost", "ls", "--json"]] {
            assert!(Cli::try_parse_from(line).unwrap().global.json);
        }
    }

    #[test]
    fn aliases_mean_the_same() {
        let run = Cli::try_parse_from(["outpost", "run", "task"]).unwrap();
        assert!(matches!(run.command, Command::Dispatch(_)));
        let runs = Cli::try_parse_from(["outpost", "runs"]).unwrap();
        assert!(matches!(runs.command, Command::Ls(_)));
    }
}
