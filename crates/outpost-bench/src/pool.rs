//! `outpost bench pool`: from an accepted dispatch to its agent's process, by a warm worker and without.
//!
//! Two servers take turns: one with the pool it has by default, one with none. The agent is a program of a few
//! instructions that says what time it is, so its start is known to the microsecond and from inside, where the records
//! of the server have milliseconds. What is counted from there is said in milliseconds, too: its phases, the
//! recorded start, the agent's first event. Real CLIs take longer than that, and are measured by it.
//!
//! Then many dispatches come at once. Bounded: dispatches, and the wait for each. Absent: the time between
//! an agent's start and its first model call, which is its CLI's.

mod lane;
mod times;

use std::path::Path;

use outpost_types::{BuiltinAgent, FleetView};
use serde_json::json;

use crate::error::BenchError;
use crate::options::{PoolOptions, create_private};
use crate::report::{Report, Row};
use crate::source::Source;
use crate::{Bench, ROUNDS_COUNT, client};
use lane::{Lane, clock_agent};
use times::{Bursts, Times, burst_rows, cli_rows, clock_rows};

/// Slots for agents, so that none of a burst waits for one.
const SLOTS: u32 = 200;
/// The repository: files, and bytes in all.
const REPO_FILES: u32 = 100;
const REPO_BYTES: u64 = 400_000;
/// Longest run of an agent, seconds.
const AGENT_SECONDS: u64 = 110;
/// What the scripted provider tells every CLI to do.
const SCRIPT: &str = "[[rule]]\nsteps = [\n  { write = { path = 'NOTES.md', content = \"Seen.\\n\" } },\n\
                      \x20 { say = 'Done: the note is in NOTES.md.' },\n]\n";

/// Everything measured.
struct Measured {
    /// Of the agent that says the time: without a repository and with one, each warm and cold.
    clock: [[Times; 2]; 2],
    /// Of each real CLI: warm and cold.
    clis: Vec<(String, [Times; 2])>,
    /// Warm and cold.
    bursts: [Bursts; 2],
    /// Attempts of that agent that came one after another: with a warm worker, and all.
    alone: [u64; 2],
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &PoolOptions) -> Result<Report, BenchError> {
    let source = Source::make(bench.dir("source"), REPO_FILES, REPO_BYTES)?;
    let lanes = [start(&bench, args, true)?, start(&bench, args, false)?];
    let runtime = client::runtime()?;
    let clis = runtime.block_on(clis(&lanes[0], args))?;
    bench.ui.note(&format!("{} real CLIs: {}", clis.len(), clis.join(", ")));
    let mut measured = Measured {
        clock: Default::default(),
        clis: clis.into_iter().map(|name| (name, Default::default())).collect(),
        bursts: [Bursts::new(args.at_once.len()), Bursts::new(args.at_once.len())],
        alone: [0; 2],
    };
    for round in 1..=ROUNDS_COUNT {
        bench.floor.round()?;
        runtime.block_on(measured.round(&bench, args, &lanes, &source.dir))?;
        let started = measured.clock[0].each_ref().map(|times| times.answered.millis(0.5));
        bench.ui.note(&format!(
            "round {round} of {ROUNDS_COUNT}: answered to started {:.2} ms warm, {:.2} ms cold",
            started[0], started[1]
        ));
    }
    drop(lanes);
    let floor = bench.floor.figures();
    for (times, with) in measured.clock.iter().zip(["no repository", "100 files"]) {
        bench.rows.extend(clock_rows(&format!("warm, {with}"), &times[0], &floor, true));
        bench.rows.extend(clock_rows(&format!("cold, {with}"), &times[1], &floor, false));
    }
    let [hits, claims] = measured.alone;
    let what = format!("one after another: got a warm worker, of {claims}");
    bench.rows.push(Row::new(what, "%", share(hits, claims)));
    for (bursts, kind) in measured.bursts.iter().zip(["warm", "cold"]) {
        bench.rows.extend(burst_rows(kind, &args.at_once, bursts));
    }
    for (name, times) in &measured.clis {
        bench.rows.extend(cli_rows(name, times));
    }
    Ok(bench.finish("pool"))
}

/// How many of a hundred.
fn share(hits: u64, claims: u64) -> f64 {
    100.0 * hits as f64 / claims.max(1) as f64
}

/// A server with its default pool, or one without any.
fn start(bench: &Bench<'_>, args: &PoolOptions, warm: bool) -> Result<Lane, BenchError> {
    let data = bench.dir(if warm { "warm" } else { "cold" });
    create_private(&data)?;
    let script = data.join("script.toml");
    std::fs::write(&script, SCRIPT)?;
    let agent = clock_agent(&data, SLOTS)?;
    let config = config(args.agents_dir.as_deref(), &script, &agent, warm);
    Lane::start(&bench.place, data, SLOTS, &config, warm)
}

fn config(agents_dir: Option<&Path>, script: &Path, agent: &str, warm: bool) -> String {
    // A JSON string is one of TOML, too.
    let quoted = |path: &Path| json!(path.to_string_lossy());
    let agents_dir = agents_dir.map(|dir| format!("agents_dir = {}\n", quoted(dir)));
    let names = BuiltinAgent::ALL.into_iter().map(BuiltinAgent::as_str).chain([lane::AGENT]);
    let none = names.map(|name| format!("[pool.agents.{name}]\nmax = 0\n"));
    let none: String = none.collect();
    let pool = if warm { String::new() } else { format!("[pool]\ntotal = 0\n{none}") };
    let (agents_dir, script) = (agents_dir.unwrap_or_default(), quoted(script));
    format!("{agents_dir}[model]\nscript = {script}\n{pool}{agent}")
}

