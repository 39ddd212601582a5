//! A real server on a directory of its own, driven through the real client.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use outpost_client::{ApiKey, ClientConfig, HttpApi};
use outpost_types::{
    Api, DispatchId, DispatchRequest, DispatchStatus, DispatchView, EventEnvelope, LogQuery,
};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything, seconds. Far above what is usual: it bounds a hang, it times nothing.
pub(crate) const PATIENCE_SECONDS: u64 = 240;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/script.toml");

/// A server of this test. It ends with its value.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) api: HttpApi,
    pub(crate) key: String,
    url: String,
    dir: Option<tempfile::TempDir>,
    flags: Vec<String>,
}

impl Server {
    /// Starts one with the scripted provider and the tests' script.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], "").await
    }

    /// The same with more flags, and a configuration file of this content.
    pub(crate) async fn start_with(flags: &[&str], config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        Self::start_in(dir, flags).await
    }

    /// One with real providers as configured, whose keys are in these variables.
    pub(crate) async fn start_real(config: &str, keys: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut command = plain_command(dir.path());
        command.envs(keys.iter().copied());
        Self::start_by(command, dir, Vec::new()).await
    }

    /// One that runs as an ordinary user, where this test runs as root.
    pub(crate) async fn start_as_ordinary_user(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        give(dir.path());
        let mut command = command(dir.path(), &[]);
        if rustix::process::geteuid().is_root() {
            command.uid(ORDINARY_USER).gid(ORDINARY_USER).env("HOME", dir.path());
        }
        Self::start_by(command, dir, Vec::new()).await
    }

    /// The next server on the directory of one that was killed.
    pub(crate) async fn start_in(dir: tempfile::TempDir, flags: &[&str]) -> Self {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_by(command(dir.path(), &flags), dir, flags).await
    }

    async fn start_by(mut command: Command, dir: tempfile::TempDir, flags: Vec<String>) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let ready = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = within(ready).await.unwrap().unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the server did not say that it is ready: {error}"));
        let url = ready["url"].as_str().unwrap().to_owned();
        let key = std::fs::read_to_string(dir.path().join("data/admin.key")).unwrap();
        let key = key.trim().to_owned();
        let config = ClientConfig::new(&url, Some(ApiKey::new(&key)));
        let api = HttpApi::new(config).unwrap();
        Self { child: Some(child), api, key, url, dir: Some(dir), flags }
    }

    /// Ends the server with this signal, without a word to its agents, and starts the next one.
    pub(crate) async fn replace(mut self, signal: Signal) -> Self {
        self.end(signal);
        let dir = self.dir.take().unwrap();
        let flags = std::mem::take(&mut self.flags);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Self::start_in(dir, &flags).await
    }

    /// Ends the server with this signal, and answers what the next one says that cannot start.
    pub(crate) async fn refused_next(&mut self, signal: Signal) -> String {
        self.end(signal);
        let dir = self.dir.as_ref().unwrap().path();
        let mut next = command(dir, &self.flags);
        let next = tokio::task::spawn_blocking(move || next.stderr(Stdio::piped()).output());
        let output = within(next).await.unwrap().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        child.wait().unwrap();
    }

    /// Where it listens.
    pub(crate) fn api_url(&self) -> &str {
        &self.url
    }

    /// Where the server keeps everything.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.as_ref().unwrap().path().join("data")
    }

    /// Dispatches and waits for the end.
    pub(crate) async fn run(&self, request: DispatchRequest) -> DispatchView {
        let created = self.api.create_dispatch(request, None).await.unwrap();
        self.until(created.dispatch.dispatch_id, |view| view.status.is_terminal()).await
    }

    /// Waits until the dispatch is as wanted, by long polls.
    pub(crate) async fn until(
        &self,
        id: DispatchId,
        wanted: impl Fn(&DispatchView) -> bool,
    ) -> DispatchView {
        within(async {
            let mut generation = 0;
            loop {
                let wait = Some(Duration::from_secs(30));
                let view = self.api.get_dispatch(id, wait, Some(generation)).await.unwrap();
                if wanted(&view) {
                    return view;
                }
                assert!(!view.status.is_terminal(), "ended too early: {view:#?}");
                generation = view.generation;
            }
        })
        .await
    }

    /// Waits for an event as wanted.
    pub(crate) async fn event(
        &self,
        id: DispatchId,
        wanted: impl Fn(&EventEnvelope) -> bool,
    ) -> EventEnvelope {
        within(async {
            let mut events = self.api.events(id, 0).await.unwrap();
            while let Some(event) = events.try_next().await.unwrap() {
                if wanted(&event) {
                    return event;
                }
            }
            let events: Vec<_> =
                self.events(id).await.into_iter().map(|event| event.data).collect();
            panic!("the events ended without the one that was waited for: {events:#?}");
        })
        .await
    }

    pub(crate) async fn events(&self, id: DispatchId) -> Vec<EventEnvelope> {
        let events = self.api.events(id, 0).await.unwrap();
        within(events.try_collect()).await.unwrap()
    }

    pub(crate) async fn diff(&self, id: DispatchId) -> String {
        text(self.api.diff(id).await.unwrap()).await
    }

    pub(crate) async fn log(&self, id: DispatchId) -> String {
        text(self.api.logs(id, LogQuery::default()).await.unwrap()).await
    }

    /// Kept files by name.
    pub(crate) async fn artifacts(&self, id: DispatchId) -> BTreeMap<String, u64> {
        let ttl = Duration::from_secs(60);
        let listed = self.api.artifacts(id, ttl).await.unwrap();
        listed.into_iter().map(|file| (file.name, file.size_bytes)).collect()
    }

    /// Kills the launcher of the attempt that runs.
    pub(crate) fn kill_launcher(&self) {
        let attempts = std::fs::read_dir(self.data().join("attempts")).unwrap();
        let saved = attempts.last().unwrap().unwrap().path().join("attempt.json");
        let saved: serde_json::Value =
            serde_json::from_slice(&std::fs::read(saved).unwrap()).unwrap();
        let pid = i32::try_from(saved["launcher_pid"].as_i64().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    /// What an attempt may leave behind: nothing, once its end is on record.
    pub(crate) fn assert_nothing_left(&self) {
        wait_until_empty(&self.data().join("attempts"));
    }
}

fn wait_until_empty(dir: &Path) {
    let deadline = std::time::Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    loop {
        let left: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
        if left.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "directories of attempts are left: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::INT);
    }
}

fn command(dir: &Path, flags: &[String]) -> Command {
    let mut command = plain_command(dir);
    command.args(["--model", "scripted", "--script", SCRIPT]).args(flags);
    command
}

/// A server of the real providers.
fn plain_command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outpost"));
    command
        .env_remove("OUTPOST_URL")
        .env_remove("OUTPOST_API_KEY")
        .env("OUTPOST_DATA_DIR", dir.join("data"))
        .env("OUTPOST_CONFIG", dir.join("config.toml"))
        .env("OUTPOST_AGENTS_DIR", agents_dir())
        .env("OUTPOST_SECRETS_KEY_FILE", dir.join("secrets.key"))
        .args(["--json", "serve", "--listen", "127.0.0.1:0"])
        .args(["--isolation-minimum", "namespaces"])
        .stdout(Stdio::piped());
    command
}

