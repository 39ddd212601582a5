//! Codex CLI, headless (`codex exec --json`), reading the prompt from standard input.
//!
//! Everything is set on the command line, which no configuration file overrides, and the repository's
//! own `.codex/` stays untrusted. The provider is a custom one: the built-in one tries a WebSocket and
//! the vendor's hosts first. The bypass flag turns the CLI's own sandbox off, because it runs in ours.

use std::collections::HashSet;

use outpost_types::{
    Attention, BuiltinAgent, EventData, LogStreamName, Provider, Tier, ToolPhase, Usage,
};
use serde_json::Value;

use crate::agent::{
    Agent, AgentError, AgentProfile, CONCURRENCY_MAX, Invocation, RunSpec, SuccessRule,
};
use crate::environment;
use crate::fault;
use crate::installed::Installed;
use crate::parse::{
    AgentReport, FinalStatus, NAME_BYTES_MAX, OutputParser, SUMMARY_BYTES_MAX, TEXT_BYTES_MAX,
    clean, id, log, message, object, one_line, raw, summary_of, text, thought, tokens, tool,
};
use crate::plan::{InstallPlan, Platform, Tool, VersionCheck, Word, npm_install, package_json};

/// npm package.
pub const PACKAGE: &str = "@openai/codex";
/// Installed and tested version.
pub const VERSION: &str = "0.169.0";
/// Model used when a request names none. The pinned CLI does not list it and uses its general
/// profile, saying so in an `error` item that is no failure.
pub const DEFAULT_MODEL: &str = "gpt-5.2-codex";
/// Tries after the first one of a request, and of a broken stream.
const RETRIES_MAX: u32 = 2;
/// Variable that holds the handle.
const KEY_VARIABLE: &str = "OUTPOST_MODEL_KEY";
/// Changed paths named in a summary.
const PATHS_MAX: usize = 8;
/// Most items whose start is remembered.
const OPEN_ITEMS_MAX: usize = 256;

/// The adapter.
#[derive(Debug)]
pub struct Codex {
    profile: AgentProfile,
}

impl Default for Codex {
    fn default() -> Self {
        Self {
            profile: AgentProfile {
                id: BuiltinAgent::Codex.into(),
                title: "Codex".to_owned(),
                default_model: DEFAULT_MODEL.to_owned(),
                tier: Tier::Balanced,
                provider: Some(Provider::Openai),
                version: Some(VERSION.to_owned()),
                concurrency_max: CONCURRENCY_MAX,
                licence: "Apache-2.0".to_owned(),
                success: SuccessRule::FinalEvent,
            },
        }
    }
}

impl Agent for Codex {
    fn profile(&self) -> &AgentProfile {
        &self.profile
    }

    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
        let platform = Platform::here(&self.profile.id)?;
        let native = format!(
            "node_modules/{PACKAGE}-linux-{}/vendor/{}-unknown-linux-musl",
            platform.npm, platform.triple
        );
        Ok(Some(InstallPlan {
            agent: self.profile.id.clone(),
            version: VERSION.to_owned(),
            tools: vec![Tool::Node, Tool::Npm],
            files: vec![package_json(PACKAGE, VERSION)],
            steps: vec![npm_install(PACKAGE, VERSION)],
            remove: vec![format!("{native}/codex-resources/voice")],
            checks: vec![
                format!("{native}/bin/codex-code-mode-host"),
                format!("{native}/codex-path/rg"),
            ],
            command: vec![Word::File(format!("{native}/bin/codex"))],
            path_dirs: vec![format!("{native}/codex-path")],
            version_check: VersionCheck {
                args: vec!["--version".to_owned()],
                expect: VERSION.to_owned(),
            },
            installed_bytes: 375_000_000,
        }))
    }

    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError> {
        run.validate()?;
        let mut invocation = environment::base(run, installed);
        invocation.args(["exec"]);
        if run.session_id.is_some() {
            invocation.args(["resume"]);
        }
        invocation.args([
            "--json",
            "--dangerously-bypass-approvals-and-sandbox",
            "--skip-git-repo-check",
            "--ignore-user-config",
        ]);
        for setting in settings(run) {
            invocation.args(["-c", &setting]);
        }
        if let Some(session) = &run.session_id {
            invocation.args([session.as_str()]);
        }
        invocation.args(["-"]);
        invocation.set(KEY_VARIABLE, &run.handle);
        invocation.stdin_prompt = true;
        Ok(invocation)
    }

    fn session_paths(&self) -> &'static [&'static str] {
        &[".codex/sessions"]
    }

    fn parser(&self) -> Box<dyn OutputParser> {
        Box::new(CodexParser::default())
    }
}

/// Settings as `-c key=value`, values in TOML. What goes into quotes was validated as a token or is ours.
fn settings(run: &RunSpec) -> [String; 9] {
    let base_url = run.base_url(Provider::Openai);
    [
        format!("model=\"{}\"", run.model_id),
        "model_provider=\"outpost\"".to_owned(),
        format!(
            "model_providers.outpost={{name=\"outpost\", base_url=\"{base_url}/v1\", \
             env_key=\"{KEY_VARIABLE}\", wire_api=\"responses\", \
             request_max_retries={RETRIES_MAX}, stream_max_retries={RETRIES_MAX}}}"
        ),
        "check_for_update_on_startup=false".to_owned(),
        "analytics.enabled=false".to_owned(),
        "features.plugins=false".to_owned(),
        "features.apps=false".to_owned(),
        // Declared with every call otherwise, and carried out by the provider: past the network of the run.
        "web_search=\"disabled\"".to_owned(),
        "hide_agent_reasoning=false".to_owned(),
    ]
}

