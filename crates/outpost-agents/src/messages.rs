//! Reader of the JSON lines Claude Code prints with `--output-format stream-json`. Grok's
//! `streaming-messages-json` has the same shape, so one reader serves both.
//!
//! Bounded: tool calls whose name is remembered ([`OPEN_CALLS_MAX`]). The final `result` is judged by
//! `is_error`, never by `subtype`, which says "success" for a refused key too.

use std::collections::HashMap;

use outpost_types::{Attention, EventData, LogStreamName, ToolPhase, Usage};
use serde_json::Value;

use crate::fault;
use crate::parse::{
    AgentReport, FinalStatus, NAME_BYTES_MAX, OutputParser, SUMMARY_BYTES_MAX, TEXT_BYTES_MAX,
    clean, cost, id, id_of, log, message, object, one_line, raw, raw_once, summary_of, text,
    thought, tokens, tool,
};

/// Most tool calls whose name is remembered until they end.
const OPEN_CALLS_MAX: usize = 256;
/// Model name Claude Code gives to messages it wrote itself.
const SYNTHETIC_MODEL: &str = "<synthetic>";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct MessagesParser {
    report: AgentReport,
    calls: HashMap<String, String>,
}

impl OutputParser for MessagesParser {
    fn line(&mut self, stream: LogStreamName, line: &str) -> Vec<EventData> {
        let value = match stream {
            LogStreamName::Stdout => object(line),
            LogStreamName::Stderr => None,
        };
        let mut events = value
            .and_then(|value| self.event(&value, line))
            .unwrap_or_else(|| vec![log(stream, line)]);
        raw_once(&mut events);
        events
    }

    fn finish(&mut self) -> AgentReport {
        std::mem::take(&mut self.report)
    }
}

impl MessagesParser {
    /// Events of one JSON line; `None` when it is not understood.
    fn event(&mut self, value: &Value, line: &str) -> Option<Vec<EventData>> {
        match text(value, "type")? {
            "system" => self.system(value),
            "assistant" => self.assistant(value.get("message")?, line),
            "user" => self.tool_results(value.get("message")?, line),
            "result" => Some(self.result(value, line)),
            // Pieces of messages that arrive whole later.
            "stream_event" => Some(Vec::new()),
            _ => None,
        }
    }

    fn system(&mut self, value: &Value) -> Option<Vec<EventData>> {
        match text(value, "subtype")? {
            "init" => {
                self.report.session_id = id(value, "session_id");
                self.report.model_id = id(value, "model");
                Some(Vec::new())
            }
            // Estimates while the model thinks; the final usage counts.
            "thinking_tokens" => Some(Vec::new()),
            "api_retry" => {
                let number = |field| value.get(field).and_then(Value::as_u64).unwrap_or(0);
                let why = match value.get("error_status").and_then(Value::as_u64) {
                    Some(status) => format!("status {status}"),
                    None => one_line(text(value, "error").unwrap_or("unknown"), NAME_BYTES_MAX),
                };
                Some(vec![EventData::Attention(Attention {
                    code: "model_retry".to_owned(),
                    message: format!(
                        "The model did not answer ({why}); the agent tries again, {} of {}.",
                        number("attempt"),
                        number("max_retries")
                    ),
                })])
            }
            "permission_denied" => Some(vec![EventData::Attention(Attention {
                code: "tool_denied".to_owned(),
                message: one_line(
                    text(value, "message").unwrap_or("The agent was refused a tool."),
                    SUMMARY_BYTES_MAX,
                ),
            })]),
            _ => None,
        }
    }

    fn assistant(&mut self, message_value: &Value, line: &str) -> Option<Vec<EventData>> {
        if let Some(model) = id(message_value, "model").filter(|model| model != SYNTHETIC_MODEL) {
            self.report.model_id = Some(model);
        }
        let mut events = Vec::new();
        for block in message_value.get("content")?.as_array()? {
            match text(block, "type") {
                Some("text") => {
                    let said = text(block, "text").unwrap_or_default();
                    if let Some(event) = message(said, line) {
                        self.report.summary = Some(clean(said, TEXT_BYTES_MAX));
                        events.push(event);
                    }
                }
                Some("thinking") => {
                    events.extend(thought(text(block, "thinking").unwrap_or_default(), line));
                }
                Some("tool_use" | "server_tool_use") => events.push(self.tool_use(block, line)),
                _ => {}
            }
        }
        Some(events)
    }

    fn tool_use(&mut self, block: &Value, line: &str) -> EventData {
        let name = text(block, "name").unwrap_or("tool");
        let call = text(block, "id");
        if let Some(call) = call.filter(|_| self.calls.len() < OPEN_CALLS_MAX) {
            self.calls.insert(one_line(call, NAME_BYTES_MAX), one_line(name, NAME_BYTES_MAX));
        }
        let summary = block.get("input").and_then(summary_of);
        tool(name, call, ToolPhase::Start, summary, None, line)
    }

