//! Flags of `outpost promote`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `outpost promote`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
The dispatch's changes become a branch of the repository it started from, with a pull request where the code
host has them. Asking again answers the same branch and pull request; after a failure it goes on. The token is
the secret GITHUB_TOKEN or GITLAB_TOKEN (`outpost secrets set GITHUB_TOKEN`), or the server's variable of that
name.")]
pub struct PromoteArgs {
    /// The dispatch: its id, the start or end of it, or `last`
    #[arg(default_value = "last")]
    pub id: String,
    /// Branch to push [default: outpost/<words of the task>-<end of the id>]
    #[arg(short, long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Title of the pull request [default: the beginning of the task]
    #[arg(short, long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Text before what is known of the run
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    pub body: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE")]
    pub body_file: Option<PathBuf>,
    /// Open it as a draft (the default)
    #[arg(long, conflicts_with = "ready")]
    pub draft: bool,
    /// Open it ready for review
    #[arg(long)]
    pub ready: bool,
    /// Also if the changes touch what runs in CI or instructs agents
    #[arg(long)]
    pub allow_protected: bool,
    /// Also if they add what looks like a secret
    #[arg(long)]
    pub allow_secrets: bool,
    /// Send failed checks and comments of reviewers back to the agent, in at most so many dispatches; 0 ends it
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u32).range(0..=5))]
    pub follow_up: Option<u32>,
    /// Do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
}
