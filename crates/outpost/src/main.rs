//! The `outpost` program: commands and composition root.
//!
//! `outpost-args` says what can be typed, `outpost-config` what the operator decided, [`commands`] what is done, `outpost-terminal` how it is shown, and
//! [`compose`] puts a server together. Commands know only `dyn Api`. Before any of that, the same program
//! becomes the sandbox launcher, or a probe of the self-test, when its first argument says so: single-threaded,
//! without a runtime.
//!
//! Absent: a configuration for the client side beyond flags and environment; a pager; prompts (only
//! `secrets set` asks, and only at a terminal, so everything works in scripts).

mod activity;
mod admin;
mod autostart;
mod check;
mod clock;
mod commands;
mod compose;
mod ctx;
mod engine;
mod error;
mod exit;
#[cfg(test)]
mod fake {
    pub(crate) use crate::samples::*;
    pub(crate) use outpost_testkit::{Call, FakeApi, webhook};
}
mod follow;
mod logging;
mod promoter;
#[cfg(test)]
#[path = "../../outpost-terminal/src/samples.rs"]
#[expect(dead_code, reason = "the tests of other crates use the rest")]
mod samples;
mod select;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::{Ui, Verbosity};
use outpost_args::{Cli, Command, LogFormat};

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == outpost_sandbox::LAUNCHER_ARGUMENT) {
        outpost_sandbox::launcher_main(std::env::args_os().skip(2));
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == outpost_selftest::PROBE_ARGUMENT) {
        return outpost_selftest::probe_main(std::env::args_os().skip(2));
    }
    let cli = Cli::parse();
    let verbosity = Verbosity {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose > 0,
    };
    let ui = Ui::from_process(cli.global.color, verbosity);
    let ctx = Ctx { ui, global: cli.global };
    match run(&ctx, cli.command) {
        Ok(exit) => exit.into(),
        Err(CliError::OutputClosed) => Exit::Ok.into(),
        Err(error) => {
            ctx.ui.error(&error);
            error.exit().into()
        }
    }
}

fn run(ctx: &Ctx, command: Command) -> Result<Exit, CliError> {
    if !matches!(command, Command::Serve(_)) {
        let level = match ctx.global.verbose {
            0 => "off",
            1 => "warn",
            _ => "debug",
        };
        logging::start(level, LogFormat::Pretty, ctx.ui.err.color);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::chain("the runtime cannot start", &error))?;
    let result = runtime.block_on(commands::run(ctx, command));
    // Detached tasks, such as the listener for Ctrl-C, do not hold the process up.
    runtime.shutdown_background();
    result
}
