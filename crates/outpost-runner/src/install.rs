//! Carries out an agent's install plan: a staging directory, the plan's steps, a check of the finished
//! program, a manifest, and one rename that publishes it all.
//!
//! Nothing outside the agents' directory is written: HOME and TMPDIR of every step point into the
//! staging directory. Provider keys and tokens of the caller's environment are not passed on
//! ([`ENV_KEPT`]). Bounded: time of a step and of waiting for another installation, kept output,
//! probed programs. Absent: removing old versions, because runs may still use them.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use outpost_agents::{
    Agent, AgentError, InstallPlan, InstallStep, Installed, MANIFEST_NAME, Manifest,
    NODE_MAJOR_MIN, PYTHON_MINOR_MAX, PYTHON_MINOR_MIN, StepProgram, Tool,
};
use outpost_types::AgentId;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// Longest time of one step, seconds.
const STEP_SECONDS_MAX: u64 = 600;
/// Longest time a program may take to tell its version, seconds.
const PROBE_SECONDS_MAX: u64 = 60;
/// Longest wait for another installation of the same agent, seconds.
const LOCK_SECONDS_MAX: u64 = 1_200;
/// Pause between two looks at the lock, milliseconds.
const LOCK_POLL_MILLIS: u64 = 200;
/// Output kept of each stream of a step: its end, bytes.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Lines of output shown in an error.
const TAIL_LINES_MAX: usize = 12;
/// Most programs of one kind that are probed.
const CANDIDATES_MAX: usize = 24;
/// Staging directory, beside the versions; it cannot be taken for one.
const STAGING: &str = ".staging";
/// HOME of the steps, in the staging directory; removed before publishing.
const HOME: &str = ".home";
/// Variables a step inherits: where programs, registries, proxies and certificates are. Nothing else is
/// passed on, so no key or token of the caller reaches a package.
const ENV_KEPT: [&str; 24] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "NVM_DIR",
    "NVM_BIN",
    "VOLTA_HOME",
    "ASDF_DIR",
    "ASDF_DATA_DIR",
    "FNM_DIR",
];
/// Beginnings of further names a step inherits.
const ENV_PREFIXES_KEPT: [&str; 3] = ["npm_config_", "NPM_CONFIG_", "PIP_"];

/// Where an installation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallProgress {
    /// Another process installs the same agent; this one waits for it.
    Waiting,
    /// A step began.
    Step {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        count: usize,
        /// What it does.
        title: String,
    },
    /// The finished program is asked for its version.
    Checking,
}

/// Why an agent could not be installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The agent is not one Outpost installs.
    #[error("{0} runs the command of its configuration; there is nothing to install")]
    NothingToInstall(AgentId),
    /// The vendor ships nothing for this machine.
    #[error("{0}")]
    Agent(#[from] AgentError),
    /// The host lacks a program.
    #[error("installing {agent} needs {needed}; install it and try again")]
    ToolMissing {
        /// The agent.
        agent: AgentId,
        /// The program.
        tool: Tool,
        /// What to install.
        needed: String,
    },
    /// A step failed.
    #[error("{title} failed ({status}); its last lines:\n{tail}")]
    Step {
        /// The step.
        title: String,
        /// How it ended.
        status: ExitStatus,
        /// End of its output.
        tail: String,
    },
    /// A step took too long.
    #[error(
        "{title} took longer than {seconds} s and was stopped; check the network and try again"
    )]
    Slow {
        /// The step.
        title: String,
        /// The limit.
        seconds: u64,
    },
    /// The installed program tells another version.
    #[error("{agent} {wanted} was installed, but it says: {said}")]
    WrongVersion {
        /// The agent.
        agent: AgentId,
        /// The version asked for.
        wanted: String,
        /// What the program printed.
        said: String,
    },
    /// A file the agent needs is not there after all steps.
    #[error("{agent}: the installation lacks {}; try again", path.display())]
    Incomplete {
        /// The agent.
        agent: AgentId,
        /// The file.
        path: PathBuf,
    },
    /// Another process has been installing the same agent for too long.
    #[error(
        "another process has been installing {0} for over {LOCK_SECONDS_MAX} s; stop it and try again"
    )]
    Busy(AgentId),
    /// A file could not be written or a program not started.
    #[error("cannot {action} {}; check that it exists and you may write there", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { action, path, source }
}

