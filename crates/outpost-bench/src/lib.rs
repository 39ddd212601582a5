//! Goal, measured, floor: what `outpost bench` does.
//!
//! What is measured is the real server, as a process of its own, over HTTP (the gateway alone in a thread of its own); the load runs in
//! this process, which must be lean, since both share the machine. Bounded: connections, answers,
//! waiting requests and the patience with everything (see the constants of each module). Deliberately
//! absent: comparing with earlier runs (figures of different hours of a shared machine do not compare).
//!
//! Everything here blocks, and runs a small runtime of its own where it needs one.

mod accept;
mod client;
mod dataset;
mod dispatches;
mod error;
mod fair;
mod floor;
mod gateway;
mod histogram;
mod list;
mod options;
mod pool;
mod probe;
mod report;
mod restart;
mod scrub;
mod server;
mod source;
mod start;
mod status;
mod text;
mod workspace;

use std::path::PathBuf;

use tempfile::TempDir;

use dataset::DataSet;
pub use error::BenchError;
use floor::Floor;
pub use floor::FloorFigures;
pub use options::{
    AcceptOptions, Data, FairOptions, GatewayOptions, ListOptions, Notes, Place, PoolOptions,
    RestartOptions, ScrubOptions, StartOptions, StatusOptions, WorkspaceOptions,
};
pub use probe::Probe;
pub use report::{Goal, Report, Row};
pub use text::text;

/// Rounds of a bench; the floor is measured before each and after the last.
const ROUNDS_COUNT: usize = 3;

/// Durable accepts a second, beside the bare store; their latency at half load; their processor time.
///
/// # Errors
/// [`BenchError`] when the server does not start or gives a wrong answer: no figure without all right.
pub fn accept(
    place: Place,
    notes: Notes<'_>,
    options: &AcceptOptions,
) -> Result<Report, BenchError> {
    accept::run(Bench::new(place, notes)?, options)
}

/// Kills the server under load `times` times and counts what was acknowledged and is gone.
///
/// # Errors
/// As [`accept`]; what is lost is no error but a figure.
pub fn kill(
    place: Place,
    notes: Notes<'_>,
    options: &AcceptOptions,
    times: u32,
) -> Result<Report, BenchError> {
    accept::kill(Bench::new(place, notes)?, options, times)
}

/// How fast secrets are taken out of texts.
///
/// # Errors
/// [`BenchError`] when the machine's floor cannot be measured.
pub fn scrub(place: Place, notes: Notes<'_>, options: ScrubOptions) -> Result<Report, BenchError> {
    scrub::run(Bench::new(place, notes)?, &options)
}

/// Polls of a status a second, and the health address.
///
/// # Errors
/// As [`accept`].
pub fn status(
    place: Place,
    notes: Notes<'_>,
    options: &StatusOptions,
) -> Result<Report, BenchError> {
    status::run(Bench::new(place, notes)?, options)
}

/// Pages of a list, for every filter.
///
/// # Errors
/// As [`accept`].
pub fn list(place: Place, notes: Notes<'_>, options: &ListOptions) -> Result<Report, BenchError> {
    list::run(Bench::new(place, notes)?, options)
}

/// A killed server's successor: until it takes requests, until it has its agents back.
///
/// # Errors
/// As [`accept`], and when an agent is not taken up again.
pub fn restart(
    place: Place,
    notes: Notes<'_>,
    options: &RestartOptions,
) -> Result<Report, BenchError> {
    restart::run(Bench::new(place, notes)?, options)
}

/// What a tenant waits for its dispatches, alone and while another one floods the queue.
///
/// # Errors
/// As [`accept`], and when a dispatch does not complete.
pub fn fair(place: Place, notes: Notes<'_>, options: &FairOptions) -> Result<Report, BenchError> {
    fair::run(Bench::new(place, notes)?, options)
}

/// What the gateway adds to a call of a model.
///
/// # Errors
/// [`BenchError`] when the gateway cannot be opened or gives a wrong answer.
pub fn gateway(
    place: Place,
    notes: Notes<'_>,
    options: &GatewayOptions,
) -> Result<Report, BenchError> {
    gateway::run(Bench::new(place, notes)?, options)
}

/// What a sandbox with everything on costs, beside the start of a bare process.
///
/// # Errors
/// [`BenchError`] when this host makes no sandbox.
pub fn start(place: Place, notes: Notes<'_>, options: &StartOptions) -> Result<Report, BenchError> {
    start::run(Bench::new(place, notes)?, options)
}

/// From an accepted dispatch to its agent's process, with warm workers and without.
///
/// # Errors
/// As [`accept`], and when an agent that was asked for cannot run; one of many at once that fails is a figure.
pub fn pool(place: Place, notes: Notes<'_>, options: &PoolOptions) -> Result<Report, BenchError> {
    pool::run(Bench::new(place, notes)?, options)
}

/// How soon the files of a repository are there, beside git's own clones.
///
/// # Errors
/// [`BenchError`] when git fails, or this host makes no sandbox.
pub fn workspace(
    place: Place,
    notes: Notes<'_>,
    options: &WorkspaceOptions,
) -> Result<Report, BenchError> {
    workspace::run(Bench::new(place, notes)?, options)
}

/// One bench under way.
struct Bench<'a> {
    ui: Notes<'a>,
    place: Place,
    probe: Probe,
    floor: Floor,
    rows: Vec<Row>,
    /// Gone with the bench.
    temporary: TempDir,
}

impl<'a> Bench<'a> {
    fn new(place: Place, ui: Notes<'a>) -> Result<Self, BenchError> {
        std::fs::create_dir_all(&place.temporary)?;
        let mut builder = tempfile::Builder::new();
        let temporary = builder.prefix("outpost-bench-").tempdir_in(&place.temporary)?;
        let probe = Probe::now(temporary.path(), place.version);
        let floor = Floor::new(temporary.path())?;
        Ok(Self { ui, place, probe, floor, rows: Vec::new(), temporary })
    }

    /// A directory that ends with the bench.
    fn dir(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// The data set and the directory it is in.
    fn data(&self, data: &Data) -> Result<(DataSet, PathBuf), BenchError> {
        let dir = data.dir.clone().unwrap_or_else(|| self.dir("data"));
        let dir = std::path::absolute(dir)?;
        Ok((DataSet::in_dir(self.ui, &dir, data.records)?, dir))
    }

    fn finish(self, bench: &'static str) -> Report {
        Report { bench, probe: self.probe, floor: self.floor.figures(), rows: self.rows }
    }
}