/// Reader of `codex exec --json`.
#[derive(Debug, Default)]
pub(crate) struct CodexParser {
    report: AgentReport,
    started: HashSet<String>,
}

impl OutputParser for CodexParser {
    fn line(&mut self, stream: LogStreamName, line: &str) -> Vec<EventData> {
        let value = match stream {
            LogStreamName::Stdout => object(line),
            LogStreamName::Stderr => None,
        };
        value.and_then(|value| self.event(&value, line)).unwrap_or_else(|| vec![log(stream, line)])
    }

    fn finish(&mut self) -> AgentReport {
        std::mem::take(&mut self.report)
    }
}

impl CodexParser {
    /// Events of one JSON line; `None` when it is not understood.
    fn event(&mut self, value: &Value, line: &str) -> Option<Vec<EventData>> {
        match text(value, "type")? {
            "thread.started" => {
                self.report.session_id = id(value, "thread_id");
                Some(Vec::new())
            }
            "turn.started" => Some(Vec::new()),
            "item.started" => self.item(value.get("item")?, ToolPhase::Start, line),
            "item.completed" => self.item(value.get("item")?, ToolPhase::End, line),
            "item.updated" => Some(Vec::new()),
            "error" => Some(self.error(text(value, "message")?)),
            "turn.failed" => {
                let said =
                    value.get("error").and_then(|error| text(error, "message")).unwrap_or_default();
                self.report.finished = Some(FinalStatus::Failed);
                self.report.error = Some(fault::of_text(None, said));
                Some(Vec::new())
            }
            "turn.completed" => Some(self.completed(value.get("usage"), line)),
            _ => None,
        }
    }

    fn error(&mut self, said: &str) -> Vec<EventData> {
        if said.starts_with("Reconnecting") {
            return vec![EventData::Attention(Attention {
                code: "model_retry".to_owned(),
                message: format!(
                    "The model did not answer; the agent tries again: {}",
                    one_line(said, SUMMARY_BYTES_MAX)
                ),
            })];
        }
        self.report.error = Some(fault::of_text(None, said));
        Vec::new()
    }

    fn completed(&mut self, usage: Option<&Value>, line: &str) -> Vec<EventData> {
        self.report.finished = Some(FinalStatus::Completed);
        self.report.error = None;
        let Some(usage) = usage else {
            return Vec::new();
        };
        let cached = tokens(usage, "cached_input_tokens");
        let usage = Usage {
            // The CLI counts cached tokens as input too.
            input_tokens: tokens(usage, "input_tokens").saturating_sub(cached),
            cached_input_tokens: cached,
            output_tokens: tokens(usage, "output_tokens"),
            ..Usage::default()
        };
        self.report.usage = Some(usage.clone());
        vec![EventData::Usage { usage, raw: raw(line) }]
    }

    fn item(&mut self, item: &Value, phase: ToolPhase, line: &str) -> Option<Vec<EventData>> {
        let kind = text(item, "type")?;
        let end = phase == ToolPhase::End;
        match kind {
            "agent_message" => {
                let said = text(item, "text")?;
                if !end {
                    return Some(Vec::new());
                }
                self.report.summary = Some(clean(said, TEXT_BYTES_MAX));
                Some(message(said, line).into_iter().collect())
            }
            "reasoning" if end => Some(thought(text(item, "text")?, line).into_iter().collect()),
            "command_execution" | "file_change" | "mcp_tool_call" | "web_search"
            | "collab_tool_call" => Some(vec![self.tool(item, kind, phase, line)]),
            "todo_list" | "reasoning" => Some(Vec::new()),
            // Such as an unknown model name: a remark, not the end of the run.
            "error" => Some(vec![log(LogStreamName::Stdout, text(item, "message")?)]),
            _ => None,
        }
    }

    fn tool(&mut self, item: &Value, kind: &str, phase: ToolPhase, line: &str) -> EventData {
        let call = text(item, "id");
        let key = one_line(call.unwrap_or_default(), NAME_BYTES_MAX);
        let known = if phase == ToolPhase::Start {
            if self.started.len() < OPEN_ITEMS_MAX {
                self.started.insert(key);
            }
            false
        } else {
            self.started.remove(&key)
        };
        // The end of a call repeats what its start said.
        let summary = if known { None } else { item_summary(item, kind) };
        let failed = (phase == ToolPhase::End).then(|| {
            let code = item.get("exit_code").and_then(Value::as_i64);
            code.is_some_and(|code| code != 0) || text(item, "status") == Some("failed")
        });
        tool(kind, call, phase, summary, failed, line)
    }
}

fn item_summary(item: &Value, kind: &str) -> Option<String> {
    match kind {
        "file_change" => {
            let changes = item.get("changes")?.as_array()?;
            let mut paths: Vec<&str> =
                changes.iter().filter_map(|change| text(change, "path")).take(PATHS_MAX).collect();
            if changes.len() > PATHS_MAX {
                paths.push("…");
            }
            Some(one_line(&paths.join(", "), SUMMARY_BYTES_MAX))
        }
        "mcp_tool_call" => {
            let server = text(item, "server").unwrap_or_default();
            let name = text(item, "tool").unwrap_or_default();
            Some(one_line(&format!("{server} {name}"), SUMMARY_BYTES_MAX))
        }
        _ => summary_of(item),
    }
}
