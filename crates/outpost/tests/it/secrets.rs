//! Secrets through the real program: a value goes in and is found nowhere in the clear.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use outpost_store::{AuditRange, Audits as _, SqliteOptions, SqliteStore};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::cli::{Outpost, err, out};

/// Looked for wherever it must not be.
const CANARY: &str = "canary-4711-canary";

/// A server that says everything it can, into a file.
struct Server<'a> {
    outpost: &'a Outpost,
    child: Child,
    url: String,
}

impl<'a> Server<'a> {
    fn start(outpost: &'a Outpost) -> Self {
        let log = File::options().create(true).append(true).open(log_of(outpost)).unwrap();
        let mut child = outpost
            .command(&["serve", "-v", "--json", "--listen", "127.0.0.1:0", "--model", "scripted"])
            .env("OUTPOST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let info: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { outpost, child, url: info["url"].as_str().unwrap().to_owned() }
    }

    fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
            self.child.wait().unwrap();
        }
    }

    /// Head and body of an answer.
    fn get(&self, path: &str) -> String {
        let address = self.url.strip_prefix("http://").unwrap();
        let key = std::fs::read_to_string(self.outpost.data_dir().join("admin.key")).unwrap();
        let key = key.trim();
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn log_of(outpost: &Outpost) -> PathBuf {
    outpost.home.path().join("server-said.log")
}

fn key_file(outpost: &Outpost) -> PathBuf {
    outpost.home.path().join(".config/outpost/secrets.key")
}

/// Runs a command with this on standard input.
fn piped(outpost: &Outpost, arguments: &[&str], input: &str) -> Output {
    let mut child = outpost
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its command line does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

/// Every file below `dir` that has `what` in it.
fn files_with(dir: &Path, what: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            found.extend(files_with(&path, what));
        } else if kind.is_file() && contains(&std::fs::read(&path).unwrap(), what) {
            found.push(path);
        }
    }
    found
}

fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", err(output));
    let said = format!("{}{}", out(output), err(output));
    assert!(!said.contains("canary"), "{said}");
    said
}

