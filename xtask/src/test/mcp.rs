//! What the tests of the MCP server need from registries, and the step that holds two tools of the protocol's authors
//! against it: their conformance suite and the command line mode of their inspector.
//!
//! The suite runs twice: against the product, and against the fixture (`outpost-server`'s example `mcp_fixture`), which
//! has the tools, resources and prompts that the suite calls, behind the product's own `/mcp`. Each run has a list of
//! scenarios that cannot pass, with reasons; one that fails and is not on it fails the step, and so does one on it that
//! passes. Everything is pinned and installed into the project's cache. Bounded in time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::agents::missing_npm_here;
use super::contract::{Server, python_into};
use super::counts::Counts;
use super::process::{self, Stream};
use super::{Bench, Outcome, Reason, judge, show};

/// The packages from their registries.
const INSTALL_SECONDS_MAX: u64 = 300;
/// The suite, or one call of the inspector: seconds on two idle cores.
const RUN_SECONDS_MAX: u64 = 120;
/// The SDK for Python.
const PYTHON_SDK: &str = "mcp==2.3.0";
/// Where all of it is, below the cache.
pub(super) const FOLDER: &str = "mcp";
/// Files of the tests.
const FILES: &str = "crates/outpost/tests/mcp";
/// The fixture that the build step made.
const FIXTURE: &str = "target/debug/examples/mcp_fixture";
const SUITE: &str = "node_modules/@modelcontextprotocol/conformance/dist/index.js";
const INSPECTOR: &str =
    "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";

/// Installs them into the project's cache, unless they are those that are there; no script of theirs is run for that.
pub(super) fn install(bench: &Bench) -> Outcome {
    if let Some(reason) = missing_npm_here() {
        return Outcome::Skipped(reason);
    }
    let folder = bench.cache.join(FOLDER);
    let python = || python_into(bench, &folder.join("python"), PYTHON_SDK);
    match install_npm(bench, &folder).and_then(|()| python()) {
        Ok(()) => Outcome::Passed,
        Err(outcome) => outcome,
    }
}

fn install_npm(bench: &Bench, folder: &Path) -> Result<(), Outcome> {
    let failed = |error: std::io::Error| Outcome::Failed(format!("making the cache: {error}"));
    bench.make_cache().map_err(failed)?;
    let wanted = bench.root.join(FILES).join("package.json");
    let wanted = std::fs::read_to_string(wanted).map_err(failed)?;
    // Written last, so that it says what is whole.
    let done = folder.join("installed.json");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::write(folder.join("package.json"), &wanted).map_err(failed)?;
    let quiet = ["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"];
    let mut command = bench.command("npm", &quiet);
    command.arg("--ignore-scripts").current_dir(folder);
    let limit = Duration::from_secs(INSTALL_SECONDS_MAX);
    // A machine may have no way to the registry; whether that is acceptable is CI's question.
    if let Outcome::Failed(reason) = bench.run(command, limit, &mut Counts::default()) {
        return Err(Outcome::Skipped(format!("could not be installed: {reason}")));
    }
    std::fs::write(done, wanted).map_err(failed)
}

/// See the module.
pub(super) fn check(bench: &Bench, binary: &Path, counts: &mut Counts) -> Outcome {
    match install(bench) {
        Outcome::Passed => {}
        outcome => return outcome,
    }
    match run(bench, binary, counts) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn run(bench: &Bench, binary: &Path, counts: &mut Counts) -> anyhow::Result<Outcome> {
    let tools = Tools { bench, folder: bench.cache.join(FOLDER) };
    let dir = tempfile::tempdir().context("making a data directory")?;
    let server = Server::start(bench, binary, dir.path())?;
    let data = dir.path().display().to_string();
    let binary = binary.display().to_string();
    tools.inspect(&[&binary, "--data-dir", &data, "mcp"], counts)?;
    let (url, key) = (format!("{}/mcp", server.url), format!("X-API-Key: {}", server.key));
    tools.inspect(&[&url, "--transport", "http", "--header", &key], counts)?;
    let mut outcome = tools.conform("product", &server.url, &server.key, counts)?;
    server.stop()?;
    if outcome == Outcome::Passed {
        let mut command = bench.command(bench.root.join(FIXTURE), &[]);
        let mut fixture = Helper::start(&mut command)?;
        let (url, key) = (fixture.line()?, fixture.line()?);
        outcome = tools.conform("fixture", &url, &key, counts)?;
    }
    Ok(outcome)
}

/// The installed tools.
struct Tools<'a> {
    bench: &'a Bench,
    folder: PathBuf,
}

