//! `cargo xtask test`: the one way to test this project, for people and for CI.
//!
//! Steps run in order, each bounded in time; the first failure stops unless asked otherwise. The
//! last line is always `N passed, M failed`, where a step that fails without a failing test case
//! counts as one. Deliberately absent: retries. A test that passes on the second try is a failure.

mod agents;
mod clients;
mod contract;
mod counts;
mod mcp;
pub(crate) mod process;
mod steps;

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use counts::Counts;
use process::{End, Stream};

use crate::workspace::forget_cargo_run;

/// Where the agent CLIs for tests are kept, below the workspace.
const CACHE_FOLDER: &str = ".cache";
/// Names another cache folder, for example one that CI keeps between runs.
const CACHE_VARIABLE: &str = "OUTPOST_TEST_CACHE";
/// Tells the end-to-end tests where the agent CLIs are.
const AGENTS_VARIABLE: &str = "OUTPOST_TEST_AGENTS_DIR";
/// Part of a failed command's last line that the summary repeats, characters.
const REASON_CHARS_MAX: usize = 160;

/// Tells them where the SDK is whose client they drive.
const MCP_VARIABLE: &str = "OUTPOST_TEST_MCP_DIR";

/// Variables of the product's own; the caller's must not reach the tests.
const OWN_PREFIX: &str = "OUTPOST_";
/// Keys with which a test would talk to a real model, and spend.
const KEY_VARIABLES: [&str; 9] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "OPENAI_API_KEY",
    "CODEX_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "DEEPSEEK_API_KEY",
    "XAI_API_KEY",
    "GROK_API_KEY",
];

/// What the user asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Leave out what needs installs or minutes.
    pub(crate) quick: bool,
    /// Run the remaining steps after a failure.
    pub(crate) keep_going: bool,
    /// Run only the step of this name.
    pub(crate) only: Option<String>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    /// This machine cannot do it, with the reason.
    Skipped(String),
}

/// One line of the summary.
struct Row {
    name: String,
    seconds: f64,
    outcome: Outcome,
    counts: Counts,
}

/// What steps share.
struct Bench {
    root: PathBuf,
    cache: PathBuf,
    /// A skip is a failure.
    ci: bool,
    colour: bool,
}

impl Bench {
    fn new(root: &Path) -> Self {
        let cache =
            env::var_os(CACHE_VARIABLE).map_or_else(|| root.join(CACHE_FOLDER), PathBuf::from);
        Self {
            root: root.to_owned(),
            cache,
            ci: env::var("CI").is_ok_and(|value| value == "true" || value == "1"),
            colour: io::stderr().is_terminal()
                && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// A command in the workspace, cut off from the caller's keys and servers.
    fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.root);
        forget_cargo_run(&mut command);
        for name in KEY_VARIABLES {
            command.env_remove(name);
        }
        for (name, _) in env::vars_os().filter(|(name, _)| is_own(name)) {
            command.env_remove(name);
        }
        command.env(CACHE_VARIABLE, &self.cache).env(AGENTS_VARIABLE, self.cache.join("agents"));
        command.env(MCP_VARIABLE, self.cache.join(mcp::FOLDER));
        if self.colour {
            command.env("CARGO_TERM_COLOR", "always");
        }
        command
    }

    /// Makes the cache folder, open to every user: the product would make it its own.
    fn make_cache(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.cache)?;
        std::fs::set_permissions(&self.cache, std::fs::Permissions::from_mode(0o755))
    }

    /// Tells the product's own commands where to keep things: agents beside a data directory, which
    /// is nobody else's, so that tests of an ordinary user find them.
    fn own_places(&self, command: &mut Command) {
        command
            .env("OUTPOST_DATA_DIR", self.cache.join("data"))
            .env("OUTPOST_AGENTS_DIR", self.cache.join("agents"));
    }

    /// Runs a command, shows its output, counts its tests, and says how it ended.
    fn run(&self, command: Command, limit: Duration, counts: &mut Counts) -> Outcome {
        let mut reason = Reason::default();
        let shown = process::run(command, limit, &mut |stream, line| {
            counts.read(line);
            reason.read(line);
            show(stream, line);
        });
        judge(shown, &reason)
    }
}

/// The line of a command's output that says best why it failed.
#[derive(Debug, Default)]
struct Reason {
    /// The first that starts with "error"; what follows are often its consequences.
    error: Option<String>,
    last: String,
}

impl Reason {
    fn read(&mut self, line: &str) {
        let plain = counts::without_escapes(line);
        let plain = plain.trim();
        if plain.is_empty() {
            return;
        }
        plain.clone_into(&mut self.last);
        if self.error.is_none() && plain.starts_with("error") {
            self.error = Some(plain.to_owned());
        }
    }

