//! The steps of `cargo xtask test`, with the time each may take.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::agents::{AGENTS, Agent};
use super::clients::clients;
use super::contract::contract;
use super::counts::Counts;
use super::process::{self, Stream};
use super::{Bench, Outcome, Reason, judge, mcp, show};
use crate::workspace::cargo;

/// Formatting and the style law.
const STYLE_SECONDS_MAX: u64 = 300;
/// A cold build or lint of everything on two busy cores.
const BUILD_SECONDS_MAX: u64 = 2_700;
/// One agent CLI from its registry, 0.7 GB at most.
const INSTALL_SECONDS_MAX: u64 = 900;
/// All tests; a single one is bounded by .config/nextest.toml.
const TEST_SECONDS_MAX: u64 = 1_800;
/// The demo, a dispatch of a real CLI.
const DEMO_SECONDS_MAX: u64 = 300;
/// cargo-deny on a lock file.
const DENY_SECONDS_MAX: u64 = 300;
/// The binary that the build step made.
const BINARY: &str = "target/debug/outpost";

type Action = Box<dyn Fn(&Bench, &mut Counts) -> Outcome>;

/// One step.
pub(super) struct Step {
    pub(super) name: String,
    /// In CI a skip of it is a failure.
    pub(super) required_in_ci: bool,
    pub(super) action: Action,
}

impl Step {
    fn new(
        name: impl Into<String>,
        action: impl Fn(&Bench, &mut Counts) -> Outcome + 'static,
    ) -> Self {
        Self { name: name.into(), required_in_ci: true, action: Box::new(action) }
    }

    /// A step that is one cargo command.
    fn cargo(name: &str, seconds_max: u64, arguments: &'static [&'static str]) -> Self {
        Self::new(name, move |bench, counts| {
            bench.run(bench.command(cargo(), arguments), Duration::from_secs(seconds_max), counts)
        })
    }
}

/// All steps, in order.
pub(super) fn all(quick: bool) -> Vec<Step> {
    let mut steps = vec![
        Step::new("format", format),
        Step::new("tidy", tidy),
        Step::cargo(
            "clippy",
            BUILD_SECONDS_MAX,
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ),
        Step::cargo("build", BUILD_SECONDS_MAX, &["build", "--workspace", "--all-targets"]),
    ];
    if !quick {
        steps.extend(AGENTS.map(|agent| {
            Step::new(format!("install {}", agent.name), move |bench, _| install(bench, agent))
        }));
        steps.push(Step::new("install MCP SDK", |bench, _| mcp::install(bench)));
    }
    steps.push(Step::new("tests", tests));
    if !quick {
        steps.push(Step::cargo("doc tests", TEST_SECONDS_MAX, &["test", "--workspace", "--doc"]));
        steps.push(Step::new("demo", |bench, _| demo(bench)));
        steps.push(Step::new("clients", |bench, _| clients(bench, &bench.root.join(BINARY))));
        steps.push(Step::new("schemathesis", |bench, _| contract(bench, &bench.root.join(BINARY))));
        steps.push(Step::new("MCP", |bench, counts| {
            mcp::check(bench, &bench.root.join(BINARY), counts)
        }));
        let deny = Step::new("cargo-deny", deny);
        // Tidy holds licences, bans and sources everywhere; building cargo-deny takes minutes.
        steps.push(Step { required_in_ci: false, ..deny });
    }
    steps
}

fn format(bench: &Bench, counts: &mut Counts) -> Outcome {
    let command = bench.command(cargo(), &["fmt", "--all", "--check"]);
    match bench.run(command, Duration::from_secs(STYLE_SECONDS_MAX), counts) {
        Outcome::Failed(_) => Outcome::Failed("run `cargo fmt --all`".to_owned()),
        outcome => outcome,
    }
}

fn tidy(bench: &Bench, counts: &mut Counts) -> Outcome {
    match env::current_exe() {
        Ok(own) => {
            bench.run(bench.command(own, &["tidy"]), Duration::from_secs(STYLE_SECONDS_MAX), counts)
        }
        Err(error) => Outcome::Failed(format!("finding this program: {error}")),
    }
}

