//! Requests in the shapes the pinned CLIs send, cut down to what matters, for any number of tool rounds.

use serde_json::{Value, json};

pub(crate) const DIRECTORY: &str = "/workspace/w1/repo";

/// An API with a CLI that speaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Claude,
    CodexClassic,
    CodexCodeMode,
    Grok,
    GrokChat,
    Gemini,
}

impl Shape {
    pub(crate) const ALL: [Self; 6] = [
        Self::Claude,
        Self::CodexClassic,
        Self::CodexCodeMode,
        Self::Grok,
        Self::GrokChat,
        Self::Gemini,
    ];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Claude => "/v1/messages?beta=true",
            Self::CodexClassic | Self::CodexCodeMode | Self::Grok => "/v1/responses",
            Self::GrokChat => "/v1/chat/completions",
            Self::Gemini => "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
        }
    }

    /// The prefix of the route in `support::open` whose style of key the CLI uses.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::Claude => "/anthropic",
            Self::Gemini => "/google",
            _ => "/openai",
        }
    }

    pub(crate) fn with_key(
        self,
        call: reqwest::RequestBuilder,
        key: &str,
    ) -> reqwest::RequestBuilder {
        match self {
            Self::Claude => call.header("x-api-key", key),
            Self::Gemini => call.header("x-goog-api-key", key),
            _ => call.bearer_auth(key),
        }
    }

    /// A request for `task` after each of `results` came back from a tool.
    pub(crate) fn request(self, task: &str, results: &[&str]) -> Value {
        match self {
            Self::Claude => claude(task, results),
            Self::CodexClassic => codex(task, results, false),
            Self::CodexCodeMode => codex(task, results, true),
            Self::Grok => grok(task, results),
            Self::GrokChat => grok_chat(task, results),
            Self::Gemini => gemini(task, results),
        }
    }

    /// Name and arguments of the tool call in a stream, if there is one.
    pub(crate) fn call_in(self, stream: &str) -> Option<(String, String)> {
        let events = events(stream);
        match self {
            Self::Claude => {
                let block = |event: &&Value| event["content_block"]["type"] == "tool_use";
                let name = events.iter().find(block)?["content_block"]["name"].clone();
                let delta = |event: &&Value| event["delta"]["type"] == "input_json_delta";
                let input = events.iter().find(delta)?["delta"]["partial_json"].clone();
                Some((text(&name), text(&input)))
            }
            Self::CodexClassic | Self::CodexCodeMode | Self::Grok => {
                let done = events.iter().find(|event| {
                    event["type"] == "response.output_item.done"
                        && text(&event["item"]["type"]).ends_with("_call")
                })?;
                let item = &done["item"];
                let input = item.get("arguments").unwrap_or_else(|| &item["input"]);
                Some((text(&item["name"]), text(input)))
            }
            Self::GrokChat => {
                let calls = events
                    .iter()
                    .find_map(|event| event.pointer("/choices/0/delta/tool_calls/0/function"))?;
                Some((text(&calls["name"]), text(&calls["arguments"])))
            }
            Self::Gemini => {
                let call = events.iter().find_map(|event| {
                    event.pointer("/candidates/0/content/parts/0/functionCall")
                })?;
                Some((text(&call["name"]), call["args"].to_string()))
            }
        }
    }

    /// All text in a stream.
    pub(crate) fn text_in(self, stream: &str) -> String {
        let pointer = match self {
            Self::Claude => "/delta/text",
            Self::CodexClassic | Self::CodexCodeMode | Self::Grok => "/delta",
            Self::GrokChat => "/choices/0/delta/content",
            Self::Gemini => "/candidates/0/content/parts/0/text",
        };
        let responses = pointer == "/delta";
        events(stream)
            .iter()
            .filter(|event| !responses || event["type"] == "response.output_text.delta")
            .filter(|event| event.pointer("/candidates/0/content/parts/0/thought").is_none())
            .filter_map(|event| event.pointer(pointer)?.as_str())
            .collect()
    }
}

/// The data of each server-sent event.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn object(properties: &[&str]) -> Value {
    let declared = |name: &&str| ((*name).to_owned(), json!({"type": "string"}));
    let declared: serde_json::Map<String, Value> = properties.iter().map(declared).collect();
    json!({"type": "object", "properties": declared, "required": properties})
}

fn claude(task: &str, results: &[&str]) -> Value {
    let mut messages = vec![
        json!({"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>\nCurrent branch: main\n</system-reminder>"},
            {"type": "text", "text": task}
        ]}),
        json!({"role": "system", "content": [
            {"type": "text", "text": format!("# Environment\n - Primary working directory: {DIRECTORY}\n - Shell: bash")}
        ]}),
    ];
    for (index, result) in results.iter().enumerate() {
        let id = format!("toolu_{index}");
        messages.push(json!({"role": "assistant", "content": [
            {"type": "text", "text": "Working."},
            {"type": "tool_use", "id": id, "name": "Bash", "input": {}}
        ]}));
        messages.push(json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": result}]},
            {"type": "text", "text": "<system-reminder>The task tools were not used.</system-reminder>"}
        ]}));
    }
    let tool = |name: &str, schema: Value| json!({"name": name, "description": name, "input_schema": schema});
    json!({
        "model": "claude-opus-4-5", "stream": true, "max_tokens": 1000, "messages": messages,
        "system": [{"type": "text", "text": "You are a Claude agent."}],
        "tools": [
            tool("Bash", object(&["command"])),
            tool("Read", object(&["file_path"])),
            tool("Edit", object(&["file_path", "old_string", "new_string"])),
            tool("Write", object(&["file_path", "content"]))
        ]
    })
}

