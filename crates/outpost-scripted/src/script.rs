//! What a script is, and how its file is read and checked.
//!
//! Bounded: every size, count and time in it. Absent: variables, loops, includes; a script is a list of
//! rules, read from top to bottom.

use std::path::Path;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::reply::Usage;

/// Largest script file, bytes.
pub const SCRIPT_BYTES_MAX: usize = 1024 * 1024;
/// Most rules in a script.
pub const RULES_MAX: usize = 256;
/// Most steps in a rule.
pub const STEPS_MAX: usize = 64;
/// Longest text of a step (what is said, run, or written), bytes. A command travels as one argument of a
/// process, which Linux limits to 128 KiB.
pub const STEP_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest delay before an answer, milliseconds.
pub const DELAY_MS_MAX: u64 = 600_000;
/// Longest delay between two pieces of a stream, milliseconds.
const CHUNK_DELAY_MS_MAX: u64 = 60_000;
/// Longest `retry_after_seconds`.
const RETRY_AFTER_SECONDS_MAX: u64 = 86_400;
/// Largest `times`, `at_step`, `cut_after_events` and the like.
const COUNT_MAX: u32 = 10_000;
/// Longest rule name, condition or path, bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Largest compiled regular expression, bytes.
const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Largest token count in `usage`.
const TOKENS_MAX: u64 = 1_000_000_000;
/// Characters of text per piece of a stream when the script does not say.
const CHUNK_CHARS_DEFAULT: usize = 48;

const DEMO: &str = include_str!("../scripts/demo.toml");

/// Why a script cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("cannot read the script {path}: check that the file exists and is readable")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is over [`SCRIPT_BYTES_MAX`].
    #[error("the script has {bytes} bytes, at most {SCRIPT_BYTES_MAX} are allowed: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not TOML, or a field that does not exist or has the wrong type.
    #[error("the script does not parse, correct this place: {0}")]
    Syntax(String),
    /// More than [`RULES_MAX`] rules, or none.
    #[error("the script has {0} rules, it needs 1 to {RULES_MAX}")]
    RuleCount(usize),
    /// A field of a rule has a value that cannot be used.
    #[error("rule {number} ({name}), field `{field}`: {problem}")]
    Field {
        /// Counted from 1.
        number: usize,
        /// The rule's name.
        name: String,
        /// The field.
        field: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

/// A checked script.
#[derive(Debug, Clone)]
pub struct Script {
    /// Tried from first to last.
    pub rules: Vec<Rule>,
}

/// What to answer when a condition holds.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Shown in the journal; `rule N` when the script gives none.
    pub name: String,
    /// The condition.
    pub when: When,
    /// The work, one tool call or text after the other.
    pub steps: Vec<Step>,
    /// What goes wrong instead.
    pub fault: Option<Fault>,
    /// Wait before every answer.
    pub delay: Duration,
    /// How text is cut into the pieces of a stream.
    pub pace: Pace,
    /// Token counts to report; estimated from the lengths when absent.
    pub usage: Option<Usage>,
}

/// All given parts must hold; an empty condition always holds.
#[derive(Debug, Clone, Default)]
pub struct When {
    /// Part of the task's text, in lower case; compared ignoring case.
    pub task_contains: Option<String>,
    /// Found somewhere in the task's text.
    pub task_regex: Option<Regex>,
    /// The model's name as requested.
    pub model: Option<String>,
    /// The API spoken.
    pub dialect: Option<Dialect>,
}

/// A model API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions.
    Chat,
    /// Gemini `generateContent`.
    Gemini,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Reasoning shown before the rest.
    pub think: Option<String>,
    /// Text for the reader.
    pub say: Option<String>,
    /// What to do with a tool.
    pub action: Option<Action>,
}

/// Something only a tool can do. Paths are relative to the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run a shell command in the repository.
    Run(String),
    /// Look at a file.
    Read(String),
    /// Make a file have this content.
    Write {
        /// The file.
        path: String,
        /// All of its content.
        content: String,
    },
    /// Replace the first place where `old` stands.
    Edit {
        /// The file.
        path: String,
        /// Exact text that is there.
        old: String,
        /// What replaces it.
        new: String,
    },
    /// Call a tool that a server of the Model Context Protocol gave the CLI.
    Call {
        /// Its own name, without what the CLI puts before it.
        tool: String,
        /// A JSON object. `{id}` in it becomes the id of a dispatch that was last seen in a result.
        arguments: String,
    },
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub kind: FaultKind,
    /// How often in one conversation; `None` is always.
    pub times: Option<u32>,
    /// Only at this step (tool results so far); `None` is at any.
    pub at_step: Option<u32>,
}

