//! `cargo run -p outpost-torture -- --kills 300 --seed 1`: one storm, and what it found.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool whose purpose is to print"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use outpost_torture::storm::{Options, Outcome, PAUSE_MILLIS, storm};

/// Kills servers and launchers under load and checks that nothing is lost, doubled or left behind.
#[derive(Debug, Parser)]
#[command(name = "outpost-torture")]
struct Args {
    /// Processes to kill
    #[arg(long, default_value_t = 300)]
    kills: u64,
    /// Stop killing after this time, however many it were by then
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Seed of all choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients at work at the same time
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Longest random wait before a strike; a shorter one makes more kills an hour
    #[arg(long, default_value_t = PAUSE_MILLIS, value_name = "MILLIS")]
    pause: u64,
    /// The program under torture [default: the `outpost` beside this one]
    #[arg(long, env = outpost_torture::BINARY_VARIABLE, value_name = "FILE")]
    binary: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Args { kills, seconds, seed, clients, pause, binary } = Args::parse();
    let binary = match binary {
        Some(binary) => binary.canonicalize()?,
        None => outpost_torture::binary()?,
    };
    let options = Options {
        kills,
        seconds_max: seconds,
        seed,
        clients,
        pause_millis: pause,
        binary,
        progress: |progress| eprintln!("{progress}"),
    };
    let outcome = storm(&options).await?;
    print(seed, &outcome);
    Ok(if outcome.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(seed: u64, outcome: &Outcome) {
    let Outcome { counts, .. } = outcome;
    println!("seed                 {seed}");
    println!("servers killed       {}", outcome.server_kills);
    println!("launchers killed     {}", outcome.launcher_kills);
    println!("runs                 {}", outcome.runs);
    println!("  to their own end   {}", counts.natural);
    println!("  cancelled          {}", counts.cancelled);
    println!("  lost with launcher {}", counts.lost);
    println!("streams followed     {}", counts.followed);
    println!("events compared      {}", counts.events);
    println!("audit rows verified  {}", outcome.trail_rows);
    let (middle, longest) = outcome.start_millis;
    println!("start until accepting {middle} ms in the middle, {longest} ms at most");
    println!("held still for       {} s for runs that got nowhere", outcome.held_millis / 1_000);
    println!("broken promises      {}", counts.findings);
    for finding in &outcome.findings {
        println!("  {finding}");
    }
    if let Some(dir) = &outcome.dir {
        println!("everything is kept in {}", dir.display());
    }
}
