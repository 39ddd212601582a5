//! `outpost fleet`.

use clap::{Args, Subcommand};

/// Flags of `outpost fleet`.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// What to do; without it the fleet is shown.
    #[command(subcommand)]
    pub command: Option<FleetCommand>,
}

/// Commands below `outpost fleet`.
#[derive(Debug, Clone, Subcommand)]
pub enum FleetCommand {
    /// Start nothing new: what runs goes on, what comes waits, also after a restart
    Drain(DrainArgs),
    /// Start again
    Resume(ResumeArgs),
}

/// Flags of `outpost fleet drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Only this agent [default: the whole host]
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    /// Why; everybody who sees the fleet sees it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Flags of `outpost fleet resume`.
#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    /// Only this agent [default: the host; agents that were drained by name stay so]
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
}
