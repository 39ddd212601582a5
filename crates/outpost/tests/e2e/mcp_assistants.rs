//! Assistants at somebody's desk: the real CLIs, outside of any sandbox, set up by `outpost mcp install`, use the
//! MCP server to have another agent do a task, from a mistake that they correct to the pull request.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outpost_types::{Api as _, ListQuery, PutSecret, SecretValue};
use serde_json::{Value, json};

use crate::harness::{Server, agents_dir, has_cli, within};
use crate::standin::{Standin, TOKEN, git};

/// A server, a code host that it may push to, and a checkout of a repository there.
pub(crate) struct Desk {
    pub(crate) server: Server,
    pub(crate) host: Standin,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        let host = Standin::start();
        git(&host.work(), &["remote", "set-url", "origin", &host.repo()]);
        let config = format!(
            "[forge.\"{}\"]\nkind = \"github\"\napi_url = \"{}\"\ntoken_secret = \"WORK_TOKEN\"\n",
            host.name(),
            host.api()
        );
        let server = Server::start_with(&[], &config).await;
        let value = SecretValue::new(TOKEN.into());
        let put = PutSecret { value, kind: None, scope: None };
        server.api.put_secret("WORK_TOKEN".parse().unwrap(), put).await.unwrap();
        Self { server, host }
    }

    /// The pull request of `branch` is there, of what the agent wrote, and there is no other of that branch.
    pub(crate) fn assert_promoted(&self, branch: &str) {
        let commit = self.host.branch(branch).unwrap();
        let readme = git(&self.host.bare(), &["show", &format!("{commit}:README.md")]);
        assert!(readme.contains("Hello from the agent: grüße, 你好"), "{readme}");
        let pulls = self.host.pulls();
        let own: Vec<_> = pulls.iter().filter(|pull| pull["head"]["ref"] == branch).collect();
        assert_eq!(own.len(), 1, "{pulls:?}");
        assert_eq!(own[0]["asked"]["title"], "A greeting", "{pulls:?}");
        assert_eq!(own[0]["asked"]["draft"], false, "{pulls:?}");
    }
}

/// What the assistants are asked for.
const TASK: &str = "delegate this";

/// What the model of an assistant says. It takes an agent that is not there, asks which there are, and then goes
/// all the way.
fn script(agent: &str) -> String {
    format!(
        r#"
[[rule]]
name = "an assistant that delegates"
when = {{ task_contains = "delegate this" }}
steps = [
  {{ say = "Kodex shall do it.", call = {{ tool = "dispatch", arguments = '{{"agent": "kodex", "task": "situation: edit"}}' }} }},
  {{ call = {{ tool = "fleet_status", arguments = '{{}}' }} }},
  {{ call = {{ tool = "dispatch", arguments = '{{"agent": "{agent}", "task": "situation: edit"}}' }} }},
  {{ call = {{ tool = "wait_run", arguments = '{{"dispatchId": "{{id}}", "waitSeconds": 240}}' }} }},
  {{ call = {{ tool = "get_diff", arguments = '{{"dispatchId": "{{id}}"}}' }} }},
  {{ call = {{ tool = "promote", arguments = '{{"dispatchId": "{{id}}", "branch": "greeting", "title": "A greeting", "draft": false}}' }} }},
  {{ say = "It is done: a greeting in README.md." }},
]
"#
    )
}

/// One call of a tool, as the assistant's own output tells it.
#[derive(Debug)]
struct Call {
    tool: String,
    arguments: Value,
    answer: String,
    failed: bool,
}

