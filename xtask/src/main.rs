//! Automation of the workspace: `cargo xtask <command>`.
//!
//! Holds the style law (`tidy`), the one test command that people and CI share (`test`), the run of the
//! fuzzers (`fuzz`), and small generators and reports. Deliberately absent: release and deployment;
//! anything the product needs at run time.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool whose purpose is to print"
)]

mod fuzz;
mod openapi;
mod sizes;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context, bail};

/// Every command, for documents that name one.
const COMMANDS: [&str; 6] = ["test", "tidy", "fuzz", "openapi", "sizes", "help"];

const USAGE: &str = "\
Automation of the Outpost workspace.

  cargo xtask test [--quick] [--keep-going]   everything CI runs, in the same order
  cargo xtask test --only STEP                one step of it, with what an earlier run has built
  cargo xtask tidy                            the style law: crate levels, lengths, lints, links, licences
  cargo xtask fuzz [--seconds N] [--target T] search inputs that break a parser, 60 s for each target
  cargo xtask openapi [--check]               write the documents in openapi/, or compare them
  cargo xtask sizes                           lines per crate, dependencies, size of the binary
  cargo xtask help                            this text

--quick leaves out what needs installs or minutes: agent CLIs, doc tests, the demo, cargo-deny.
--keep-going runs the remaining steps after a failure.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let Some((command, options)) = arguments.split_first() else {
        print!("{USAGE}");
        return Ok(ExitCode::FAILURE);
    };
    let flag = |name: &str| options.iter().any(|option| option == name);
    let only = |known: &[&str]| -> anyhow::Result<()> {
        match options.iter().find(|option| !known.contains(&option.as_str())) {
            Some(unknown) => bail!("{command} does not know `{unknown}`; see `cargo xtask help`"),
            None => Ok(()),
        }
    };
    match command.as_str() {
        "tidy" => {
            only(&[])?;
            let root = workspace::root()?;
            tidy::command(&root)
        }
        "test" => {
            let step = options.iter().position(|option| option == "--only");
            let step = step.and_then(|at| options.get(at + 1)).map(String::as_str);
            only(&["--quick", "--keep-going", "--only", step.unwrap_or_default()])?;
            let root = workspace::root()?;
            test::command(
                &root,
                test::Options {
                    quick: flag("--quick"),
                    keep_going: flag("--keep-going"),
                    only: step.map(str::to_owned),
                },
            )
        }
        "fuzz" => {
            let options = fuzz::Options::read(options)?;
            fuzz::command(&workspace::root()?, &options)
        }
        "openapi" => {
            only(&["--check"])?;
            openapi::command(&workspace::root()?, flag("--check"))
        }
        "sizes" => {
            only(&[])?;
            sizes::command(&workspace::root()?).context("measuring the crates")
        }
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        unknown => bail!("no command `{unknown}`; see `cargo xtask help`"),
    }
}
