//! Writes answers in the shape of Gemini's `generateContent`.
//!
//! Source: Google's public API reference, "Generating content". Absent: safety ratings, grounding,
//! several candidates.

use serde_json::{Value, json};

use crate::reply::{Reply, event};

/// The answer as one JSON object.
pub(crate) fn body(reply: &Reply) -> Value {
    chunk(reply, &parts(reply).concat(), true)
}

/// The answer as a stream.
pub(crate) fn events(reply: &Reply) -> Vec<String> {
    let parts = parts(reply);
    let last = parts.len() - 1;
    parts
        .iter()
        .enumerate()
        .map(|(index, parts)| event(&chunk(reply, parts, index == last)))
        .collect()
}

/// An error answer.
pub(crate) fn error(status: u16, message: &str) -> Value {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500 => "INTERNAL",
        _ => "UNKNOWN",
    };
    json!({"error": {"code": status, "message": message, "status": name}})
}

/// Parts of each event of the stream; at least one event.
fn parts(reply: &Reply) -> Vec<Vec<Value>> {
    let mut events = Vec::new();
    for piece in reply.pieces(&reply.think) {
        events.push(vec![json!({"text": piece, "thought": true})]);
    }
    for piece in reply.pieces(&reply.say) {
        events.push(vec![json!({"text": piece})]);
    }
    if let Some(call) = &reply.call {
        let input = call.input();
        let args: Value = serde_json::from_str(&input).unwrap_or_else(|_| json!({"input": input}));
        events.push(vec![json!({
            "functionCall": {"id": reply.id("call_"), "name": call.name(), "args": args}
        })]);
    }
    if events.is_empty() {
        events.push(vec![json!({"text": ""})]);
    }
    events
}

fn chunk(reply: &Reply, parts: &[Value], last: bool) -> Value {
    let usage = reply.usage;
    let mut candidate = json!({"index": 0, "content": {"role": "model", "parts": parts}});
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": usage.input_tokens,
            "cachedContentTokenCount": usage.cached_input_tokens,
            "candidatesTokenCount": usage.output_tokens,
            "totalTokenCount": usage.input_tokens + usage.output_tokens
        },
        "modelVersion": reply.model,
        "responseId": reply.id("resp_")
    })
}
