//! Flags of `outpost workspaces`.

use clap::{Args, Subcommand};

/// Flags of `outpost workspaces`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Dispatches with --persistent make them: one for each user and repository, in which one dispatch works at
a time. An id may be shortened to its first characters.")]
pub struct WorkspacesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WorkspacesCommand,
}

/// Commands below `outpost workspaces`.
#[derive(Debug, Clone, Subcommand)]
pub enum WorkspacesCommand {
    /// List persistent workspaces, the last used first
    Ls,
    /// Show one
    Show(WorkspaceArgs),
    /// Delete one with all its files
    Rm(WorkspaceArgs),
}

/// Which workspace.
#[derive(Debug, Clone, Args)]
pub struct WorkspaceArgs {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    pub id: String,
}
