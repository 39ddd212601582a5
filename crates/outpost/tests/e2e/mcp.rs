//! The MCP server of the real binary: on streams as an assistant starts it, and over HTTP.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use outpost_types::{Api as _, ListQuery};

use crate::harness::{Repo, Server, agents_dir, has_cli, within};

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

/// What the model of the assistant says: to delegate, wait, look, and report.
const ASSISTANT: &str = r#"
[[rule]]
name = "an assistant that delegates"
when = { task_contains = "delegate this" }
steps = [
  { say = "Codex shall do it.", call = { tool = "dispatch", arguments = '{"agent": "codex", "task": "situation: edit"}' } },
  { call = { tool = "wait_run", arguments = '{"dispatchId": "{id}", "waitSeconds": 240}' } },
  { call = { tool = "get_diff", arguments = '{"dispatchId": "{id}"}' } },
  { call = { tool = "get_run", arguments = '{"dispatchId": "nonsense"}' } },
  { say = "It is done: a greeting in README.md." },
]
"#;

/// The real Claude Code, outside of any sandbox, as somebody has it at their desk.
fn claude(server: &Server, repo: &Repo, model: &str) -> Vec<Value> {
    let agent = outpost_agents::Registry::new(Vec::new()).unwrap();
    let agent = agent.get(&"claude".parse().unwrap()).unwrap();
    let installed = outpost_agents::Installed::load(&agents_dir(), agent.as_ref()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let own = json!({
        "command": env!("CARGO_BIN_EXE_outpost"), "args": ["mcp"],
        "env": {"OUTPOST_DATA_DIR": server.data()},
    });
    let output = Command::new(&installed.command[0])
        .args(&installed.command[1..])
        .args(["-p", "delegate this", "--output-format", "stream-json", "--verbose"])
        .args(["--dangerously-skip-permissions", "--strict-mcp-config", "--mcp-config"])
        .arg(json!({"mcpServers": {"outpost": own}}).to_string())
        .current_dir(repo.dir.path())
        .env_remove("OUTPOST_URL")
        .env_remove("OUTPOST_API_KEY")
        .env("HOME", home.path())
        .env("IS_SANDBOX", "1")
        .env("ANTHROPIC_BASE_URL", model)
        .env("ANTHROPIC_API_KEY", outpost_scripted::SCRIPTED_KEY)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
        // Otherwise it asks a search for the tools first, which is a conversation of its own.
        .env("ENABLE_TOOL_SEARCH", "false")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_delegates_to_codex_and_reads_the_diff() {
    if !has_cli("claude") || !has_cli("codex") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    let script = outpost_scripted::Script::parse(ASSISTANT).unwrap();
    let provider = outpost_scripted::ScriptedProvider::new(script);
    let model = provider.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", model.addr());
    let worked = tokio::task::spawn_blocking(move || {
        let said = claude(&server, &repo, &url);
        (said, server)
    });
    let (said, server) = within(worked).await.unwrap();
    let results: Vec<_> =
        said.iter().filter(|line| line["type"] == "user").map(Value::to_string).collect();
    assert_eq!(results.len(), 4, "{said:#?}");
    assert!(results[1].contains("COMPLETED"), "{}", results[1]);
    assert!(results[2].contains("+Hello from the agent: grüße, 你好"), "{}", results[2]);
    assert!(
        results[3].contains("is_error\":true") && results[3].contains("dispatchId"),
        "{}",
        results[3]
    );
    let last = said.last().unwrap();
    assert_eq!(last["result"], "It is done: a greeting in README.md.", "{last}");
    let runs = server.api.list_runs(ListQuery::default()).await.unwrap();
    assert_eq!(runs.items.len(), 1, "{runs:?}");
    assert_eq!(runs.items[0].agent, "codex");
}

/// A folder with the TypeScript SDK. Where it is not installed, the test is skipped and says so; in CI that
/// is a failure.
#[expect(clippy::print_stderr, reason = "a skip is said loudly")]
fn typescript_sdk() -> Option<PathBuf> {
    let dir = std::env::var_os("OUTPOST_TEST_MCP_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/mcp"),
        PathBuf::from,
    );
    if dir.join("node_modules/@modelcontextprotocol/sdk").is_dir() {
        return Some(dir);
    }
    let message = format!("the TypeScript SDK of MCP is not installed in {}", dir.display());
    assert!(std::env::var_os("CI").is_none(), "{message}, and CI may skip nothing");
    eprintln!("SKIPPED: {message}; `cargo xtask test` installs it");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_sdk_delegates_on_streams_and_over_http() {
    let Some(sdk) = typescript_sdk().filter(|_| has_cli("codex")) else {
        return;
    };
    let (server, repo) = (Server::start().await, Repo::new());
    let running = std::fs::read(server.data().join("server.json")).unwrap();
    let running: Value = serde_json::from_slice(&running).unwrap();
    let url = format!("{}/mcp", running["url"].as_str().unwrap());
    let key = server.data().join("admin.key").display().to_string();
    for over_http in [&[][..], &[url, key]] {
        let mut client = Command::new("node");
        client
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/client.mjs"))
            .args([env!("CARGO_BIN_EXE_outpost"), &repo.path()])
            .args(over_http)
            .env_remove("OUTPOST_URL")
            .env_remove("OUTPOST_API_KEY")
            .env("OUTPOST_DATA_DIR", server.data())
            .env("OUTPOST_TEST_MCP_DIR", &sdk);
        let output = tokio::task::spawn_blocking(move || client.output());
        let output = within(output).await.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
