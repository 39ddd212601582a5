//! Flags of `outpost bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::value;

/// Most connections of a load.
const CLIENTS_MAX: i64 = 4_096;
/// Most records of a data set.
const RECORDS_MAX: u64 = 100_000_000;

/// Flags of `outpost bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  outpost bench accept --kill 3        durable accepts; nothing may be lost when the server is killed
  outpost bench list --data ./month    make a data set once, measure on it again and again
  outpost bench pool --agents claude   of the installed CLIs only this one
  outpost bench workspace --mib 1024   a large repository; takes long, and 15 GiB of disk meanwhile

Most start a server of their own on a directory of its own and load it over HTTP on loopback from this
process. All measure the machine's floor beside it: fdatasync, and the start of a process.
Use a release build and an idle machine; figures of a busy one are marked.")]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// Benches.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Durable accepts a second, their latency at half load and their processor time
    Accept(AcceptBench),
    /// Polls of a status a second with many records, and the health address
    Status(StatusBench),
    /// Pages of a list with many records, for every filter
    List(ListBench),
    /// A killed server's successor: until it takes requests, until it has its agents back
    Restart(RestartBench),
    /// What one tenant waits while another keeps hundreds of dispatches waiting
    Fair(FairBench),
    /// What the gateway adds to a call of a model
    Gateway(GatewayBench),
    /// How fast secrets are taken out of what agents print
    Scrub(ScrubBench),
    /// What a sandbox costs beside the start of a bare process
    Start(StartBench),
    /// From an accepted dispatch to its agent's process, with warm workers and without
    Pool(PoolBench),
    /// How soon the files of a repository are there, beside git's own clones
    Workspace(WorkspaceBench),
}

/// Where a bench keeps its files.
#[derive(Debug, Clone, Args)]
pub struct BenchPlace {
    /// Directory below which temporary ones are made [default: beside the data directory]
    #[arg(long, value_name = "DIR")]
    pub temporary: Option<PathBuf>,
}

/// Where a bench has its records.
#[derive(Debug, Clone, Args)]
pub struct BenchData {
    /// Where the bench keeps its files.
    #[command(flatten)]
    pub place: BenchPlace,
    /// Keep the data set in this directory and use it again
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Records of the data set
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1_000..=RECORDS_MAX))]
    pub records: u64,
}

/// Flags of `outpost bench accept`.
#[derive(Debug, Clone, Args)]
pub struct AcceptBench {
    /// Where the bench keeps its files.
    #[command(flatten)]
    pub place: BenchPlace,
    /// Clients at once
    #[arg(long, default_value_t = 256, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Time of each round; there are three
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = value::seconds)]
    pub time: u64,
    /// Size of the task text, bytes
    #[arg(long, default_value_t = 1_024, value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(1..=51_200))]
    pub task_bytes: u32,
    /// Kill the server under load this many times instead, and count what was lost
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kill: Option<u32>,
}

/// Flags of `outpost bench status`.
#[derive(Debug, Clone, Args)]
pub struct StatusBench {
    /// Its records.
    #[command(flatten)]
    pub data: BenchData,
    /// Clients at once
    #[arg(long, default_value_t = 64, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Time of each round; there are three
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = value::seconds)]
    pub time: u64,
}

/// Flags of `outpost bench list`.
#[derive(Debug, Clone, Args)]
pub struct ListBench {
    /// Its records.
    #[command(flatten)]
    pub data: BenchData,
    /// Clients at once
    #[arg(long, default_value_t = 1, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Pages of each filter, by each client
    #[arg(long, default_value_t = 500, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pages: u32,
}

/// Flags of `outpost bench restart`.
#[derive(Debug, Clone, Args)]
pub struct RestartBench {
    /// Its records.
    #[command(flatten)]
    pub data: BenchData,
    /// Agents that run, each in its sandbox
    #[arg(long, default_value_t = 100, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub live: u32,
    /// Restarts
    #[arg(long, default_value_t = 5, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub times: u32,
}

/// Flags of `outpost bench fair`.
#[derive(Debug, Clone, Args)]
pub struct FairBench {
    /// Where the bench keeps its files.
    #[command(flatten)]
    pub place: BenchPlace,
    /// Agents at once
    #[arg(long, default_value_t = 4, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=64))]
    pub slots: u32,
    /// Dispatches that the flood keeps waiting
    #[arg(long, default_value_t = 300, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub waiting: u32,
    /// Dispatches of the quiet tenant in each round, alone and in the flood; there are three rounds
    #[arg(long, default_value_t = 40, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub dispatches: u32,
}

/// Flags of `outpost bench gateway`.
#[derive(Debug, Clone, Args)]
pub struct GatewayBench {
    /// Where the bench keeps its files.
    #[command(flatten)]
    pub place: BenchPlace,
    /// Calls in each round, directly and through the gateway; there are three rounds
    #[arg(long, default_value_t = 2_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls: u32,
    /// Size of the prompt, bytes
    #[arg(long, default_value_t = 16_384, value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub prompt_bytes: u32,
}

/// Flags of `outpost bench scrub`.
#[derive(Debug, Clone, Args)]
pub struct ScrubBench {
    /// Where the bench keeps its files.
    #[command(flatten)]
    pub place: BenchPlace,
    /// Size of each text, MiB
    #[arg(long, default_value_t = 32, value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub mib: u32,
}

/// Flags of `outpost bench start`.
#[derive(Debug, Clone, Args)]
pub struct StartBench {
    /// Where the bench keeps its files.
    #[command(flatten)]
    pub place: BenchPlace,
    /// Starts of each kind in each round; there are three rounds
    #[arg(long, default_value_t = 100, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub starts: u32,
}

/// Flags of `outpost bench pool`.
#[derive(Debug, Clone, Args)]
pub struct PoolBench {
    /// Where the bench keeps its files.
    #[command(flatten)]
    pub place: BenchPlace,
    /// Dispatches of each kind, one after another: with a warm worker and without, with a repository and without
    #[arg(long, default_value_t = 210, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Dispatches of each real CLI, with a warm worker and without; its model is scripted
    #[arg(long, default_value_t = 12, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub cli_count: u32,
    /// Dispatches that come at once in each round, as 50,200
    #[arg(long, default_value = "50,200", value_name = "COUNTS", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=200))]
    pub at_once: Vec<u32>,
    /// Real CLIs to measure, as a,b; an empty text is none [default: all that are installed]
    #[arg(long, value_name = "AGENTS")]
    pub agents: Option<String>,
    /// Where they are installed [default: agents in the data directory]
    #[arg(long, env = "OUTPOST_AGENTS_DIR", value_name = "DIR")]
    pub agents_dir: Option<PathBuf>,
}

/// Flags of `outpost bench workspace`.
#[derive(Debug, Clone, Args)]
pub struct WorkspaceBench {
    /// Where the bench keeps its files; it takes some 15 times the repository meanwhile
    #[command(flatten)]
    pub place: BenchPlace,
    /// Files of the repository
    #[arg(long, default_value_t = 14_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub files: u32,
    /// Their size in all, MiB; 50 take minutes on a slow disk, and 1024 long
    #[arg(long, default_value_t = 50, value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub mib: u32,
}