/// Kinds of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// An error answer in the dialect's own shape.
    Status {
        /// HTTP status, 400 to 599.
        status: u16,
        /// `Retry-After`, seconds.
        retry_after_seconds: Option<u64>,
        /// Text of the error.
        message: Option<String>,
    },
    /// The connection is cut after this many events of the stream.
    CutAfterEvents(u32),
    /// Nothing is answered until the test releases it or an hour has passed.
    Hang,
    /// As `Hang`, but after this many events of the stream.
    HangAfterEvents(u32),
}

/// How an answer is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Characters of text per piece.
    pub chunk_chars: usize,
    /// Wait before each event after the first.
    pub chunk_delay: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { chunk_chars: CHUNK_CHARS_DEFAULT, chunk_delay: Duration::ZERO }
    }
}

impl Script {
    /// Reads a script from its text.
    ///
    /// # Errors
    /// [`ScriptError`] names the rule and the field.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        if text.len() > SCRIPT_BYTES_MAX {
            return Err(ScriptError::TooLarge { bytes: text.len() });
        }
        let form: ScriptForm =
            toml::from_str(text).map_err(|error| ScriptError::Syntax(error.to_string()))?;
        if form.rule.is_empty() || form.rule.len() > RULES_MAX {
            return Err(ScriptError::RuleCount(form.rule.len()));
        }
        let rules = form
            .rule
            .into_iter()
            .enumerate()
            .map(|(index, rule)| rule.check(index + 1))
            .collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Reads a script from a file.
    ///
    /// # Errors
    /// [`ScriptError`], also when the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let read = |source| ScriptError::Read { path: path.display().to_string(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > SCRIPT_BYTES_MAX {
            return Err(ScriptError::TooLarge { bytes });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?)
    }

    /// The script of the demo.
    ///
    /// # Errors
    /// None in a released build: a test reads it.
    pub fn demo() -> Result<Self, ScriptError> {
        Self::parse(DEMO)
    }
}

