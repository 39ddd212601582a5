//! Warm workers, layers of repositories, setup commands: what waits for an attempt, and what it finds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outpost_types::{Api as _, DispatchStatus, PoolView, PutSecret, SecretKind};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Repo, Server, assert_status, request, within};

/// An agent without a model that runs the repository's script, and two workers that wait for it.
const CONFIG: &str = r#"
[concurrency]
host = 16
agents = { script = 12 }
[pool.agents.script]
min = 2
max = 4
[[agents]]
name = "script"
command = ["/bin/sh", "agent.sh"]
stdin_prompt = true
"#;
const WARM_MIN: u32 = 2;
/// Pause between two looks, milliseconds.
const LOOK_MILLIS: u64 = 5;

/// The pools of all agents that are installed.
async fn pools(server: &Server) -> BTreeMap<String, PoolView> {
    let agents = server.api.fleet().await.unwrap().agents.into_iter();
    agents.filter_map(|agent| Some((agent.agent, agent.pool?))).collect()
}

async fn pool(server: &Server) -> PoolView {
    pools(server).await.remove("script").unwrap()
}

/// Waits until nothing happens in any pool, and the script's is whole.
async fn until_rested(server: &Server) -> BTreeMap<String, PoolView> {
    within(async {
        loop {
            let pools = pools(server).await;
            if pools.values().all(is_rested) && pools["script"].idle >= WARM_MIN {
                return pools;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        }
    })
    .await
}

/// Nothing happens in it. The agents whose command is not installed have no workers.
fn is_rested(pool: &PoolView) -> bool {
    let whole = pool.idle == pool.target || pool.built == 0;
    whole && pool.starting + pool.stopping + pool.busy == 0
}

/// Each attempt gets a worker that nobody used before it, with its workspace, its secrets and its limits.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_takes_a_worker_that_waited() {
    let server = Server::start_with(&[], CONFIG).await;
    let repo = Repo::with_script(
        "cat README.md; [ \"$DATABASE_URL\" = postgres://somewhere ] && echo given; [ -e /tmp/used ] && echo again; touch /tmp/used; \
         echo changed > README.md; git status --short",
    );
    let value = serde_json::from_value("postgres://somewhere".into()).unwrap();
    let secret = PutSecret { value, kind: Some(SecretKind::Exposed), scope: None };
    server.api.put_secret("DATABASE_URL".parse().unwrap(), secret).await.unwrap();
    for hits in 1..=3 {
        until_rested(&server).await;
        let mut wanted = request("script", "x", &repo);
        wanted.secrets = vec!["DATABASE_URL".to_owned()];
        let view = server.run(wanted).await;
        assert_status(&server, &view, DispatchStatus::Completed).await;
        assert_eq!(view.timings.warm, Some(true));
        assert_eq!(view.files_changed, Some(1));
        let log = server.log(view.dispatch_id).await;
        assert_eq!(log, "# Title\ngiven\n M README.md\n");
        assert_eq!(pool(&server).await.hits, hits);
    }
    let mut other_size = request("script", "x", &repo);
    other_size.tier = Some(outpost_types::Tier::Flagship);
    let view = server.run(other_size).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert_eq!(view.timings.warm, Some(false));
    assert_eq!(pool(&server).await.misses.get("other_tier"), Some(&1));
    server.assert_nothing_left();
}

