//! The storm: clients at work, and a hand that kills server and launcher at moments of its choice.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use outpost_client::{ApiKey, ClientConfig, HttpApi, RetryPolicy};
use outpost_store::{AuditRange, Audits as _, SqliteOptions, SqliteStore};
use outpost_types::{Api as _, DispatchId, DispatchStatus, ListQuery};
use tokio::task::JoinSet;

use crate::check;
use crate::client::{Client, PATIENCE_SECONDS, patiently};
use crate::host::Host;
use crate::ledger::{Counts, Ledger};
use crate::plan;
use crate::rng::Rng;
use crate::server::{Launch, Server};

/// Longest random wait before a strike unless another is asked for, milliseconds.
pub const PAUSE_MILLIS: u64 = 800;
/// Kills between two looks at how far the storm is.
const PROGRESS_KILLS: u64 = 100;
/// Records that are asked for at the same time.
const LOOKS_AT_ONCE: usize = 8;
/// Longest random life of a server that is killed while it starts, milliseconds.
const QUICK_MILLIS_MAX: u64 = 60;
/// Ended runs that are looked at again after each restart.
const SAMPLE_COUNT: u64 = 4;
/// Ports that are tried: below those the system gives to connections by itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// Until a server has noticed for sure that its launcher is gone, milliseconds.
const NOTICE_MILLIS: u64 = 500;
/// Age of a run from which on it gets the time it needs, seconds. More than the grace of a stop.
const OLD_SECONDS: u64 = 30;
/// Pause between two looks at what nothing announces, milliseconds.
const LOOK_MILLIS: u64 = 50;
/// Rows of one page of the audit trail.
const TRAIL_ROWS: u32 = 1_000;

/// What kind of storm.
#[derive(Debug, Clone)]
pub struct Options {
    /// Processes to kill.
    pub kills: u64,
    /// No kill after this time, seconds; `None` is no bound.
    pub seconds_max: Option<u64>,
    /// Of all choices of the storm. How they meet the servers' timing is the machine's part.
    pub seed: u64,
    /// Clients at work at the same time; also the most runs at once.
    pub clients: u32,
    /// Longest random wait before a strike, milliseconds. The shorter, the more kills an hour, and the
    /// less each server gets done; [`PAUSE_MILLIS`] is usual.
    pub pause_millis: u64,
    /// The program under torture.
    pub binary: PathBuf,
    /// Is told every hundred kills how far the storm is.
    pub progress: fn(&Progress),
}

/// How far a storm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Processes killed.
    pub kills: u64,
    /// Runs that ended and were judged.
    pub runs: u64,
    /// Of these to their own end.
    pub natural: u64,
    /// Broken promises.
    pub findings: u64,
    /// Since the first strike.
    pub elapsed: Duration,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, runs, natural, findings, elapsed } = self;
        let seconds = elapsed.as_secs();
        write!(
            f,
            "{kills} kills, {runs} runs ({natural} to their own end), {findings} broken promises, \
             {seconds} s"
        )
    }
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// Broken promises in words; empty is a pass.
    pub findings: Vec<String>,
    /// How much was looked at.
    pub counts: Counts,
    /// Servers killed.
    pub server_kills: u64,
    /// Launchers killed.
    pub launcher_kills: u64,
    /// Runs acknowledged and ended.
    pub runs: u64,
    /// Rows of the audit trail, all verified.
    pub trail_rows: u64,
    /// From a server's start until it accepts, milliseconds: the middle one and the longest.
    pub start_millis: (u64, u64),
    /// How long the storm held still for runs that got nowhere, milliseconds.
    pub held_millis: u64,
    /// Data directory and logs; kept when something was broken.
    pub dir: Option<PathBuf>,
}

/// Kills until it is enough, lets the clients finish, and looks at everything once more.
///
/// # Errors
/// When the storm itself cannot go on: the server does not start, or answers what it never may.
pub async fn storm(options: &Options) -> anyhow::Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("outpost-torture-").tempdir()?;
    let result = Storm::begin(options, dir.path()).await?.run(options).await;
    match result {
        Ok(outcome) if outcome.findings.is_empty() => Ok(outcome),
        Ok(outcome) => Ok(Outcome { dir: Some(dir.keep()), ..outcome }),
        Err(error) => Err(error.context(format!("everything is kept in {}", dir.keep().display()))),
    }
}

