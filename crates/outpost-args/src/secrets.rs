//! Flags of `outpost secrets`. A value is never an argument: every user of the machine can read those.

use clap::{Args, Subcommand};

/// Flags of `outpost secrets`.
#[derive(Debug, Clone, Args)]
pub struct SecretsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SecretsCommand,
}

/// Commands below `outpost secrets`.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretsCommand {
    /// Store a value; it is read from standard input, or asked for at a terminal
    Set(SecretSetArgs),
    /// List secrets; values are never shown
    Ls,
    /// Remove a secret with all its versions
    Rm(SecretRmArgs),
    /// Make a new key and encrypt every secret with it
    #[command(after_help = "\
The key is in a file of its own, apart from the data directory. The old key stays in that file until
every version of every secret is encrypted with the new one; a crash at any point loses nothing.")]
    Rekey,
}

/// Flags of `outpost secrets set`.
#[derive(Clone, Args)]
#[command(after_help = "\
Examples:
  outpost secrets set ANTHROPIC_API_KEY                        asks, without showing what you type
  pass show anthropic | outpost secrets set ANTHROPIC_API_KEY  reads what is piped in
  outpost secrets set DATABASE_URL --exposed < url.txt         agents may read this one

A secret is used only by the model gateway, outside the sandbox, unless it is set with --exposed: then
it is in the environment of each dispatch that names it. One line end at the end of a value is not
part of it.")]
pub struct SecretSetArgs {
    /// Name, such as ANTHROPIC_API_KEY: A-Z, 0-9 and _
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Let agents read it: it is put into the environment of dispatches that name it
    #[arg(long)]
    pub exposed: bool,
    /// Keep it from agents again, when it was exposed
    #[arg(long, conflicts_with = "exposed")]
    pub injected: bool,
    /// For every tenant that has none of this name; needs the operator's key
    #[arg(long)]
    pub platform: bool,
    /// Here only so that a value in the wrong place is refused without being shown again.
    #[arg(hide = true, num_args = 0.., value_name = "NOTHING")]
    pub misplaced: Vec<std::ffi::OsString>,
    /// The same.
    #[arg(long = "value", hide = true, value_name = "NOTHING")]
    pub misplaced_value: Option<std::ffi::OsString>,
}

impl std::fmt::Debug for SecretSetArgs {
    /// Not what was misplaced, and not the name, which may be the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSetArgs").field("exposed", &self.exposed).finish_non_exhaustive()
    }
}

/// Flags of `outpost secrets rm`.
#[derive(Debug, Clone, Args)]
pub struct SecretRmArgs {
    /// Name of the secret
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The one of the platform; needs the operator's key
    #[arg(long)]
    pub platform: bool,
}
