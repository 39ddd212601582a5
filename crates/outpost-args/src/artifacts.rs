//! Flags of `outpost artifacts`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Flags of `outpost artifacts`.
#[derive(Debug, Clone, Args)]
pub struct ArtifactsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ArtifactsCommand,
}

/// Commands below `outpost artifacts`.
#[derive(Debug, Clone, Subcommand)]
pub enum ArtifactsCommand {
    /// List kept files: size, type and, with --preview, how they begin
    Ls(ArtifactsLsArgs),
    /// Fetch one
    Get(ArtifactGetArgs),
}

/// Flags of `outpost artifacts ls`.
#[derive(Debug, Clone, Args)]
pub struct ArtifactsLsArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
    /// Also show how texts begin, and the size of pictures
    #[arg(long)]
    pub preview: bool,
}

/// Flags of `outpost artifacts get`.
#[derive(Debug, Clone, Args)]
pub struct ArtifactGetArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    pub id: String,
    /// Its name, as the list has it
    pub name: String,
    /// Where to write it; must not exist. Without it, and not to a terminal, it goes to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
