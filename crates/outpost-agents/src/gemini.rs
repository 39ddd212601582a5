//! Gemini CLI, headless, reading the prompt from standard input.
//!
//! Settings live in HOME; a repository's `.gemini/settings.json` and `.gemini/.env` would override
//! them, and no flag turns that off, so both are covered. `ignoreLocalEnv` keeps the CLI from reading
//! the repository's `.env`, which stays visible to its tools.

use outpost_types::{BuiltinAgent, EventData, LogStreamName, Provider, Tier, ToolPhase, Usage};
use serde_json::Value;

use crate::agent::{
    Agent, AgentError, AgentProfile, CONCURRENCY_MAX, Invocation, RunSpec, SuccessRule,
};
use crate::environment;
use crate::fault;
use crate::installed::Installed;
use crate::parse::{
    AgentReport, FinalStatus, NAME_BYTES_MAX, OutputParser, TEXT_BYTES_MAX, clean, cut, id, id_of,
    log, message, object, one_line, raw, summary_of, text, tokens, tool,
};
use crate::plan::{InstallPlan, Tool, VersionCheck, Word, npm_install, package_json};

/// npm package.
pub const PACKAGE: &str = "@google/gemini-cli";
/// Installed and tested version.
pub const VERSION: &str = "0.61.0";
/// Model used when a request names none. The CLI itself may ask for its successor.
pub const DEFAULT_MODEL: &str = "gemini-3-pro-preview";
/// Tries of one call to the model, the first included.
const ATTEMPTS_MAX: u32 = 3;
/// Most tool calls whose name is remembered until they end.
const OPEN_CALLS_MAX: usize = 256;

/// The adapter.
#[derive(Debug)]
pub struct Gemini {
    profile: AgentProfile,
}

impl Default for Gemini {
    fn default() -> Self {
        Self {
            profile: AgentProfile {
                id: BuiltinAgent::Gemini.into(),
                title: "Gemini CLI".to_owned(),
                default_model: DEFAULT_MODEL.to_owned(),
                tier: Tier::Balanced,
                provider: Some(Provider::Google),
                version: Some(VERSION.to_owned()),
                concurrency_max: CONCURRENCY_MAX,
                licence: "Apache-2.0".to_owned(),
                success: SuccessRule::FinalEvent,
            },
        }
    }
}

impl Agent for Gemini {
    fn profile(&self) -> &AgentProfile {
        &self.profile
    }

    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
        let bundle = format!("node_modules/{PACKAGE}/bundle/gemini.js");
        Ok(Some(InstallPlan {
            agent: self.profile.id.clone(),
            version: VERSION.to_owned(),
            tools: vec![Tool::Node, Tool::Npm],
            files: vec![package_json(PACKAGE, VERSION)],
            steps: vec![npm_install(PACKAGE, VERSION)],
            remove: Vec::new(),
            checks: vec![format!("node_modules/{PACKAGE}/package.json")],
            command: vec![Word::Tool(Tool::Node), Word::File(bundle)],
            path_dirs: Vec::new(),
            version_check: VersionCheck {
                args: vec!["--version".to_owned()],
                expect: VERSION.to_owned(),
            },
            installed_bytes: 100_000_000,
        }))
    }

    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError> {
        run.validate()?;
        let mut invocation = environment::base(run, installed);
        invocation.args([
            "--model",
            &run.model_id,
            "--approval-mode",
            "yolo",
            "--skip-trust",
            "--output-format",
            "stream-json",
        ]);
        if let Some(session) = &run.session_id {
            invocation.args(["--resume", session]);
        }
        invocation.set("GEMINI_API_KEY", &run.handle);
        invocation.set("GOOGLE_GEMINI_BASE_URL", run.base_url(Provider::Google));
        // Otherwise a second node process that swallows signals.
        invocation.set("GEMINI_CLI_NO_RELAUNCH", "true");
        invocation.set("GEMINI_CLI_TRUST_WORKSPACE", "true");
        invocation.set("GEMINI_SANDBOX", "false");
        // A poorer terminal is answered with warnings on every start.
        invocation.set("TERM", "xterm-256color");
        invocation.set("COLORTERM", "truecolor");
        invocation.home_file(".gemini/settings.json", settings().to_string());
        invocation.mask(".gemini/settings.json", "{}\n");
        invocation.mask(".gemini/.env", "");
        invocation.stdin_prompt = true;
        Ok(invocation)
    }

    fn session_paths(&self) -> &'static [&'static str] {
        &[".gemini/tmp", ".gemini/projects.json", ".gemini/history"]
    }

    fn parser(&self) -> Box<dyn OutputParser> {
        Box::new(GeminiParser::default())
    }
}

fn settings() -> Value {
    serde_json::json!({
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {
            "enableAutoUpdate": false,
            "enableAutoUpdateNotification": false,
            "maxAttempts": ATTEMPTS_MAX
        },
        "privacy": {"usageStatisticsEnabled": false},
        "telemetry": {"enabled": false},
        "advanced": {"ignoreLocalEnv": true},
        "tools": {"sandbox": false},
        "context": {"fileName": ["GEMINI.md", "AGENTS.md"]}
    })
}

