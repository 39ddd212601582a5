//! Flags of `outpost mcp`.

use clap::{Args, Subcommand, ValueEnum};

/// Flags of `outpost mcp`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Without a command it speaks the Model Context Protocol on standard input and output, for an assistant that
starts it. It uses the same server and key as every other command, and tasks without a repository are about
the one it was started in.

Examples:
  outpost mcp install claude           tell Claude Code in this folder about it
  outpost mcp install codex --print    show what Codex would be told
  outpost mcp tools                    what assistants can do with it")]
pub struct McpArgs {
    /// What to do
    #[command(subcommand)]
    pub command: Option<McpCommand>,
}

/// Commands below `outpost mcp`.
#[derive(Debug, Clone, Subcommand)]
pub enum McpCommand {
    /// Write an assistant's configuration, so that it starts `outpost mcp`
    Install(McpInstallArgs),
    /// List the tools
    Tools,
}

/// Flags of `outpost mcp install`.
#[derive(Debug, Clone, Args)]
pub struct McpInstallArgs {
    /// The assistant
    #[arg(value_enum, value_name = "CLIENT")]
    pub client: McpClient,

    /// Only print what would be written, and where
    #[arg(long)]
    pub print: bool,
}

/// Assistants whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum McpClient {
    /// Claude Code: .mcp.json in the current folder
    Claude,
    /// Codex CLI: config.toml in $CODEX_HOME or ~/.codex
    Codex,
    /// Gemini CLI: ~/.gemini/settings.json
    Gemini,
    /// Cursor: ~/.cursor/mcp.json
    Cursor,
    /// Visual Studio Code: .vscode/mcp.json in the current folder
    Vscode,
}
