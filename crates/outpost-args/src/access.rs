//! Flags of `outpost keys`, `outpost tenants` and `outpost audit`.

use clap::{Args, Subcommand};

use crate::value;

/// Flags of `outpost keys`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost keys create ci --scope dispatch --scope status > ci.key   the key alone is on standard output, once
  outpost keys create lead --scope admin --tenant acme              an administrator of another tenant
  outpost keys rotate 01K3B5Q7XJ6S8T9V0W1X2Y3Z4A --overlap 1h       the old one works for an hour more
  outpost keys revoke 01K3B5Q7XJ6S8T9V0W1X2Y3Z4A                    refused from now on

Scopes: dispatch, status, list, cancel, promote, delete, admin.")]
pub struct KeysArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// Commands below `outpost keys`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a key; prints it, once
    Create(KeyCreateArgs),
    /// List keys, newest first
    Ls(KeyLsArgs),
    /// Make a key that takes the place of another; prints it, once
    Rotate(KeyRotateArgs),
    /// Take a key back
    Revoke(KeyArgs),
}

/// Flags of `outpost keys create`.
#[derive(Debug, Clone, Args)]
pub struct KeyCreateArgs {
    /// What it is for
    #[arg(value_name = "NAME")]
    pub name: String,

    /// What it allows (may be repeated)
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    pub scopes: Vec<String>,

    /// Whose it is [default: the tenant of your own key]
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,

    /// It works for this long only, such as 12h [default: for ever]
    #[arg(long = "expires-in", value_name = "TIME", value_parser = value::seconds)]
    pub expires_in: Option<u64>,
}

/// Flags of `outpost keys ls`.
#[derive(Debug, Clone, Args)]
pub struct KeyLsArgs {
    /// Only those of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}

/// Which key.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Flags of `outpost keys rotate`.
#[derive(Debug, Clone, Args)]
pub struct KeyRotateArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,

    /// The old one works for this long beside the new one [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = value::seconds)]
    pub overlap: Option<u64>,
}

/// Flags of `outpost tenants`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost tenants create acme --name \"Acme Inc.\" --concurrent 3
  outpost tenants set acme --requests 120 --concurrent 5
  outpost tenants suspend acme       its keys are refused; what runs goes on
  outpost tenants resume acme")]
pub struct TenantsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TenantsCommand,
}

/// Commands below `outpost tenants`.
#[derive(Debug, Clone, Subcommand)]
pub enum TenantsCommand {
    /// Make a tenant
    Create(TenantSetArgs),
    /// List tenants
    Ls,
    /// Show one
    Show(TenantArgs),
    /// Change its name or its quotas; quotas that are not named are the usual ones again
    Set(TenantSetArgs),
    /// Refuse its keys
    Suspend(TenantArgs),
    /// Let its keys in again
    Resume(TenantArgs),
}

/// Which tenant.
#[derive(Debug, Clone, Args)]
pub struct TenantArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Flags of `outpost tenants create` and `outpost tenants set`.
#[derive(Debug, Clone, Args)]
pub struct TenantSetArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,

    /// What people call it
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Requests of each of its keys in a minute
    #[arg(long, value_name = "NUMBER")]
    pub requests: Option<u32>,

    /// Dispatches that run at once
    #[arg(long, value_name = "NUMBER")]
    pub concurrent: Option<u32>,
}

/// Flags of `outpost audit`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost audit ls --action key.          what was done with keys
  outpost audit verify                    compute every hash anew; prints what to keep outside the server
  outpost audit export > audit.jsonl      all of it, one JSON object a line")]
pub struct AuditArgs {
    /// What to do; `ls` when absent.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
}

/// Commands below `outpost audit`.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// List what was done, newest first
    Ls(AuditLsArgs),
    /// Check that nothing of it was changed
    Verify(AuditVerifyArgs),
    /// Write all of it out
    Export(AuditExportArgs),
}

/// Flags of `outpost audit ls`.
#[derive(Debug, Clone, Default, Args)]
pub struct AuditLsArgs {
    /// Only of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,

    /// Only this action; with a dot at its end, all that begin so
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,

    /// Only at or after this instant, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Only before this instant, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// How many
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "20", value_parser = value::limit)]
    pub limit: u32,

    /// `nextCursor` of the page before
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// Flags of `outpost audit verify`.
#[derive(Debug, Clone, Args)]
pub struct AuditVerifyArgs {
    /// Begin after the entry with this number
    #[arg(long, value_name = "NUMBER", requires = "hash")]
    pub after: Option<u64>,

    /// Its hash, as it was noted outside the server
    #[arg(long, value_name = "HASH", requires = "after")]
    pub hash: Option<String>,
}

/// Flags of `outpost audit export`.
#[derive(Debug, Clone, Args)]
pub struct AuditExportArgs {
    /// Begin after the entry with this number
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
}
