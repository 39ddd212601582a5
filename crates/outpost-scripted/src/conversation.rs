//! What a request says, in terms that all four APIs share: the task, the working directory, the tools
//! offered, and how far the work has come.
//!
//! Everything is found in the request itself. Bounded by the request body (see `server`). Absent: any
//! memory of earlier requests.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::script::Dialect;

/// Longest part of a text that is searched for the working directory, bytes.
const DIRECTORY_SEARCH_BYTES_MAX: usize = 256 * 1024;

/// One thing in a conversation, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Instructions of the CLI.
    System(String),
    /// Text in the user's name; CLIs put context of their own there too.
    User(String),
    /// Text of an earlier answer.
    Assistant(String),
    /// A tool call of an earlier answer.
    Call,
    /// What a tool gave back.
    Result(String),
}

/// A tool the CLI offers.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// Of tools that came with one (Codex); a call says it again.
    pub(crate) namespace: Option<String>,
    pub(crate) description: String,
    /// Takes free text instead of JSON.
    pub(crate) custom: bool,
    pub(crate) schema: Value,
}

/// What kind of answer is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Purpose {
    /// The agent's own work.
    Work,
    /// One certain tool must be called (titles).
    ForcedTool(String),
    /// JSON of this schema (classifiers, titles).
    Json(Value),
    /// A text beside the work: a title, a summary, a commit message.
    Aside,
}

/// What a dialect's reader found in a request.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) dialect: Dialect,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) items: Vec<Item>,
    pub(crate) tools: Vec<Tool>,
    /// Whether more tools can be searched for (Codex).
    pub(crate) searchable: bool,
    /// What they were searched for already.
    pub(crate) searches: Vec<String>,
    pub(crate) forced_tool: Option<String>,
    pub(crate) json_schema: Option<Value>,
}

/// A request, understood.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) dialect: Dialect,
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// Last text of the user that is not context of the CLI.
    pub(crate) task: String,
    /// Absolute path, when the request tells it.
    pub(crate) directory: Option<String>,
    pub(crate) tools: Vec<Tool>,
    /// Whether more tools can be searched for.
    pub(crate) searchable: bool,
    /// What they were searched for already.
    pub(crate) searches: Vec<String>,
    pub(crate) purpose: Purpose,
    /// Results of each round of tool calls since the task, joined.
    pub(crate) rounds: Vec<String>,
    pub(crate) items: Vec<Item>,
    /// Characters of all texts.
    pub(crate) chars: usize,
}

impl Conversation {
    pub(crate) fn new(parsed: Parsed) -> Self {
        let (task_index, task) = find_task(&parsed.items);
        let rounds = rounds(&parsed.items[task_index..]);
        let directory = find_directory(&parsed.items);
        let chars = parsed.items.iter().map(|item| text_of(item).chars().count()).sum();
        let purpose = purpose(&parsed);
        Self {
            dialect: parsed.dialect,
            model: parsed.model,
            stream: parsed.stream,
            task,
            directory,
            tools: parsed.tools,
            searchable: parsed.searchable,
            searches: parsed.searches,
            purpose,
            rounds,
            items: parsed.items,
            chars,
        }
    }

    /// All instructions of the CLI.
    pub(crate) fn system_texts(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter_map(|item| match item {
            Item::System(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Identifies the work across retries: API, directory and task. Two attempts at one dispatch share it.
    pub(crate) fn identity(&self) -> u64 {
        let directory = self.directory.as_deref().unwrap_or("");
        let dialect = [self.dialect as u8];
        fingerprint(&[&dialect, directory.as_bytes(), self.task.as_bytes()])
    }
}

/// FNV-1a over the parts, each closed by a byte that text does not contain.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn text_of(item: &Item) -> &str {
    match item {
        Item::System(text) | Item::User(text) | Item::Assistant(text) | Item::Result(text) => text,
        Item::Call => "",
    }
}

fn purpose(parsed: &Parsed) -> Purpose {
    if let Some(name) = &parsed.forced_tool {
        return Purpose::ForcedTool(name.clone());
    }
    if let Some(schema) = &parsed.json_schema {
        return Purpose::Json(schema.clone());
    }
    if parsed.tools.is_empty() && is_aside(&parsed.items) {
        return Purpose::Aside;
    }
    Purpose::Work
}

/// Requests without tools that ask about the work instead of for it.
fn is_aside(items: &[Item]) -> bool {
    static ASIDE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?i)\b(commit messages?|session title|conversation title|title for (this|the)|dashboard|summari[sz]e (this|the) (conversation|session|chat))\b",
        )
        .expect("a constant pattern")
    });
    let first_system = items.iter().find_map(|item| match item {
        Item::System(text) => Some(text.as_str()),
        _ => None,
    });
    first_system.is_some_and(|text| ASIDE.is_match(text))
}

/// The last text of the user that is a task, and where it stands. Context that CLIs add in the user's
/// name does not count. Without any task the whole conversation counts as one.
fn find_task(items: &[Item]) -> (usize, String) {
    for (index, item) in items.iter().enumerate().rev() {
        if let Item::User(text) = item {
            let task = task_text(text);
            if !task.is_empty() {
                return (index, task);
            }
        }
    }
    (0, String::new())
}

/// Elements that CLIs put into user messages and that are not the user's words: Claude Code, Codex,
/// Gemini CLI and Grok in the versions Outpost pins.
const CONTEXT_TAGS: [&str; 11] = [
    "system-reminder",
    "environment_context",
    "session_context",
    "user_info",
    "rules",
    "user_instructions",
    "INSTRUCTIONS",
    "skills_instructions",
    "permissions instructions",
    "git_status",
    "project_layout",
];