fn codex(task: &str, results: &[&str], code_mode: bool) -> Value {
    let message = |role: &str, text: &str| json!({"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]});
    let context =
        format!("<environment_context>\n  <cwd>{DIRECTORY}</cwd>\n</environment_context>");
    let mut input = vec![
        message("developer", "You are Codex."),
        message("user", &context),
        message("user", task),
    ];
    let kind = if code_mode { "custom_tool_call" } else { "function_call" };
    for (index, result) in results.iter().enumerate() {
        let id = format!("call_{index}");
        input.push(json!({"type": "reasoning", "summary": []}));
        input.push(json!({"type": kind, "call_id": id, "name": "x", "arguments": "{}"}));
        input.push(json!({"type": format!("{kind}_output"), "call_id": id, "output": result}));
    }
    let mut body = json!({"model": "gpt-5.5", "stream": true});
    if code_mode {
        input.insert(0, json!({"type": "additional_tools", "role": "developer", "tools": [
            {"type": "namespace", "name": "functions", "tools": [
                {"type": "custom", "name": "exec", "description": "JavaScript; tools.exec_command, tools.apply_patch"},
                {"type": "function", "name": "wait", "parameters": object(&["cell_id"])}
            ]}
        ]}));
    } else {
        body["tools"] = json!([
            {"type": "function", "name": "exec_command", "parameters": {
                "type": "object", "required": ["cmd"],
                "properties": {"cmd": {"type": "string"}, "yield_time_ms": {"type": "number"}}
            }},
            {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}}
        ]);
    }
    body["input"] = json!(input);
    body
}

const GROK_TOOLS: [(&str, &[&str]); 4] = [
    ("run_terminal_command", &["command", "description"]),
    ("read_file", &["target_file"]),
    ("search_replace", &["file_path", "old_string", "new_string"]),
    ("write", &["file_path", "content"]),
];

fn grok_messages(task: &str) -> [(&'static str, String); 4] {
    [
        ("system", "You are Grok.".to_owned()),
        (
            "user",
            format!(
                "<user_info>\nWorkspace Path: {DIRECTORY}\n</user_info>\n\n<rules>\nBe brief.\n</rules>"
            ),
        ),
        ("user", "<system-reminder>\nworkflows\n</system-reminder>".to_owned()),
        ("user", format!("<user_query>\n{task}\n</user_query>")),
    ]
}

fn grok(task: &str, results: &[&str]) -> Value {
    let mut input: Vec<Value> = grok_messages(task)
        .into_iter()
        .map(|(role, text)| json!({"type": "message", "role": role, "content": text}))
        .collect();
    for (index, result) in results.iter().enumerate() {
        let id = format!("call_{index}");
        input.push(json!({"type": "function_call", "call_id": id, "name": "x", "arguments": "{}"}));
        input.push(json!({"type": "function_call_output", "call_id": id, "output": result}));
    }
    let tool = |(name, parameters): (&str, &[&str])| json!({"type": "function", "name": name, "parameters": object(parameters)});
    let tools: Vec<Value> = GROK_TOOLS.into_iter().map(tool).collect();
    json!({"model": "grok-4.1", "stream": true, "input": input, "tools": tools})
}

fn grok_chat(task: &str, results: &[&str]) -> Value {
    let mut messages: Vec<Value> = grok_messages(task)
        .into_iter()
        .map(|(role, text)| json!({"role": role, "content": text}))
        .collect();
    for (index, result) in results.iter().enumerate() {
        let id = format!("call_{index}");
        messages.push(json!({"role": "assistant", "content": "Working.", "tool_calls": [
            {"id": id, "type": "function", "function": {"name": "x", "arguments": "{}"}}
        ]}));
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": result}));
    }
    let tool = |(name, parameters): (&str, &[&str])| json!({"type": "function", "function": {"name": name, "parameters": object(parameters)}});
    let tools: Vec<Value> = GROK_TOOLS.into_iter().map(tool).collect();
    json!({"model": "grok-4.1", "stream": true, "messages": messages, "tools": tools})
}

fn gemini(task: &str, results: &[&str]) -> Value {
    let context = format!(
        "<session_context>\nThis is the Gemini CLI.\n- **Workspace Directories:**\n  - {DIRECTORY}\n</session_context>"
    );
    let mut contents = vec![json!({"role": "user", "parts": [{"text": context}, {"text": task}]})];
    for result in results {
        contents.push(json!({"role": "model", "parts": [
            {"text": "Thinking.", "thought": true},
            {"functionCall": {"name": "x", "args": {}}}
        ]}));
        contents.push(json!({"role": "user", "parts": [
            {"functionResponse": {"name": "x", "response": {"output": result}}}
        ]}));
    }
    let tool = |name: &str, parameters: &[&str]| json!({"name": name, "parametersJsonSchema": object(parameters)});
    json!({
        "contents": contents,
        "systemInstruction": {"role": "user", "parts": [{"text": "You are a CLI agent."}]},
        "tools": [{"functionDeclarations": [
            tool("run_shell_command", &["command"]),
            tool("read_file", &["file_path"]),
            tool("replace", &["file_path", "instruction", "old_string", "new_string"]),
            tool("write_file", &["file_path", "content"])
        ]}]
    })
}