/// Whose CLI, and for Codex with which model: that decides how it offers tools.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Claude,
    Codex(&'static str),
    Gemini,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex(_) => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// Where it keeps its settings, and those it has before it is told of the server.
    fn settings(self, provider: &str) -> Option<(&'static str, String)> {
        match self {
            Self::Claude => None,
            Self::Codex(model) => Some((".codex/config.toml", codex_settings(model, provider))),
            Self::Gemini => Some((".gemini/settings.json", gemini_settings())),
        }
    }

    const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &[
                "-p",
                TASK,
                "--output-format",
                "stream-json",
                "--verbose",
                "--dangerously-skip-permissions",
            ],
            Self::Codex(_) => &[
                "exec",
                "--json",
                "--dangerously-bypass-approvals-and-sandbox",
                "--skip-git-repo-check",
                TASK,
            ],
            Self::Gemini => &[
                "-p",
                TASK,
                "--approval-mode",
                "yolo",
                "--skip-trust",
                "-o",
                "stream-json",
                "-m",
                "gemini-2.5-pro",
            ],
        }
    }

    fn environment(self, provider: &str) -> Vec<(&'static str, &str)> {
        let key = outpost_scripted::SCRIPTED_KEY;
        match self {
            Self::Claude => vec![
                ("ANTHROPIC_BASE_URL", provider),
                ("ANTHROPIC_API_KEY", key),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
                ("DISABLE_AUTOUPDATER", "1"),
                ("IS_SANDBOX", "1"),
            ],
            Self::Codex(_) => vec![("SCRIPTED_KEY", key)],
            Self::Gemini => vec![
                ("GOOGLE_GEMINI_BASE_URL", provider),
                ("GEMINI_API_KEY", key),
                ("GEMINI_CLI_NO_RELAUNCH", "true"),
                ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
            ],
        }
    }

    fn calls(self, said: &[Value]) -> Vec<Call> {
        match self {
            Self::Claude => calls_of_claude(said),
            Self::Codex(_) => calls_of_codex(said),
            Self::Gemini => calls_of_gemini(said),
        }
    }
}

/// A person's home and checkout.
struct Person {
    home: tempfile::TempDir,
    work: PathBuf,
}

