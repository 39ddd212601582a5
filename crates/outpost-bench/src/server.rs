//! A real server as a process of its own, on a directory of the bench.
//!
//! It is what `outpost serve` starts, with two agents beside the usual ones: `bench`, which waits and
//! does nothing else, so that dispatches are accepted and wait for a slot; and `brief`, which ends by
//! itself soon.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::BenchError;
use crate::options::{Key, Place, create_private};

/// Name of the agent that waits.
pub(crate) const AGENT: &str = "bench";
/// Name of the agent that ends.
pub(crate) const BRIEF_AGENT: &str = "brief";
/// Time it takes, milliseconds: anything between these, as runs of a real agent are of no one length
/// and do not end at the same moment.
pub(crate) const BRIEF_MILLIS: (u64, u64) = (200, 600);
/// Longest orderly end of a server, seconds; then it is killed.
const END_SECONDS_MAX: u64 = 30;
/// Pause between two looks at a server that ends, milliseconds.
const END_LOOK_MILLIS: u64 = 20;
/// Ticks of the kernel's account of processor time. Fixed for programs on Linux, whatever the kernel's
/// own clock: `proc(5)`, `sysconf(_SC_CLK_TCK)`.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its admin key.
    pub(crate) key: Key,
    /// From its start as a process until it said that it takes requests.
    pub(crate) start: Duration,
}

impl Server {
    /// Starts one on `data` with this many slots. Its log goes to `server.log` beside the records.
    pub(crate) fn start(place: &Place, data: &Path, slots: u32) -> Result<Self, BenchError> {
        Self::start_with(place, data, slots, &waiting_agents(slots))
    }

    /// The same with a configuration file of this content, and no agents of ours.
    pub(crate) fn start_with(
        place: &Place,
        data: &Path,
        slots: u32,
        config: &str,
    ) -> Result<Self, BenchError> {
        create_private(data)?;
        let file = data.join("bench.toml");
        std::fs::write(&file, config)?;
        let log = File::options().create(true).append(true).open(data.join("server.log"))?;
        let mut command = Command::new(&place.program);
        for name in &place.forget {
            command.env_remove(name);
        }
        command.args(["--json", "--color", "never", "--data-dir"]).arg(data);
        command.arg("--config").arg(&file).args(["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--model", "scripted", "--isolation-minimum", "namespaces"]);
        command.args(["--concurrency", &slots.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let begin = Instant::now();
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let start = begin.elapsed();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let url = ready["url"].as_str().and_then(|url| url.strip_prefix("http://"));
        let address = url.and_then(|address| address.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(data.join("server.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it said nothing");
            return Err(BenchError::failed("the server of the bench did not start")
                .with_hint(format!("its last words: {last}")));
        };
        let key = Key::new(std::fs::read_to_string(data.join("admin.key"))?.trim().to_owned());
        Ok(Self { child, address, key, start })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time it has used, user and system, all threads; to 10 ms.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name of the program may hold blanks; it ends with the last parenthesis. Then, counted
        // from there, user and system time are the 12th and 13th word: proc(5).
        let ticks = text.rsplit_once(')').and_then(|(_, rest)| {
            let mut words = rest.split_ascii_whitespace().skip(11);
            Some(words.next()?.parse::<f64>().ok()? + words.next()?.parse::<f64>().ok()?)
        });
        let ticks =
            ticks.ok_or_else(|| BenchError::failed("the kernel's account is not understood"))?;
        Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
    }

    /// Resident memory, bytes.
    pub(crate) fn memory_bytes(&self) -> Result<u64, BenchError> {
        const PAGE_BYTES: u64 = 4_096;
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid()))?;
        let pages = text.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
        Ok(pages.unwrap_or(0) * PAGE_BYTES)
    }

    /// Ends it without a word, as a crash would; its launcher and agents go on.
    pub(crate) fn kill(mut self) -> Result<(), BenchError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let deadline = Instant::now() + Duration::from_secs(END_SECONDS_MAX);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(END_LOOK_MILLIS));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    /// Ends it in order: its agents are ended, its launcher too.
    fn drop(&mut self) {
        self.end();
    }
}

/// The agents that most benches dispatch, as a configuration.
fn waiting_agents(slots: u32) -> String {
    let (least, most) = BRIEF_MILLIS;
    let brief = format!("exec sleep 0.$(shuf -n 1 -i {least}-{most})");
    let agents = [
        (AGENT, serde_json::json!(["/usr/bin/sleep", "86400"])),
        (BRIEF_AGENT, serde_json::json!(["/bin/sh", "-c", brief])),
    ];
    agents.iter().map(|(name, command)| agent(name, command, slots)).collect()
}

/// The table of an agent that needs no model.
pub(crate) fn agent(name: &str, command: &serde_json::Value, slots: u32) -> String {
    // A JSON array of strings is one of TOML, too.
    format!(
        "[[agents]]\nname = \"{name}\"\ncommand = {command}\nstdin_prompt = true\n\
         model = \"none\"\ntier = \"fast\"\nconcurrency_max = {slots}\n"
    )
}