/// Installs `agent` at its pinned version below `agents_dir`, unless it is there already.
///
/// # Errors
/// [`InstallError`]; nothing is published then, and the next try starts afresh.
pub async fn install(
    agent: &dyn Agent,
    agents_dir: &Path,
    mut progress: impl FnMut(InstallProgress),
) -> Result<Installed, InstallError> {
    let id = agent.profile().id.clone();
    let plan = agent.install_plan()?.ok_or_else(|| InstallError::NothingToInstall(id.clone()))?;
    make_dir(agents_dir)?;
    let agents_dir = agents_dir.canonicalize().map_err(io("find", agents_dir))?;
    let parent = agents_dir.join(id.as_str());
    make_dir(&parent)?;
    let _lock = lock(&id, &parent.join(".lock"), &mut progress).await?;
    if let Ok(installed) = Installed::load(&agents_dir, agent) {
        return Ok(installed);
    }
    let host = Host::find(&plan).await?;
    let staging = parent.join(STAGING);
    let result = stage(&plan, &host, &staging, &mut progress).await;
    if result.is_err() {
        // The reason of the failure matters more than a leftover, which the next try removes anyway.
        let _ = remove(&staging);
    }
    result?;
    publish(&plan, &staging, &Installed::dir(&agents_dir, &plan))?;
    Installed::load(&agents_dir, agent).map_err(|_| InstallError::Incomplete {
        agent: id,
        path: Installed::dir(&agents_dir, &plan),
    })
}

/// Takes the lock of an agent. It is released when the file is dropped, also by a crash.
async fn lock(
    agent: &AgentId,
    path: &Path,
    progress: &mut impl FnMut(InstallProgress),
) -> Result<File, InstallError> {
    let file = File::create(path).map_err(io("create", path))?;
    let polls = LOCK_SECONDS_MAX * 1_000 / LOCK_POLL_MILLIS;
    for poll in 0..polls {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(io("lock", path)(source)),
        }
        if poll == 0 {
            progress(InstallProgress::Waiting);
        }
        tokio::time::sleep(Duration::from_millis(LOCK_POLL_MILLIS)).await;
    }
    Err(InstallError::Busy(agent.clone()))
}

