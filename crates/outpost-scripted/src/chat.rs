//! Writes answers in the shape of OpenAI Chat Completions, as OpenAI, xAI and DeepSeek speak it.
//!
//! Source: OpenAI's public API reference, "Chat Completions"; `reasoning_content` is DeepSeek's. Absent:
//! several choices, log probabilities.

use serde_json::{Value, json};

use crate::reply::{Reply, event};

/// The answer as one JSON object.
pub(crate) fn body(reply: &Reply) -> Value {
    let mut message = json!({"role": "assistant", "content": reply.say});
    if !reply.think.is_empty() {
        message["reasoning_content"] = json!(reply.think);
    }
    if let Some(calls) = calls(reply) {
        message["tool_calls"] = calls;
    }
    let mut body = envelope(reply, "chat.completion");
    body["choices"] = json!([{
        "index": 0, "message": message, "finish_reason": finish_reason(reply)
    }]);
    body["usage"] = usage(reply);
    body
}

/// The answer as a stream.
pub(crate) fn events(reply: &Reply) -> Vec<String> {
    let chunk = |delta: Value, finish: Option<&str>| {
        let mut chunk = envelope(reply, "chat.completion.chunk");
        chunk["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        event(&chunk)
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    for piece in reply.pieces(&reply.think) {
        events.push(chunk(json!({"reasoning_content": piece}), None));
    }
    for piece in reply.pieces(&reply.say) {
        events.push(chunk(json!({"content": piece}), None));
    }
    if let Some(calls) = calls(reply) {
        events.push(chunk(json!({"tool_calls": calls}), None));
    }
    events.push(chunk(json!({}), Some(finish_reason(reply))));
    let mut last = envelope(reply, "chat.completion.chunk");
    last["choices"] = json!([]);
    last["usage"] = usage(reply);
    events.push(event(&last));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// An error answer, the same in Responses.
pub(crate) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        402 => ("insufficient_quota", json!("insufficient_quota")),
        429 => ("rate_limit_error", json!("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", Value::Null),
        _ => ("server_error", Value::Null),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

fn envelope(reply: &Reply, object: &str) -> Value {
    json!({
        "id": reply.id("chatcmpl-"), "object": object, "created": reply.created,
        "model": reply.model
    })
}

fn calls(reply: &Reply) -> Option<Value> {
    let call = reply.call.as_ref()?;
    Some(json!([{
        "index": 0, "id": reply.id("call_"), "type": "function",
        "function": {"name": call.name(), "arguments": call.input()}
    }]))
}

fn finish_reason(reply: &Reply) -> &'static str {
    if reply.call.is_some() { "tool_calls" } else { "stop" }
}

fn usage(reply: &Reply) -> Value {
    let usage = reply.usage;
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0}
    })
}
