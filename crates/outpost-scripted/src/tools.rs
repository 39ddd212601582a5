//! Maps a script's actions to calls of the tools a CLI offers.
//!
//! The CLI's own file tools are preferred, because that is what a model uses; everything else is done by
//! its shell tool. Absent: tools that need several calls for one action.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::conversation::{Conversation, Tool};
use crate::fill;
use crate::read::CLAUDE_SEARCH;
use crate::script::Action;

/// Longest wait for a command before Codex turns it into a background session, milliseconds; it allows
/// no more than this.
const CODEX_WAIT_MS: u64 = 30_000;
/// Longest run of a script of Codex's code mode before it becomes a background one, milliseconds.
const CODE_WAIT_MS: u64 = 600_000;
/// Tools that a search is to find.
const SEARCH_COUNT: u64 = 20;
/// Longest description of a step, characters.
const LABEL_CHARS_MAX: usize = 60;

/// The id of a dispatch.
static DISPATCH_ID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b").expect("a constant pattern that a test compiles")
});

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ToolCall {
    /// With JSON arguments.
    Function { name: String, namespace: Option<String>, arguments: Value },
    /// With free text (Codex).
    Custom { name: String, input: String },
    /// A search for tools that were not offered from the start (Codex).
    Search { query: String },
}

impl ToolCall {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Function { name, .. } | Self::Custom { name, .. } => name,
            Self::Search { .. } => "tool_search",
        }
    }

    /// Whether it only makes more tools known.
    pub(crate) fn is_search(&self) -> bool {
        matches!(self, Self::Search { .. }) || self.name() == CLAUDE_SEARCH
    }

    /// The arguments as JSON; free text is a text.
    pub(crate) fn arguments(&self) -> Value {
        match self {
            Self::Function { arguments, .. } => arguments.clone(),
            Self::Custom { input, .. } => json!(input),
            Self::Search { query } => json!({"query": query, "limit": SEARCH_COUNT}),
        }
    }

    /// The arguments as they travel.
    pub(crate) fn input(&self) -> String {
        match self {
            Self::Custom { input, .. } => input.clone(),
            Self::Function { .. } | Self::Search { .. } => self.arguments().to_string(),
        }
    }
}

const SHELLS: [&str; 8] = [
    "Bash",
    "exec_command",
    "run_terminal_command",
    "run_shell_command",
    "shell_command",
    "shell",
    "bash",
    "run_terminal_cmd",
];
const WRITERS: [&str; 4] = ["Write", "write_file", "write", "create_file"];
const EDITORS: [&str; 4] = ["Edit", "replace", "search_replace", "edit_file"];
const READERS: [&str; 2] = ["Read", "read_file"];
const PATH_PARAMETERS: [&str; 4] = ["file_path", "target_file", "path", "absolute_path"];

/// The call that carries out the action; `None` when the CLI offers nothing that could.
pub(crate) fn call(action: &Action, conversation: &Conversation) -> Option<ToolCall> {
    native(action, conversation).or_else(|| shell(&command(action), conversation))
}

/// Whether the CLI offers a tool that can carry out actions at all.
pub(crate) fn able(conversation: &Conversation) -> bool {
    shell("true", conversation).is_some()
        || find(conversation, &WRITERS).is_some()
        || find(conversation, &EDITORS).is_some()
}

/// Whether an edit of a file must be preceded by reading it with the CLI's own tool (Claude Code).
pub(crate) fn must_read_first(conversation: &Conversation) -> bool {
    find(conversation, &["Edit"]).is_some() && find(conversation, &["Read"]).is_some()
}

fn find<'a>(conversation: &'a Conversation, names: &[&str]) -> Option<&'a Tool> {
    names
        .iter()
        .find_map(|name| conversation.tools.iter().find(|tool| tool.name == *name && !tool.custom))
}

fn find_custom<'a>(conversation: &'a Conversation, name: &str) -> Option<&'a Tool> {
    conversation.tools.iter().find(|tool| tool.name == name && tool.custom)
}

fn declares(tool: &Tool, parameter: &str) -> bool {
    tool.schema.pointer("/properties").is_some_and(|list| list.get(parameter).is_some())
}

