//! Starts a server for commands that find none: in the background, in its own session, ending by
//! itself when it has been idle for a while.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::ctx::http_api;
use crate::error::CliError;
use crate::ui::Ui;
use outpost_args::GlobalArgs;
use outpost_config::Config;
use outpost_config::datadir::{self, DataDir, ServerInfo};

/// A server started this way ends after so many seconds without work.
const IDLE_EXIT_SECONDS: u64 = 600;
/// Environment variable that says otherwise.
const IDLE_EXIT_VARIABLE: &str = "OUTPOST_IDLE_EXIT_SECONDS";
/// Longest start of a server, seconds.
const START_SECONDS_MAX: u64 = 60;
/// Pause between two looks at a starting server, milliseconds.
const LOOK_MILLIS: u64 = 20;
/// Size at which the log of earlier servers is thrown away, bytes.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// End of the log that an error shows, bytes.
const LOG_TAIL_BYTES: u64 = 2_000;

/// The server of the data directory; starts one when none runs. Commands at the same time start only
/// one between them.
pub(crate) async fn ensure(
    ui: &Ui,
    global: &GlobalArgs,
    config: &Config,
) -> Result<ServerInfo, CliError> {
    let dir = config.dir();
    if let Some(info) = dir.running_server() {
        warn_of_version(ui, &info);
        return Ok(info);
    }
    let patience = Duration::from_secs(START_SECONDS_MAX);
    let waiting = dir.clone();
    let lock = tokio::task::spawn_blocking(move || waiting.lock_start(patience))
        .await
        .map_err(|error| CliError::chain("waiting for another command failed", &error))??;
    if let Some(info) = dir.running_server() {
        return Ok(info);
    }
    ui.note(&ui.err.dim("Starting a server for this and later commands…"));
    let started = Instant::now();
    let mut child = spawn(global, config, &dir)?;
    let info = wait_until_ready(&mut child, &dir, config).await?;
    drop(lock);
    if ui.verbosity.verbose {
        let took = started.elapsed().as_millis();
        ui.note(&format!("Server at {} ready after {took} ms.", info.url));
    }
    Ok(info)
}

fn warn_of_version(ui: &Ui, info: &ServerInfo) {
    let own = env!("CARGO_PKG_VERSION");
    if info.version != own {
        ui.warn(&format!(
            "the running server is version {}, this is {own}; end process {} to start a new one",
            info.version, info.pid
        ));
    }
}

fn spawn(global: &GlobalArgs, config: &Config, dir: &DataDir) -> Result<Child, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::chain("this program cannot find itself", &error))?;
    let log_path = dir.server_log();
    let log = open_log(&log_path)?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--detached");
    if std::env::var_os(IDLE_EXIT_VARIABLE).is_none() {
        command.arg("--idle-exit-seconds").arg(IDLE_EXIT_SECONDS.to_string());
    }
    if !config.listen_chosen {
        // Any free port: several data directories may have a server each.
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.arg("--data-dir").arg(dir.root());
    if let Some(path) = &global.config {
        command.arg("--config").arg(std::path::absolute(path)?);
    }
    command
        // The key of another server is none of its business.
        .env_remove("OUTPOST_API_KEY")
        .env_remove("OUTPOST_URL")
        .current_dir(dir.root())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().map_err(|error| CliError::chain("a server cannot be started", &error))
}

fn open_log(path: &Path) -> Result<std::fs::File, CliError> {
    let large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if large {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Waits until the server says where it is and answers there, or has ended.
async fn wait_until_ready(
    child: &mut Child,
    dir: &DataDir,
    config: &Config,
) -> Result<ServerInfo, CliError> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    loop {
        if let Some(info) = dir.running_server()
            && answers(&info, config).await
        {
            return Ok(info);
        }
        if let Some(status) = child.try_wait()? {
            return Err(start_failed(dir, &format!("ended with {status} before it was ready")));
        }
        if Instant::now() > deadline {
            let _ = child.start_kill();
            return Err(start_failed(dir, &format!("was not ready after {START_SECONDS_MAX} s")));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
    }
}

async fn answers(info: &ServerInfo, config: &Config) -> bool {
    let Ok(key) = datadir::read_key(&config.admin_key_file) else {
        return false;
    };
    match http_api(&info.url, &key) {
        Ok(api) => api.ready().await.is_ok(),
        Err(_) => false,
    }
}

fn start_failed(dir: &DataDir, what: &str) -> CliError {
    let path = dir.server_log();
    let mut message = format!("the server this command started {what}");
    let tail = tail(&path);
    if !tail.trim().is_empty() {
        message.push_str(":\n");
        message.push_str(tail.trim_end());
    }
    CliError::failed(message).with_hint(format!(
        "`outpost doctor` checks this machine; the whole log is {}",
        path.display()
    ))
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
