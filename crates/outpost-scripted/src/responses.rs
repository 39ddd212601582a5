//! Writes answers in the shape of OpenAI Responses.
//!
//! Source: OpenAI's public API reference, "Responses" and "Streaming events". Absent: stored responses,
//! encrypted reasoning.

use serde_json::{Value, json};

use crate::reply::{Reply, named_event};
use crate::tools::ToolCall;

/// The answer as one JSON object.
pub(crate) fn body(reply: &Reply) -> Value {
    let output: Vec<Value> = items(reply).into_iter().map(|item| item.whole).collect();
    response(reply, "completed", &output)
}

/// The answer as a stream.
pub(crate) fn events(reply: &Reply) -> Vec<String> {
    let begun = response(reply, "in_progress", &[]);
    let mut values = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    let mut output = Vec::new();
    for (index, item) in items(reply).into_iter().enumerate() {
        values.push(json!({
            "type": "response.output_item.added", "output_index": index, "item": item.empty
        }));
        for mut event in item.events {
            event["output_index"] = json!(index);
            event["item_id"] = item.whole["id"].clone();
            values.push(event);
        }
        values.push(json!({
            "type": "response.output_item.done", "output_index": index, "item": item.whole
        }));
        output.push(item.whole);
    }
    let finished = response(reply, "completed", &output);
    values.push(json!({"type": "response.completed", "response": finished}));
    let number = |(number, mut value): (usize, Value)| {
        value["sequence_number"] = json!(number);
        named_event(&value)
    };
    values.into_iter().enumerate().map(number).collect()
}

struct OutputItem {
    empty: Value,
    whole: Value,
    events: Vec<Value>,
}

fn items(reply: &Reply) -> Vec<OutputItem> {
    let mut items = Vec::new();
    if !reply.think.is_empty() {
        items.push(reasoning(reply));
    }
    if !reply.say.is_empty() {
        items.push(message(reply));
    }
    if let Some(call) = &reply.call {
        items.push(tool_call(reply, call));
    }
    items
}

fn reasoning(reply: &Reply) -> OutputItem {
    let id = reply.id("rs_");
    let part = |text: &str| json!({"type": "summary_text", "text": text});
    let mut events = vec![json!({
        "type": "response.reasoning_summary_part.added", "summary_index": 0, "part": part("")
    })];
    for piece in reply.pieces(&reply.think) {
        events.push(json!({
            "type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": piece
        }));
    }
    events.push(json!({
        "type": "response.reasoning_summary_text.done", "summary_index": 0, "text": reply.think
    }));
    events.push(json!({
        "type": "response.reasoning_summary_part.done", "summary_index": 0, "part": part(&reply.think)
    }));
    OutputItem {
        empty: json!({"type": "reasoning", "id": id, "summary": []}),
        whole: json!({"type": "reasoning", "id": id, "summary": [part(&reply.think)]}),
        events,
    }
}

fn message(reply: &Reply) -> OutputItem {
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let item = |status: &str, content: Value| {
        json!({
            "type": "message", "id": reply.id("msg_"), "role": "assistant", "status": status,
            "content": content
        })
    };
    let mut events = vec![json!({
        "type": "response.content_part.added", "content_index": 0, "part": part("")
    })];
    for piece in reply.pieces(&reply.say) {
        events.push(json!({
            "type": "response.output_text.delta", "content_index": 0, "delta": piece
        }));
    }
    events.push(json!({
        "type": "response.output_text.done", "content_index": 0, "text": reply.say
    }));
    events.push(json!({
        "type": "response.content_part.done", "content_index": 0, "part": part(&reply.say)
    }));
    OutputItem {
        empty: item("in_progress", json!([])),
        whole: item("completed", json!([part(&reply.say)])),
        events,
    }
}

/// A search is carried out by the CLI itself, and has its arguments as an object.
fn tool_search(reply: &Reply, call: &ToolCall) -> OutputItem {
    let item = |status: &str| {
        json!({
            "type": "tool_search_call", "id": reply.id("tsc_"), "call_id": reply.id("call_"),
            "status": status, "execution": "client", "arguments": call.arguments()
        })
    };
    OutputItem { empty: item("in_progress"), whole: item("completed"), events: Vec::new() }
}

fn tool_call(reply: &Reply, call: &ToolCall) -> OutputItem {
    let (kind, prefix, field, event) = match call {
        ToolCall::Search { .. } => return tool_search(reply, call),
        ToolCall::Function { .. } => {
            ("function_call", "fc_", "arguments", "response.function_call_arguments")
        }
        ToolCall::Custom { .. } => {
            ("custom_tool_call", "ctc_", "input", "response.custom_tool_call_input")
        }
    };
    let input = call.input();
    let item = |status: &str, input: &str| {
        let mut item = json!({
            "type": kind, "id": reply.id(prefix), "call_id": reply.id("call_"),
            "name": call.name(), "status": status
        });
        if let ToolCall::Function { namespace: Some(namespace), .. } = call {
            item["namespace"] = json!(namespace);
        }
        item[field] = json!(input);
        item
    };
    let mut done = json!({"type": format!("{event}.done")});
    done[field] = json!(input);
    OutputItem {
        empty: item("in_progress", ""),
        whole: item("completed", &input),
        events: vec![json!({"type": format!("{event}.delta"), "delta": input}), done],
    }
}

fn response(reply: &Reply, status: &str, output: &[Value]) -> Value {
    let usage = reply.usage;
    let usage = json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens
    });
    json!({
        "id": reply.id("resp_"), "object": "response", "created_at": reply.created,
        "status": status, "model": reply.model, "output": output, "error": null,
        "incomplete_details": null, "instructions": null, "metadata": {},
        "parallel_tool_calls": false, "tool_choice": "auto", "tools": [],
        "usage": if status == "completed" { usage } else { Value::Null }
    })
}
