//! Flags of `outpost backup` and `outpost restore`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `outpost backup`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A server may run meanwhile: everything it acknowledged before is in the backup. Records, kept files and the
configuration are; mirrors of repositories, persistent workspaces and installed agents are not. Stored secrets are
in it encrypted: without their key they are lost, so keep that key, or add --include-keys and keep the backup as
safe as a key.")]
pub struct BackupArgs {
    /// Directory to make; it must not be there
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Put the admin key and the key of the secrets into it, too
    #[arg(long)]
    pub include_keys: bool,
}

/// Flags of `outpost restore`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Restores into the data directory (--data-dir), which must be empty or not be there. Every file is checked. What was
running when the backup was made is failed by the first start; what waited then is run, so do not start a restored
copy beside the server it came from.")]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