/// Fills the staging directory up to and including the manifest.
async fn stage(
    plan: &InstallPlan,
    host: &Host,
    staging: &Path,
    progress: &mut impl FnMut(InstallProgress),
) -> Result<(), InstallError> {
    remove(staging).map_err(io("remove", staging))?;
    make_dir(staging)?;
    // Whatever the umask: the sandbox's user id reads it.
    std::fs::set_permissions(staging, std::fs::Permissions::from_mode(0o755))
        .map_err(io("change", staging))?;
    make_dir(&staging.join(HOME))?;
    for file in &plan.files {
        let path = staging.join(&file.path);
        std::fs::write(&path, &file.contents).map_err(io("write", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .map_err(io("change", &path))?;
    }
    for (index, step) in plan.steps.iter().enumerate() {
        progress(InstallProgress::Step {
            number: index + 1,
            count: plan.steps.len(),
            title: step.title.clone(),
        });
        run_step(step, host, staging).await?;
    }
    for path in &plan.remove {
        let path = staging.join(path);
        remove(&path).map_err(io("remove", &path))?;
    }
    progress(InstallProgress::Checking);
    check(plan, &host.manifest, staging).await?;
    let home = staging.join(HOME);
    remove(&home).map_err(io("remove", &home))?;
    write_manifest(&host.manifest, &staging.join(MANIFEST_NAME))
}

async fn run_step(step: &InstallStep, host: &Host, staging: &Path) -> Result<(), InstallError> {
    let program = match &step.program {
        StepProgram::Staged(path) => staging.join(path),
        StepProgram::Tool(tool) => host.programs.get(tool).cloned().unwrap_or_default(),
    };
    let mut command = confined(&program, staging);
    command.args(&step.args).envs(step.env.iter().cloned());
    let (status, output) = run(command, &program, &step.title, STEP_SECONDS_MAX).await?;
    if status.success() {
        return Ok(());
    }
    Err(InstallError::Step { title: step.title.clone(), status, tail: tail(&output) })
}

/// Asks the staged program for its version.
async fn check(
    plan: &InstallPlan,
    manifest: &Manifest,
    staging: &Path,
) -> Result<(), InstallError> {
    let staged = Installed::from_manifest(staging, plan, manifest)
        .map_err(|path| InstallError::Incomplete { agent: plan.agent.clone(), path })?;
    let Some((program, words)) = staged.command.split_first() else {
        return Ok(());
    };
    let program = Path::new(program);
    let mut command = confined(program, staging);
    command.args(words).args(&plan.version_check.args);
    let title = format!("{} {}", plan.agent, plan.version_check.args.join(" "));
    let (status, output) = run(command, program, &title, PROBE_SECONDS_MAX).await?;
    if status.success() && output.contains(&plan.version_check.expect) {
        return Ok(());
    }
    Err(InstallError::WrongVersion {
        agent: plan.agent.clone(),
        wanted: plan.version.clone(),
        said: tail(&output),
    })
}

fn write_manifest(manifest: &Manifest, path: &Path) -> Result<(), InstallError> {
    let write = || -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(manifest)?;
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.sync_all()
    };
    write().map_err(io("write", path))
}

/// Makes the staged installation visible under its version. A damaged one in its place is removed.
fn publish(plan: &InstallPlan, staging: &Path, target: &Path) -> Result<(), InstallError> {
    let old = target.with_file_name(format!(".old-{}", plan.version));
    remove(&old).map_err(io("remove", &old))?;
    if target.exists() {
        std::fs::rename(target, &old).map_err(io("move away", target))?;
    }
    std::fs::rename(staging, target).map_err(io("create", target))?;
    if let Some(parent) = target.parent() {
        let sync = File::open(parent).and_then(|dir| dir.sync_all());
        sync.map_err(io("sync", parent))?;
    }
    remove(&old).map_err(io("remove", &old))
}

/// Makes a directory and those above it, as readable as the caller's umask lets them be.
fn make_dir(path: &Path) -> Result<(), InstallError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(io("create", path))
}

/// Removes a file or directory; one that is not there is fine.
fn remove(path: &Path) -> std::io::Result<()> {
    let result = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A command in the staging directory: bounded environment, HOME inside, and files readable for the
/// sandbox's user id whatever the caller's umask is.
fn confined(program: &Path, staging: &Path) -> Command {
    let home = staging.join(HOME);
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "umask 022; exec \"$0\" \"$@\""])
        .arg(program)
        .current_dir(staging)
        .env_clear()
        .envs(kept_environment())
        .env("HOME", &home)
        .env("TMPDIR", &home);
    // The caller's own registry settings, which would be looked for in HOME.
    if let Some(real) = std::env::var_os("HOME").map(PathBuf::from) {
        let npmrc = real.join(".npmrc");
        if std::env::var_os("NPM_CONFIG_USERCONFIG").is_none() && npmrc.is_file() {
            command.env("NPM_CONFIG_USERCONFIG", npmrc);
        }
        let pip = real.join(".config/pip/pip.conf");
        if std::env::var_os("PIP_CONFIG_FILE").is_none() && pip.is_file() {
            command.env("PIP_CONFIG_FILE", pip);
        }
    }
    command
}

fn kept_environment() -> BTreeMap<std::ffi::OsString, std::ffi::OsString> {
    std::env::vars_os()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                ENV_KEPT.contains(&name)
                    || ENV_PREFIXES_KEPT.iter().any(|prefix| name.starts_with(prefix))
            })
        })
        .collect()
}

