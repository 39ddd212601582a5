//! The simulation's command line: many seeds, or one of them in detail.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool whose purpose is to print"
)]

use std::process::ExitCode;
use std::thread::available_parallelism;

use outpost_sim::day::table;
use outpost_sim::explore::{explore, shrink};
use outpost_sim::{Kill, Mutant, Plan, scenario, simulate};

/// Seeds that run when nothing else is said.
const SEEDS_DEFAULT: u64 = 20_000;

const USAGE: &str = "\
Deterministic simulation of the control plane around the real core.

  cargo run --release -p outpost-sim -- --seeds N [--from S]   that many seeds
  cargo run --release -p outpost-sim -- --seed S [--trace]     one of them; --trace prints what happens
  cargo run --release -p outpost-sim -- --crashes              a death at every point of every scenario
  cargo run --release -p outpost-sim -- --pools [--days N]     a day of the warm pools under every load and
                                                               setting, as a table; N seeds of each

--mutant NAME   carry that bug on purpose; the seeds should fail
--threads N     instead of one for each core
";

#[derive(Debug, Default)]
struct Options {
    from: u64,
    seeds: Option<u64>,
    seed: Option<u64>,
    trace: bool,
    crashes: bool,
    pools: bool,
    days: Option<u64>,
    mutant: Option<Mutant>,
    threads: Option<usize>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--from" => options.from = number(value()?)?,
            "--seeds" => options.seeds = Some(number(value()?)?),
            "--seed" => options.seed = Some(number(value()?)?),
            "--threads" => options.threads = usize::try_from(number(value()?)?).ok(),
            "--trace" => options.trace = true,
            "--crashes" => options.crashes = true,
            "--pools" => options.pools = true,
            "--days" => options.days = Some(number(value()?)?),
            "--mutant" => {
                let name = value()?;
                let known = Mutant::ALL.iter().map(|mutant| mutant.name()).collect::<Vec<_>>();
                let unknown = || format!("{name} is no mutant; known are {}", known.join(", "));
                options.mutant = Some(Mutant::named(&name).ok_or_else(unknown)?);
            }
            _ => return Err(format!("{word} is not known\n\n{USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(options) if options.crashes => crashes(&options),
        Ok(options) if options.pools => pools(&options),
        Ok(options) => match options.seed {
            Some(seed) => one(seed, &options),
            None => many(&options),
        },
        Err(message) => {
            eprintln!("outpost-sim: {message}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let plan = Plan { mutant: options.mutant, ..Plan::random(seed) };
    let outcome = simulate(plan.clone(), options.trace);
    print!("{}", outcome.trace);
    println!("seed {seed}: trace {:016x}, {} points", outcome.trace_hash, outcome.points);
    match outcome.violation {
        Some(violation) => {
            println!("VIOLATION: {violation}\n{plan:#?}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(options: &Options) -> ExitCode {
    let count = options.seeds.unwrap_or(SEEDS_DEFAULT);
    let summary = explore(options.from, count, options.mutant, threads(options));
    println!(
        "{} seeds from {}: {} servers, ends {:?}, sum of traces {:016x}",
        summary.ran, options.from, summary.servers, summary.ends, summary.trace_sum
    );
    let Some((seed, violation)) = summary.failed else { return ExitCode::SUCCESS };
    println!("VIOLATION with seed {seed}: {violation}");
    let small = shrink(Plan { mutant: options.mutant, ..Plan::random(seed) });
    let outcome = simulate(small.clone(), true);
    println!("made smaller: {}\n{small:#?}", outcome.violation.unwrap_or_default());
    println!("{}", outcome.trace);
    println!("to see all of it: cargo run -p outpost-sim -- --seed {seed} --trace");
    ExitCode::FAILURE
}

fn threads(options: &Options) -> usize {
    options.threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from))
}

fn pools(options: &Options) -> ExitCode {
    let first = options.seed.unwrap_or(options.from);
    for seed in first..first.saturating_add(options.days.unwrap_or(1)) {
        println!("seed {seed}\n{}", table::HEAD);
        for row in table::rows(&table::days(seed), threads(options)) {
            match row {
                Ok(row) => println!("{row}"),
                Err(violation) => {
                    println!("VIOLATION: {violation}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn crashes(options: &Options) -> ExitCode {
    let kills = [Kill::Server, Kill::Launcher, Kill::Host];
    let mut code = ExitCode::SUCCESS;
    for scenario in scenario::all() {
        let crashes = scenario::crash_everywhere(&scenario, options.mutant, &kills, 40);
        println!("{}: {} histories", scenario.name, crashes.ran);
        if let Some(failed) = crashes.failed {
            println!("VIOLATION: {failed}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
