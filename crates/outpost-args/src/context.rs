//! Flags of `outpost context`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::dispatch::ContextArg;

/// Flags of `outpost context`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost context preview --level full    what an agent would be told of the repository you are in
  outpost context show last               what the agent of the newest dispatch was told

Files: docs/SOUL.md or README.md, docs/ANCHORS.md, docs/PROFILE.md, docs/journal/<date>.md or JOURNAL.md,
docs/ROADMAP.md (with full only), and a map of the repository.")]
pub struct ContextArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ContextCommand,
}

/// Commands below `outpost context`.
#[derive(Debug, Clone, Subcommand)]
pub enum ContextCommand {
    /// Show what an agent would be told of a repository, from its files as they are now; no server needed
    Preview(PreviewArgs),
    /// Show what the agent of a dispatch was told before its task
    Show(ShowContextArgs),
}

/// Flags of `outpost context preview`.
#[derive(Debug, Clone, Args)]
pub struct PreviewArgs {
    /// How much of it
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "standard")]
    pub level: ContextArg,
    /// Repository to look at
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// Flags of `outpost context show`.
#[derive(Debug, Clone, Args)]
pub struct ShowContextArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
}