/// Reader of `--output-format stream-json`. Messages arrive in pieces and are held, at most
/// [`TEXT_BYTES_MAX`] bytes, until something else comes.
#[derive(Debug, Default)]
pub(crate) struct GeminiParser {
    report: AgentReport,
    calls: std::collections::HashMap<String, String>,
    held: String,
    held_raw: String,
}

impl OutputParser for GeminiParser {
    fn line(&mut self, stream: LogStreamName, line: &str) -> Vec<EventData> {
        if stream == LogStreamName::Stderr {
            return vec![log(stream, line)];
        }
        let Some(value) = object(line) else {
            let mut events = self.flush();
            events.push(log(stream, line));
            return events;
        };
        if text(&value, "type") == Some("message") {
            return self.message(&value, line);
        }
        let mut events = self.flush();
        match self.event(&value, line) {
            Some(event) => events.extend(event),
            None => events.push(log(stream, line)),
        }
        events
    }

    fn flush(&mut self) -> Vec<EventData> {
        let (held, held_raw) = (std::mem::take(&mut self.held), std::mem::take(&mut self.held_raw));
        if held.trim().is_empty() {
            return Vec::new();
        }
        let event = message(&held, &held_raw);
        self.report.summary = Some(held);
        event.into_iter().collect()
    }

    fn finish(&mut self) -> AgentReport {
        std::mem::take(&mut self.report)
    }
}

impl GeminiParser {
    fn message(&mut self, value: &Value, line: &str) -> Vec<EventData> {
        if text(value, "role") == Some("user") {
            // The prompt, repeated.
            return Vec::new();
        }
        let said = text(value, "content").unwrap_or_default();
        let mut events = Vec::new();
        let delta = value.get("delta").and_then(Value::as_bool) == Some(true);
        if !delta || self.held.len() + said.len() > TEXT_BYTES_MAX {
            events = self.flush();
        }
        if self.held.is_empty() {
            line.clone_into(&mut self.held_raw);
            cut(&mut self.held_raw, crate::parse::RAW_BYTES_MAX);
        }
        self.held.push_str(&clean(said, TEXT_BYTES_MAX));
        if !delta {
            events.extend(self.flush());
        }
        events
    }

    /// The event of one JSON line; `None` when it is not understood.
    fn event(&mut self, value: &Value, line: &str) -> Option<Option<EventData>> {
        match text(value, "type")? {
            "init" => {
                self.report.session_id = id(value, "session_id");
                self.report.model_id = id(value, "model");
                Some(None)
            }
            "tool_use" => {
                let name = text(value, "tool_name")?;
                let call = text(value, "tool_id");
                if let Some(call) = call.filter(|_| self.calls.len() < OPEN_CALLS_MAX) {
                    self.calls
                        .insert(one_line(call, NAME_BYTES_MAX), one_line(name, NAME_BYTES_MAX));
                }
                let summary = value.get("parameters").and_then(summary_of);
                Some(Some(tool(name, call, ToolPhase::Start, summary, None, line)))
            }
            "tool_result" => {
                let call = text(value, "tool_id");
                let name = call
                    .and_then(|call| self.calls.remove(&one_line(call, NAME_BYTES_MAX)))
                    .unwrap_or_else(|| "tool".to_owned());
                let failed = text(value, "status") != Some("success");
                Some(Some(tool(&name, call, ToolPhase::End, None, Some(failed), line)))
            }
            "result" => Some(self.result(value, line)),
            _ => None,
        }
    }

    fn result(&mut self, value: &Value, line: &str) -> Option<EventData> {
        if text(value, "status") == Some("success") {
            self.report.finished = Some(FinalStatus::Completed);
            self.report.error = None;
        } else {
            self.report.finished = Some(FinalStatus::Failed);
            let said =
                value.get("error").and_then(|error| text(error, "message")).unwrap_or_default();
            self.report.error = Some(fault::of_text(None, said));
        }
        let stats = value.get("stats")?;
        let model = stats
            .get("models")
            .and_then(Value::as_object)
            .and_then(|models| {
                models.iter().max_by_key(|(_, figures)| tokens(figures, "output_tokens"))
            })
            .and_then(|(name, _)| id_of(name));
        if model.is_some() {
            self.report.model_id.clone_from(&model);
        }
        let cached = tokens(stats, "cached");
        let input = tokens(stats, "input_tokens");
        let usage = Usage {
            input_tokens: input.saturating_sub(cached),
            cached_input_tokens: cached,
            // Thinking is in the total only.
            output_tokens: tokens(stats, "output_tokens")
                .max(tokens(stats, "total_tokens").saturating_sub(input)),
            model_id: model,
            ..Usage::default()
        };
        if usage.input_tokens == 0 && usage.output_tokens == 0 {
            return None;
        }
        self.report.usage = Some(usage.clone());
        Some(EventData::Usage { usage, raw: raw(line) })
    }
}