#[tokio::test]
async fn a_value_is_nowhere_in_the_clear() {
    let outpost = Outpost::new();
    let server = Server::start(&outpost);
    let set =
        piped(&outpost, &["secrets", "set", "DATABASE_URL", "--exposed"], &format!("{CANARY}\n"));
    assert!(ok(&set).contains("version 1"));
    let key = key_file(&outpost);
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for name in ["OPENAI_API_KEY", "DATABASE_URL"] {
        ok(&piped(&outpost, &["secrets", "set", name], CANARY));
    }
    let platform = ["secrets", "set", "XAI_API_KEY", "--platform", "--json"];
    assert!(ok(&piped(&outpost, &platform, CANARY)).contains(r#""scope":"platform""#));
    // What is refused says nothing of it either.
    for name in ["OPENAI_API_KEY", "XAI_API_KEY"] {
        let refused = piped(&outpost, &["secrets", "set", name], &format!("{CANARY} {CANARY}"));
        assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
        assert!(!err(&refused).contains("canary") && err(&refused).contains("visible ASCII"));
    }
    let listed = ok(&outpost.run(&["secrets", "ls"]));
    for part in ["DATABASE_URL", "exposed", "OPENAI_API_KEY", "XAI_API_KEY", "platform", "never"] {
        assert!(listed.contains(part), "{listed}");
    }
    let before = std::fs::read(&key).unwrap();
    assert!(ok(&outpost.run(&["secrets", "rekey"])).contains("4 values"));
    assert_ne!(std::fs::read(&key).unwrap(), before);
    for path in
        ["/secrets", "/runs", "/fleet", "/openapi.json", "/health/ready", "/secrets/OPENAI_API_KEY"]
    {
        let answer = server.get(path);
        assert!(answer.starts_with("HTTP/1.1") && !answer.contains("canary"), "{path}: {answer}");
    }
    ok(&outpost.run(&["secrets", "rm", "OPENAI_API_KEY"]));
    let again = outpost.run(&["secrets", "rm", "OPENAI_API_KEY"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("outpost secrets ls"), "{}", err(&again));
    // While it runs the log of the database is there too, and after it the database alone.
    assert_eq!(files_with(outpost.home.path(), "canary"), [] as [PathBuf; 0]);
    server.end();
    assert_eq!(files_with(outpost.home.path(), "canary"), [] as [PathBuf; 0]);
    assert!(std::fs::read_to_string(log_of(&outpost)).unwrap().contains("ready"));
    // The key is apart from the data.
    let key = std::fs::read_to_string(key).unwrap();
    let digits = key.lines().find(|line| !line.starts_with('#')).unwrap();
    assert_eq!(files_with(&outpost.data_dir(), digits), [] as [PathBuf; 0]);
    let store = SqliteStore::open(&SqliteOptions::new(outpost.data_dir(), 1)).unwrap();
    let rows = store.audit(AuditRange { after: 0, limit: 1_000 }).await.unwrap();
    let actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    let of = |action: &str| actions.iter().filter(|known| **known == action).count();
    assert_eq!((of("secret.set"), of("secret.deleted"), of("secret.rekeyed")), (4, 1, 1));
    assert!(rows.iter().all(|row| !format!("{row:?}").contains("canary")));
    store.verify_audit().await.unwrap().unwrap();
}

#[test]
fn a_key_file_that_is_open_or_lost_is_said_and_nothing_is_overwritten() {
    let outpost = Outpost::new();
    let server = Server::start(&outpost);
    ok(&piped(&outpost, &["secrets", "set", "DATABASE_URL", "--exposed"], CANARY));
    server.end();
    let key = key_file(&outpost);
    let good = std::fs::read(&key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    // It starts, and everything that needs no secret works.
    let _server = Server::start(&outpost);
    ok(&outpost.run(&["ls"]));
    let set = || piped(&outpost, &["secrets", "set", "DATABASE_URL"], CANARY);
    let refused = set();
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("chmod 600") && !err(&refused).contains("canary"));
    std::fs::rename(&key, key.with_extension("away")).unwrap();
    let refused = set();
    assert!(err(&refused).contains("is gone"), "{}", err(&refused));
    assert!(!key.exists());
    let rekey = outpost.run(&["secrets", "rekey", "--json"]);
    assert!(err(&rekey).contains("secrets_unavailable"), "{}", err(&rekey));
    assert!(ok(&outpost.run(&["secrets", "ls", "--json"])).contains(r#""version":1"#));
    // Put right, it is found without a restart.
    std::fs::rename(key.with_extension("away"), &key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(ok(&set()).contains("version 2"));
    assert_eq!(std::fs::read(&key).unwrap(), good);
    let said = std::fs::read_to_string(log_of(&outpost)).unwrap();
    assert!(said.contains("others may read the key file"), "{said}");
}

#[test]
fn a_key_inside_the_data_is_refused() {
    let outpost = Outpost::new();
    std::fs::create_dir_all(outpost.data_dir()).unwrap();
    let inside = outpost.data_dir().join("secrets.key");
    let config = format!("[secrets]\nkey_file = \"{}\"\n", inside.display());
    std::fs::write(outpost.data_dir().join("config.toml"), config).unwrap();
    let _server = Server::start(&outpost);
    let refused = piped(&outpost, &["secrets", "set", "DATABASE_URL"], CANARY);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("inside the data directory"), "{}", err(&refused));
    assert!(!inside.exists());
}

#[test]
fn a_value_in_the_command_line_is_refused_and_not_shown() {
    let outpost = Outpost::new();
    let assigned = format!("DATABASE_URL={CANARY}");
    for arguments in [
        vec!["secrets", "set", "DATABASE_URL", CANARY],
        vec!["secrets", "set", "DATABASE_URL", CANARY, CANARY, "--exposed"],
        vec!["secrets", "set", &assigned],
        vec!["secrets", "set", "DATABASE_URL", "--value", CANARY],
        vec!["secrets", "set", CANARY],
        vec!["secrets", "rm", CANARY],
    ] {
        let output = piped(&outpost, &arguments, CANARY);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        let said = format!("{}{}", out(&output), err(&output));
        assert!(!said.contains("canary"), "{arguments:?}: {said}");
    }
    let output = piped(&outpost, &["secrets", "set", "DATABASE_URL", CANARY], "");
    assert!(err(&output).contains("< FILE"), "{}", err(&output));
    let empty = piped(&outpost, &["secrets", "set", "DATABASE_URL"], "\n");
    assert!(err(&empty).contains("no value on standard input"), "{}", err(&empty));
    assert!(!outpost.data_dir().exists(), "nothing was started for it");
    let help = outpost.run(&["secrets", "set", "--help"]);
    assert!(out(&help).contains("Examples:") && !out(&help).contains("NOTHING"), "{}", out(&help));
}

/// At a terminal it asks, and shows nothing of what is typed.
#[test]
fn a_terminal_shows_nothing_of_what_is_typed() {
    let outpost = Outpost::new();
    let _server = Server::start(&outpost);
    for (typed, status) in [(format!("{CANARY}\r"), 0), (format!("{CANARY}\u{3}"), 1)] {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let other_end = File::options().read(true).write(true).open(path).unwrap();
        let mut child = outpost
            .command(&["secrets", "set", "DATABASE_URL", "--exposed"])
            .stdin(other_end.try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stderr.take().unwrap();
        let mut question = Vec::new();
        // Only once it has asked, the terminal shows nothing any more.
        while !question.ends_with(b"(not shown): ") {
            let mut byte = [0];
            said.read_exact(&mut byte).unwrap();
            question.extend(byte);
        }
        let mut terminal = File::from(terminal);
        terminal.write_all(typed.as_bytes()).unwrap();
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status), "{rest}");
        // The terminal shows again what comes after, and that is all it showed.
        terminal.write_all(b"after\n").unwrap();
        let mut shown = Vec::new();
        while !contains(&shown, "after") {
            let mut piece = [0; 64];
            let count = terminal.read(&mut piece).unwrap();
            shown.extend_from_slice(&piece[..count]);
        }
        drop(other_end);
        let shown = format!("{}{rest}", String::from_utf8_lossy(&shown));
        assert!(!shown.contains("canary"), "{shown}");
    }
    assert!(ok(&outpost.run(&["secrets", "ls", "--json"])).contains(r#""version":1"#));
    assert_eq!(files_with(outpost.home.path(), "canary"), [] as [PathBuf; 0]);
}