impl Person {
    /// A program with nothing of the environment of this test.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.home.path()).env("CODEX_HOME", self.home.path().join(".codex"));
        command.current_dir(&self.work).stdin(Stdio::null());
        command
    }

    /// Tells the assistant of the server as the documentation says.
    fn install(&self, kind: Kind, data: &Path, provider: &str) {
        if let Some((path, text)) = kind.settings(provider) {
            let path = self.home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut install = self.command(env!("CARGO_BIN_EXE_outpost"));
        install.arg("--data-dir").arg(data).args(["mcp", "install", kind.name()]);
        let output = install.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Lets the assistant do the task, and answers the calls that it made.
    fn ask(&self, kind: Kind, provider: &str) -> Vec<Call> {
        let agents = outpost_agents::Registry::new(Vec::new()).unwrap();
        let agent = agents.get(&kind.name().parse().unwrap()).unwrap();
        let installed = outpost_agents::Installed::load(&agents_dir(), agent.as_ref()).unwrap();
        let mut command = self.command(&installed.command[0]);
        command.args(&installed.command[1..]).args(kind.flags());
        let output = command.envs(kind.environment(provider)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("It is done: a greeting in README.md."), "{said}");
        let lines: Vec<Value> =
            said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        kind.calls(&lines)
    }
}

fn codex_settings(model: &str, provider: &str) -> String {
    format!(
        r#"
model = "{model}"
model_provider = "scripted"
check_for_update_on_startup = false

[model_providers.scripted]
name = "scripted"
base_url = "{provider}/v1"
env_key = "SCRIPTED_KEY"
wire_api = "responses"

[analytics]
enabled = false

[features]
plugins = false
apps = false
"#
    )
}

fn gemini_settings() -> String {
    let auth = json!({"auth": {"selectedType": "gemini-api-key"}});
    let general = json!({"enableAutoUpdate": false});
    let privacy = json!({"usageStatisticsEnabled": false});
    json!({"security": auth, "general": general, "privacy": privacy}).to_string()
}

/// A text, or blocks of one.
fn text(content: &Value) -> String {
    match content {
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn calls_of_claude(said: &[Value]) -> Vec<Call> {
    let parts = |kind: &str| {
        let kind = kind.to_owned();
        let messages = said.iter().filter_map(|line| line["message"]["content"].as_array());
        messages.flatten().filter(move |part| part["type"] == kind)
    };
    let answered = |part: &Value| {
        let tool = part["name"].as_str()?.strip_prefix("mcp__outpost__")?.to_owned();
        let result = parts("tool_result").find(|result| result["tool_use_id"] == part["id"])?;
        let failed = result["is_error"] == true;
        let arguments = part["input"].clone();
        Some(Call { tool, arguments, answer: text(&result["content"]), failed })
    };
    parts("tool_use").filter_map(answered).collect()
}

fn calls_of_codex(said: &[Value]) -> Vec<Call> {
    let ended = said.iter().filter(|line| line["type"] == "item.completed");
    let items = ended.map(|line| &line["item"]).filter(|item| item["type"] == "mcp_tool_call");
    let call = |item: &Value| Call {
        tool: item["tool"].as_str().unwrap().to_owned(),
        arguments: item["arguments"].clone(),
        answer: text(&item["result"]["content"]),
        failed: item["status"] == "failed",
    };
    items.map(call).collect()
}

fn calls_of_gemini(said: &[Value]) -> Vec<Call> {
    let answered = |used: &Value| {
        let tool = used["tool_name"].as_str()?.strip_prefix("mcp_outpost_")?.to_owned();
        let ended = |line: &&Value| line["type"] == "tool_result";
        let mut results = said.iter().filter(ended);
        let result = results.find(|result| result["tool_id"] == used["tool_id"])?;
        let failed = result["status"] == "error";
        let answer = if failed { &result["error"]["message"] } else { &result["output"] };
        let arguments = used["parameters"].clone();
        Some(Call { tool, arguments, answer: text(answer), failed })
    };
    said.iter().filter(|line| line["type"] == "tool_use").filter_map(answered).collect()
}

fn assert_delegated(calls: &[Call]) {
    let tools: Vec<_> = calls.iter().map(|call| (call.tool.as_str(), call.failed)).collect();
    let good = |tool| (tool, false);
    let wanted = [
        ("dispatch", true),
        good("fleet_status"),
        good("dispatch"),
        good("wait_run"),
        good("get_diff"),
        good("promote"),
    ];
    assert_eq!(tools, wanted, "{calls:#?}");
    let told = |index: usize, what: &str| {
        assert!(calls[index].answer.contains(what), "{what}: {:#?}", calls[index]);
    };
    told(0, "fleet_status");
    told(1, "codex");
    told(3, "COMPLETED");
    told(4, "+Hello from the agent: grüße, 你好");
    told(5, "https://github.example/octo/hello/pull/1");
}

/// The conversation, for who runs the test with its output shown: docs/mcp.md has one.
#[expect(clippy::print_stdout, reason = "shown only when it is asked for, or the test fails")]
fn show(kind: Kind, calls: &[Call]) {
    for call in calls {
        println!("{kind:?} calls {} {}\n{}\n", call.tool, call.arguments, call.answer);
    }
}

async fn delegates(kind: Kind, agent: &'static str) {
    if !has_cli(kind.name()) || !has_cli(agent) {
        return;
    }
    let desk = Desk::new().await;
    let script = outpost_scripted::Script::parse(&script(agent)).unwrap();
    let provider = outpost_scripted::ScriptedProvider::new(script);
    let model = provider.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (url, data) = (model.url(), desk.server.data());
    let person = Person { home: tempfile::tempdir().unwrap(), work: desk.host.work() };
    let worked = tokio::task::spawn_blocking(move || {
        person.install(kind, &data, &url);
        person.ask(kind, &url)
    });
    let calls = within(worked).await.unwrap();
    show(kind, &calls);
    assert_delegated(&calls);
    desk.assert_promoted("greeting");
    let runs = desk.server.api.list_runs(ListQuery::default()).await.unwrap();
    assert_eq!(runs.items.len(), 1, "{runs:?}");
    assert_eq!(runs.items[0].agent, agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_has_codex_do_a_task_and_promotes_it() {
    delegates(Kind::Claude, "codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_has_claude_code_do_a_task_and_promotes_it() {
    delegates(Kind::Codex("gpt-5.5"), "claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_in_code_mode_has_gemini_do_a_task_and_promotes_it() {
    delegates(Kind::Codex("gpt-6-sol"), "gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_has_codex_do_a_task_and_promotes_it() {
    delegates(Kind::Gemini, "codex").await;
}