/// Runs a command to its end and returns the end of its output, standard error last.
async fn run(
    mut command: Command,
    program: &Path,
    title: &str,
    seconds: u64,
) -> Result<(ExitStatus, String), InstallError> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io("run", program))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (stdout, stderr) = tokio::join!(end_of(stdout), end_of(stderr));
        (child.wait().await, stdout, stderr)
    };
    let done = tokio::time::timeout(Duration::from_secs(seconds), work).await;
    let (status, stdout, stderr) =
        done.map_err(|_| InstallError::Slow { title: title.to_owned(), seconds })?;
    let status = status.map_err(io("wait for", program))?;
    let mut output = String::from_utf8_lossy(&stdout).into_owned();
    output.push_str(&String::from_utf8_lossy(&stderr));
    Ok((status, output))
}

/// Reads a stream to its end and keeps its last [`OUTPUT_BYTES_MAX`] bytes.
async fn end_of(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            // A stream that cannot be read any more has ended too.
            Ok(0) | Err(_) => return kept,
            Ok(count) => kept.extend_from_slice(&buffer[..count]),
        }
        if kept.len() > OUTPUT_BYTES_MAX * 2 {
            kept.drain(..kept.len() - OUTPUT_BYTES_MAX);
        }
    }
}

/// Last lines of an output, without control characters.
fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL_LINES_MAX);
    outpost_agents::parse::clean(&lines[from..].join("\n"), OUTPUT_BYTES_MAX)
}

/// The host's programs for a plan.
#[derive(Debug)]
struct Host {
    programs: BTreeMap<Tool, PathBuf>,
    manifest: Manifest,
}

impl Host {
    async fn find(plan: &InstallPlan) -> Result<Self, InstallError> {
        let mut host = Self { programs: BTreeMap::new(), manifest: Manifest::new(plan) };
        for tool in &plan.tools {
            let found = match tool {
                Tool::Node => find_node().await,
                Tool::Npm => find_npm().await,
                Tool::Python => find_python().await,
            };
            let found = found.ok_or_else(|| InstallError::ToolMissing {
                agent: plan.agent.clone(),
                tool: *tool,
                needed: tool.needed(),
            })?;
            host.manifest.runtime_paths.extend(found.runtime_path);
            // npm installs but never runs with an agent.
            if *tool != Tool::Npm {
                let name = tool.as_str().to_owned();
                host.manifest.tools.insert(name, found.program.clone());
            }
            host.programs.insert(*tool, found.program);
        }
        if !plan.command.iter().any(|word| matches!(word, outpost_agents::Word::Tool(Tool::Node)))
            && !plan.tools.contains(&Tool::Python)
        {
            // Node installed it, but a native program runs: no run needs node.
            host.manifest.tools.clear();
            host.manifest.runtime_paths.clear();
        }
        Ok(host)
    }
}

/// A usable program of the host.
#[derive(Debug, Clone)]
struct Found {
    program: PathBuf,
    /// What a sandbox must be shown for it, when it lies outside `/usr`.
    runtime_path: Option<PathBuf>,
}

async fn find_node() -> Option<Found> {
    for candidate in in_path(&["node", "nodejs"]) {
        let said = probe(&candidate, &["-p", "process.version + '\\n' + process.execPath"]).await;
        let Some(said) = said else { continue };
        let mut lines = said.lines();
        let major = lines
            .next()
            .and_then(|version| version.strip_prefix('v'))
            .and_then(|version| version.split('.').next())
            .and_then(|major| major.parse::<u32>().ok());
        let program = PathBuf::from(lines.next().unwrap_or_default());
        if major.is_some_and(|major| major >= NODE_MAJOR_MIN) && program.is_absolute() {
            // One self-contained file; its directory may hold a whole home.
            let runtime_path = (!program.starts_with("/usr")).then(|| program.clone());
            return Some(Found { program, runtime_path });
        }
    }
    None
}

async fn find_npm() -> Option<Found> {
    for candidate in in_path(&["npm"]) {
        if probe(&candidate, &["--version"]).await.is_some() {
            return Some(Found { program: candidate, runtime_path: None });
        }
    }
    None
}

