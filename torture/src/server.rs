//! The server under torture: a child process on a directory and a port of its own.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait until a server accepts, or ends, seconds. Far above what is usual: it bounds a hang.
const START_SECONDS_MAX: u64 = 60;
/// Pause between two looks at whether it ended, milliseconds.
const LOOK_MILLIS: u64 = 10;
/// Bytes of a server's log that are shown when it does not start.
const LOG_TAIL_BYTES_MAX: usize = 4_096;

/// How servers of one storm are started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// Where everything of the storm is; servers use `data` below it.
    pub dir: PathBuf,
    /// Port on the loopback address, the same for all of them.
    pub port: u16,
    /// Most runs at once.
    pub concurrency: u32,
}

/// A running server. It is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Launch {
    /// Where the server keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts a server and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self) -> anyhow::Result<Server> {
        let child = Command::new(&self.binary)
            .env_remove("OUTPOST_URL")
            .env_remove("OUTPOST_API_KEY")
            .env("OUTPOST_DATA_DIR", self.data_dir())
            .env("OUTPOST_CONFIG", self.dir.join("config.toml"))
            .args(["--json", "serve", "--model", "scripted", "--isolation-minimum", "namespaces"])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--concurrency", &self.concurrency.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log()?)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.binary.display()))?;
        Ok(Server { child })
    }

    fn log(&self) -> anyhow::Result<File> {
        let path = self.log_path();
        OpenOptions::new().create(true).append(true).open(&path).context("the server's log")
    }

    /// What all servers said on their standard error.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("servers.log")
    }
}

impl Server {
    /// Waits until it accepts requests.
    ///
    /// # Errors
    /// When it ends instead, or says nothing; with the end of its log.
    pub async fn ready(&mut self, launch: &Launch) -> anyhow::Result<()> {
        let stdout = self.child.stdout.take().context("a server is waited for once")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let limit = Duration::from_secs(START_SECONDS_MAX);
        let line = tokio::time::timeout(limit, line).await;
        match line {
            Ok(line)
                if line.as_ref().is_ok_and(|line| matches!(line, Ok(line) if !line.is_empty())) =>
            {
                Ok(())
            }
            Ok(_) => bail!("a server did not start: {}", tail(&launch.log_path())),
            Err(_) => bail!("a server did not accept in time: {}", tail(&launch.log_path())),
        }
    }

    /// Kills it; it cannot defend itself, and is gone when this returns.
    ///
    /// # Errors
    /// When it ended by itself before: a server never does.
    pub fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended by itself: {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as an upgrade does: it leaves its agents to the next one.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn end(mut self, launch: &Launch) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the server does not end: {}", tail(&launch.log_path()));
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let start = text.len().saturating_sub(LOG_TAIL_BYTES_MAX);
    String::from_utf8_lossy(&text[start..]).into_owned()
}