impl When {
    /// Whether the condition holds.
    #[must_use]
    pub fn holds(&self, task: &str, model: &str, dialect: Dialect) -> bool {
        let contains = |part: &String| task.to_lowercase().contains(part.as_str());
        self.task_contains.as_ref().is_none_or(contains)
            && self.task_regex.as_ref().is_none_or(|regex| regex.is_match(task))
            && self.model.as_ref().is_none_or(|wanted| wanted == model)
            && self.dialect.is_none_or(|wanted| wanted == dialect)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptForm {
    #[serde(default)]
    rule: Vec<RuleForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    name: Option<String>,
    #[serde(default)]
    when: WhenForm,
    #[serde(default)]
    steps: Vec<StepForm>,
    fault: Option<FaultForm>,
    #[serde(default)]
    delay_ms: u64,
    stream: Option<StreamForm>,
    usage: Option<UsageForm>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WhenForm {
    task_contains: Option<String>,
    task_regex: Option<String>,
    model: Option<String>,
    dialect: Option<Dialect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepForm {
    think: Option<String>,
    say: Option<String>,
    run: Option<String>,
    read: Option<String>,
    write: Option<WriteForm>,
    edit: Option<EditForm>,
    call: Option<CallForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallForm {
    tool: String,
    arguments: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteForm {
    path: String,
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditForm {
    path: String,
    old: String,
    new: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultForm {
    status: Option<u16>,
    retry_after_seconds: Option<u64>,
    message: Option<String>,
    cut_after_events: Option<u32>,
    #[serde(default)]
    hang: bool,
    hang_after_events: Option<u32>,
    times: Option<u32>,
    at_step: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamForm {
    chunk_chars: Option<usize>,
    #[serde(default)]
    chunk_delay_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageForm {
    input_tokens: u64,
    #[serde(default)]
    cached_input_tokens: u64,
    output_tokens: u64,
}

/// Knows which rule is being checked, to say so in an error.
struct Checker {
    number: usize,
    name: String,
}

impl Checker {
    fn fail<T>(&self, field: &str, problem: impl Into<String>) -> Result<T, ScriptError> {
        Err(ScriptError::Field {
            number: self.number,
            name: self.name.clone(),
            field: field.to_owned(),
            problem: problem.into(),
        })
    }

    fn text(&self, field: &str, text: &str, bytes_max: usize) -> Result<(), ScriptError> {
        if text.len() > bytes_max {
            let problem = format!("has {} bytes, at most {bytes_max} are allowed", text.len());
            return self.fail(field, problem);
        }
        if text.contains('\0') {
            return self.fail(field, "contains a NUL character, which no shell or file name takes");
        }
        Ok(())
    }

    fn name(&self, field: &str, text: &str) -> Result<(), ScriptError> {
        if text.trim().is_empty() {
            return self.fail(field, "is empty: remove it or give it a value");
        }
        self.text(field, text, NAME_BYTES_MAX)
    }

    fn path(&self, field: &str, path: &str) -> Result<(), ScriptError> {
        self.name(field, path)?;
        let bad = path.starts_with(['/', '~', '-', '*'])
            || path.contains(['\n', '\r', '\\'])
            || path.split('/').any(|part| matches!(part, "" | "." | ".."));
        if bad {
            return self.fail(
                field,
                format!("`{path}` must be a plain path inside the repository, such as src/main.py"),
            );
        }
        Ok(())
    }

    fn at_most(&self, field: &str, value: u64, max: u64) -> Result<(), ScriptError> {
        if value > max {
            return self.fail(field, format!("is {value}, at most {max} is allowed"));
        }
        Ok(())
    }
}

impl RuleForm {
    fn check(self, number: usize) -> Result<Rule, ScriptError> {
        let name = match self.name {
            Some(name) => name,
            None => format!("rule {number}"),
        };
        let checker = Checker { number, name };
        checker.name("name", &checker.name)?;
        checker.at_most("delay_ms", self.delay_ms, DELAY_MS_MAX)?;
        if self.steps.is_empty() && self.fault.is_none() {
            return checker.fail("steps", "is missing: give the rule steps, a fault, or both");
        }
        if self.steps.len() > STEPS_MAX {
            let problem =
                format!("has {} steps, at most {STEPS_MAX} are allowed", self.steps.len());
            return checker.fail("steps", problem);
        }
        let mut steps = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.into_iter().enumerate() {
            steps.push(step.check(&checker, index + 1)?);
        }
        Ok(Rule {
            when: self.when.check(&checker)?,
            steps,
            fault: self.fault.map(|form| form.check(&checker)).transpose()?,
            delay: Duration::from_millis(self.delay_ms),
            pace: check_pace(self.stream, &checker)?,
            usage: self.usage.map(|form| form.check(&checker)).transpose()?,
            name: checker.name,
        })
    }
}

fn check_pace(form: Option<StreamForm>, checker: &Checker) -> Result<Pace, ScriptError> {
    let mut pace = Pace::default();
    if let Some(form) = form {
        if let Some(chars) = form.chunk_chars {
            if chars == 0 {
                return checker.fail("stream.chunk_chars", "is 0, at least 1 is needed");
            }
            pace.chunk_chars = chars;
        }
        checker.at_most("stream.chunk_delay_ms", form.chunk_delay_ms, CHUNK_DELAY_MS_MAX)?;
        pace.chunk_delay = Duration::from_millis(form.chunk_delay_ms);
    }
    Ok(pace)
}

impl WhenForm {
    fn check(self, checker: &Checker) -> Result<When, ScriptError> {
        if let Some(text) = &self.task_contains {
            checker.name("when.task_contains", text)?;
        }
        if let Some(text) = &self.model {
            checker.name("when.model", text)?;
        }
        let task_regex = match &self.task_regex {
            None => None,
            Some(text) => {
                checker.name("when.task_regex", text)?;
                let built = regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
                match built {
                    Ok(regex) => Some(regex),
                    Err(error) => return checker.fail("when.task_regex", error.to_string()),
                }
            }
        };
        Ok(When {
            task_contains: self.task_contains.map(|text| text.to_lowercase()),
            task_regex,
            model: self.model,
            dialect: self.dialect,
        })
    }
}

impl StepForm {
    fn check(self, checker: &Checker, number: usize) -> Result<Step, ScriptError> {
        let field = |name: &str| format!("steps[{number}].{name}");
        let texts = [("think", &self.think), ("say", &self.say), ("run", &self.run)];
        for (name, text) in texts {
            if let Some(text) = text {
                if text.is_empty() {
                    return checker.fail(&field(name), "is empty: remove it or give it a value");
                }
                checker.text(&field(name), text, STEP_TEXT_BYTES_MAX)?;
            }
        }
        let mut actions = Vec::new();
        actions.extend(self.run.map(Action::Run));
        if let Some(path) = self.read {
            checker.path(&field("read"), &path)?;
            actions.push(Action::Read(path));
        }
        if let Some(WriteForm { path, content }) = self.write {
            checker.path(&field("write.path"), &path)?;
            checker.text(&field("write.content"), &content, STEP_TEXT_BYTES_MAX)?;
            actions.push(Action::Write { path, content });
        }
        if let Some(EditForm { path, old, new }) = self.edit {
            checker.path(&field("edit.path"), &path)?;
            checker.name(&field("edit.old"), &old)?;
            checker.text(&field("edit.new"), &new, STEP_TEXT_BYTES_MAX)?;
            if old == new {
                return checker
                    .fail(&field("edit.new"), "is the same as `old`: nothing would change");
            }
            actions.push(Action::Edit { path, old, new });
        }
        if let Some(CallForm { tool, arguments }) = self.call {
            checker.name(&field("call.tool"), &tool)?;
            checker.text(&field("call.arguments"), &arguments, STEP_TEXT_BYTES_MAX)?;
            if !serde_json::from_str::<Value>(&arguments).is_ok_and(|value| value.is_object()) {
                return checker.fail(&field("call.arguments"), "is no JSON object");
            }
            actions.push(Action::Call { tool, arguments });
        }
        if actions.len() > 1 {
            let problem =
                "has more than one of run, read, write, edit and call: make a step of each";
            return checker.fail(&format!("steps[{number}]"), problem);
        }
        let step = Step { think: self.think, say: self.say, action: actions.pop() };
        if step.think.is_none() && step.say.is_none() && step.action.is_none() {
            let problem = "is empty: give it say, think, run, read, write, edit or call";
            return checker.fail(&format!("steps[{number}]"), problem);
        }
        Ok(step)
    }
}

impl FaultForm {
    fn check(self, checker: &Checker) -> Result<Fault, ScriptError> {
        let counts = [
            ("fault.cut_after_events", self.cut_after_events),
            ("fault.hang_after_events", self.hang_after_events),
            ("fault.times", self.times),
            ("fault.at_step", self.at_step),
        ];
        for (field, count) in counts {
            checker.at_most(field, u64::from(count.unwrap_or(0)), u64::from(COUNT_MAX))?;
        }
        let retry_after = self.retry_after_seconds.unwrap_or(0);
        checker.at_most("fault.retry_after_seconds", retry_after, RETRY_AFTER_SECONDS_MAX)?;
        if let Some(message) = &self.message {
            checker.text("fault.message", message, NAME_BYTES_MAX)?;
        }
        if self.status.is_none() && (self.retry_after_seconds.is_some() || self.message.is_some()) {
            return checker.fail("fault.status", "is missing: a message or Retry-After needs it");
        }
        let mut kinds = Vec::new();
        if let Some(status) = self.status {
            if !(400..=599).contains(&status) {
                return checker.fail("fault.status", format!("is {status}, it must be 400 to 599"));
            }
            kinds.push(FaultKind::Status {
                status,
                retry_after_seconds: self.retry_after_seconds,
                message: self.message,
            });
        }
        kinds.extend(self.cut_after_events.map(FaultKind::CutAfterEvents));
        kinds.extend(self.hang_after_events.map(FaultKind::HangAfterEvents));
        if self.hang {
            kinds.push(FaultKind::Hang);
        }
        let [kind] = kinds.as_slice() else {
            let problem = "needs exactly one of status, cut_after_events, hang, hang_after_events";
            return checker.fail("fault", problem);
        };
        Ok(Fault { kind: kind.clone(), times: self.times, at_step: self.at_step })
    }
}

impl UsageForm {
    fn check(self, checker: &Checker) -> Result<Usage, ScriptError> {
        checker.at_most("usage.input_tokens", self.input_tokens, TOKENS_MAX)?;
        checker.at_most("usage.output_tokens", self.output_tokens, TOKENS_MAX)?;
        if self.cached_input_tokens > self.input_tokens {
            let problem = "is more than input_tokens, of which it is a part";
            return checker.fail("usage.cached_input_tokens", problem);
        }
        Ok(Usage {
            input_tokens: self.input_tokens,
            cached_input_tokens: self.cached_input_tokens,
            output_tokens: self.output_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Script::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_script_is_valid() {
        let script = Script::demo().unwrap();
        assert!(script.rules[0].when.holds(
            "Please make the FAILING TEST pass",
            "m",
            Dialect::Chat
        ));
        assert!(script.rules[0].steps.len() >= 4);
    }

    #[test]
    fn an_error_names_the_rule_and_the_field() {
        let cases = [
            ("", "0 rules"),
            ("[[rule]]\nname = 'x'\n", "rule 1 (x), field `steps`"),
            ("[[rule]]\nsteps = [{}]", "field `steps[1]`: is empty"),
            ("[[rule]]\nsteps = [{ run = 'a', read = 'b' }]", "more than one of"),
            ("[[rule]]\nsteps = [{ say = 'a' }, { read = '../x' }]", "`steps[2].read`"),
            ("[[rule]]\nsteps = [{ write = { path = '/etc/x', content = '' } }]", "write.path"),
            ("[[rule]]\nsteps = [{ edit = { path = 'a', old = 'b', new = 'b' } }]", "edit.new"),
            ("[[rule]]\nfault = { status = 200 }", "400 to 599"),
            ("[[rule]]\nfault = { status = 500, hang = true }", "exactly one"),
            ("[[rule]]\nfault = { times = 1 }", "exactly one"),
            ("[[rule]]\nfault = { retry_after_seconds = 1, hang = true }", "fault.status"),
            ("[[rule]]\ndelay_ms = 600001\nsteps = [{ say = 'a' }]", "delay_ms"),
            ("[[rule]]\nwhen = { task_regex = '(' }\nsteps = [{ say = 'a' }]", "when.task_regex"),
            ("[[rule]]\nstream = { chunk_chars = 0 }\nsteps = [{ say = 'a' }]", "chunk_chars"),
            (
                "[[rule]]\nsteps = [{ say = 'a' }]\nusage = { input_tokens = 1, cached_input_tokens = 2, output_tokens = 1 }",
                "cached_input_tokens",
            ),
            ("[[rule]]\nsay = 'a'", "unknown field `say`"),
        ];
        for (text, expected) in cases {
            let message = problem(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(matches!(
            Script::parse(&"#".repeat(SCRIPT_BYTES_MAX + 1)),
            Err(ScriptError::TooLarge { .. })
        ));
        let rules = "[[rule]]\nsteps = [{ say = 'a' }]\n".repeat(RULES_MAX + 1);
        assert!(matches!(Script::parse(&rules), Err(ScriptError::RuleCount(257))));
        let long = "x".repeat(STEP_TEXT_BYTES_MAX + 1);
        assert!(
            problem(&format!("[[rule]]\nsteps = [{{ run = '{long}' }}]")).contains("steps[1].run")
        );
    }

    #[test]
    fn a_condition_needs_all_its_parts() {
        let script = Script::parse(
            "[[rule]]\nwhen = { task_contains = 'Fix', task_regex = '#\\d+', model = 'm', dialect = 'chat' }\nsteps = [{ say = 'a' }]",
        )
        .unwrap();
        let when = &script.rules[0].when;
        assert!(when.holds("please FIX #12", "m", Dialect::Chat));
        assert!(!when.holds("please FIX", "m", Dialect::Chat));
        assert!(!when.holds("please FIX #12", "n", Dialect::Chat));
        assert!(!when.holds("please FIX #12", "m", Dialect::Gemini));
    }
}