fn native(action: &Action, conversation: &Conversation) -> Option<ToolCall> {
    let label = label(action);
    let (names, path, texts): (&[&str], &str, &[(&str, &str)]) = match action {
        Action::Run(_) => return None,
        Action::Call { tool, arguments } => return offered(tool, arguments, conversation),
        Action::Read(path) => (&READERS, path, &[]),
        Action::Write { path, content } => {
            if let Some(patch) = patch(path, content)
                && let Some(call) = apply_patch(patch, conversation)
            {
                return Some(call);
            }
            (&WRITERS, path, &[("content", content)])
        }
        Action::Edit { path, old, new } => {
            (&EDITORS, path, &[("old_string", old), ("new_string", new)])
        }
    };
    let tool = find(conversation, names)?;
    let parameter = PATH_PARAMETERS.into_iter().find(|name| declares(tool, name))?;
    if !texts.iter().all(|(name, _)| declares(tool, name)) {
        return None;
    }
    // File tools want absolute paths, or take the path from wherever they stand.
    let directory = conversation.directory.as_deref()?;
    let mut arguments = Map::new();
    arguments.insert(parameter.to_owned(), json!(format!("{directory}/{path}")));
    for (name, text) in texts {
        arguments.insert((*name).to_owned(), json!(text));
    }
    Some(complete(tool, arguments, &label))
}

/// Adds what the tool insists on and the script does not know.
fn complete(tool: &Tool, mut arguments: Map<String, Value>, label: &str) -> ToolCall {
    let required = tool.schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !arguments.contains_key(name) {
            let pointer = tool.schema.pointer("/properties").and_then(|list| list.get(name));
            let value = fill::value(pointer.unwrap_or(&Value::Null), label);
            arguments.insert(name.to_owned(), value);
        }
    }
    function(tool, Value::Object(arguments))
}

fn function(tool: &Tool, arguments: Value) -> ToolCall {
    ToolCall::Function { name: tool.name.clone(), namespace: tool.namespace.clone(), arguments }
}

fn shell(command: &str, conversation: &Conversation) -> Option<ToolCall> {
    if let Some(tool) = find(conversation, &SHELLS) {
        let parameter = if declares(tool, "cmd") { "cmd" } else { "command" };
        let kind = tool.schema.pointer(&format!("/properties/{parameter}/type"));
        let value = if kind == Some(&json!("array")) {
            json!(["bash", "-c", command])
        } else {
            json!(command)
        };
        let mut arguments = Map::new();
        arguments.insert(parameter.to_owned(), value);
        if declares(tool, "description") {
            arguments.insert("description".to_owned(), json!(shorten(command)));
        }
        if declares(tool, "yield_time_ms") {
            arguments.insert("yield_time_ms".to_owned(), json!(CODEX_WAIT_MS));
        }
        return Some(complete(tool, arguments, &shorten(command)));
    }
    // Codex in code mode: one tool that runs JavaScript, in which the others are functions.
    let tool = find_custom(conversation, "exec")?;
    let arguments = json!({"cmd": command, "yield_time_ms": CODEX_WAIT_MS});
    Some(ToolCall::Custom {
        name: tool.name.clone(),
        input: format!("const r = await tools.exec_command({arguments}); text(JSON.stringify(r));"),
    })
}

fn apply_patch(patch: String, conversation: &Conversation) -> Option<ToolCall> {
    if let Some(tool) = find_custom(conversation, "apply_patch") {
        return Some(ToolCall::Custom { name: tool.name.clone(), input: patch });
    }
    let tool = find_custom(conversation, "exec")?;
    if !tool.description.contains("apply_patch") {
        return None;
    }
    let patch = json!(patch);
    Some(ToolCall::Custom {
        name: tool.name.clone(),
        input: format!("const r = await tools.apply_patch({patch}); text(JSON.stringify(r));"),
    })
}

/// A patch in Codex's format that makes the file; `None` if the format cannot say this content.
fn patch(path: &str, content: &str) -> Option<String> {
    let body = content.strip_suffix('\n')?;
    if content.contains('\r') {
        return None;
    }
    let mut patch = format!("*** Begin Patch\n*** Add File: {path}\n");
    for line in body.split('\n') {
        patch.push('+');
        patch.push_str(line);
        patch.push('\n');
    }
    patch.push_str("*** End Patch\n");
    Some(patch)
}

/// A tool under whatever name the CLI offers it: its own with the server's before it. Where a CLI offers
/// tools of servers only after a search, or only to scripts, it is searched for, or called by a script.
fn offered(name: &str, arguments: &str, conversation: &Conversation) -> Option<ToolCall> {
    let own = |tool: &&Tool| {
        tool.name.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    };
    let tool = conversation.tools.iter().filter(|tool| !tool.custom).find(own);
    let seen =
        conversation.rounds.iter().rev().find_map(|round| DISPATCH_ID.find_iter(round).last());
    let arguments = arguments.replace("{id}", seen.map_or("", |id| id.as_str()));
    let arguments: Value = serde_json::from_str(&arguments).ok()?;
    if let Some(tool) = tool {
        return Some(function(tool, arguments));
    }
    if let Some(exec) = find_custom(conversation, "exec") {
        let (name, end) = (json!(name), json!(format!("__{name}")));
        return Some(ToolCall::Custom {
            name: exec.name.clone(),
            input: format!(
                "// @exec: {{\"yield_time_ms\": {CODE_WAIT_MS}}}\n\
                 const own = ALL_TOOLS.find(t => t.name === {name} || t.name.endsWith({end}));\n\
                 text(JSON.stringify(await tools[own.name]({arguments})));"
            ),
        });
    }
    search(name, conversation)
}