/// Beginnings of messages that aider writes in the user's name.
const AIDER_CONTEXT: [&str; 5] = [
    "I have *added these files to the chat*",
    "I added these files to the chat:",
    "I switched to a new code base.",
    "Here are summaries of some files present in my git repository",
    "The SEARCH/REPLACE ",
];

/// What Claude Code adds in the user's name to the result of a search for tools.
const CLAUDE_SEARCHED: &str = "Tool loaded.";

/// What aider appends to a task in its whole-file format.
const AIDER_REMINDER: &str = "\n\nTo suggest changes to a file you MUST return";

fn task_text(text: &str) -> String {
    if AIDER_CONTEXT.iter().any(|start| text.trim_start().starts_with(start)) {
        return String::new();
    }
    let mut rest = text.to_owned();
    for tag in CONTEXT_TAGS {
        rest = without_element(rest, tag);
    }
    let rest = rest.split(AIDER_REMINDER).next().unwrap_or_default();
    let rest = rest.replace("<user_query>", "").replace("</user_query>", "");
    let rest = rest.trim();
    if rest == CLAUDE_SEARCHED || rest.starts_with("# AGENTS.md instructions for") {
        return String::new();
    }
    rest.to_owned()
}

fn without_element(text: String, tag: &str) -> String {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    if !text.contains(&open) {
        return text;
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(&open) {
        let Some(end) = rest[start..].find(&close) else {
            break;
        };
        kept.push_str(&rest[..start]);
        rest = &rest[start + end + close.len()..];
    }
    kept.push_str(rest);
    kept
}

/// Groups what follows the task into rounds: calls made together, and their results.
fn rounds(items: &[Item]) -> Vec<String> {
    let mut rounds: Vec<String> = Vec::new();
    let mut in_results = false;
    let mut called = false;
    for item in items {
        match item {
            Item::Call => {
                called = true;
                in_results = false;
            }
            Item::Result(text) => {
                if in_results && !called {
                    if let Some(last) = rounds.last_mut() {
                        last.push('\n');
                        last.push_str(text);
                    }
                } else {
                    rounds.push(text.clone());
                }
                in_results = true;
                called = false;
            }
            Item::Assistant(_) => in_results = false,
            Item::System(_) | Item::User(_) => {}
        }
    }
    rounds
}

/// The directory the agent works in, as its CLI tells the model.
fn find_directory(items: &[Item]) -> Option<String> {
    static DIRECTORY: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?m)(?:working directory|Workspace Path|working in the directory|cwd): *(/[^\n]*)$|<cwd>(/[^<\n]*)</cwd>|Workspace Directories:\*\*\n *- (/[^\n]*)$",
        )
        .expect("a constant pattern")
    });
    // The last mention wins: a session that goes on elsewhere says so later.
    items.iter().rev().find_map(|item| {
        let text = match item {
            Item::System(text) | Item::User(text) => text,
            _ => return None,
        };
        let end = text.floor_char_boundary(DIRECTORY_SEARCH_BYTES_MAX);
        let found = DIRECTORY.captures(&text[..end])?;
        let path = found.iter().skip(1).flatten().next()?.as_str().trim_end();
        Some(path.trim_end_matches('/').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Item {
        Item::User(text.to_owned())
    }

    fn result(text: &str) -> Item {
        Item::Result(text.to_owned())
    }

    #[test]
    fn context_is_not_the_task() {
        let items = [
            user("<environment_context>\n  <cwd>/w/repo</cwd>\n</environment_context>"),
            user("<user_query>\nDo it\n</user_query>"),
            Item::Call,
            result("ok"),
            user("<system-reminder>be kind</system-reminder>"),
        ];
        assert_eq!(find_task(&items), (1, "Do it".to_owned()));
        assert_eq!(find_directory(&items).as_deref(), Some("/w/repo"));
        let aider = [
            user("Do it\n\nTo suggest changes to a file you MUST return the entire content"),
            user("I added these files to the chat: calc.py"),
        ];
        assert_eq!(find_task(&aider), (0, "Do it".to_owned()));
    }

    #[test]
    fn rounds_join_parallel_calls() {
        let items = [
            user("x"),
            Item::Call,
            Item::Call,
            result("a"),
            result("b"),
            Item::Assistant("then".into()),
            Item::Call,
            result("c"),
            Item::Call,
            result("d"),
        ];
        assert_eq!(rounds(&items), ["a\nb", "c", "d"]);
    }

    #[test]
    fn every_cli_tells_its_directory() {
        let texts = [
            " - Primary working directory: /w/a b\n - Is",
            "  <cwd>/w/a b</cwd>",
            "- **Workspace Directories:**\n  - /w/a b\n- **Dir",
            "Shell: /bin/sh\nWorkspace Path: /w/a b\nToday",
        ];
        for text in texts {
            assert_eq!(find_directory(&[user(text)]).as_deref(), Some("/w/a b"), "{text}");
        }
        assert_eq!(find_directory(&[user("no directory: here")]), None);
    }

    #[test]
    fn asides_are_told_from_work() {
        let commit = Item::System("You generate concise, one-line Git commit messages".into());
        assert!(is_aside(&[commit, user("diff")]));
        assert!(!is_aside(&[Item::System("Act as an expert software developer.".into())]));
    }
}
