//! The MCP server of the real binary: on streams as an assistant starts it, and over HTTP.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Repo, Server, has_cli, within};
use crate::mcp_assistants::Desk;

/// `outpost mcp`, and a client made by hand.
struct Assistant {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    asked: u64,
    /// What came between question and answer.
    told: Vec<Value>,
}

impl Assistant {
    /// Starts it in a repository, for the data directory of a server.
    fn start(server: &Server, repo: &Repo) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outpost"))
            .arg("mcp")
            .current_dir(repo.dir.path())
            .env_remove("OUTPOST_URL")
            .env_remove("OUTPOST_API_KEY")
            .env("OUTPOST_DATA_DIR", server.data())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut own = Self { child, input, output, asked: 0, told: Vec::new() };
        let client = json!({"name": "test", "version": "1"});
        let begin =
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        let begun = own.ask("initialize", begin);
        assert_eq!(begun["result"]["protocolVersion"], "2025-06-18", "{begun}");
        own.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        own
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input.as_ref().unwrap(), "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended without an answer");
            // Nothing but the protocol may be on its standard output.
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id {
                return message;
            }
            self.told.push(message);
        }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let meta = json!({"progressToken": tool});
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        self.ask("tools/call", params)["result"].clone()
    }
}

impl Drop for Assistant {
    fn drop(&mut self) {
        drop(self.input.take());
        let ended = self.child.wait().unwrap();
        assert!(ended.success() || std::thread::panicking(), "{ended}");
    }
}

fn delegate(server: &Server, repo: &Repo) {
    let mut assistant = Assistant::start(server, repo);
    let asked = json!({"task": "situation: edit", "agent": "codex"});
    let run = assistant.call("dispatch", asked)["structuredContent"].clone();
    let path = std::fs::canonicalize(repo.dir.path()).unwrap().display().to_string();
    assert_eq!(run["repo"], path, "the repository it was started in: {run}");
    let id = run["dispatchId"].clone();
    let waited = assistant.call("wait_run", json!({"dispatchId": id, "waitSeconds": 240}));
    assert_eq!(waited["structuredContent"]["status"], "COMPLETED", "{waited}");
    let progress = |told: &&Value| told["method"] == "notifications/progress";
    assert!(assistant.told.iter().any(|told| progress(&told)), "{:?}", assistant.told);
    let diff = assistant.call("get_diff", json!({"dispatchId": id}));
    assert_eq!(diff["structuredContent"]["files"][0]["path"], "README.md", "{diff}");
    let text = diff["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("+Hello from the agent: grüße, 你好"), "{text}");
    let late = assistant.call("cancel_run", json!({"dispatchId": id}));
    assert_eq!(late["isError"], true);
    assert!(late["content"][0]["text"].as_str().unwrap().starts_with("already_finished"), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assistant_delegates_a_task_and_reads_what_came_of_it() {
    if !has_cli("codex") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let worked = tokio::task::spawn_blocking(move || {
        delegate(&server, &repo);
        server
    });
    drop(within(worked).await.unwrap());
}

/// Where the SDKs of MCP are.
fn sdk_dir() -> PathBuf {
    std::env::var_os("OUTPOST_TEST_MCP_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/mcp"),
        PathBuf::from,
    )
}

/// Whether the TypeScript SDK is there. Where it is not installed, the test is skipped and says so; in CI that
/// is a failure.
#[expect(clippy::print_stderr, reason = "a skip is said loudly")]
fn typescript_sdk() -> bool {
    let dir = sdk_dir();
    let found = dir.join("node_modules/@modelcontextprotocol/sdk").is_dir();
    if !found {
        let message = format!("the TypeScript SDK of MCP is not installed in {}", dir.display());
        assert!(std::env::var_os("CI").is_none(), "{message}, and CI may skip nothing");
        eprintln!("SKIPPED: {message}; `cargo xtask test` installs it");
    }
    found
}

/// The Python of an environment with the Python SDK; see [`typescript_sdk`].
#[expect(clippy::print_stderr, reason = "a skip is said loudly")]
fn python_sdk() -> Option<PathBuf> {
    let python = sdk_dir().join("python/bin/python");
    if python.exists() {
        return Some(python);
    }
    let message = format!("the Python SDK of MCP is not installed: no {}", python.display());
    assert!(std::env::var_os("CI").is_none(), "{message}, and CI may skip nothing");
    eprintln!("SKIPPED: {message}; `cargo xtask test` installs it");
    None
}

/// Lets a client of an SDK go from a task to a pull request, on streams and over HTTP.
async fn sdk_delegates(client: &[&OsStr]) {
    let desk = Desk::new().await;
    let repo = desk.host.work();
    let url = format!("{}/mcp", desk.server.api_url());
    let key = desk.server.data().join("admin.key");
    let over_http = [OsStr::new(&url), key.as_os_str()];
    for (branch, more) in [("streams", &[][..]), ("http", &over_http[..])] {
        let mut command = Command::new(client[0]);
        command
            .args(&client[1..])
            .arg(env!("CARGO_BIN_EXE_outpost"))
            .arg(&repo)
            .arg(branch)
            .args(more)
            .env_remove("OUTPOST_URL")
            .env_remove("OUTPOST_API_KEY")
            .env("OUTPOST_DATA_DIR", desk.server.data())
            .env("OUTPOST_TEST_MCP_DIR", sdk_dir())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = within(output).await.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        desk.assert_promoted(branch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_sdk_goes_from_a_task_to_a_pull_request() {
    if typescript_sdk() && has_cli("codex") {
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/client.mjs");
        sdk_delegates(&["node".as_ref(), client.as_ref()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_goes_from_a_task_to_a_pull_request() {
    if let Some(python) = python_sdk().filter(|_| has_cli("codex")) {
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/client.py");
        sdk_delegates(&[python.as_ref(), client.as_ref()]).await;
    }
}