async fn text(stream: outpost_types::ByteStream) -> String {
    let pieces: Vec<_> = within(stream.try_collect()).await.unwrap();
    String::from_utf8(pieces.concat()).unwrap()
}

/// Fails the test instead of hanging.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(PATIENCE_SECONDS), work).await.expect("took too long")
}

/// Some user without rights.
const ORDINARY_USER: u32 = 65_534;

/// Gives a tree to that user, where this test may.
pub(crate) fn give(tree: &Path) {
    if rustix::process::geteuid().is_root() {
        let owner = format!("{ORDINARY_USER}:{ORDINARY_USER}");
        let status = Command::new("chown").arg("-R").arg(owner).arg(tree).status().unwrap();
        assert!(status.success());
    }
}

/// The project's cache of installed agent CLIs.
pub(crate) fn agents_dir() -> PathBuf {
    std::env::var_os("OUTPOST_TEST_AGENTS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/agents"),
        PathBuf::from,
    )
}

#[expect(clippy::print_stderr, reason = "a skip is said loudly")]
/// Whether the CLI of an agent is installed. Where it is not, the test is skipped and says so; in CI
/// that is a failure.
pub(crate) fn has_cli(agent: &str) -> bool {
    let found =
        std::fs::read_dir(agents_dir().join(agent)).is_ok_and(|mut dir| dir.next().is_some());
    if !found {
        let message = format!("{agent} is not installed in {}", agents_dir().display());
        assert!(std::env::var_os("CI").is_none(), "{message}, and CI may skip nothing");
        eprintln!("SKIPPED: {message}; `cargo xtask test` installs it");
    }
    found
}

/// A repository with one commit.
pub(crate) struct Repo {
    pub(crate) dir: tempfile::TempDir,
}

impl Repo {
    pub(crate) fn new() -> Self {
        let repo = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(repo.dir.path().join("README.md"), "# Title\n").unwrap();
        repo.git(&["init", "-q", "-b", "main"]);
        repo.git(&["add", "."]);
        repo.git(&["commit", "-qm", "First"]);
        repo
    }

    /// One whose `agent.sh` is for an agent that was declared to run it.
    pub(crate) fn with_script(script: &str) -> Self {
        let repo = Self::new();
        std::fs::write(repo.dir.path().join("agent.sh"), script).unwrap();
        repo.git(&["add", "."]);
        repo.git(&["commit", "-qm", "Second"]);
        repo
    }

    pub(crate) fn path(&self) -> String {
        self.dir.path().display().to_string()
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"];
        let output = Command::new("git")
            .current_dir(self.dir.path())
            .args(identity)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A request for the situation of that name in `script.toml`.
pub(crate) fn request(agent: &str, situation: &str, repo: &Repo) -> DispatchRequest {
    DispatchRequest {
        agent: agent.to_owned(),
        task: format!("situation: {situation}"),
        repo: Some(repo.path()),
        timeout_seconds: Some(120),
        ..DispatchRequest::default()
    }
}

/// Fails with everything one needs to see why.
pub(crate) async fn assert_status(server: &Server, view: &DispatchView, wanted: DispatchStatus) {
    if view.status != wanted {
        let log = server.log(view.dispatch_id).await;
        let view = serde_json::to_string_pretty(view).unwrap();
        panic!("not {wanted}: {view}\nlog:\n{log}");
    }
}