struct Storm {
    launch: Launch,
    host: Host,
    client: Client,
    rng: Rng,
    server: Option<Server>,
    server_kills: u64,
    launcher_kills: u64,
    start_millis: Vec<u64>,
    held: Duration,
}

impl Drop for Storm {
    /// A storm that failed leaves no process either.
    fn drop(&mut self) {
        self.server = None;
        if let Err(error) = self.host.kill_launcher() {
            self.client.ledger.note(vec![error.to_string()]);
        }
    }
}

impl Storm {
    async fn begin(options: &Options, dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.canonicalize()?;
        std::fs::write(dir.join("config.toml"), plan::config(options.clients))?;
        let repo = make_repo(&dir)?;
        let launch = Launch {
            binary: options.binary.clone(),
            port: free_port(options.seed)?,
            concurrency: options.clients,
            dir,
        };
        let mut server = launch.spawn()?;
        server.ready(&launch).await?;
        let key = std::fs::read_to_string(launch.data_dir().join("admin.key"))?;
        let mut config = ClientConfig::new(launch.url(), Some(ApiKey::new(key.trim())));
        // A server is away for a moment, but often.
        config.retry = RetryPolicy {
            tries_max: 2_000,
            pause_first: Duration::from_millis(20),
            pause_max: Duration::from_millis(50),
        };
        let host = Host::new(launch.data_dir());
        let client = Client {
            api: HttpApi::new(config)?,
            host: host.clone(),
            ledger: Arc::new(Ledger::default()),
            repo,
            seed: options.seed,
        };
        Ok(Self {
            host,
            launch,
            client,
            rng: Rng::new(options.seed, 0),
            server: Some(server),
            server_kills: 0,
            launcher_kills: 0,
            start_millis: Vec::new(),
            held: Duration::ZERO,
        })
    }

    async fn run(mut self, options: &Options) -> anyhow::Result<Outcome> {
        let mut clients = JoinSet::new();
        for number in 0..u64::from(options.clients) {
            clients.spawn(self.client.clone().work(number));
        }
        let began = Instant::now();
        let end = options.seconds_max.map(|limit| began + Duration::from_secs(limit));
        let mut next_progress = PROGRESS_KILLS;
        while self.kills() < options.kills && end.is_none_or(|end| Instant::now() < end) {
            let pause = Duration::from_millis(self.rng.below(options.pause_millis));
            // Looking is part of the pause: it is over before the next strike, but costs no time of
            // its own. The first server has nothing to be looked at again.
            let ids = self.choose_records();
            let (looked, ()) = tokio::join!(self.look_again(ids), tokio::time::sleep(pause));
            looked?;
            let pausing = Instant::now();
            self.let_old_ones_end().await;
            self.held += pausing.elapsed();
            self.strike().await?;
            // Before its time a client ends only with an error.
            if let Some(ended) = clients.try_join_next() {
                ended??;
            }
            if self.kills() >= next_progress {
                next_progress = self.kills() / PROGRESS_KILLS * PROGRESS_KILLS + PROGRESS_KILLS;
                (options.progress)(&self.progress(began));
            }
        }
        let ids = self.choose_records();
        self.look_again(ids).await?;
        self.client.ledger.close();
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        self.settle().await
    }

