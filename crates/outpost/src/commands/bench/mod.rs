//! `outpost bench`: goal, measured, floor.
//!
//! What is measured is always the real server, as a process of its own, over HTTP; the load runs in
//! this process. Deliberately absent: comparing with earlier runs (figures of different hours of a
//! shared machine do not compare) and a service mode.

mod accept;
mod client;
mod dataset;
mod floor;
mod histogram;
mod list;
mod probe;
mod report;
mod restart;
mod server;
mod status;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::args::{BenchArgs, BenchCommand, BenchData, BenchPlace};
use crate::ctx::Ctx;
use crate::datadir::DataDir;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use dataset::DataSet;
use floor::Floor;
use probe::Probe;
use report::{Report, Row};

/// Rounds of a bench; the floor is measured before each and after the last.
const ROUNDS_COUNT: usize = 3;

/// Measures.
pub(crate) fn run(ctx: &Ctx, args: BenchArgs) -> Result<Exit, CliError> {
    // The load has a runtime of its own on one thread; this one only waits.
    let report = tokio::task::block_in_place(|| measure(ctx, args.command))?;
    if ctx.ui.verbosity.json {
        ctx.ui.json(&report)?;
    } else {
        ctx.ui.data(&report.text(ctx.ui.out))?;
    }
    Ok(if report.rows.iter().any(|row| row.met() == Some(false)) { Exit::Failed } else { Exit::Ok })
}

fn measure(ctx: &Ctx, command: BenchCommand) -> Result<Report, CliError> {
    if cfg!(debug_assertions) {
        ctx.ui.warn("this is a debug build: its figures say nothing");
    }
    match command {
        BenchCommand::Accept(args) => {
            let bench = Bench::new(ctx, &args.place)?;
            if let Some(times) = args.kill {
                accept::kill(bench, &args, times)
            } else {
                accept::run(bench, &args)
            }
        }
        BenchCommand::Status(args) => status::run(Bench::new(ctx, &args.data.place)?, &args),
        BenchCommand::List(args) => list::run(Bench::new(ctx, &args.data.place)?, &args),
        BenchCommand::Restart(args) => restart::run(Bench::new(ctx, &args.data.place)?, &args),
    }
}

/// One bench under way.
struct Bench<'a> {
    ui: &'a Ui,
    probe: Probe,
    floor: Floor,
    rows: Vec<Row>,
    /// Gone with the bench.
    temporary: TempDir,
}

impl<'a> Bench<'a> {
    fn new(ctx: &'a Ctx, place: &BenchPlace) -> Result<Self, CliError> {
        let parent = match &place.temporary {
            Some(dir) => dir.clone(),
            // The same disk as real data, but never among it.
            None => {
                let data = DataDir::locate(ctx.global.data_dir.as_deref())?;
                data.root().parent().unwrap_or_else(|| Path::new("/")).to_owned()
            }
        };
        std::fs::create_dir_all(&parent)?;
        let temporary = tempfile::Builder::new().prefix("outpost-bench-").tempdir_in(parent)?;
        let probe = Probe::now(temporary.path());
        let floor = Floor::new(temporary.path())?;
        Ok(Self { ui: &ctx.ui, probe, floor, rows: Vec::new(), temporary })
    }

    /// A directory that ends with the bench.
    fn dir(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// The data set and the directory it is in.
    fn data(&self, args: &BenchData) -> Result<(DataSet, PathBuf), CliError> {
        let dir = args.data.clone().unwrap_or_else(|| self.dir("data"));
        let dir = std::path::absolute(dir)?;
        Ok((DataSet::in_dir(self.ui, &dir, args.records)?, dir))
    }

    fn finish(self, bench: &'static str) -> Report {
        Report { bench, probe: self.probe, floor: self.floor.figures(), rows: self.rows }
    }
}
