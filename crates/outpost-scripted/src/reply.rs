//! An answer before it is put into a dialect.

use serde::Serialize;
use serde_json::Value;

use crate::tools::ToolCall;

/// Token counts of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// All tokens of the request, cached ones included.
    pub input_tokens: u64,
    /// The part of them that came from a cache.
    pub cached_input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Made from the request, so the same request gets the same ids.
    pub(crate) id: u64,
    pub(crate) model: String,
    pub(crate) think: String,
    pub(crate) say: String,
    pub(crate) call: Option<ToolCall>,
    pub(crate) usage: Usage,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) chunk_chars: usize,
}

impl Reply {
    /// The text in pieces for a stream.
    pub(crate) fn pieces<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let cut = rest.char_indices().nth(self.chunk_chars).map_or(rest.len(), |(at, _)| at);
            let (piece, tail) = rest.split_at(cut);
            pieces.push(piece);
            rest = tail;
        }
        pieces
    }

    /// An id with the prefix the dialect uses.
    pub(crate) fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}", self.id)
    }
}

/// One server-sent event with a name.
pub(crate) fn named_event(value: &Value) -> String {
    let name = value.get("type").and_then(Value::as_str).unwrap_or("message");
    format!("event: {name}\ndata: {value}\n\n")
}

/// One server-sent event without a name.
pub(crate) fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}
