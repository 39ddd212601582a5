//! Reads the requests of the four APIs into one form.
//!
//! Lenient on purpose: what is not understood is passed over, so that a newer CLI with new fields still
//! works. Absent: images and files, which count as nothing.

use serde_json::Value;

use crate::conversation::{Item, Parsed, Tool};
use crate::script::Dialect;

/// The tool with which Claude Code searches for others.
pub(crate) const CLAUDE_SEARCH: &str = "ToolSearch";

/// Reads a request body; `model` and `stream` are known from the path for Gemini.
pub(crate) fn request(
    dialect: Dialect,
    body: &Value,
    path_model: &str,
    path_stream: bool,
) -> Parsed {
    let mut parsed = Parsed {
        dialect,
        model: text(body, "model").unwrap_or(path_model).to_owned(),
        stream: path_stream || body.get("stream").and_then(Value::as_bool) == Some(true),
        items: Vec::new(),
        tools: Vec::new(),
        searchable: false,
        searches: Vec::new(),
        forced_tool: None,
        json_schema: None,
    };
    match dialect {
        Dialect::Anthropic => anthropic(body, &mut parsed),
        Dialect::Responses => responses(body, &mut parsed),
        Dialect::Chat => chat(body, &mut parsed),
        Dialect::Gemini => gemini(body, &mut parsed),
    }
    parsed
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Text of a content that is a string or a list of parts with a `text`.
fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| text(part, "text")).collect();
            texts.join("\n")
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn by_role(role: &str, text: String) -> Item {
    match role {
        "assistant" | "model" => Item::Assistant(text),
        "system" | "developer" => Item::System(text),
        _ => Item::User(text),
    }
}

fn anthropic(body: &Value, parsed: &mut Parsed) {
    if let Some(system) = body.get("system") {
        parsed.items.push(Item::System(content_text(system)));
    }
    // Searches for tools are no rounds of the work.
    let mut searches = Vec::new();
    for message in list(body, "messages") {
        let role = text(message, "role").unwrap_or("user");
        match message.get("content") {
            Some(Value::Array(blocks)) => {
                for block in blocks {
                    let id = text(block, "id").or_else(|| text(block, "tool_use_id"));
                    match text(block, "type") {
                        Some("tool_use") if text(block, "name") == Some(CLAUDE_SEARCH) => {
                            searches.extend(id);
                            let query = block.pointer("/input/query").and_then(Value::as_str);
                            parsed.searches.extend(query.map(str::to_owned));
                        }
                        Some("tool_result") if id.is_some_and(|id| searches.contains(&id)) => {}
                        Some("tool_use") => parsed.items.push(Item::Call),
                        Some("tool_result") => {
                            let content = block.get("content").unwrap_or(&Value::Null);
                            parsed.items.push(Item::Result(content_text(content)));
                        }
                        Some("text") => {
                            let text = text(block, "text").unwrap_or_default().to_owned();
                            parsed.items.push(by_role(role, text));
                        }
                        _ => {}
                    }
                }
            }
            Some(content) => parsed.items.push(by_role(role, content_text(content))),
            None => {}
        }
    }
    for tool in list(body, "tools") {
        // A server-side tool has a `type` and no schema of its own; it cannot be called from here.
        if let (Some(name), Some(schema)) = (text(tool, "name"), tool.get("input_schema")) {
            parsed.tools.push(function(name, tool, schema));
        }
    }
    parsed.searchable = parsed.tools.iter().any(|tool| tool.name == CLAUDE_SEARCH);
    if let Some(choice) = body.get("tool_choice")
        && text(choice, "type") == Some("tool")
    {
        parsed.forced_tool = text(choice, "name").map(str::to_owned);
    }
    let formats = [body.pointer("/output_config/format"), body.get("output_format")];
    let format = formats.into_iter().flatten().next();
    parsed.json_schema = format.and_then(|format| format.get("schema")).cloned();
}

fn function(name: &str, tool: &Value, schema: &Value) -> Tool {
    Tool {
        name: name.to_owned(),
        namespace: None,
        description: text(tool, "description").unwrap_or_default().to_owned(),
        custom: false,
        schema: schema.clone(),
    }
}

