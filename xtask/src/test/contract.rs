//! The step that lets schemathesis make requests out of the API's own document, good and bad ones and sequences of
//! them, against a real server: nothing may answer 5xx, and every answer must be one that the document names.
//!
//! The tool is installed at a pinned version into the project's cache. The server has a data directory of its own, one
//! agent without a model, and is ended by its pid. Bounded in time; the same seed each time, so that what fails fails again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::agents::python;
use super::counts::Counts;
use super::{Bench, Outcome};

/// Version of schemathesis.
const VERSION: &str = "4.32.5";
/// Installing it.
const INSTALL_SECONDS_MAX: u64 = 300;
/// Its requests: a minute on two idle cores.
const RUN_SECONDS_MAX: u64 = 600;
/// Longest start of the server.
const START_SECONDS_MAX: u64 = 60;
/// Pause between two looks whether it listens, milliseconds.
const LOOK_MILLIS: u64 = 50;
/// Requests made for each operation in each of its phases.
const EXAMPLES: &str = "10";
/// What it holds an answer against. Left out is only the rule that whatever the document allows must be done: a
/// request can be well-formed and still name an agent that is not there.
const CHECKS: [&str; 10] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
];
/// A key that was taken back can still be looked at, as the document says.
const EXCEPTION: &str =
    "[[operations]]\ninclude-name = \"GET /keys/{id}\"\nchecks.use_after_free.enabled = false\n";
/// An agent that needs no CLI and no model.
const CONFIG: &str = "[[agents]]\nname = \"script\"\ncommand = [\"/bin/sh\", \"-c\", \"echo hello from the script\"]\nstdin_prompt = true\n";

/// See the module.
pub(super) fn contract(bench: &Bench, binary: &Path) -> Outcome {
    let tool = match install(bench) {
        Ok(tool) => tool,
        Err(outcome) => return outcome,
    };
    match run(bench, binary, &tool) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Installs the tool, if it is not there, and returns its path.
fn install(bench: &Bench) -> Result<PathBuf, Outcome> {
    let folder = python_tool(bench, "schemathesis", VERSION)?;
    Ok(folder.join("bin/schemathesis"))
}

/// Installs a package of Python's registry into a folder of its own in the cache, if it is not there.
pub(super) fn python_tool(bench: &Bench, name: &str, version: &str) -> Result<PathBuf, Outcome> {
    let folder = bench.cache.join(format!("{name}-{version}"));
    python_into(bench, &folder, &format!("{name}=={version}"))?;
    Ok(folder)
}

/// The same into this folder, which holds nothing else.
pub(super) fn python_into(bench: &Bench, folder: &Path, package: &str) -> Result<(), Outcome> {
    let done = folder.join("installed");
    let version = package.rsplit('=').next().unwrap_or(package);
    if std::fs::read_to_string(&done).is_ok_and(|there| there == version) {
        return Ok(());
    }
    let Some(python) = python() else {
        return Err(Outcome::Skipped("no Python 3.10 to 3.12 with venv".to_owned()));
    };
    let made = bench.make_cache().and_then(|()| match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    made.map_err(|error| Outcome::Failed(format!("making {}: {error}", folder.display())))?;
    let text = folder.display().to_string();
    let steps = [
        bench.command(python, &["-m", "venv", &text]),
        bench.command(
            folder.join("bin/pip"),
            &["install", "--quiet", "--disable-pip-version-check", package],
        ),
    ];
    for step in steps {
        let limit = Duration::from_secs(INSTALL_SECONDS_MAX);
        if let Outcome::Failed(reason) = bench.run(step, limit, &mut Counts::default()) {
            return Err(Outcome::Skipped(format!("could not be installed: {reason}")));
        }
    }
    std::fs::write(done, version).map_err(|error| Outcome::Failed(error.to_string()))
}

fn run(bench: &Bench, binary: &Path, tool: &Path) -> anyhow::Result<Outcome> {
    let dir = tempfile::tempdir().context("making a data directory")?;
    let server = Server::start(bench, binary, dir.path())?;
    let document = format!("{}/openapi.json", server.url);
    let key = format!("X-API-Key: {}", server.key);
    let arguments = [
        "run",
        &document,
        "-H",
        &key,
        "--max-examples",
        EXAMPLES,
        "--seed",
        "1",
        "--workers",
        "1",
        "--request-timeout",
        "30",
        "--continue-on-failure",
        "--no-color",
        "--warnings",
        "off",
        "--generation-database",
        "none",
    ];
    let checks: String = CHECKS.iter().map(|name| format!("{name}.enabled = true\n")).collect();
    let settings = format!("[checks]\nenabled = false\n{checks}\n{EXCEPTION}");
    std::fs::write(dir.path().join("schemathesis.toml"), settings)?;
    let mut command = bench.command(tool, &arguments);
    command.current_dir(dir.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let limit = Duration::from_secs(RUN_SECONDS_MAX);
    let outcome = bench.run(command, limit, &mut Counts::default());
    server.stop()?;
    Ok(outcome)
}

/// A server that is ended with its value.
pub(super) struct Server {
    child: Child,
    pub(super) url: String,
    pub(super) key: String,
}

impl Server {
    pub(super) fn start(bench: &Bench, binary: &Path, dir: &Path) -> anyhow::Result<Self> {
        std::fs::write(dir.join("config.toml"), CONFIG)?;
        let text = dir.display().to_string();
        let mut command: Command = bench.command(
            binary,
            &["serve", "--model", "scripted", "--listen", "127.0.0.1:0", "--data-dir", &text],
        );
        let log = std::fs::File::create(dir.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().context("starting the server")?;
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while Instant::now() < deadline {
            if let Some(url) = listening(dir) {
                let key = std::fs::read_to_string(dir.join("admin.key"))?.trim().to_owned();
                return Ok(Self { child, url, key });
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server ended: {status}: {}", std::fs::read_to_string(dir.join("log"))?);
            }
            poll_pause();
        }
        let _ = child.kill();
        bail!("the server does not listen after {START_SECONDS_MAX} s");
    }

    /// Ends it; a server that had ended by itself is a failure.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended before it was told to: {status}");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.child.wait();
    }
}

fn poll_pause() {
    thread::sleep(Duration::from_millis(LOOK_MILLIS));
}

fn listening(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(dir.join("server.json")).ok()?;
    let info: Value = serde_json::from_str(&text).ok()?;
    Some(info["url"].as_str()?.to_owned())
}