/// A search for a tool, once.
fn search(name: &str, conversation: &Conversation) -> Option<ToolCall> {
    let unseen = |query: &String| !conversation.searches.contains(query);
    if !conversation.searchable {
        return None;
    }
    let Some(search) = find(conversation, &[CLAUDE_SEARCH]) else {
        let query = Some(name.replace('_', " ")).filter(unseen)?;
        return Some(ToolCall::Search { query });
    };
    // Claude Code tells the names of all tools, each on a line.
    let end = format!("__{name}");
    let lines = conversation.system_texts().flat_map(str::lines);
    let whole =
        lines.map(str::trim).find(|line| line.starts_with("mcp__") && line.ends_with(&end))?;
    let query = Some(format!("select:{whole}")).filter(unseen)?;
    Some(function(search, json!({"query": query, "max_results": SEARCH_COUNT})))
}

/// The action as a POSIX shell command, exact to the byte.
pub(crate) fn command(action: &Action) -> String {
    match action {
        Action::Run(command) => command.clone(),
        Action::Call { tool, .. } => {
            format!("echo {} >&2; exit 1", quote(&format!("there is no tool {tool}")))
        }
        Action::Read(path) => format!("cat -- {}", quote(path)),
        Action::Write { path, content } => {
            let parent = match path.rsplit_once('/') {
                Some((parent, _)) => format!("mkdir -p -- {} && ", quote(parent)),
                None => String::new(),
            };
            format!("{parent}printf %s {} > {}", quote(content), quote(path))
        }
        // The trailing x keeps newlines at the end of the file, which $( ) would take away.
        Action::Edit { path, old, new } => format!(
            "f={}; old={}; new={}; c=$(cat -- \"$f\"; printf x); c=${{c%x}}; case $c in \
             *\"$old\"*) printf %s \"${{c%%\"$old\"*}}$new${{c#*\"$old\"}}\" > \"$f\";; \
             *) echo \"the text to replace is not in $f\" >&2; exit 1;; esac",
            quote(path),
            quote(old),
            quote(new)
        ),
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn label(action: &Action) -> String {
    match action {
        Action::Run(command) => shorten(command),
        Action::Call { tool, .. } => shorten(&format!("Call {tool}")),
        Action::Read(path) => shorten(&format!("Read {path}")),
        Action::Write { path, .. } => shorten(&format!("Write {path}")),
        Action::Edit { path, .. } => shorten(&format!("Edit {path}")),
    }
}

fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(LABEL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Dialect;
    use std::process::Command;

    fn sh(directory: &std::path::Path, action: &Action) -> bool {
        let output =
            Command::new("sh").arg("-c").arg(command(action)).current_dir(directory).output();
        output.unwrap().status.success()
    }

    #[test]
    fn shell_commands_are_exact() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let texts = [
            "",
            "plain\n",
            "no newline at the end",
            "it's \"quoted\" $HOME `id` \\n %s *\n\n\n",
            "ünïcode ✓\ttab\r\n",
        ];
        for text in texts {
            let write = Action::Write { path: "a/b c.txt".into(), content: text.into() };
            assert!(sh(directory, &write));
            let read = std::fs::read_to_string(directory.join("a/b c.txt")).unwrap();
            assert_eq!(read, text);
        }
        let write = Action::Write { path: "e".into(), content: "one $x two\n two\n\n".into() };
        assert!(sh(directory, &write));
        let edit = |old: &str| Action::Edit {
            path: "e".into(),
            old: old.into(),
            new: "it's * 'new'".into(),
        };
        assert!(sh(directory, &edit("$x two\n")));
        let read = std::fs::read_to_string(directory.join("e")).unwrap();
        assert_eq!(read, "one it's * 'new' two\n\n");
        assert!(!sh(directory, &edit("absent")));
    }

    fn conversation(dialect: Dialect, body: &Value) -> Conversation {
        Conversation::new(crate::read::request(dialect, body, "m", true))
    }

    fn called(dialect: Dialect, body: &Value) -> Option<ToolCall> {
        let arguments = "{\"dispatchId\": \"{id}\"}".to_owned();
        let action = Action::Call { tool: "wait_run".into(), arguments };
        native(&action, &conversation(dialect, body))
    }

    #[test]
    fn tools_of_servers_are_called_by_the_names_that_a_cli_gives_them() {
        let id = "01M89PJKVGE39HV34W00B5FR0V";
        let body = json!({
            "contents": [
                {"role": "user", "parts": [{"text": "delegate"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "x", "args": {}}}]},
                {"role": "user", "parts": [{"functionResponse": {"response": {"output": id}}}]},
            ],
            "tools": [{"functionDeclarations": [{"name": "mcp_outpost_wait_run", "parameters": {}}]}],
        });
        let call = called(Dialect::Gemini, &body).unwrap();
        assert_eq!(call.name(), "mcp_outpost_wait_run");
        assert_eq!(call.arguments(), json!({"dispatchId": id}));
    }

    #[test]
    fn codex_searches_for_a_tool_once_and_calls_it_in_its_namespace() {
        let tools = json!([{"type": "tool_search", "execution": "client"}]);
        let mut input = vec![json!({"role": "user", "content": "delegate"})];
        let ask =
            |input: &[Value]| called(Dialect::Responses, &json!({"input": input, "tools": tools}));
        let search = ask(&input).unwrap();
        assert_eq!(search, ToolCall::Search { query: "wait run".into() });
        assert!(search.is_search());
        input.push(json!({"type": "tool_search_call", "arguments": search.arguments()}));
        assert_eq!(ask(&input), None, "it was searched for already");
        let found = json!({"type": "function", "name": "wait_run", "parameters": {}});
        let namespace = json!({"type": "namespace", "name": "mcp__outpost", "tools": [found]});
        input.push(json!({"type": "tool_search_output", "tools": [namespace]}));
        let call = ask(&input).unwrap();
        let ToolCall::Function { name, namespace, .. } = &call else { panic!("{call:?}") };
        assert_eq!((name.as_str(), namespace.as_deref()), ("wait_run", Some("mcp__outpost")));
        let body = json!({"input": input, "tools": tools});
        assert!(conversation(Dialect::Responses, &body).rounds.is_empty(), "a search is no round");
    }

    #[test]
    fn codex_in_code_mode_calls_a_tool_of_a_server_from_a_script() {
        let exec = json!({"type": "custom", "name": "exec", "description": ""});
        let functions = json!({"type": "namespace", "name": "functions", "tools": [exec]});
        let body = json!({"input": [
            {"role": "user", "content": "delegate"},
            {"type": "additional_tools", "tools": [functions]},
        ]});
        let call = called(Dialect::Responses, &body).unwrap();
        assert_eq!(call.name(), "exec");
        let input = call.input();
        assert!(input.contains("t.name.endsWith(\"__wait_run\")"), "{input}");
        assert!(input.contains("tools[own.name]({\"dispatchId\":\"\"})"), "{input}");
    }

    #[test]
    fn claude_code_selects_a_tool_by_the_name_it_was_told() {
        let search = json!({"name": "ToolSearch", "input_schema": {"type": "object"}});
        let mut messages = vec![
            json!({"role": "user", "content": "delegate"}),
            json!({"role": "system", "content": "Deferred:\nmcp__outpost__wait_run\nWebFetch"}),
        ];
        let ask = |messages: &[Value]| {
            called(Dialect::Anthropic, &json!({"messages": messages, "tools": [search]}))
        };
        let call = ask(&messages).unwrap();
        assert!(call.is_search());
        assert_eq!(call.arguments()["query"], "select:mcp__outpost__wait_run");
        let input = call.arguments();
        let used = json!({"type": "tool_use", "id": "t", "name": "ToolSearch", "input": input});
        let result = json!({"type": "tool_result", "tool_use_id": "t", "content": "found"});
        let loaded = json!({"type": "text", "text": "Tool loaded."});
        messages.push(json!({"role": "assistant", "content": [used]}));
        messages.push(json!({"role": "user", "content": [result, loaded]}));
        assert_eq!(ask(&messages), None, "it was searched for already");
        let read = conversation(Dialect::Anthropic, &json!({"messages": messages}));
        assert_eq!((read.task.as_str(), read.rounds.len()), ("delegate", 0));
    }

    #[test]
    fn a_patch_adds_every_line() {
        assert_eq!(
            patch("a.txt", "x\n\ny\n").unwrap(),
            "*** Begin Patch\n*** Add File: a.txt\n+x\n+\n+y\n*** End Patch\n"
        );
        assert_eq!(patch("a.txt", "no newline"), None);
    }
}
