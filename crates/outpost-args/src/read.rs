//! Flags of the commands that read dispatches and act on their results.

use std::path::PathBuf;

use clap::Args;
use outpost_types::{Day, UsageGroup};

use super::value;

/// Flags of `outpost ls`.
#[derive(Debug, Clone, Default, Args)]
pub struct LsArgs {
    /// Only in this state, such as RUNNING or COMPLETED
    #[arg(short, long, value_name = "STATE")]
    pub status: Option<String>,
    /// Only of this agent
    #[arg(short, long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only of this repository, as it was given
    #[arg(short, long, value_name = "REPO")]
    pub repo: Option<String>,
    /// Only of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only with this label
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Only created at or after this instant, such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "INSTANT")]
    pub since: Option<String>,
    /// Only created before this instant
    #[arg(long, value_name = "INSTANT")]
    pub until: Option<String>,
    /// How many, 1 to 100 [default: 20]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = value::limit)]
    pub limit: Option<u32>,
    /// Go on after the page that printed this
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// Flags of `outpost status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
    /// Wait until it has ended; the exit code tells how
    #[arg(short, long)]
    pub wait: bool,
}

/// Flags of `outpost logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
    /// Go on until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// The agent's output as it was printed
    #[arg(long)]
    pub raw: bool,
}

/// Flags of `outpost events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
    /// Go on until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub after: u64,
}

/// Flags of `outpost diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
}

/// Flags of `outpost apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
    /// Repository to change
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `outpost cancel`.
#[derive(Debug, Clone, Args)]
pub struct CancelArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    pub id: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Wait until it has ended
    #[arg(short, long)]
    pub wait: bool,
}

/// Flags of `outpost network`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost network last --allow-host example.com     that host, too
  outpost network last --network trusted            package registries and code hosts
  outpost network last --network none               nothing any more; what is open is cut

It is in force for the next connection; the operator's own bounds stay.")]
pub struct NetworkArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    pub id: String,
    /// What the sandbox may reach beside its model, instead of what it could
    #[arg(long, value_enum, value_name = "LEVEL", required_unless_present = "allow_hosts")]
    pub network: Option<super::dispatch::NetworkArg>,
    /// Host it may reach: name, *.name or name:port; may be given several times. Without --network they
    /// are added to what it may reach already
    #[arg(long = "allow-host", value_name = "HOST")]
    pub allow_hosts: Vec<String>,
}

/// Flags of `outpost usage`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost usage                                  by day, the last 30 days
  outpost usage --by agent,model                 where it goes
  outpost usage --from 2026-11-01 --by tenant --json

Dispatches count on the day (UTC) they end; what still runs is not in it.")]
pub struct UsageArgs {
    /// First day (UTC), such as 2026-11-01 [default: 29 days before the last]
    #[arg(long, value_name = "DAY")]
    pub from: Option<Day>,
    /// Last day (UTC) [default: today]
    #[arg(long, value_name = "DAY")]
    pub to: Option<Day>,
    /// By what sums are told apart: tenant, day, agent, model, with commas between [default: day]
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = value::group)]
    pub by: Vec<UsageGroup>,
    /// Only of this tenant; all of them are the operator's to see
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}
