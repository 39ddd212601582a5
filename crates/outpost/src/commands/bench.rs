//! `outpost bench`: goal, measured, floor. The work is done by `outpost-bench`; here are its flags.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use outpost_bench::{
    AcceptOptions, BenchError, Data, FairOptions, GatewayOptions, ListOptions, Notes, Place,
    PoolOptions, Report, RestartOptions, ScrubOptions, StartOptions, StatusOptions,
    WorkspaceOptions,
};

use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use outpost_args::{BenchArgs, BenchCommand, BenchData, BenchPlace, FairBench, PoolBench};
use outpost_config::datadir::DataDir;

/// Start of the variables that a server reads, but for that of its log's detail.
const OWN_VARIABLES: &str = "OUTPOST_";
const LOG_VARIABLE: &str = "OUTPOST_LOG";

/// Measures. Exit code 1 when a goal is not met.
pub(crate) fn run(ctx: &Ctx, args: BenchArgs) -> Result<Exit, CliError> {
    if cfg!(debug_assertions) {
        ctx.ui.warn("this is a debug build: its figures say nothing");
    }
    // The load has a runtime of its own; this one only waits.
    let report = tokio::task::block_in_place(|| measure(ctx, args.command))?;
    if ctx.ui.verbosity.json {
        ctx.ui.json(&report)?;
    } else {
        ctx.ui.data(&outpost_bench::text(ctx.ui.out, &report))?;
    }
    let missed = report.rows.iter().any(|row| row.met() == Some(false));
    Ok(if missed { Exit::Failed } else { Exit::Ok })
}

fn measure(ctx: &Ctx, command: BenchCommand) -> Result<Report, CliError> {
    let say = |line: &str| ctx.ui.note(line);
    let notes = Notes(&say);
    let report = match command {
        BenchCommand::Accept(args) => {
            let options = AcceptOptions {
                clients: args.clients,
                time: Duration::from_secs(args.time),
                task_bytes: args.task_bytes,
            };
            let place = place(ctx, &args.place)?;
            match args.kill {
                Some(times) => outpost_bench::kill(place, notes, &options, times),
                None => outpost_bench::accept(place, notes, &options),
            }
        }
        BenchCommand::Status(args) => {
            let time = Duration::from_secs(args.time);
            let place = place(ctx, &args.data.place)?;
            let options = StatusOptions { data: data(args.data), clients: args.clients, time };
            outpost_bench::status(place, notes, &options)
        }
        BenchCommand::List(args) => {
            let (clients, pages) = (args.clients, args.pages);
            let place = place(ctx, &args.data.place)?;
            let options = ListOptions { data: data(args.data), clients, pages };
            outpost_bench::list(place, notes, &options)
        }
        BenchCommand::Restart(args) => {
            let (live, times) = (args.live, args.times);
            let place = place(ctx, &args.data.place)?;
            let options = RestartOptions { data: data(args.data), live, times };
            outpost_bench::restart(place, notes, &options)
        }
        BenchCommand::Fair(args) => {
            let place = place(ctx, &args.place)?;
            let FairBench { slots, waiting, dispatches, .. } = args;
            outpost_bench::fair(place, notes, &FairOptions { slots, waiting, dispatches })
        }
        BenchCommand::Scrub(args) => {
            let place = place(ctx, &args.place)?;
            outpost_bench::scrub(place, notes, ScrubOptions { mib: args.mib })
        }
        BenchCommand::Start(args) => {
            let place = place(ctx, &args.place)?;
            outpost_bench::start(place, notes, &StartOptions { starts: args.starts })
        }
        BenchCommand::Pool(args) => {
            outpost_bench::pool(place(ctx, &args.place)?, notes, &pool_options(ctx, args)?)
        }
        BenchCommand::Workspace(args) => {
            let options =
                WorkspaceOptions { files: args.files, bytes: u64::from(args.mib) * 1_048_576 };
            outpost_bench::workspace(place(ctx, &args.place)?, notes, &options)
        }
        BenchCommand::Gateway(args) => {
            let place = place(ctx, &args.place)?;
            let (calls, request_bytes) = (args.calls, args.prompt_bytes as usize);
            outpost_bench::gateway(place, notes, &GatewayOptions { calls, request_bytes })
        }
    };
    report.map_err(failed)
}

fn pool_options(ctx: &Ctx, args: PoolBench) -> Result<PoolOptions, CliError> {
    let agents_dir = match args.agents_dir {
        Some(dir) => Some(std::path::absolute(dir)?),
        None => Some(data_dir(ctx)?.agents_dir()).filter(|dir| dir.is_dir()),
    };
    let agents = args.agents.as_deref().map(names);
    let (count, cli_count) = (args.count, args.cli_count);
    Ok(PoolOptions { count, cli_count, at_once: args.at_once, agents, agents_dir })
}

fn failed(error: BenchError) -> CliError {
    match error.hint {
        Some(hint) => CliError::failed(error.message).with_hint(hint),
        None => CliError::failed(error.message),
    }
}

fn data(args: BenchData) -> Data {
    Data { dir: args.data, records: args.records }
}

fn data_dir(ctx: &Ctx) -> Result<DataDir, CliError> {
    Ok(DataDir::locate(ctx.global.data_dir.as_deref())?)
}

/// Names between commas.
fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn place(ctx: &Ctx, args: &BenchPlace) -> Result<Place, CliError> {
    let temporary = match &args.temporary {
        Some(dir) => dir.clone(),
        // The same disk as real data, but never among it.
        None => {
            let data = data_dir(ctx)?;
            data.root().parent().unwrap_or_else(|| Path::new("/")).to_owned()
        }
    };
    let own = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with(OWN_VARIABLES) && name != LOG_VARIABLE
    };
    Ok(Place {
        temporary,
        program: std::env::current_exe()?,
        // What the operator set for a real server must not change what is measured.
        forget: std::env::vars_os().map(|(name, _)| name).filter(own).collect(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_named_between_commas() {
        assert_eq!(names("claude, codex,"), ["claude", "codex"]);
        assert_eq!(names(""), [""; 0]);
    }
}
