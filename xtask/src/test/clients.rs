//! The step that goes the ways of `clients/README.md`: generates the clients for TypeScript and Python from the committed
//! document, checks their types, and lets them use a real server.
//!
//! What they need is installed at pinned versions into the project's cache; what is generated goes into a temporary
//! folder. Bounded in time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::agents::missing_npm_here;
use super::contract::{Server, python_tool};
use super::counts::Counts;
use super::{Bench, Outcome};

/// Version of the generator for Python.
const PYTHON_GENERATOR: &str = "0.29.1";
/// Installing the packages for TypeScript.
const INSTALL_SECONDS_MAX: u64 = 300;
/// One generator, type check or program.
const STEP_SECONDS_MAX: u64 = 120;

/// See the module.
pub(super) fn clients(bench: &Bench, binary: &Path) -> Outcome {
    let tools = install_npm(bench).and_then(|modules| {
        python_tool(bench, "openapi-python-client", PYTHON_GENERATOR)
            .map(|python| (modules, python))
    });
    let (modules, python) = match tools {
        Ok(tools) => tools,
        Err(outcome) => return outcome,
    };
    match run(bench, binary, &modules, &python) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Installs the packages of `clients/typescript`, if they are not those that are there, and returns their folder.
fn install_npm(bench: &Bench) -> Result<PathBuf, Outcome> {
    if let Some(reason) = missing_npm_here() {
        return Err(Outcome::Skipped(reason));
    }
    let failed = |error: std::io::Error| Outcome::Failed(format!("making the cache: {error}"));
    bench.make_cache().map_err(failed)?;
    let folder = bench.cache.join("clients-typescript");
    let wanted = bench.root.join("clients/typescript/package.json");
    let wanted = std::fs::read_to_string(wanted).map_err(failed)?;
    // Written last, so that it says what is whole.
    let done = folder.join("installed.json");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::write(folder.join("package.json"), &wanted).map_err(failed)?;
    let arguments = ["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"];
    let mut command = bench.command("npm", &arguments);
    command.current_dir(&folder);
    let limit = Duration::from_secs(INSTALL_SECONDS_MAX);
    if let Outcome::Failed(reason) = bench.run(command, limit, &mut Counts::default()) {
        return Err(Outcome::Skipped(format!("could not be installed: {reason}")));
    }
    std::fs::write(done, wanted).map_err(failed)?;
    Ok(folder)
}

fn run(bench: &Bench, binary: &Path, modules: &Path, python: &Path) -> anyhow::Result<Outcome> {
    let dir = tempfile::tempdir().context("making a folder")?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    let server = Server::start(bench, binary, &data)?;
    let mut outcome = typescript(bench, dir.path(), modules, &server)?;
    if outcome == Outcome::Passed {
        outcome = of_python(bench, dir.path(), python, &server)?;
    }
    server.stop()?;
    Ok(outcome)
}

fn typescript(
    bench: &Bench,
    dir: &Path,
    modules: &Path,
    server: &Server,
) -> anyhow::Result<Outcome> {
    let from = bench.root.join("clients/typescript");
    for name in ["check.ts", "tsconfig.json", "package.json"] {
        std::fs::copy(from.join(name), dir.join(name))
            .with_context(|| format!("copying {name}"))?;
    }
    std::os::unix::fs::symlink(modules.join("node_modules"), dir.join("node_modules"))?;
    let document = bench.root.join("openapi/outpost.json").display().to_string();
    steps(
        bench,
        dir,
        server,
        &[
            ("node_modules/.bin/openapi-typescript", &[&document, "-o", "outpost.d.ts"]),
            ("node_modules/.bin/tsc", &[]),
            ("node", &["built/check.js"]),
        ],
    )
}

fn of_python(bench: &Bench, dir: &Path, tool: &Path, server: &Server) -> anyhow::Result<Outcome> {
    let from = bench.root.join("clients/python");
    for name in ["check.py", "config.yml"] {
        std::fs::copy(from.join(name), dir.join(name))
            .with_context(|| format!("copying {name}"))?;
    }
    let document = bench.root.join("openapi/outpost.json").display().to_string();
    let bin = |name: &str| tool.join("bin").join(name).display().to_string();
    steps(
        bench,
        dir,
        server,
        &[
            (
                &bin("openapi-python-client"),
                &[
                    "generate",
                    "--config",
                    "config.yml",
                    "--path",
                    &document,
                    "--meta",
                    "none",
                    "--output-path",
                    "outpost_api",
                ],
            ),
            (&bin("python"), &["check.py"]),
        ],
    )
}

/// Runs programs one after another, up to the first that fails.
fn steps(
    bench: &Bench,
    dir: &Path,
    server: &Server,
    commands: &[(&str, &[&str])],
) -> anyhow::Result<Outcome> {
    for (program, arguments) in commands {
        let own = dir.join(program);
        let mut command = match program.contains('/') {
            true => bench.command(own, arguments),
            false => bench.command(program, arguments),
        };
        command.current_dir(dir).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("OUTPOST_URL", &server.url).env("OUTPOST_API_KEY", &server.key);
        let limit = Duration::from_secs(STEP_SECONDS_MAX);
        let outcome = bench.run(command, limit, &mut Counts::default());
        if outcome != Outcome::Passed {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Passed)
}
