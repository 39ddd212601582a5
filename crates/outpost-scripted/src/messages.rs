//! Writes answers in the shape of Anthropic Messages.
//!
//! Source: the public API reference of Anthropic, "Messages" and "Streaming Messages". Absent: prompt cache
//! accounting by age, citations, server tools.

use serde_json::{Value, json};

use crate::reply::{Reply, named_event};

/// The answer as one JSON message.
pub(crate) fn body(reply: &Reply) -> Value {
    let mut message = start(reply);
    let content: Vec<Value> = blocks(reply).into_iter().map(|block| block.whole).collect();
    message["content"] = json!(content);
    message["stop_reason"] = json!(stop_reason(reply));
    message["usage"] = usage(reply);
    message
}

/// The answer as a stream.
pub(crate) fn events(reply: &Reply) -> Vec<String> {
    let mut message = start(reply);
    message["usage"] = usage(reply);
    message["usage"]["output_tokens"] = json!(1);
    let mut events = vec![named_event(&json!({"type": "message_start", "message": message}))];
    for (index, block) in blocks(reply).into_iter().enumerate() {
        events.push(named_event(&json!({
            "type": "content_block_start", "index": index, "content_block": block.empty
        })));
        for delta in block.deltas {
            events.push(named_event(&json!({
                "type": "content_block_delta", "index": index, "delta": delta
            })));
        }
        events.push(named_event(&json!({"type": "content_block_stop", "index": index})));
    }
    events.push(named_event(&json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(reply), "stop_sequence": null},
        "usage": usage(reply)
    })));
    events.push(named_event(&json!({"type": "message_stop"})));
    events
}

/// An error answer.
pub(crate) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

struct Block {
    whole: Value,
    empty: Value,
    deltas: Vec<Value>,
}

fn blocks(reply: &Reply) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !reply.think.is_empty() {
        let signature = reply.id("scripted");
        let mut deltas: Vec<Value> = reply
            .pieces(&reply.think)
            .into_iter()
            .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
            .collect();
        deltas.push(json!({"type": "signature_delta", "signature": signature}));
        blocks.push(Block {
            whole: json!({"type": "thinking", "thinking": reply.think, "signature": signature}),
            empty: json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
        });
    }
    if !reply.say.is_empty() {
        let pieces = reply.pieces(&reply.say).into_iter();
        blocks.push(Block {
            whole: json!({"type": "text", "text": reply.say}),
            empty: json!({"type": "text", "text": ""}),
            deltas: pieces.map(|piece| json!({"type": "text_delta", "text": piece})).collect(),
        });
    }
    if let Some(call) = &reply.call {
        let input = call.input();
        let whole: Value = serde_json::from_str(&input).unwrap_or_else(|_| json!({"input": input}));
        let (id, name) = (reply.id("toolu_"), call.name());
        blocks.push(Block {
            whole: json!({"type": "tool_use", "id": id, "name": name, "input": whole}),
            empty: json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
            deltas: vec![json!({"type": "input_json_delta", "partial_json": whole.to_string()})],
        });
    }
    blocks
}

fn start(reply: &Reply) -> Value {
    json!({
        "id": reply.id("msg_"), "type": "message", "role": "assistant", "model": reply.model,
        "content": [], "stop_reason": null, "stop_sequence": null
    })
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.call.is_some() { "tool_use" } else { "end_turn" }
}

/// Here the cached tokens are counted apart from the others.
fn usage(reply: &Reply) -> Value {
    let usage = reply.usage;
    json!({
        "input_tokens": usage.input_tokens - usage.cached_input_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.output_tokens
    })
}