/// The first usable Python below `/usr`, which every sandbox shows anyway; else the first usable one.
async fn find_python() -> Option<Found> {
    const SCRIPT: &str = "import sys, venv, ensurepip\n\
        print(sys.version_info[0], sys.version_info[1])\n\
        print(getattr(sys, '_base_executable', sys.executable))\nprint(sys.base_prefix)";
    let names: Vec<String> = (PYTHON_MINOR_MIN..=PYTHON_MINOR_MAX)
        .rev()
        .map(|minor| format!("python3.{minor}"))
        .chain(["python3".to_owned(), "python".to_owned()])
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut second_best = None;
    for candidate in in_path(&names) {
        let Some(said) = probe(&candidate, &["-I", "-c", SCRIPT]).await else {
            continue;
        };
        let lines: Vec<&str> = said.lines().collect();
        let [version, executable, prefix, ..] = lines[..] else {
            continue;
        };
        let minor = version.strip_prefix("3 ").and_then(|minor| minor.parse::<u32>().ok());
        if !minor.is_some_and(|minor| (PYTHON_MINOR_MIN..=PYTHON_MINOR_MAX).contains(&minor)) {
            continue;
        }
        let (program, prefix) = (PathBuf::from(executable), PathBuf::from(prefix));
        if program.starts_with("/usr") && prefix.starts_with("/usr") {
            return Some(Found { program, runtime_path: None });
        }
        if second_best.is_none() && program.starts_with(&prefix) && may_be_shown(&prefix) {
            second_best = Some(Found { program, runtime_path: Some(prefix) });
        }
    }
    second_best
}

/// Whether a prefix may be shown to agents: not the root, not a home or what contains one.
fn may_be_shown(prefix: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    prefix.components().count() > 2 && !home.is_some_and(|home| home.starts_with(prefix))
}