    /// On a slow machine no server might live for long enough to end a run: then the storm pauses.
    async fn let_old_ones_end(&self) {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
        let old = Duration::from_secs(OLD_SECONDS);
        // One that still does not end is reported by its client.
        while self.client.ledger.is_any_older(old) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        }
    }

    /// One blow: mostly at the server, sometimes at the launcher, both, or the next server, too.
    async fn strike(&mut self) -> anyhow::Result<()> {
        match self.rng.below(20) {
            0 => {
                self.kill_launcher()?;
                tokio::time::sleep(Duration::from_millis(NOTICE_MILLIS)).await;
                self.client.ledger.launcher_dies();
                Ok(())
            }
            1 => {
                self.kill_launcher()?;
                self.kill_server()?;
                self.restart().await?;
                self.client.ledger.launcher_dies();
                Ok(())
            }
            2 => {
                self.kill_server()?;
                self.kill_launcher()?;
                self.restart().await?;
                self.client.ledger.launcher_dies();
                Ok(())
            }
            3..=5 => {
                self.kill_server()?;
                self.server = Some(self.launch.spawn()?);
                let life = Duration::from_millis(self.rng.below(QUICK_MILLIS_MAX));
                tokio::time::sleep(life).await;
                self.kill_server()?;
                self.restart().await
            }
            _ => {
                self.kill_server()?;
                self.restart().await
            }
        }
    }

    fn kill_server(&mut self) -> anyhow::Result<()> {
        self.server.take().context("there is a server")?.kill()?;
        self.server_kills += 1;
        Ok(())
    }

    fn kill_launcher(&mut self) -> anyhow::Result<()> {
        self.client.ledger.launcher_dies();
        self.launcher_kills += u64::from(self.host.kill_launcher()?);
        // What began while it was looked for is among its runs, too.
        self.client.ledger.launcher_dies();
        Ok(())
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut server = self.launch.spawn()?;
        server.ready(&self.launch).await?;
        self.start_millis.push(u64::try_from(began.elapsed().as_millis())?);
        self.server = Some(server);
        Ok(())
    }

    fn kills(&self) -> u64 {
        self.server_kills + self.launcher_kills
    }

    fn progress(&self, began: Instant) -> Progress {
        let (runs, counts) = self.client.ledger.tally();
        Progress {
            kills: self.kills(),
            runs,
            natural: counts.natural,
            findings: counts.findings,
            elapsed: began.elapsed(),
        }
    }

    /// Everything that has not ended, and some of what has.
    fn choose_records(&mut self) -> Vec<DispatchId> {
        let ledger = Arc::clone(&self.client.ledger);
        let mut ids = ledger.open();
        ids.extend((0..SAMPLE_COUNT).filter_map(|_| ledger.one_ended(&mut self.rng)));
        ids
    }

    /// Nothing that was acknowledged is lost, and nothing that ended has changed.
    async fn look_again(&self, ids: Vec<DispatchId>) -> anyhow::Result<()> {
        let look = async |id: DispatchId| {
            // Asked before the server is: what ends in between may have changed rightly.
            let end = self.client.ledger.end_of(id);
            let now = self.get(id).await?;
            if let (Some(end), Some(now)) = (end, now)
                && now != end
            {
                let changed = format!("{id} ended as {end:?} and is {now:?} now");
                self.client.ledger.note(vec![changed]);
            }
            anyhow::Ok(())
        };
        stream::iter(ids).map(look).buffer_unordered(LOOKS_AT_ONCE).try_collect().await
    }

    async fn get(&self, id: DispatchId) -> anyhow::Result<Option<(DispatchStatus, u64)>> {
        let ask = || async {
            match self.client.api.get_dispatch(id, None, None).await {
                Err(error) if error.code == outpost_types::ErrorCode::NotFound => Ok(None),
                other => other.map(|view| Some((view.status, view.generation))),
            }
        };
        let found = patiently("look again", ask).await?;
        if found.is_none() {
            self.client.ledger.note(vec![format!("{id} was acknowledged and is lost")]);
        }
        Ok(found)
    }

    /// Looks at what is left when nothing runs any more, on the host and in the records.
    async fn settle(mut self) -> anyhow::Result<Outcome> {
        let ledger = Arc::clone(&self.client.ledger);
        if !ledger.open().is_empty() {
            bail!("clients ended without their runs");
        }
        let left = || async { Ok(self.host.leftovers(self.warm().await?)) };
        ledger.note(until_none(left).await?);
        ledger.note(check::records(&ledger.ended(), &self.list().await?));
        self.server.take().context("there is a server")?.end(&self.launch).await?;
        ledger.note(until_none(|| async { Ok(self.host.last_traces()) }).await?);
        let trail_rows = self.check_trail(&ledger).await?;
        let (findings, counts) = ledger.verdict();
        self.start_millis.sort_unstable();
        let middle = self.start_millis.get(self.start_millis.len() / 2).copied().unwrap_or(0);
        let longest = self.start_millis.last().copied().unwrap_or(0);
        Ok(Outcome {
            findings,
            counts,
            server_kills: self.server_kills,
            launcher_kills: self.launcher_kills,
            runs: ledger.ended().len() as u64,
            trail_rows,
            start_millis: (middle, longest),
            held_millis: u64::try_from(self.held.as_millis())?,
            dir: None,
        })
    }

    /// Workers that wait for a run, by the server's own count.
    async fn warm(&self) -> anyhow::Result<usize> {
        let fleet = patiently("fleet", || self.client.api.fleet()).await?;
        let idle = fleet.agents.iter().filter_map(|agent| Some(agent.pool.as_ref()?.idle));
        Ok(usize::try_from(idle.sum::<u32>())?)
    }

    /// Everything the server lists.
    async fn list(&self) -> anyhow::Result<Vec<(DispatchId, DispatchStatus, u64)>> {
        let mut listed = Vec::new();
        let mut cursor = None;
        loop {
            let query = ListQuery { limit: Some(100), cursor, ..ListQuery::default() };
            let ask = || self.client.api.list_runs(query.clone());
            let page = patiently("list", ask).await?;
            let of_view = page.items.iter();
            listed.extend(of_view.map(|view| (view.dispatch_id, view.status, view.generation)));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(listed);
            }
        }
    }

    /// Reads the trail out of the store itself, once no server holds it; says how long it is.
    async fn check_trail(&self, ledger: &Ledger) -> anyhow::Result<u64> {
        let options = SqliteOptions::new(self.launch.data_dir(), 0);
        let store = tokio::task::spawn_blocking(move || SqliteStore::open(&options)).await??;
        if let Err(broken) = store.verify_audit().await? {
            ledger.note(vec![broken.to_string()]);
        }
        let mut entries = Vec::new();
        let mut after = 0;
        loop {
            let rows = store.audit(AuditRange { after, limit: TRAIL_ROWS }).await?;
            let Some(last) = rows.last() else { break };
            after = last.seq;
            for row in rows {
                let detail: serde_json::Value = serde_json::from_str(&row.detail)?;
                let to = serde_json::from_value(detail["to"].clone()).ok();
                entries.push(check::Entry { action: row.action, subject: row.subject, to });
            }
        }
        ledger.note(check::trail(&ledger.ended(), &entries));
        Ok(entries.len() as u64)
    }
}

