//! The one place where the host starts git.
//!
//! Every process gets a fixed environment, no configuration but what is set here, no helper, hook, filter, prompt or pager; its
//! own process group, which is killed when the future is dropped or the time is up; and bounds on its output. Deliberately
//! absent: libgit2 or another git in process: a crash or a hole there would be the server's own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::{OpenError, Secret, WorkspacesConfig};

/// Time of a git process that has no bound of its own, seconds.
pub const GIT_SECONDS_MAX: u64 = 120;
/// Output that is kept of a git process that has no bound of its own, bytes.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// End of git's error output that is kept for messages, bytes.
pub const STDERR_BYTES_MAX: usize = 4096;
/// Oldest git that works: 2.38 ignores repositories' own bare directories and knows all settings used here.
const VERSION_MIN: (u32, u32) = (2, 38);

/// Settings of every git process. `protocol.allow` is opened per call for https or file only.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.askPass", "false"),
    ("core.sshCommand", "false"),
    ("core.alternateRefsCommand", "true"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.symlinks", "true"),
    ("core.autocrlf", "false"),
    ("credential.helper", ""),
    ("credential.interactive", "false"),
    ("protocol.allow", "never"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("transfer.bundleURI", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("diff.noprefix", "false"),
    ("diff.ignoreSubmodules", "all"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("receive.autogc", "false"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
    ("user.name", "Outpost"),
    ("user.email", "outpost@localhost"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("checkout.workers", "0"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
];

/// Directories where git finds the programs it needs.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of every git process.
const FIXED_ENV: &[(&str, &str)] = &[
    ("PATH", SEARCH_PATH),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    ("GIT_SSH_COMMAND", "false"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_PAGER", "cat"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_ADVICE", "0"),
];

/// The host's variables that may reach git: how the operator gets out, and which authorities he trusts.
const PASSED: &[&str] = &[
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];

/// A git process that failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be started.
    #[error("{what}: git could not be started: {source}")]
    Start {
        /// The subcommand.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{what}: {stderr_tail}")]
    Failed {
        /// The subcommand.
        what: String,
        /// Exit code; none if a signal ended it.
        code: Option<i32>,
        /// End of its error output, without credentials.
        stderr_tail: String,
    },
    /// It took too long and was killed.
    #[error("{what}: stopped after {seconds} seconds")]
    TimedOut {
        /// The subcommand.
        what: String,
        /// The bound, seconds.
        seconds: u64,
    },
    /// It wrote more than its bound and was killed.
    #[error("{what}: more than {limit_bytes} bytes of output")]
    TooMuchOutput {
        /// The subcommand.
        what: String,
        /// The bound, bytes.
        limit_bytes: u64,
    },
    /// A directory it writes to grew beyond its bound and it was killed.
    #[error("{what}: more than {limit_bytes} bytes on disk")]
    TooLarge {
        /// The subcommand.
        what: String,
        /// The bound, bytes.
        limit_bytes: u64,
    },
    /// Its pipes or its wait failed.
    #[error("{what}: reading from git failed: {source}")]
    Io {
        /// The subcommand.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl GitError {
    /// The end of git's error output, empty if it never spoke.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr_tail, .. } => stderr_tail,
            _ => "",
        }
    }

    /// Whether it was stopped for taking too long.
    pub fn timed_out(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// The exit code, if it ended by itself.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Failed { code, .. } => *code,
            _ => None,
        }
    }
}

/// A git that was checked to run.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    /// An empty directory that serves as HOME.
    home: PathBuf,
    /// (URL prefix, header value) of the credential.
    credential: Option<(String, Secret)>,
}

impl Git {
    /// Finds git and checks its version.
    pub(crate) fn open(config: &WorkspacesConfig, home: PathBuf) -> Result<Self, OpenError> {
        let why = |why: String| OpenError::Git { path: config.git.clone(), why };
        let output = std::process::Command::new(&config.git)
            .arg("version")
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", SEARCH_PATH)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| why(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = parse_version(&text)
            .ok_or_else(|| why("it does not answer with a version".to_owned()))?;
        if version < VERSION_MIN {
            return Err(why(format!("it is {}.{}", version.0, version.1)));
        }
        let credential = config.token.as_ref().map(|token| {
            let pair = format!("x-access-token:{}", token.reveal());
            let header = format!(
                "Authorization: Basic {}",
                base64::engine::general_purpose::STANDARD.encode(pair)
            );
            (format!("{}/", config.github_base.trim_end_matches('/')), Secret::new(header))
        });
        Ok(Self { program: config.git.clone(), home, credential })
    }

    /// The same git without the credential of the code host.
    pub(crate) fn bare(&self) -> Self {
        Self { credential: None, ..self.clone() }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The environment of a sandboxed program that runs git: the same settings, no network, no credential.
    pub(crate) fn sealed_env(&self, home: &Path) -> Vec<(String, String)> {
        let here = self
            .program
            .parent()
            .map(|dir| dir.display().to_string())
            .filter(|dir| dir.starts_with('/'));
        let path =
            here.map_or_else(|| SEARCH_PATH.to_owned(), |dir| format!("{dir}:{}", SEARCH_PATH));
        let mut env: Vec<(String, String)> = FIXED_ENV
            .iter()
            .filter(|(key, _)| *key != "PATH")
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        env.push(("PATH".to_owned(), path));
        env.push(("HOME".to_owned(), home.display().to_string()));
        env.push(("GIT_CONFIG_COUNT".to_owned(), SETTINGS.len().to_string()));
        for (index, (key, value)) in SETTINGS.iter().enumerate() {
            env.push((format!("GIT_CONFIG_KEY_{index}"), (*key).to_owned()));
            env.push((format!("GIT_CONFIG_VALUE_{index}"), (*value).to_owned()));
        }
        env
    }

    /// Starts to describe a git process, `what` being the subcommand.
    pub fn run(&self, what: &str) -> GitCall<'_> {
        GitCall {
            git: self,
            what: what.to_owned(),
            args: vec![OsString::from(what)],
            settings: Vec::new(),
            env: Vec::new(),
            dir: None,
            git_dir: None,
            stdin: Vec::new(),
            seconds: GIT_SECONDS_MAX,
            output_bytes_max: OUTPUT_BYTES_MAX,
            watch: None,
            network: false,
        }
    }
}

/// Reads `git version 2.47.3`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix("git version ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// One git process to be.
#[derive(Debug)]
pub struct GitCall<'a> {
    git: &'a Git,
    what: String,
    args: Vec<OsString>,
    settings: Vec<(String, String)>,
    env: Vec<(String, OsString)>,
    dir: Option<PathBuf>,
    git_dir: Option<PathBuf>,
    stdin: Vec<u8>,
    seconds: u64,
    output_bytes_max: usize,
    watch: Option<(PathBuf, u64)>,
    network: bool,
}

impl GitCall<'_> {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds a setting; it wins over the fixed ones.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Working directory; the empty home by default.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// The repository; without it git starts in the empty home and finds none.
    pub fn git_dir(mut self, dir: &Path) -> Self {
        self.git_dir = Some(dir.to_owned());
        self
    }

    /// What it reads from its standard input.
    pub fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = bytes;
        self
    }

    /// Bound on its time, seconds.
    pub fn seconds(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }

    /// Bound on its output, bytes; more is an error.
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }

    /// Kills it when the directory grows beyond the bound, bytes.
    pub fn watch(mut self, dir: &Path, bytes_max: u64) -> Self {
        self.watch = Some((dir.to_owned(), bytes_max));
        self
    }

    /// Allows https, with the credential for its own host, and the operator's proxy.
    pub fn https(mut self) -> Self {
        self.network = true;
        self.setting("protocol.https.allow", "always")
    }

    /// Allows repositories and bundles on this disk.
    pub fn file(self) -> Self {
        self.setting("protocol.file.allow", "always")
    }

    /// Builds the command.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.git.program);
        command.args(&self.args).env_clear();
        command.current_dir(self.dir.as_deref().unwrap_or(&self.git.home));
        for (key, value) in FIXED_ENV {
            command.env(key, value);
        }
        command.env("HOME", &self.git.home).env("XDG_CONFIG_HOME", &self.git.home);
        if let Some(parent) = self.git.home.parent() {
            command.env("GIT_CEILING_DIRECTORIES", parent);
        }
        if let Some(dir) = &self.git_dir {
            command.env("GIT_DIR", dir);
        }
        self.configure(&mut command);
        for (key, value) in &self.env {
            command.env(key, value);
        }
        command.stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command
    }

    /// Hands the settings over in the environment: a credential in the arguments would be seen by every user of the host.
    fn configure(&self, command: &mut Command) {
        let mut settings: Vec<(&str, &str)> = SETTINGS.to_vec();
        settings.extend(self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let header_key;
        if self.network {
            for name in PASSED {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
            if let Some((base, header)) = &self.git.credential {
                header_key = format!("http.{base}.extraHeader");
                settings.push((&header_key, header.reveal()));
            }
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
    }

    /// Runs it and returns its output.
    ///
    /// # Errors
    /// It did not start, failed, took too long, or broke a bound; it is dead in every case.
    pub async fn output(self) -> Result<Vec<u8>, GitError> {
        let mut sink = Vec::new();
        Box::pin(self.drive(&mut sink)).await?;
        Ok(sink)
    }

    /// Runs it for its effect or its one-line answer; the output is trimmed.
    ///
    /// # Errors
    /// As [`GitCall::output`].
    pub async fn text(self) -> Result<String, GitError> {
        let output = self.output().await?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// Runs it and writes its output to a new file, at most `bytes_max`. Returns the size.
    ///
    /// # Errors
    /// As [`GitCall::output`], or the file cannot be written.
    pub async fn to_file(mut self, path: &Path, bytes_max: u64) -> Result<u64, GitError> {
        let what = self.what.clone();
        let io = |source| GitError::Io { what: what.clone(), source };
        self.output_bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .await
            .map_err(io)?;
        let written = Box::pin(self.drive(&mut file)).await?;
        file.flush().await.map_err(io)?;
        Ok(written)
    }

    async fn drive<W: tokio::io::AsyncWrite + Unpin>(self, sink: &mut W) -> Result<u64, GitError> {
        let what = self.what.clone();
        let mut child = self
            .command()
            .spawn()
            .map_err(|source| GitError::Start { what: what.clone(), source })?;
        let mut group = Group::of(&child);
        let result = tokio::select! {
            result = self.converse(&mut child, sink) => result,
            () = tokio::time::sleep(Duration::from_secs(self.seconds)) => {
                Err(GitError::TimedOut { what: what.clone(), seconds: self.seconds })
            }
            limit_bytes = self.overgrown() => Err(GitError::TooLarge { what: what.clone(), limit_bytes }),
        };
        let (written, stderr) = result?;
        // The leader was waited for: its number may belong to somebody else by now.
        group.0 = None;
        let status =
            child.wait().await.map_err(|source| GitError::Io { what: what.clone(), source })?;
        if status.success() {
            return Ok(written);
        }
        Err(GitError::Failed { what, code: status.code(), stderr_tail: self.scrub(&stderr) })
    }

    /// Feeds and reads the process until it ends.
    async fn converse<W: tokio::io::AsyncWrite + Unpin>(
        &self,
        child: &mut Child,
        sink: &mut W,
    ) -> Result<(u64, Vec<u8>), GitError> {
        let io = |source| GitError::Io { what: self.what.clone(), source };
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A process that stops reading early says why on its error output.
                let _ = stdin.write_all(&self.stdin).await;
            }
            Ok::<(), io::Error>(())
        };
        let read = async {
            match stdout {
                Some(mut stdout) => {
                    copy_bounded(&mut stdout, sink, self.output_bytes_max as u64).await
                }
                None => Ok(Some(0)),
            }
        };
        let complain = async {
            match stderr {
                Some(stderr) => read_tail(stderr).await,
                None => Ok(Vec::new()),
            }
        };
        let over = || GitError::TooMuchOutput {
            what: self.what.clone(),
            limit_bytes: self.output_bytes_max as u64,
        };
        let work = async {
            let read = async { read.await.map_err(io)?.ok_or_else(over) };
            let ((), written, stderr) =
                tokio::try_join!(async { feed.await.map_err(io) }, read, async {
                    complain.await.map_err(io)
                })?;
            Ok::<_, GitError>((written, stderr))
        };
        let done = work.await?;
        child.wait().await.map_err(io)?;
        Ok(done)
    }

    /// Resolves when the watched directory is too large; never without one.
    async fn overgrown(&self) -> u64 {
        const LOOK_MILLIS: u64 = 250;
        let Some((dir, bytes_max)) = &self.watch else { return std::future::pending().await };
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            let dir = dir.clone();
            let size = tokio::task::spawn_blocking(move || crate::cache::disk_bytes(&dir))
                .await
                .unwrap_or(0);
            if size > *bytes_max {
                return *bytes_max;
            }
        }
    }

    fn scrub(&self, stderr: &[u8]) -> String {
        scrub(stderr, self.git.credential.as_ref().map(|(_, header)| header.reveal()))
    }
}