impl Tools<'_> {
    /// The Node.js that is installed beside them, since they ask for a newer one than a machine may have.
    fn node(&self) -> Command {
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "x64",
        };
        let own = self.folder.join(format!("node_modules/node-linux-{architecture}/bin/node"));
        match own.exists() {
            true => self.bench.command(own, &[]),
            false => self.bench.command("node", &[]),
        }
    }

    /// Lets the inspector ask the server at `target` for all there is, and call a tool.
    fn inspect(&self, target: &[&str], counts: &mut Counts) -> anyhow::Result<()> {
        for (method, more, list, least) in [
            ("tools/list", &[][..], "tools", 9),
            ("resources/list", &[], "resources", 0),
            ("resources/templates/list", &[], "resourceTemplates", 3),
            ("prompts/list", &[], "prompts", 3),
            ("tools/call", &["--tool-name", "fleet_status"], "content", 1),
        ] {
            let mut command = self.node();
            command.arg(self.folder.join(INSPECTOR)).arg("--cli").args(target);
            command.args(["--method", method]).args(more);
            let document =
                self.document(command).with_context(|| format!("inspector: {method}"))?;
            let count = document[list].as_array().map(Vec::len);
            ensure!(count >= Some(least), "inspector: {method} on {}: {document}", target[0]);
            ensure!(document["isError"] != true, "inspector: {method}: {document}");
            println!("    inspector: {method}: {} {list}", count.unwrap_or_default());
            counts.passed += 1;
        }
        Ok(())
    }

    /// The JSON that a command prints.
    fn document(&self, command: Command) -> anyhow::Result<Value> {
        let (mut reason, mut text) = (Reason::default(), String::new());
        let limit = Duration::from_secs(RUN_SECONDS_MAX);
        let end = process::run(command, limit, &mut |stream, line| match stream {
            Stream::Out => text.push_str(line),
            Stream::Err => reason.read(line),
        });
        match judge(end, &reason) {
            Outcome::Passed => Ok(serde_json::from_str(&text)?),
            outcome => bail!("{outcome:?}"),
        }
    }

    /// Runs all scenarios against the server at `url`, where those may fail that the list of `name` names.
    fn conform(
        &self,
        name: &str,
        url: &str,
        key: &str,
        counts: &mut Counts,
    ) -> anyhow::Result<Outcome> {
        let files = self.bench.root.join(FILES);
        let mut proxy = self.node();
        // The suite cannot send a key.
        proxy.arg(files.join("with_key.mjs")).arg(url).env("OUTPOST_API_KEY", key);
        let mut proxy = Helper::start(&mut proxy)?;
        let url = format!("{}/mcp", proxy.line()?);
        let dir = tempfile::tempdir().context("making a folder for results")?;
        let mut command = self.node();
        command.arg(self.folder.join(SUITE)).args(["server", "--suite", "all", "--url", &url]);
        command.arg("--expected-failures").arg(files.join(format!("conformance-{name}.yml")));
        command.current_dir(dir.path());
        println!("    conformance suite against the {name}");
        let (mut reason, mut scenarios) = (Reason::default(), Scenarios::default());
        let limit = Duration::from_secs(RUN_SECONDS_MAX);
        let end = process::run(command, limit, &mut |stream, line| {
            reason.read(line);
            if scenarios.read(line) || stream == Stream::Err {
                show(stream, line);
            }
        });
        let outcome = judge(end, &reason);
        ensure!(outcome != Outcome::Passed || scenarios.all > 0, "the suite ran no scenario");
        counts.skipped += scenarios.expected;
        counts.passed += scenarios.all.saturating_sub(scenarios.expected);
        Ok(outcome)
    }
}

/// How many scenarios there were, read from what the suite prints.
#[derive(Debug, Default)]
struct Scenarios {
    /// Its summary has begun; what is before tells of each request.
    summary: bool,
    all: u64,
    /// Those that failed as the list says.
    expected: u64,
}

impl Scenarios {
    /// Reads a line, and answers whether it belongs to the summary.
    fn read(&mut self, line: &str) -> bool {
        self.summary |= line.contains("=== SUMMARY ===");
        if self.summary {
            self.all += u64::from(line.starts_with(['✓', '✗']));
            self.expected += u64::from(line.starts_with("  ~ "));
        }
        self.summary
    }
}

/// A program that tells where it listens, and ends when its standard input does.
struct Helper {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Helper {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a helper")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    /// The next line that it prints.
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a helper ended without a word");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_counted_in_the_summary() {
        let mut scenarios = Scenarios::default();
        let lines = ["✓ ping", "=== SUMMARY ===", "✓ ping: 1 passed", "✗ a: 0 passed", "  ~ a"];
        let shown = lines.map(|line| scenarios.read(line));
        assert_eq!(shown, [false, true, true, true, true]);
        assert_eq!((scenarios.all, scenarios.expected), (2, 1));
    }

    #[test]
    fn a_helper_says_where_it_listens_and_ends_with_its_value() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; cat"]);
        let mut helper = Helper::start(&mut command).unwrap();
        assert_eq!((helper.line().unwrap(), helper.line().unwrap()), ("one".into(), "two".into()));
        drop(helper);
        let mut silent = Helper::start(&mut Command::new("true")).unwrap();
        assert!(silent.line().is_err());
    }
}
