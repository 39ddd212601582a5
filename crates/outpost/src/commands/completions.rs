//! `outpost completions`: completions for a shell.

use clap::CommandFactory as _;

use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use outpost_args::{Cli, CompletionsArgs};

/// Prints the script that the shell is to read.
pub(crate) fn run(ui: &Ui, args: CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "outpost", &mut script);
    ui.data_bytes(&script)?;
    Ok(Exit::Ok)
}
