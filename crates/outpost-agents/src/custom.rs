//! Agents the operator declares: any command that changes files in the current directory.
//!
//! Nothing is installed for them; the operator names what must be visible inside the sandbox. Bounded:
//! the counts and lengths checked in [`Custom::new`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use outpost_types::{AgentId, EventData, LogStreamName, Provider, Tier};
use serde::Deserialize;
use thiserror::Error;

use crate::agent::{
    Agent, AgentError, AgentProfile, CONCURRENCY_MAX, Invocation, RunSpec, SuccessRule,
};
use crate::aider::AiderParser;
use crate::codex::CodexParser;
use crate::environment;
use crate::gemini::GeminiParser;
use crate::installed::{Installed, Unavailable, is_plain_absolute};
use crate::messages::MessagesParser;
use crate::parse::{AgentReport, OutputParser, SUMMARY_BYTES_MAX, log, one_line};
use crate::plan::InstallPlan;

/// Most words of a command.
pub const COMMAND_WORDS_MAX: usize = 64;
/// Longest word of a command or value of a variable, bytes.
pub const WORD_BYTES_MAX: usize = 4_096;
/// Most variables, and most read-only paths.
pub const ENTRIES_MAX: usize = 64;

/// Placeholders of a command's words and of the values of its variables.
const PLACEHOLDERS: [&str; 4] = ["prompt_file", "model", "workdir", "base_url"];
/// Variables Outpost sets itself.
const RESERVED: [&str; 5] = ["HOME", "PATH", "TMPDIR", "USER", "LOGNAME"];
/// Parts of the host that are no business of an agent, whoever declares it.
const FORBIDDEN_ROOTS: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/etc", "/root/.ssh"];

/// One `[[agents]]` table of the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomAgentConfig {
    /// Its name in requests.
    pub name: String,
    /// Program and arguments. `{prompt_file}`, `{model}`, `{workdir}` and `{base_url}` are replaced.
    /// The program is an absolute path, or a name looked up in `PATH` inside the sandbox.
    pub command: Vec<String>,
    /// Variables of its environment; placeholders are replaced.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Model used when a request names none.
    #[serde(default)]
    pub model: Option<String>,
    /// Whose API it calls; none when absent.
    #[serde(default)]
    pub provider: Option<Provider>,
    /// Variable that gets the gateway's address for that provider.
    #[serde(default)]
    pub base_url_env: Option<String>,
    /// What follows that address, such as `/v1`.
    #[serde(default)]
    pub base_url_suffix: String,
    /// Variable that gets the key for the gateway.
    #[serde(default)]
    pub key_env: Option<String>,
    /// How its output is read.
    #[serde(default)]
    pub output: OutputFormat,
    /// What counts as success; by default the final event where the output has one, else the exit code.
    #[serde(default)]
    pub success: Option<SuccessRule>,
    /// The prompt comes on standard input too.
    #[serde(default)]
    pub stdin_prompt: bool,
    /// Size of its sandbox when a request names none.
    #[serde(default)]
    pub tier: Option<Tier>,
    /// Paths of the host it needs, read-only, at the same place.
    #[serde(default)]
    pub ro_paths: Vec<PathBuf>,
    /// Most runs at the same time, 1 to 1,000.
    #[serde(default)]
    pub concurrency_max: Option<u32>,
}

/// How the output of a declared agent is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputFormat {
    /// Lines of text.
    #[default]
    Text,
    /// As Claude Code prints with `--output-format stream-json`.
    ClaudeStreamJson,
    /// As Codex prints with `exec --json`.
    CodexJson,
    /// As Gemini CLI prints with `-o stream-json`.
    GeminiStreamJson,
    /// As Aider prints with `--no-pretty`.
    AiderText,
}

/// What is wrong with a declared agent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct CustomError {
    /// Field of the configuration.
    pub field: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> CustomError {
    CustomError { field: field.into(), problem: problem.into() }
}

/// An agent the operator declared.
#[derive(Debug)]
pub struct Custom {
    profile: AgentProfile,
    config: CustomAgentConfig,
}

impl Custom {
    /// Checks a declaration.
    ///
    /// # Errors
    /// [`CustomError`] naming the field.
    pub fn new(config: CustomAgentConfig) -> Result<Self, CustomError> {
        let id: AgentId = config
            .name
            .parse()
            .map_err(|error| wrong("name", format!("is not usable: {error}")))?;
        check_command(&config)?;
        check_env(&config)?;
        check_provider(&config)?;
        check_paths(&config)?;
        let concurrency_max = config.concurrency_max.unwrap_or(CONCURRENCY_MAX);
        if !(1..=1_000).contains(&concurrency_max) {
            return Err(wrong("concurrency_max", "must be 1 to 1000"));
        }
        let default_success = match config.output {
            OutputFormat::Text => SuccessRule::ExitCode,
            _ => SuccessRule::FinalEvent,
        };
        if config.output == OutputFormat::Text && config.success == Some(SuccessRule::FinalEvent) {
            return Err(wrong("success", "must be exit-code: text has no final event"));
        }
        Ok(Self {
            profile: AgentProfile {
                title: id.to_string(),
                id,
                default_model: config.model.clone().unwrap_or_default(),
                tier: config.tier.unwrap_or(Tier::Balanced),
                provider: config.provider,
                version: None,
                concurrency_max,
                licence: "the operator's own".to_owned(),
                success: config.success.unwrap_or(default_success),
            },
            config,
        })
    }
}