fn install(bench: &Bench, agent: Agent) -> Outcome {
    if let Some(reason) = agent.missing_tool() {
        return Outcome::Skipped(reason);
    }
    if let Err(error) = bench.make_cache() {
        return Outcome::Failed(format!("making the cache folder: {error}"));
    }
    let mut command = bench.command(bench.root.join(BINARY), &["agents", "install", agent.name]);
    bench.own_places(&mut command);
    let limit = Duration::from_secs(INSTALL_SECONDS_MAX);
    match bench.run(command, limit, &mut Counts::default()) {
        // A machine may have no way to the registry; whether that is acceptable is CI's question.
        Outcome::Failed(reason) => Outcome::Skipped(format!("could not be installed: {reason}")),
        outcome => outcome,
    }
}

fn tests(bench: &Bench, counts: &mut Counts) -> Outcome {
    let arguments: &[&str] = if has_subcommand("nextest") {
        &["nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        println!("    cargo-nextest is not installed: using cargo test");
        &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]
    };
    let outcome =
        bench.run(bench.command(cargo(), arguments), Duration::from_secs(TEST_SECONDS_MAX), counts);
    if outcome == Outcome::Passed && counts.passed == 0 {
        return Outcome::Failed("no test ran".to_owned());
    }
    outcome
}

/// The demo as a stranger without a key runs it.
fn demo(bench: &Bench) -> Outcome {
    let mut command = bench.command(bench.root.join(BINARY), &["demo", "--scripted", "--json"]);
    bench.own_places(&mut command);
    let mut reason = Reason::default();
    let mut document = String::new();
    let end = process::run(command, Duration::from_secs(DEMO_SECONDS_MAX), &mut |stream, line| {
        if stream == Stream::Out {
            // Not shown: it repeats what standard error told, at length. Without line breaks: a very
            // long line comes in pieces, and JSON needs none.
            document.push_str(line);
        } else {
            show(stream, line);
            reason.read(line);
        }
    });
    match judge(end, &reason) {
        Outcome::Passed => match parse(&document) {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        },
        other => other,
    }
}

fn parse(document: &str) -> anyhow::Result<()> {
    let value: serde_json::Value =
        serde_json::from_str(document).context("`outpost demo --json` printed no JSON document")?;
    anyhow::ensure!(value["ok"] == true, "`outpost demo --json` does not say `\"ok\": true`");
    Ok(())
}

fn deny(bench: &Bench, counts: &mut Counts) -> Outcome {
    if !has_subcommand("deny") {
        return Outcome::Skipped(
            "cargo-deny is not installed; tidy held the same rules".to_owned(),
        );
    }
    let arguments = ["deny", "check", "licenses", "bans", "sources"];
    bench.run(bench.command(cargo(), &arguments), Duration::from_secs(DENY_SECONDS_MAX), counts)
}

/// Whether `cargo <name>` is there.
fn has_subcommand(name: &str) -> bool {
    Command::new(cargo())
        .args([name, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(quick: bool) -> Vec<String> {
        all(quick).into_iter().map(|step| step.name).collect()
    }

    #[test]
    fn quick_leaves_out_installs_and_minutes() {
        assert_eq!(names(true), ["format", "tidy", "clippy", "build", "tests"]);
        assert_eq!(names(false).len(), 17);
    }

    #[test]
    fn only_cargo_deny_may_be_missing_in_ci() {
        let optional: Vec<String> = all(false)
            .into_iter()
            .filter(|step| !step.required_in_ci)
            .map(|step| step.name)
            .collect();
        assert_eq!(optional, ["cargo-deny"]);
    }

    #[test]
    fn the_demo_must_say_that_it_went_well() {
        assert!(parse("{\"ok\": true}\n").is_ok());
        assert!(parse("{\"ok\": false}\n").is_err());
        assert!(parse("[]").is_err());
        assert!(parse("done\n").is_err());
    }
}