/// Programs of those names in `PATH`, name by name, at most [`CANDIDATES_MAX`].
fn in_path(names: &[&str]) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    names
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .filter(|program| {
            program
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .take(CANDIDATES_MAX)
        .collect()
}

/// What a program of the host prints, if it ends well in time. It keeps the caller's HOME: version
/// managers find their versions there.
async fn probe(program: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(kept_environment());
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    let (status, output) = run(command, program, "probe", PROBE_SECONDS_MAX).await.ok()?;
    status.success().then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outpost_agents::{
        AgentProfile, Invocation, OutputParser, PlanFile, RunSpec, VersionCheck, Word, builtin,
    };
    use outpost_types::BuiltinAgent;

    /// A directory of one test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let name = format!("outpost-install-{}-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            make_dir(&path).unwrap();
            Self(path.canonicalize().unwrap())
        }
        fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = remove(&self.0);
        }
    }

    /// An agent whose installation is a shell script, and is made without a registry.
    #[derive(Debug)]
    struct Scripted {
        real: std::sync::Arc<dyn Agent>,
        script: &'static str,
    }

    impl Agent for Scripted {
        fn profile(&self) -> &AgentProfile {
            self.real.profile()
        }
        fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
            Ok(Some(InstallPlan {
                agent: self.profile().id.clone(),
                version: "1.2.3".into(),
                tools: Vec::new(),
                files: vec![PlanFile { path: "setup.sh".into(), contents: self.script.into() }],
                steps: vec![InstallStep {
                    title: "set up".into(),
                    program: StepProgram::Staged("/bin/sh".into()),
                    args: vec!["setup.sh".into()],
                    env: vec![("STEP".into(), "1.2.3".into())],
                }],
                remove: vec!["setup.sh".into(), "not-there".into()],
                checks: vec!["bin/agent".into()],
                command: vec![Word::File("bin/agent".into())],
                path_dirs: Vec::new(),
                version_check: VersionCheck {
                    args: vec!["--version".into()],
                    expect: "1.2.3".into(),
                },
                installed_bytes: 1,
            }))
        }
        fn invocation(&self, run: &RunSpec, to: &Installed) -> Result<Invocation, AgentError> {
            self.real.invocation(run, to)
        }
        fn session_paths(&self) -> &'static [&'static str] {
            &[]
        }

        fn parser(&self) -> Box<dyn OutputParser> {
            self.real.parser()
        }
    }

    const GOOD: &str = "mkdir bin && printf '#!/bin/sh\\necho agent '$STEP'\\n' > bin/agent && \
        chmod 755 bin/agent && env > env.txt && echo $$ >> runs.txt";

    fn scripted(script: &'static str) -> Scripted {
        Scripted { real: builtin(BuiltinAgent::Claude), script }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .expect("the directory is there")
            .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn an_installation_is_published_whole_and_once() {
        let dir = Scratch::new("whole");
        let agent = scripted(GOOD);
        let mut seen = Vec::new();
        let first = install(&agent, dir.path(), |progress| seen.push(progress)).await.unwrap();
        assert_eq!(seen.len(), 2, "{seen:?}");
        let root = first.root.clone().unwrap();
        assert_eq!(names(&root), ["bin", "env.txt", MANIFEST_NAME, "runs.txt"]);
        let again = install(&agent, dir.path(), |progress| panic!("{progress:?}")).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(names(root.parent().unwrap()), [".lock", "1.2.3"]);
        let environment = std::fs::read_to_string(root.join("env.txt")).unwrap();
        assert!(environment.contains(&format!("/{STAGING}/{HOME}\n")));
        assert!(!environment.contains("CARGO"), "the caller's environment got through");
        let mode = root.join("env.txt").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[tokio::test]
    async fn two_at_once_install_once() {
        let dir = Scratch::new("twice");
        let agent = scripted(GOOD);
        let (one, two) =
            tokio::join!(install(&agent, dir.path(), |_| ()), install(&agent, dir.path(), |_| ()));
        let root = one.unwrap().root.unwrap();
        assert_eq!(Some(&root), two.unwrap().root.as_ref());
        let runs = std::fs::read_to_string(root.join("runs.txt")).unwrap();
        assert_eq!(runs.lines().count(), 1);
    }

    #[tokio::test]
    async fn failures_leave_nothing_and_say_why() {
        let dir = Scratch::new("fail");
        for (script, wanted) in [
            ("echo first; echo the reason >&2; exit 7", "the reason"),
            ("true", "lacks"),
            (
                "mkdir bin; printf '#!/bin/sh\\necho agent 9.9\\n' > bin/agent; chmod 755 bin/agent",
                "it says: agent 9.9",
            ),
        ] {
            let error = install(&scripted(script), dir.path(), |_| ()).await.unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
            assert_eq!(names(&dir.path().join("claude")), [".lock"]);
        }
        // What went wrong before does not stand in the way.
        assert!(install(&scripted(GOOD), dir.path(), |_| ()).await.is_ok());
    }

    #[tokio::test]
    async fn a_damaged_installation_is_replaced() {
        let dir = Scratch::new("damaged");
        let agent = scripted(GOOD);
        let root = install(&agent, dir.path(), |_| ()).await.unwrap().root.unwrap();
        std::fs::remove_file(root.join("bin/agent")).unwrap();
        std::fs::create_dir(root.parent().unwrap().join(STAGING)).unwrap();
        let mended = install(&agent, dir.path(), |_| ()).await.unwrap();
        assert!(Path::new(&mended.command[0]).is_file());
        assert_eq!(names(root.parent().unwrap()), [".lock", "1.2.3"]);
    }

    #[tokio::test]
    async fn slow_and_loud_programs_are_bounded() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "while :; do :; done"]);
        let slow = run(command, Path::new("/bin/sh"), "loop", 1).await.unwrap_err();
        assert!(slow.to_string().contains("longer than 1 s"), "{slow}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end"]);
        let (status, output) = run(command, Path::new("/bin/sh"), "loud", 60).await.unwrap();
        assert!(status.success() && output.len() <= OUTPUT_BYTES_MAX * 2 + 16 * 1024);
        assert!(output.ends_with("end\n"));
        assert_eq!(tail("a\u{1b}[31mb\n\nc"), "ab\nc");
    }
}
