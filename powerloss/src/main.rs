//! The long mode: `cargo run --release -p outpost-powerloss -- --cuts 100000 --seed 1`.
#![expect(clippy::print_stdout, reason = "figures go to standard output")]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use outpost_powerloss::campaign::{Mutant, Plan, Tally, campaign};
use outpost_powerloss::random::Random;

/// Cuts the power of the store many times and checks what is left.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many cuts.
    #[arg(long, default_value_t = 2_000)]
    cuts: u64,
    /// Seed of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// With a deliberate bug: must end with an error.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// With one sync in each life of a store that lies.
    #[arg(long)]
    lie: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let jobs = arguments.jobs.max(1);
    let begun = Instant::now();
    let mut seeds = Random::new(arguments.seed);
    let threads: Vec<_> = (0..jobs)
        .map(|_| {
            let plan = Plan {
                seed: seeds.next(),
                cuts: arguments.cuts.div_ceil(jobs),
                mutant: arguments.mutant,
                lie: arguments.lie,
            };
            std::thread::spawn(move || campaign(plan))
        })
        .collect();
    let mut all = Tally::default();
    for thread in threads {
        let tally = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        all = all.plus(tally.context("not lawful")?);
    }
    println!("{all:#?}\n{:.1} s", begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
