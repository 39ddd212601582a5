//! Flags of the commands that run things: server, agents, demo, doctor, scripted provider.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::value;
use crate::server::{IsolationMinimum, ModelSource};

/// Flags of `outpost serve`. Each wins over the environment, which wins over the file.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:7711]
    #[arg(long, env = "OUTPOST_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// File with the admin key; made when missing, but only for a loopback address
    #[arg(long, env = "OUTPOST_ADMIN_KEY_FILE", value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,

    /// File with the key that encrypts secrets; made with the first secret [default: in
    /// $XDG_CONFIG_HOME/outpost or ~/.config/outpost, apart from the data]
    #[arg(long, env = "OUTPOST_SECRETS_KEY_FILE", value_name = "FILE")]
    pub secrets_key_file: Option<PathBuf>,

    /// Where agent CLIs are installed [default: agents in the data directory]
    #[arg(long, env = "OUTPOST_AGENTS_DIR", value_name = "DIR")]
    pub agents_dir: Option<PathBuf>,

    /// Most dispatches at once on this host
    #[arg(long, env = "OUTPOST_CONCURRENCY", value_name = "COUNT")]
    pub concurrency: Option<u32>,

    /// Which models answer: the real ones or the scripted provider
    #[arg(long, value_enum, env = "OUTPOST_MODEL", value_name = "SOURCE")]
    pub model: Option<ModelSource>,

    /// Script of the scripted provider [default: the demo's]
    #[arg(long, env = "OUTPOST_SCRIPT", value_name = "FILE")]
    pub script: Option<PathBuf>,

    /// Whether repositories may be paths of this machine [default: only on a loopback address]
    #[arg(long, env = "OUTPOST_ALLOW_LOCAL_REPOS", value_name = "BOOL")]
    pub allow_local_repos: Option<bool>,

    /// Least isolation a sandbox must reach to be used
    #[arg(long, value_enum, env = "OUTPOST_ISOLATION_MINIMUM", value_name = "LEVEL")]
    pub isolation_minimum: Option<IsolationMinimum>,

    /// Form of the log on standard error
    #[arg(
        long,
        value_enum,
        env = "OUTPOST_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "pretty"
    )]
    pub log_format: LogFormat,

    /// End after this long without requests and dispatches: 90s, 10m
    #[arg(long, env = "OUTPOST_IDLE_EXIT_SECONDS", value_name = "TIME", value_parser = value::seconds)]
    pub idle_exit_seconds: Option<u64>,

    /// Print a documented configuration file and end
    #[arg(long)]
    pub print_config: bool,

    /// Leave the terminal's session; used when a command starts its own server
    #[arg(long, hide = true)]
    pub detached: bool,
}

impl ServeArgs {
    /// What the environment alone says, for commands that have none of these flags but must see the
    /// same configuration as the server.
    ///
    /// # Errors
    ///
    /// The message names the variable and what it should hold.
    pub fn from_environment() -> Result<Self, String> {
        #[derive(clap::Parser)]
        #[command(name = "outpost serve", no_binary_name = true)]
        struct Wrapper {
            #[command(flatten)]
            serve: ServeArgs,
        }
        let none: [&str; 0] = [];
        <Wrapper as clap::Parser>::try_parse_from(none).map(|wrapper| wrapper.serve).map_err(
            |error| {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                let first = first.trim_start_matches("error: ");
                format!("an OUTPOST_ variable of the environment is wrong: {first}")
            },
        )
    }
}

/// Form of the server's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON document a line.
    Json,
}

/// Flags of `outpost agents`.
#[derive(Debug, Clone, Args)]
pub struct AgentsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AgentsCommand,
}

/// Commands below `outpost agents`.
#[derive(Debug, Clone, Subcommand)]
pub enum AgentsCommand {
    /// List agents and say why one is unavailable
    Ls,
    /// Install agent CLIs at their pinned versions, for Outpost only
    Install(InstallArgs),
}

/// Flags of `outpost agents install`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost agents install codex
  outpost agents install --all

Nothing is installed globally: everything goes below the data directory.")]
pub struct InstallArgs {
    /// Agents to install
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub names: Vec<String>,
    /// All that can be installed
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

/// Flags of `outpost doctor`.
#[derive(Debug, Clone, Default, Args)]
pub struct DoctorArgs {}

/// Flags of `outpost demo`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
The agent's CLI, the sandbox, the gateway and git are always real. The model is real when the
provider's key is in the environment (such as OPENAI_API_KEY); otherwise it is scripted, and
the output says so.")]
pub struct DemoArgs {
    /// Agent [default: one that is installed, else codex]
    #[arg(short, long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Keep the temporary directory
    #[arg(long)]
    pub keep: bool,
    /// Use the scripted model even when a provider's key is there
    #[arg(long)]
    pub scripted: bool,
}

/// Flags of `outpost scripted`.
#[derive(Debug, Clone, Args)]
pub struct ScriptedArgs {
    /// Script file [default: the demo's]
    #[arg(value_name = "SCRIPT")]
    pub script: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Print the demo's script, which explains the format, and end
    #[arg(long)]
    pub print_example: bool,
}

/// Flags of `outpost completions`.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