    fn text(&self) -> String {
        self.error.as_ref().unwrap_or(&self.last).chars().take(REASON_CHARS_MAX).collect()
    }
}

fn is_own(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(OWN_PREFIX)
}

fn show(stream: Stream, line: &str) {
    match stream {
        Stream::Out => println!("{line}"),
        Stream::Err => eprintln!("{line}"),
    }
}

fn judge(end: anyhow::Result<End>, reason: &Reason) -> Outcome {
    match end {
        Ok(End::Success) => Outcome::Passed,
        Ok(End::Failure(status)) => Outcome::Failed(format!("{status}: {}", reason.text())),
        Ok(End::TimedOut(limit)) => {
            Outcome::Failed(format!("not done after {} s, killed", limit.as_secs()))
        }
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Runs the steps and prints the summary.
pub(crate) fn command(root: &Path, options: Options) -> anyhow::Result<ExitCode> {
    let bench = Bench::new(root);
    let mut rows = Vec::new();
    let mut steps = steps::all(options.quick);
    if let Some(name) = &options.only {
        steps.retain(|step| step.name == *name);
        anyhow::ensure!(!steps.is_empty(), "there is no step {name:?}; the summary names them");
    }
    for step in steps {
        println!("\n==> {}", step.name);
        let started = Instant::now();
        let mut counts = Counts::default();
        let mut outcome = (step.action)(&bench, &mut counts);
        if let (Outcome::Skipped(reason), true, true) = (&outcome, bench.ci, step.required_in_ci) {
            outcome = Outcome::Failed(format!("skipped, which CI does not accept: {reason}"));
        }
        let row =
            Row { name: step.name, seconds: started.elapsed().as_secs_f64(), outcome, counts };
        println!("    {}", row.line());
        let failed = matches!(row.outcome, Outcome::Failed(_));
        rows.push(row);
        if failed && !options.keep_going {
            println!("    stopped here; `--keep-going` runs the remaining steps too");
            break;
        }
    }
    let total = print_summary(&rows);
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Row {
    fn line(&self) -> String {
        let counts = if self.counts == Counts::default() {
            String::new()
        } else {
            let Counts { passed, failed, skipped } = self.counts;
            format!(" ({passed} passed, {failed} failed, {skipped} skipped)")
        };
        let outcome = match &self.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed(reason) => format!("FAILED: {reason}"),
            Outcome::Skipped(reason) => format!("SKIPPED: {reason}"),
        };
        format!("{:<16} {:>7.1} s  {outcome}{counts}", self.name, self.seconds)
    }
}

/// Prints one line a step and adds up the test cases.
fn print_summary(rows: &[Row]) -> Counts {
    println!("\n==> summary");
    let mut total = Counts::default();
    for row in rows {
        println!("    {}", row.line());
        total += row.counts;
        if matches!(row.outcome, Outcome::Failed(_)) && row.counts.failed == 0 {
            total.failed += 1;
        }
    }
    let seconds: f64 = rows.iter().map(|row| row.seconds).sum();
    println!("    {:<16} {seconds:>7.1} s", "all");
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(outcome: Outcome, passed: u64, failed: u64) -> Row {
        Row {
            name: "a".to_owned(),
            seconds: 1.0,
            outcome,
            counts: Counts { passed, failed, skipped: 0 },
        }
    }

    #[test]
    fn a_failed_step_always_shows_in_the_sum() {
        let rows = [
            row(Outcome::Passed, 5, 0),
            row(Outcome::Failed("fmt".to_owned()), 0, 0),
            row(Outcome::Failed("tests".to_owned()), 7, 2),
            row(Outcome::Skipped("no npm".to_owned()), 0, 0),
        ];
        assert_eq!(print_summary(&rows), Counts { passed: 12, failed: 3, skipped: 0 });
    }

    #[test]
    fn the_reason_of_a_failure_is_its_first_error_or_last_line() {
        let failed = || Ok(End::Failure("exit status: 1".to_owned()));
        let mut reason = Reason::default();
        for line in ["Compiling a", "nothing to do", ""] {
            reason.read(line);
        }
        let expected = Outcome::Failed("exit status: 1: nothing to do".to_owned());
        assert_eq!(judge(failed(), &reason), expected);
        for line in ["\u{1b}[1merror\u{1b}[0m: no such name", "error: could not compile", "done"] {
            reason.read(line);
        }
        let expected = Outcome::Failed("exit status: 1: error: no such name".to_owned());
        assert_eq!(judge(failed(), &reason), expected);
    }

    #[test]
    fn a_timeout_says_how_long_it_was() {
        let late = judge(Ok(End::TimedOut(Duration::from_secs(60))), &Reason::default());
        assert_eq!(late, Outcome::Failed("not done after 60 s, killed".to_owned()));
    }
}