fn responses(body: &Value, parsed: &mut Parsed) {
    if let Some(instructions) = text(body, "instructions") {
        parsed.items.push(Item::System(instructions.to_owned()));
    }
    if let Some(input) = text(body, "input") {
        parsed.items.push(Item::User(input.to_owned()));
    }
    for item in list(body, "input") {
        match text(item, "type") {
            Some("additional_tools" | "tool_search_output") => {
                responses_tools(list(item, "tools"), None, &mut parsed.tools);
            }
            // Not a round of the work: nothing but the list of tools comes of it.
            Some("tool_search_call") => {
                let query = item.pointer("/arguments/query").and_then(Value::as_str);
                parsed.searches.extend(query.map(str::to_owned));
            }
            Some(kind) if kind.ends_with("_call_output") => {
                let output = item.get("output").unwrap_or(&Value::Null);
                parsed.items.push(Item::Result(content_text(output)));
            }
            Some(kind) if kind.ends_with("_call") => parsed.items.push(Item::Call),
            Some("message") | None => {
                let role = text(item, "role").unwrap_or("user");
                match item.get("content") {
                    Some(Value::Array(parts)) => {
                        for part in parts.iter().filter_map(|part| text(part, "text")) {
                            parsed.items.push(by_role(role, part.to_owned()));
                        }
                    }
                    Some(content) => parsed.items.push(by_role(role, content_text(content))),
                    None => {}
                }
            }
            Some(_) => {}
        }
    }
    responses_tools(list(body, "tools"), None, &mut parsed.tools);
    let searches = |tool: &Value| text(tool, "type") == Some("tool_search");
    parsed.searchable = list(body, "tools").iter().any(searches);
    if let Some(choice) = body.get("tool_choice")
        && text(choice, "type") == Some("function")
    {
        parsed.forced_tool = text(choice, "name").map(str::to_owned);
    }
    parsed.json_schema = body.pointer("/text/format/schema").cloned();
}

/// Tools, some of them in namespaces. That of a CLI's own functions counts as none.
fn responses_tools(tools: &[Value], namespace: Option<&str>, into: &mut Vec<Tool>) {
    for tool in tools {
        match (text(tool, "type"), text(tool, "name")) {
            (Some("namespace"), Some(name)) if namespace.is_none() => {
                let inner = Some(name).filter(|name| *name != "functions");
                responses_tools(list(tool, "tools"), inner, into);
            }
            (Some("custom"), Some(name)) => into.push(Tool {
                name: name.to_owned(),
                namespace: namespace.map(str::to_owned),
                description: text(tool, "description").unwrap_or_default().to_owned(),
                custom: true,
                schema: Value::Null,
            }),
            (Some("function"), Some(name)) => {
                let schema = tool.get("parameters").unwrap_or(&Value::Null);
                let namespace = namespace.map(str::to_owned);
                into.push(Tool { namespace, ..function(name, tool, schema) });
            }
            _ => {}
        }
    }
}

fn chat(body: &Value, parsed: &mut Parsed) {
    for message in list(body, "messages") {
        let role = text(message, "role").unwrap_or("user");
        let content = content_text(message.get("content").unwrap_or(&Value::Null));
        if role == "tool" || role == "function" {
            parsed.items.push(Item::Result(content));
            continue;
        }
        if !content.is_empty() {
            parsed.items.push(by_role(role, content));
        }
        for _ in list(message, "tool_calls") {
            parsed.items.push(Item::Call);
        }
    }
    for tool in list(body, "tools") {
        if let Some(declared) = tool.get("function")
            && let Some(name) = text(declared, "name")
        {
            let schema = declared.get("parameters").unwrap_or(&Value::Null);
            parsed.tools.push(function(name, declared, schema));
        }
    }
    let forced = body.pointer("/tool_choice/function/name");
    parsed.forced_tool = forced.and_then(Value::as_str).map(str::to_owned);
    let schema = body.pointer("/response_format/json_schema/schema");
    parsed.json_schema = schema.cloned().or_else(|| {
        let kind = body.pointer("/response_format/type").and_then(Value::as_str);
        (kind == Some("json_object")).then(|| serde_json::json!({"type": "object"}))
    });
}

fn gemini(body: &Value, parsed: &mut Parsed) {
    for key in ["systemInstruction", "system_instruction"] {
        if let Some(instruction) = body.get(key) {
            let parts = instruction.get("parts").unwrap_or(&Value::Null);
            parsed.items.push(Item::System(content_text(parts)));
        }
    }
    for content in list(body, "contents") {
        let role = text(content, "role").unwrap_or("user");
        for part in list(content, "parts") {
            if part.get("functionCall").is_some() {
                parsed.items.push(Item::Call);
            } else if let Some(response) = part.get("functionResponse") {
                let response = response.get("response").unwrap_or(&Value::Null);
                parsed.items.push(Item::Result(response.to_string()));
            } else if part.get("thought").is_none()
                && let Some(text) = text(part, "text")
            {
                parsed.items.push(by_role(role, text.to_owned()));
            }
        }
    }
    for tool in list(body, "tools") {
        for key in ["functionDeclarations", "function_declarations"] {
            for declared in list(tool, key) {
                let schemas = [declared.get("parametersJsonSchema"), declared.get("parameters")];
                if let Some(name) = text(declared, "name") {
                    let schema = schemas.into_iter().flatten().next().unwrap_or(&Value::Null);
                    parsed.tools.push(function(name, declared, schema));
                }
            }
        }
    }
    let config = body.get("generationConfig").unwrap_or(&Value::Null);
    let schemas = [config.get("responseJsonSchema"), config.get("responseSchema")];
    parsed.json_schema = schemas.into_iter().flatten().next().cloned();
    let calling = body.pointer("/toolConfig/functionCallingConfig");
    if let Some(calling) = calling
        && text(calling, "mode") == Some("ANY")
        && let [Value::String(name)] = list(calling, "allowedFunctionNames")
    {
        parsed.forced_tool = Some(name.clone());
    }
}
