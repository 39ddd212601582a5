//! The server as a process: starting, being found, being shared, ending.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{Outpost, err, out};

/// Longest wait for a condition, seconds.
const WAIT_SECONDS_MAX: u64 = 60;

struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    info: serde_json::Value,
}

impl Server {
    fn start(outpost: &Outpost, more: &[&str]) -> Self {
        let mut arguments = vec!["serve", "--json", "--listen", "127.0.0.1:0"];
        arguments.extend(more);
        let mut child = outpost
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        Self { child, _stdout: stdout, info: serde_json::from_str(&line).unwrap() }
    }

    fn end(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(WAIT_SECONDS_MAX);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_server_is_found_used_and_ends_cleanly() {
    let outpost = Outpost::new();
    let server = Server::start(&outpost, &["--model", "scripted"]);
    let url = server.info["url"].as_str().unwrap().to_owned();
    let key = outpost.data_dir().join("admin.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let ls = outpost.run(&["ls", "--json"]);
    assert_eq!(out(&ls).trim(), r#"{"items":[]}"#, "{}", err(&ls));
    // Named by its address it is the same server, so its own key is used.
    let fleet = outpost.run(&["--server", &url, "fleet", "--json"]);
    let fleet: serde_json::Value = serde_json::from_str(&out(&fleet)).unwrap();
    assert_eq!(fleet["scriptedModel"], true);
    let unknown = outpost.run(&["status", "01J9Z3NDEKTSV4RRFFQ69G5FAV"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("outpost ls"), "{}", err(&unknown));
    let second = outpost.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(err(&second).contains("already runs") && err(&second).contains(&url));
    assert_eq!(server.end(), Some(0));
    assert!(!outpost.data_dir().join("server.json").exists());
}

#[test]
fn a_dispatch_that_cannot_run_says_why() {
    let outpost = Outpost::new();
    let _server = Server::start(&outpost, &["--model", "scripted"]);
    let output = outpost.run(&["dispatch", "claude", "do it"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("outpost agents install claude"), "{}", err(&output));
    let output = outpost.run(&["dispatch", "do it"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("no agent is available"), "{}", err(&output));
    let output = outpost.run(&["dispatch", "nobody", "do it"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("claude"), "{}", err(&output));
}

#[test]
fn commands_at_the_same_time_start_one_server_and_it_ends_when_idle() {
    let outpost = Outpost::new();
    let children: Vec<Child> = (0..4)
        .map(|_| {
            outpost
                .command(&["fleet", "--json"])
                .env("OUTPOST_IDLE_EXIT_SECONDS", "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    }
    let log = std::fs::read_to_string(outpost.data_dir().join("server.log")).unwrap();
    assert_eq!(log.matches("ready").count(), 1, "{log}");
    let file = outpost.data_dir().join("server.json");
    wait_until("the server ends when nobody needs it", || !file.exists());
}

#[test]
fn what_a_killed_server_left_behind_does_not_mislead() {
    let outpost = Outpost::new();
    let mut server = Server::start(&outpost, &["--model", "scripted"]);
    let url = server.info["url"].as_str().unwrap().to_owned();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert!(outpost.data_dir().join("server.json").exists());
    // A look that needs no server finds none, and a new one takes its place.
    let doctor = outpost.run(&["doctor", "--json"]);
    assert!(out(&doctor).contains("not running"), "{}", out(&doctor));
    let next = Server::start(&outpost, &["--model", "scripted"]);
    assert_ne!(next.info["url"].as_str().unwrap(), url);
}

#[test]
fn a_server_that_cannot_start_is_explained_to_the_command_that_needs_it() {
    let outpost = Outpost::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    std::fs::create_dir_all(outpost.data_dir()).unwrap();
    std::fs::write(outpost.data_dir().join("config.toml"), format!("listen = \"{address}\"\n"))
        .unwrap();
    let output = outpost.run(&["ls"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains(&address) && err(&output).contains("server.log"),
        "{}",
        err(&output)
    );
}