/// Setup commands run once for the same lock files; what they made is a layer for all later runs, and no part of
/// any run's changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_set_up_once_for_its_lock_file() {
    let server = Server::start_with(&[], CONFIG).await;
    let repo = Repo::with_script("cat .made/when; ls .made; echo x > new.txt");
    let write = |name: &str, text: &str| std::fs::write(repo.dir.path().join(name), text).unwrap();
    let commit = || {
        repo.git(&["add", "."]);
        repo.git(&["commit", "-qm", "Next"]);
    };
    write(".gitignore", ".made\n");
    write("deps.lock", "one\n");
    write(
        "outpost.toml",
        "[setup]\nlockfiles = [\"deps.lock\"]\n\
         commands = [\"mkdir .made\", \"date +%s%N > .made/when; cp deps.lock .made/\"]\n",
    );
    commit();
    let mut seen = Vec::new();
    for round in 0..4 {
        match round {
            // Another commit with the same lock file, then one with another.
            2 => write("README.md", "# Other\n"),
            3 => write("deps.lock", "two\n"),
            _ => {}
        }
        if round >= 2 {
            commit();
        }
        let view = server.run(request("script", "x", &repo)).await;
        assert_status(&server, &view, DispatchStatus::Completed).await;
        assert_eq!(view.timings.setup_millis.is_some(), round == 0 || round == 3, "round {round}");
        assert_eq!(view.files_changed, Some(1), "what setup made is no change of the run");
        seen.push(server.log(view.dispatch_id).await);
    }
    assert_eq!([&seen[1], &seen[2]], [&seen[0], &seen[0]]);
    assert_ne!(seen[3], seen[0]);

    write("outpost.toml", "[setup]\ncommands = [\"echo no such thing >&2; exit 3\"]\n");
    commit();
    // A dispatch's own take their place, and are as lasting.
    for round in 0..2 {
        let mut own = request("script", "x", &repo);
        own.setup = vec!["mkdir .made; date +%s%N > .made/when".into()];
        let view = server.run(own).await;
        assert_status(&server, &view, DispatchStatus::Completed).await;
        assert_eq!(view.timings.setup_millis.is_some(), round == 0, "round {round}");
    }
    let view = server.run(request("script", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.unwrap();
    assert!(failure.message.contains("exit code 3"), "{failure:?}");
    assert!(failure.hint.unwrap().contains("no such thing"));
    assert_eq!(view.attempt, 1, "trying again is no use");
    server.assert_nothing_left();
}

/// Workers that wait and workers at work are killed, attempts come in floods, the server is killed: every dispatch
/// ends once, no worker serves two, and at last as many wait as before, with nothing beside them.
#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_and_servers_leave_the_pool_whole() {
    const ROUNDS: u32 = 6;
    const FLOOD: usize = 10;
    let mut server = Server::start_with(&[], CONFIG).await;
    let repo = Repo::with_script(
        "[ -e /tmp/used ] && echo again; touch /tmp/used; echo began; sleep 0.2; echo ended",
    );
    let mut random = 88_172_645_463_325_252_u64;
    let mut dispatches = Vec::new();
    for round in 0..ROUNDS {
        for _ in 0..FLOOD {
            let created = server.api.create_dispatch(request("script", "x", &repo), None).await;
            dispatches.push(created.unwrap().dispatch.dispatch_id);
        }
        for _ in 0..FLOOD / 2 {
            kill_one(&server.data(), &mut random);
            // A moment of the server's own work.
            pools(&server).await;
        }
        if round % 3 == 1 {
            server = server.replace(Signal::KILL).await;
        }
    }
    for id in dispatches {
        let view = server.until(id, |view| view.status.is_terminal()).await;
        let log = server.log(id).await;
        assert!(!log.contains("again"), "a worker served two attempts: {log}");
        assert!(log.matches("began").count() <= 1, "an agent was started twice: {log}");
        assert!(view.status != DispatchStatus::Completed || log.contains("ended"), "{view:?}");
    }
    server.assert_nothing_left();
    let pools = until_rested(&server).await;
    let idle: u32 = pools.values().map(|pool| pool.idle).sum();
    let idle = usize::try_from(idle).unwrap();
    // The meter of disk limits is a child of the launcher, too.
    let children = children_of_launcher(&server.data());
    let names: Vec<_> = children.iter().map(|pid| sandbox_of(*pid)).collect();
    assert!((idle..=idle + 1).contains(&children.len()), "for {idle} workers there are {names:?}");
}

/// Kills one child of the server's launcher: a worker that waits, one at work, or its meter.
fn kill_one(data: &Path, random: &mut u64) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let children = children_of_launcher(data);
    if children.is_empty() {
        return;
    }
    let index = usize::try_from(*random % children.len() as u64).unwrap();
    // It may have ended by itself.
    let _gone = kill_process(children[index], Signal::KILL);
}

/// Processes that the launcher of this data directory started, and that have not ended.
fn children_of_launcher(data: &Path) -> Vec<Pid> {
    let socket = data.canonicalize().unwrap().join("launcher/socket");
    let of_it: Vec<_> = processes()
        .filter(|(_, path)| command_line(path).contains(&*socket.to_string_lossy()))
        .collect();
    let parent = |path: &Path| -> Option<(i32, String)> {
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let state = words.next()?.to_owned();
        Some((words.next()?.parse().ok()?, state))
    };
    let living = of_it.iter().filter_map(|(pid, path)| {
        let (parent, state) = parent(path)?;
        (state != "Z" && of_it.iter().any(|(other, _)| *other == parent)).then_some(*pid)
    });
    living.filter_map(Pid::from_raw).collect()
}

/// The name of the sandbox a process is in, which is that of its cgroup.
fn sandbox_of(pid: Pid) -> String {
    let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    let groups = std::fs::read_to_string(path).unwrap_or_default();
    let name =
        groups.lines().filter_map(|line| line.rsplit('/').next()).max_by_key(|name| name.len());
    name.unwrap_or_default().to_owned()
}

fn processes() -> impl Iterator<Item = (i32, PathBuf)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

fn command_line(process: &Path) -> String {
    let bytes = std::fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