/// Built-in agents to measure: those that were asked for, or all that are installed.
async fn clis(lane: &Lane, args: &PoolOptions) -> Result<Vec<String>, BenchError> {
    chosen(&lane.fleet().await?, args.agents.as_deref())
}

fn chosen(fleet: &FleetView, asked: Option<&[String]>) -> Result<Vec<String>, BenchError> {
    let there = fleet.agents.iter().filter(|it| it.availability.available);
    let there = there.map(|it| it.agent.clone()).filter(|agent| agent != lane::AGENT);
    let there: Vec<String> = there.collect();
    let Some(asked) = asked else { return Ok(there) };
    if let Some(missing) = asked.iter().find(|agent| !there.contains(*agent)) {
        return Err(BenchError::failed(format!("the agent {missing} cannot run here"))
            .with_hint("`outpost agents install` installs one; --agents-dir says where they are"));
    }
    Ok(asked.to_vec())
}

/// What is sent to dispatch `agent`.
fn body(agent: &str, repo: Option<&Path>) -> String {
    let mut body = json!({
        "agent": agent, "task": "Leave a note.", "timeoutSeconds": AGENT_SECONDS,
    });
    if let Some(repo) = repo {
        body["repo"] = json!(repo.to_string_lossy());
    }
    body.to_string()
}

impl Measured {
    /// A third of everything.
    async fn round(
        &mut self,
        bench: &Bench<'_>,
        args: &PoolOptions,
        lanes: &[Lane; 2],
        repo: &Path,
    ) -> Result<(), BenchError> {
        let third = |count: u32| count.div_ceil(ROUNDS_COUNT as u32);
        for lane in lanes {
            lane.wait_until_quiet().await?;
        }
        let bodies = [body(lane::AGENT, None), body(lane::AGENT, Some(repo))];
        let mut ends = [lanes[0].connect().await?, lanes[1].connect().await?];
        // Mirrors and checkouts are made by the first who wants them, which is another bench's figure.
        for (lane, end) in lanes.iter().zip(&mut ends) {
            for body in &bodies {
                lane.run(end, body).await?;
            }
            lane.wait_until_quiet().await?;
        }
        let before = lanes[0].hits_and_claims().await?;
        for _ in 0..third(args.count) {
            for (body, times) in bodies.iter().zip(&mut self.clock) {
                for ((lane, end), times) in lanes.iter().zip(&mut ends).zip(times) {
                    times.add(&lane.run(end, body).await?, lane.warm)?;
                }
            }
        }
        let after = lanes[0].hits_and_claims().await?;
        self.alone = std::array::from_fn(|at| self.alone[at] + after[at] - before[at]);
        for (agent, times) in &mut self.clis {
            let body = body(agent, Some(repo));
            // The last agents took their time, and a connection that is not used is closed.
            let mut ends = [lanes[0].connect().await?, lanes[1].connect().await?];
            for _ in 0..third(args.cli_count) {
                for ((lane, end), times) in lanes.iter().zip(&mut ends).zip(times.iter_mut()) {
                    times.add_records(&lane.run(end, &body).await?, lane.warm);
                }
            }
        }
        for (at, count) in args.at_once.iter().copied().enumerate() {
            for (lane, bursts) in lanes.iter().zip(&mut self.bursts) {
                lane.wait_until_quiet().await?;
                bursts.add(at, lane.burst(count, &bodies[1], bench.ui).await?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pool_no_agent_has_one() {
        let text = |warm| config(Some(Path::new("/a")), Path::new("/s"), "[[agents]]\n", warm);
        assert_eq!(text(true), "agents_dir = \"/a\"\n[model]\nscript = \"/s\"\n[[agents]]\n");
        let cold = text(false);
        assert!(cold.contains("[pool]\ntotal = 0\n"));
        assert_eq!(cold.matches("max = 0").count(), BuiltinAgent::ALL.len() + 1);
    }

    #[test]
    fn only_agents_that_can_run_are_measured() {
        let agent = |name: &str, available| {
            json!({ "agent": name, "defaultModelId": "m", "tier": "fast", "concurrencyMax": 1,
                "resources": { "cpuMillis": 1, "memoryBytes": 1, "diskBytes": 1 }, "running": 0,
                "pinnedVersion": "1", "availability": { "available": available } })
        };
        let agents = [agent("clock", true), agent("codex", true), agent("grok", false)];
        let fleet: FleetView = serde_json::from_value(json!({
            "fleet": "local", "running": 0, "queued": 0, "concurrencyMax": 1,
            "scriptedModel": true, "agents": agents,
        }))
        .unwrap();
        assert_eq!(chosen(&fleet, None).unwrap(), ["codex"]);
        assert_eq!(chosen(&fleet, Some(&[])).unwrap(), [""; 0]);
        assert!(chosen(&fleet, Some(&["grok".to_owned()])).unwrap_err().message.contains("grok"));
    }
}