/// Makes git's words fit for a message: bounded, printable, without the value of the header.
pub(crate) fn scrub(stderr: &[u8], header: Option<&str>) -> String {
    let mut text: String = String::from_utf8_lossy(stderr)
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect();
    if let Some(header) = header {
        let value = header.rsplit(' ').next().unwrap_or_default();
        text = text.replace(value, "[secret]");
    }
    text.trim().to_owned()
}

/// Kills the whole process group when dropped: git's helpers must not outlive it.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Still armed means the leader was not waited for, so the number is its own.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Copies at most `bytes_max`; none if there is more.
async fn copy_bounded<R: AsyncRead + Unpin, W: tokio::io::AsyncWrite + Unpin>(
    reader: &mut R,
    writer: &mut W,
    bytes_max: u64,
) -> io::Result<Option<u64>> {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut total = 0_u64;
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(Some(total));
        }
        total += count as u64;
        if total > bytes_max {
            return Ok(None);
        }
        writer.write_all(&buffer[..count]).await?;
    }
}

/// Reads to the end and keeps the last [`STDERR_BYTES_MAX`].
async fn read_tail<R: AsyncRead + Unpin>(mut reader: R) -> io::Result<Vec<u8>> {
    let mut tail = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(tail);
        }
        tail.extend_from_slice(&buffer[..count]);
        if tail.len() > STDERR_BYTES_MAX {
            tail.drain(..tail.len() - STDERR_BYTES_MAX);
        }
    }
}