/// Looks until nothing is left, or patience is; answers what is left then.
async fn until_none<Left>(look: impl Fn() -> Left) -> anyhow::Result<Vec<String>>
where
    Left: Future<Output = anyhow::Result<Vec<String>>>,
{
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    loop {
        let left = look().await?;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
    }
}

/// A port nobody listens on. Not one that the system would choose: between two servers it might give
/// such a port to somebody's connection.
fn free_port(seed: u64) -> anyhow::Result<u16> {
    let mut rng = Rng::new(seed ^ u64::from(std::process::id()), u64::MAX);
    for _ in 0..PORTS.len() {
        let port = PORTS.start + u16::try_from(rng.below(PORTS.len() as u64))?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// A repository with one commit; answers its path.
fn make_repo(dir: &Path) -> anyhow::Result<String> {
    let repo = dir.join("repo");
    std::fs::create_dir(&repo)?;
    std::fs::write(repo.join("README.md"), "# Title\n")?;
    for args in [
        ["init", "-q", "-b", "main"].as_slice(),
        &["add", "."],
        &[
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.invalid",
            "commit",
            "-qm",
            "First",
        ],
    ] {
        let status = Command::new("git")
            .current_dir(&repo)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status()
            .context("git cannot be run")?;
        if !status.success() {
            bail!("git {args:?} failed");
        }
    }
    Ok(repo.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line() {
        let elapsed = Duration::from_millis(34_900);
        let progress = Progress { kills: 100, runs: 30, natural: 21, findings: 0, elapsed };
        let line = "100 kills, 30 runs (21 to their own end), 0 broken promises, 34 s";
        assert_eq!(progress.to_string(), line);
    }
}