    fn tool_results(&mut self, message_value: &Value, line: &str) -> Option<Vec<EventData>> {
        let Some(blocks) = message_value.get("content")?.as_array() else {
            // The prompt itself, replayed.
            return Some(Vec::new());
        };
        let results = blocks.iter().filter(|block| text(block, "type") == Some("tool_result"));
        let mut events = Vec::new();
        for block in results {
            let call = text(block, "tool_use_id");
            let name = call
                .and_then(|call| self.calls.remove(&one_line(call, NAME_BYTES_MAX)))
                .unwrap_or_else(|| "tool".to_owned());
            let is_error = block.get("is_error").and_then(Value::as_bool).unwrap_or(false);
            events.push(tool(&name, call, ToolPhase::End, None, Some(is_error), line));
        }
        Some(events)
    }

    fn result(&mut self, value: &Value, line: &str) -> Vec<EventData> {
        if let Some(session) = id(value, "session_id") {
            self.report.session_id = Some(session);
        }
        let is_error = value.get("is_error").and_then(Value::as_bool).unwrap_or(true);
        if is_error {
            if text(value, "stop_reason") == Some("cancelled") {
                self.report.finished = Some(FinalStatus::Cancelled);
                return self.final_usage(value, line);
            }
            self.report.finished = Some(FinalStatus::Failed);
            let status = value.get("api_error_status").and_then(Value::as_u64);
            self.report.error = Some(fault::of_text(status, &error_text(value)));
        } else {
            let denied = value
                .get("permission_denials")
                .and_then(Value::as_array)
                .is_some_and(|denials| !denials.is_empty());
            self.report.finished =
                Some(if denied { FinalStatus::Denied } else { FinalStatus::Completed });
            self.report.error = None;
            if let Some(said) = text(value, "result").filter(|said| !said.trim().is_empty()) {
                self.report.summary = Some(clean(said, TEXT_BYTES_MAX));
            }
        }
        self.final_usage(value, line)
    }

    fn final_usage(&mut self, value: &Value, line: &str) -> Vec<EventData> {
        let usage = self.usage(value);
        let empty = usage.input_tokens == 0 && usage.output_tokens == 0;
        if empty {
            return Vec::new();
        }
        self.report.usage = Some(usage.clone());
        vec![EventData::Usage { usage, raw: raw(line) }]
    }

    /// `modelUsage` counts every call of the run; `usage` misses those that were repeated.
    fn usage(&mut self, value: &Value) -> Usage {
        let mut usage = Usage { cost_usd: cost(value.get("total_cost_usd")), ..Usage::default() };
        let models = value.get("modelUsage").and_then(Value::as_object);
        let mut most_output = 0;
        for (name, model) in models.into_iter().flatten().take(64) {
            usage.input_tokens += tokens(model, "inputTokens");
            usage.input_tokens += tokens(model, "cacheCreationInputTokens");
            usage.cached_input_tokens += tokens(model, "cacheReadInputTokens");
            let output = tokens(model, "outputTokens");
            usage.output_tokens += output;
            if output > most_output
                && let Some(model) = id_of(name)
            {
                most_output = output;
                self.report.model_id = Some(model);
            }
        }
        if most_output == 0
            && let Some(total) = value.get("usage")
        {
            usage.input_tokens =
                tokens(total, "input_tokens") + tokens(total, "cache_creation_input_tokens");
            usage.cached_input_tokens = tokens(total, "cache_read_input_tokens");
            usage.output_tokens = tokens(total, "output_tokens");
        }
        usage.model_id.clone_from(&self.report.model_id);
        usage
    }
}

/// What a failed `result` says: its text, its list of errors, or its kind.
fn error_text(value: &Value) -> String {
    if let Some(said) = text(value, "result").filter(|said| !said.trim().is_empty()) {
        return said.to_owned();
    }
    let errors: Vec<&str> = value
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .take(8)
        .collect();
    if errors.is_empty() {
        text(value, "subtype").unwrap_or("unknown error").to_owned()
    } else {
        errors.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_while_it_thinks_are_quiet_and_unknown_lines_are_not() {
        let mut parser = MessagesParser::default();
        let mut read = |line: &str| parser.line(LogStreamName::Stdout, line);
        let estimate = r#"{"type":"system","subtype":"thinking_tokens","estimated_tokens":12}"#;
        assert_eq!(read(estimate), []);
        let unknown = r#"{"type":"system","subtype":"something_new"}"#;
        assert!(matches!(read(unknown).as_slice(), [EventData::Log { .. }]));
    }
}
