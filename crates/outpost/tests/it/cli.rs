//! What needs no server: help, wrong usage, configuration, local commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the binary in an environment of its own.
pub(crate) struct Outpost {
    pub(crate) home: tempfile::TempDir,
}

impl Outpost {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join(".local/share/outpost")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outpost"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.home.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_is_short_has_examples_and_no_escape_sequences_in_a_pipe() {
    let outpost = Outpost::new();
    let help = outpost.run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = out(&help);
    for part in ["Examples:", "Exit codes:", "dispatch", "doctor", "OUTPOST_API_KEY"] {
        assert!(text.contains(part), "{part} is missing");
    }
    assert!(!text.contains('\x1b') && text.lines().count() < 80, "{text}");
    for command in [
        "dispatch",
        "run",
        "ls",
        "runs",
        "status",
        "logs",
        "events",
        "diff",
        "apply",
        "cancel",
        "agents",
        "secrets",
        "fleet",
        "doctor",
        "demo",
        "serve",
        "scripted",
        "completions",
    ] {
        let help = outpost.run(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        assert!(err(&help).is_empty(), "{command}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_what_to_do() {
    let outpost = Outpost::new();
    for (arguments, part) in [
        (vec![], "Usage"),
        (vec!["nonsense"], "nonsense"),
        (vec!["dispatch"], "there is no task"),
        (vec!["dispatch", "fix", "the", "test"], "quotes"),
        (vec!["dispatch", "x", "--timeout", "5s"], "--timeout"),
        (vec!["dispatch", "x", "--timeout", "soon"], "90s, 10m"),
        (vec!["dispatch", "x", "--network", "wide"], "--network"),
        (vec!["dispatch", "x", "--cancel-on-interrupt"], "--wait"),
        (vec!["ls", "--limit", "101"], "1 to 100"),
        (vec!["--server", "ftp://x", "ls"], "http"),
        (vec!["--server", "http://10.0.0.1", "ls"], "no API key"),
        (vec!["agents", "install"], "NAME"),
        (vec!["agents", "install", "codx"], "codx"),
        (vec!["demo", "--agent", "codx"], "codx"),
        (vec!["ls", "-q", "-v"], "cannot be used"),
    ] {
        let output = outpost.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains(part), "{arguments:?}: {}", err(&output));
        assert!(out(&output).is_empty(), "{arguments:?}");
    }
    assert!(!outpost.data_dir().exists(), "wrong usage leaves nothing behind");
}

#[test]
fn a_task_over_its_bound_is_refused_before_anything_starts() {
    let outpost = Outpost::new();
    let task = outpost.home.path().join("task.md");
    std::fs::write(&task, "x".repeat(51_201)).unwrap();
    let output = outpost.run(&["dispatch", "--task-file", "task.md"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("51200"));
    assert!(!outpost.data_dir().exists());
}

#[test]
fn errors_are_json_with_the_flag_json() {
    let outpost = Outpost::new();
    let output = outpost.run(&["dispatch", " ", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&err(&output)).unwrap();
    assert_eq!(value["error"]["code"], "usage");
    assert!(value["error"]["hint"].is_string());
}

#[test]
fn a_wrong_configuration_names_file_line_and_entry() {
    let outpost = Outpost::new();
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(&outpost.data_dir().join("config.toml"), "listen = \"127.0.0.1:0\"\nlisten_on = 1\n");
    for arguments in [vec!["serve"], vec!["ls"], vec!["agents", "ls"]] {
        let output = outpost.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = err(&output);
        assert!(text.contains("listen_on") && text.contains("line 2"), "{text}");
        assert!(text.contains("config.toml") && text.contains("--print-config"), "{text}");
    }
    let other = outpost.home.path().join("other.toml");
    write(&other, "[concurrency]\nhost = 0\n");
    let output = outpost.run(&["--config", "other.toml", "agents", "ls"]);
    assert!(err(&output).contains("concurrency"), "{}", err(&output));
    let output =
        outpost.command(&["agents", "ls", "--config", "/nonexistent.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = outpost
        .command(&["agents", "ls"])
        .env("OUTPOST_CONCURRENCY", "many")
        .env("OUTPOST_CONFIG", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_printed_configuration_is_accepted() {
    let outpost = Outpost::new();
    let printed = outpost.run(&["serve", "--print-config"]);
    assert_eq!(printed.status.code(), Some(0));
    std::fs::write(outpost.home.path().join("c.toml"), &printed.stdout).unwrap();
    let output = outpost.run(&["--config", "c.toml", "agents", "ls", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn agents_are_listed_without_a_server_and_without_keys_in_the_output() {
    let outpost = Outpost::new();
    let secret = "sk-very-secret";
    let output = outpost
        .command(&["agents", "ls", "--json"])
        .env("ANTHROPIC_API_KEY", secret)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let rows: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 5);
    assert_eq!(rows[0]["agent"], "claude");
    assert_eq!(rows[0]["keyPresent"], true);
    assert_eq!(rows[1]["keyPresent"], false);
    assert!(!out(&output).contains(secret));
    let table = outpost.run(&["agents", "ls"]);
    assert!(out(&table).contains("outpost agents install claude"));
}

#[test]
fn an_unreachable_server_is_said_to_be_with_a_hint() {
    let outpost = Outpost::new();
    let key = format!("otp_{}", "0".repeat(64));
    let output = outpost
        .command(&["--server", "http://127.0.0.1:9", "ls"])
        .env("OUTPOST_API_KEY", &key)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("hint:"), "{}", err(&output));
    assert!(!err(&output).contains(&key));
    let wrong = outpost
        .command(&["--server", "http://127.0.0.1:9", "ls"])
        .env("OUTPOST_API_KEY", "not-a-key")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(!err(&wrong).contains("not-a-key"));
}

#[test]
fn completions_exist_for_the_usual_shells() {
    let outpost = Outpost::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = outpost.run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains("dispatch"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let outpost = Outpost::new();
    let mut child = outpost
        .command(&["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(err(&output), "");
}

#[test]
fn the_scripted_provider_prints_its_example_and_refuses_a_wrong_script() {
    let outpost = Outpost::new();
    let example = outpost.run(&["scripted", "--print-example"]);
    assert!(out(&example).contains("[[rule]]"));
    std::fs::write(outpost.home.path().join("bad.toml"), "[[rule]]\nnam = 1\n").unwrap();
    let bad = outpost.run(&["scripted", "bad.toml"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(err(&bad).contains("nam") && err(&bad).contains("--print-example"), "{}", err(&bad));
}

#[test]
fn an_open_address_without_a_key_is_refused() {
    let outpost = Outpost::new();
    let output = outpost.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("no admin key") && err(&output).contains("umask"),
        "{}",
        err(&output)
    );
}