fn check_command(config: &CustomAgentConfig) -> Result<(), CustomError> {
    let program = config.command.first().map_or("", String::as_str);
    if program.is_empty() {
        return Err(wrong(
            "command",
            "must name a program, such as [\"/opt/agent\", \"{prompt_file}\"]",
        ));
    }
    if program.contains('/') && !is_plain_absolute(Path::new(program)) {
        return Err(wrong("command[0]", "must be an absolute path, or a name without a slash"));
    }
    if config.command.len() > COMMAND_WORDS_MAX {
        return Err(wrong("command", format!("must have at most {COMMAND_WORDS_MAX} words")));
    }
    for (index, word) in config.command.iter().enumerate() {
        check_word(&format!("command[{index}]"), word, config)?;
    }
    let has_prompt = config.command.iter().any(|word| word.contains("{prompt_file}"))
        || config.env.values().any(|value| value.contains("{prompt_file}"));
    if !has_prompt && !config.stdin_prompt {
        return Err(wrong(
            "command",
            "never gets the task: add {prompt_file}, or set stdin_prompt = true",
        ));
    }
    Ok(())
}

/// Checks length and placeholders of a word or value.
fn check_word(field: &str, word: &str, config: &CustomAgentConfig) -> Result<(), CustomError> {
    if word.len() > WORD_BYTES_MAX || word.contains('\0') {
        return Err(wrong(field, format!("must be at most {WORD_BYTES_MAX} bytes without NUL")));
    }
    for name in placeholders(word) {
        match name {
            "prompt" => {
                return Err(wrong(
                    field,
                    "uses {prompt}, which does not fit on a command line: use {prompt_file}",
                ));
            }
            "model" if config.model.is_none() => {
                return Err(wrong("model", "is missing, and {model} is used"));
            }
            "base_url" if config.provider.is_none() => {
                return Err(wrong("provider", "is missing, and {base_url} is used"));
            }
            _ if PLACEHOLDERS.contains(&name) => {}
            _ => {
                return Err(wrong(
                    field,
                    format!(
                        "uses {{{name}}}; known are {{prompt_file}}, {{model}}, {{workdir}}, {{base_url}}"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Names in braces: `{name}` of lower-case letters and underscores. Other braces are plain text.
fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.match_indices('{').filter_map(|(at, _)| {
        let (name, _) = word[at + 1..].split_once('}')?;
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        (!name.is_empty() && name.bytes().all(valid)).then_some(name)
    })
}

fn check_env(config: &CustomAgentConfig) -> Result<(), CustomError> {
    if config.env.len() > ENTRIES_MAX {
        return Err(wrong("env", format!("must have at most {ENTRIES_MAX} variables")));
    }
    for (name, value) in &config.env {
        check_variable(&format!("env.{name}"), name)?;
        check_word(&format!("env.{name}"), value, config)?;
    }
    Ok(())
}

fn check_variable(field: &str, name: &str) -> Result<(), CustomError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if !begins || name.len() > 128 || !name.bytes().all(valid) {
        return Err(wrong(field, "is no name of a variable: use letters, digits and _"));
    }
    if RESERVED.contains(&name) {
        return Err(wrong(field, "is set by Outpost; remove it"));
    }
    Ok(())
}

fn check_provider(config: &CustomAgentConfig) -> Result<(), CustomError> {
    let variables = [("base_url_env", &config.base_url_env), ("key_env", &config.key_env)];
    for (field, variable) in variables {
        let Some(variable) = variable else { continue };
        if config.provider.is_none() {
            return Err(wrong("provider", format!("is missing, and {field} is set")));
        }
        check_variable(field, variable)?;
    }
    let suffix = &config.base_url_suffix;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !suffix.is_empty() && (!suffix.starts_with('/') || !suffix.bytes().all(plain)) {
        return Err(wrong("base_url_suffix", "must be a path such as /v1"));
    }
    Ok(())
}

fn check_paths(config: &CustomAgentConfig) -> Result<(), CustomError> {
    if config.ro_paths.len() > ENTRIES_MAX {
        return Err(wrong("ro_paths", format!("must have at most {ENTRIES_MAX} paths")));
    }
    for (index, path) in config.ro_paths.iter().enumerate() {
        let field = format!("ro_paths[{index}]");
        if !is_plain_absolute(path) || path.to_str().is_none() {
            return Err(wrong(field, "must be an absolute path without . or .."));
        }
        if FORBIDDEN_ROOTS.iter().any(|root| path.starts_with(root)) {
            return Err(wrong(field, "may not be shown to an agent; copy what it needs elsewhere"));
        }
    }
    Ok(())
}

impl Agent for Custom {
    fn profile(&self) -> &AgentProfile {
        &self.profile
    }

    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
        Ok(None)
    }

    fn bring_your_own(&self) -> Option<&CustomAgentConfig> {
        Some(&self.config)
    }

    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError> {
        if self.profile.default_model.is_empty() && run.model_id.is_empty() {
            // A command without a model: the rest is checked with a stand-in.
            let model_id = "none".to_owned();
            RunSpec { model_id, ..run.clone() }.validate()?;
        } else {
            run.validate()?;
        }
        if run.session_id.is_some() {
            return Err(AgentError::NoResume(self.profile.id.clone()));
        }
        let base_url = self.profile.provider.map_or_else(String::new, |provider| {
            format!("{}{}", run.base_url(provider), self.config.base_url_suffix)
        });
        let fill = |word: &str| fill(word, run, &base_url);
        let mut invocation = environment::base(run, installed);
        invocation.argv = self.config.command.iter().map(|word| fill(word)).collect();
        for (name, value) in &self.config.env {
            invocation.set(name, fill(value));
        }
        if let Some(variable) = &self.config.base_url_env {
            invocation.set(variable, &base_url);
        }
        if let Some(variable) = &self.config.key_env {
            invocation.set(variable, &run.handle);
        }
        invocation.stdin_prompt = self.config.stdin_prompt;
        Ok(invocation)
    }

    fn session_paths(&self) -> &'static [&'static str] {
        &[]
    }

    fn parser(&self) -> Box<dyn OutputParser> {
        match self.config.output {
            OutputFormat::Text => Box::new(TextParser::default()),
            OutputFormat::ClaudeStreamJson => Box::new(MessagesParser::default()),
            OutputFormat::CodexJson => Box::new(CodexParser::default()),
            OutputFormat::GeminiStreamJson => Box::new(GeminiParser::default()),
            OutputFormat::AiderText => Box::new(AiderParser::default()),
        }
    }
}

/// Replaces placeholders in one pass, so that a value cannot bring in another placeholder.
fn fill(word: &str, run: &RunSpec, base_url: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let value = tail.split_once('}').and_then(|(name, after)| {
            let value = match name {
                "prompt_file" => run.prompt_path.as_str(),
                "model" => run.model_id.as_str(),
                "workdir" => run.workdir.as_str(),
                "base_url" => base_url,
                _ => return None,
            };
            Some((value, after))
        });
        match value {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether the command of a declared agent is there. See [`Installed::load`].
pub(crate) fn find(agent: &dyn Agent) -> Result<Installed, Unavailable> {
    let id = &agent.profile().id;
    let Some(config) = agent.bring_your_own() else {
        return Err(Unavailable::new(format!("{id} has no command")));
    };
    let program = Path::new(&config.command[0]);
    if program.is_absolute() && !program.is_file() {
        return Err(Unavailable::new(format!(
            "{} does not exist: correct `command` of agent {id} in the configuration",
            program.display()
        )));
    }
    if let Some(missing) = config.ro_paths.iter().find(|path| !path.exists()) {
        return Err(Unavailable::new(format!(
            "{} does not exist: correct `ro_paths` of agent {id} in the configuration",
            missing.display()
        )));
    }
    let mut ro_paths = config.ro_paths.clone();
    let visible =
        program.starts_with("/usr") || ro_paths.iter().any(|path| program.starts_with(path));
    if program.is_absolute() && !visible {
        ro_paths.push(program.to_owned());
    }
    Ok(Installed {
        agent: id.clone(),
        version: String::new(),
        root: None,
        command: Vec::new(),
        path_dirs: Vec::new(),
        ro_paths,
    })
}

/// Reader of plain text: every line is a log event; the last one that says something is the summary.
#[derive(Debug, Default)]
struct TextParser {
    report: AgentReport,
}

impl OutputParser for TextParser {
    fn line(&mut self, stream: LogStreamName, line: &str) -> Vec<EventData> {
        let text = one_line(line, SUMMARY_BYTES_MAX);
        if stream == LogStreamName::Stdout && !text.is_empty() {
            self.report.summary = Some(text);
        }
        vec![log(stream, line)]
    }

    fn finish(&mut self) -> AgentReport {
        std::mem::take(&mut self.report)
    }
}
