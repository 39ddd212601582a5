//! Events of a dispatch as lines for a person: time, what happened, the agent's own words.
//!
//! Keeps the tool calls that are open, to tell how long each took; at most [`OPEN_CALLS_MAX`], since an
//! agent decides how many it opens.

use std::collections::VecDeque;

use outpost_types::{
    BudgetScope, DispatchStatus, EventData, EventEnvelope, Failure, LogStreamName, Network,
    NetworkLevel, Timestamp, ToolPhase,
};

use crate::Surface;
use crate::format::{bytes, dollars, millis, pad_left, short_id, truncate, width, wrap};
use crate::sanitize;

/// Tool calls that are remembered until they end.
const OPEN_CALLS_MAX: usize = 64;
/// Columns of the time before each line.
const TIME_COLUMNS: usize = 8;
/// Lines shown of one message; the rest is in the output log.
const MESSAGE_LINES_MAX: usize = 200;

/// Why the gateway refused what a provider would have reached: no rule for hosts allows it, a network does.
const PROVIDER_TOOL: &str = "provider_tool";

#[derive(Debug)]
struct OpenCall {
    id: Option<String>,
    name: String,
    at: Timestamp,
}

/// Turns events into lines.
#[derive(Debug)]
pub struct EventPrinter {
    surface: Surface,
    started: Timestamp,
    open: VecDeque<OpenCall>,
    /// The last line was the start of this call, so that its end needs no name.
    last_start: Option<Option<String>>,
}

impl EventPrinter {
    /// A printer that shows times since `started`.
    #[must_use]
    pub const fn new(surface: Surface, started: Timestamp) -> Self {
        Self { surface, started, open: VecDeque::new(), last_start: None }
    }

    /// The lines of one event, without line ends; empty for what only the progress line shows.
    #[must_use]
    pub fn lines(&mut self, event: &EventEnvelope) -> Vec<String> {
        let surface = self.surface;
        let previous_start = self.last_start.take();
        let (mark, body) = match &event.data {
            EventData::Status { status, reason, failure } => {
                status_text(surface, *status, reason.as_deref(), failure.as_ref())
            }
            EventData::Network { from, to } => {
                let text = format!("network: {} (was: {})", network(to), network(from));
                (surface.yellow("!"), text)
            }
            EventData::Phase { name, millis: took, detail } => {
                let detail = detail.as_deref().map(sanitize::line).unwrap_or_default();
                let text = format!("{} {} {detail}", sanitize::line(name), millis(*took));
                (surface.dim(surface.glyph("·", "-")), surface.dim(text.trim_end()))
            }
            EventData::Log { stream, text } => {
                let (mark, body) = log_text(surface, *stream, text);
                return self.one_line(event.at, &mark, &body);
            }
            EventData::Message { text, .. } => {
                (surface.cyan(surface.glyph("◆", "*")), sanitize::text(text))
            }
            EventData::Thought { text, .. } => {
                (surface.dim(surface.glyph("…", "~")), surface.dim(&sanitize::line(text)))
            }
            EventData::Tool { .. } => return self.tool(event, previous_start.as_ref()),
            EventData::Usage { .. } => {
                self.last_start = previous_start;
                return Vec::new();
            }
            EventData::PolicyDenied { target, reason, suggestion } => {
                let (target, reason) = (sanitize::line(target), sanitize::line(reason));
                let mut text = format!("blocked {target}: {reason}");
                let id = short_id(event.dispatch_id);
                if reason == PROVIDER_TOOL {
                    text.push_str(&format!(
                        "; to allow it: outpost network {id} --network trusted"
                    ));
                }
                if let Some(rule) = suggestion.as_deref().map(sanitize::line) {
                    text.push_str(&format!(
                        "; to allow it: outpost network {id} --allow-host {rule}"
                    ));
                }
                (surface.yellow("!"), text)
            }
            EventData::BudgetThreshold { scope, spent_usd, budget_usd } => {
                let whose = match scope {
                    BudgetScope::Dispatch => "",
                    BudgetScope::TenantDay => " of the tenant's day",
                };
                let (spent, budget) = (dollars(*spent_usd), dollars(*budget_usd));
                (surface.yellow("!"), format!("{spent} of {budget}{whose} is spent"))
            }
            EventData::ArtifactCreated { name, size_bytes } => (
                surface.dim("+"),
                surface.dim(&format!("{} {}", sanitize::line(name), bytes(*size_bytes))),
            ),
            EventData::Attention(attention) => {
                (surface.yellow("!"), sanitize::line(&attention.message))
            }
        };
        self.layout(event.at, &mark, &body)
    }

    fn tool(
        &mut self,
        event: &EventEnvelope,
        previous_start: Option<&Option<String>>,
    ) -> Vec<String> {
        let EventData::Tool { name, call_id, phase, summary, is_error, .. } = &event.data else {
            return Vec::new();
        };
        let surface = self.surface;
        let name = tool_name(name);
        // Where the repository lies inside the sandbox is of no interest outside.
        let inside = format!("/workspace/{}/repo/", event.dispatch_id);
        let summary = summary.as_deref().map(sanitize::line).unwrap_or_default();
        let summary = bare_command(&summary.replace(&inside, ""));
        if *phase == ToolPhase::Start {
            if self.open.len() == OPEN_CALLS_MAX {
                self.open.pop_front();
            }
            self.open.push_back(OpenCall { id: call_id.clone(), name: name.clone(), at: event.at });
            self.last_start = Some(call_id.clone());
            let mark = surface.cyan(surface.glyph("●", "*"));
            let room = self.room().map(|room| room.saturating_sub(width(&name) + 1));
            let summary = match room {
                Some(room) => truncate(&summary, room, surface.unicode),
                None => summary,
            };
            let text = format!("{} {summary}", surface.bold(&name));
            return self.layout(event.at, &mark, text.trim_end());
        }
        let position = self.open.iter().position(|call| call.id == *call_id);
        let call = position.and_then(|index| self.open.remove(index));
        let failed = *is_error == Some(true);
        let mark = if failed {
            surface.red(surface.glyph("  ✗", "  x"))
        } else {
            surface.green(surface.glyph("  ✓", "  v"))
        };
        let mut parts = Vec::new();
        if previous_start != Some(call_id) {
            parts.push(call.as_ref().map_or(name, |call| call.name.clone()));
        }
        if let Some(call) = &call {
            parts.push(surface.dim(&millis(event.at.millis_since(call.at))));
        }
        if failed && !summary.is_empty() {
            parts.push(summary);
        }
        self.layout(event.at, &mark, &parts.join(" "))
    }

    /// Output that was not understood: one line, cut to the terminal; the log has all of it.
    fn one_line(&self, at: Timestamp, mark: &str, body: &str) -> Vec<String> {
        let Some(room) = self.room() else {
            return self.layout(at, mark, &self.surface.dim(body));
        };
        let body = truncate(&sanitize::line(body), room, self.surface.unicode);
        self.layout(at, mark, &self.surface.dim(&body))
    }

    /// Columns beside time and mark; `None` where lines may have any length.
    fn room(&self) -> Option<usize> {
        let columns = self.surface.columns?;
        Some(columns.saturating_sub(TIME_COLUMNS + 4).max(20))
    }

    fn layout(&self, at: Timestamp, mark: &str, body: &str) -> Vec<String> {
        let elapsed = millis(at.millis_since(self.started));
        let time = self.surface.dim(&pad_left(&elapsed, TIME_COLUMNS));
        let indent = " ".repeat(TIME_COLUMNS + 4);
        let mut lines = Vec::new();
        for (index, text) in self.fit(body).into_iter().enumerate() {
            if index == MESSAGE_LINES_MAX {
                lines.push(format!("{indent}{}", self.surface.dim("(more in the log)")));
                break;
            }
            let line = if index == 0 {
                format!("{time}  {mark} {text}")
            } else {
                format!("{indent}{text}")
            };
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// Prose is wrapped; a line with colours is one line, cut to the terminal before it was coloured.
    fn fit(&self, body: &str) -> Vec<String> {
        let Some(room) = self.room() else {
            return body.lines().map(str::to_owned).collect();
        };
        if body.contains('\x1b') {
            return vec![cut_painted(body, room, self.surface.unicode)];
        }
        wrap(body, room)
    }
}

/// What a sandbox may reach, as a person would say it.
#[must_use]
pub fn network(network: &Network) -> String {
    let hosts: Vec<_> = network.allow_hosts.iter().map(|host| sanitize::line(host)).collect();
    match (network.level, hosts.is_empty()) {
        (NetworkLevel::Custom, false) => hosts.join(", "),
        (NetworkLevel::Trusted, false) => format!("trusted hosts, {}", hosts.join(", ")),
        (NetworkLevel::Trusted, true) => "trusted hosts".to_owned(),
        (NetworkLevel::None, _) | (NetworkLevel::Custom, true) => "nothing".to_owned(),
    }
}

/// The name of a tool as a person would say it.
pub(crate) fn tool_name(name: &str) -> String {
    match name {
        // Codex has one name for all commands, and a long one.
        "command_execution" => "shell".to_owned(),
        name => sanitize::line(name),
    }
}

/// `ls` for `/bin/bash -lc 'ls'`: agents wrap every command in the same shell.
fn bare_command(summary: &str) -> String {
    let wrapped = ["/bin/bash -lc ", "bash -lc ", "/bin/sh -c ", "sh -c "]
        .into_iter()
        .find_map(|shell| summary.strip_prefix(shell));
    let Some(command) = wrapped else {
        return summary.to_owned();
    };
    let quoted = ['\'', '"']
        .into_iter()
        .find_map(|quote| command.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)));
    quoted.unwrap_or(command).to_owned()
}

/// Cuts a text that has our own colours in it by what is visible of it.
fn cut_painted(body: &str, columns: usize, unicode: bool) -> String {
    let visible = sanitize::text(body);
    if crate::format::width(&visible) <= columns {
        return body.to_owned();
    }
    // Colour is worth less than a line that fits.
    truncate(&visible, columns, unicode)
}

fn status_text(
    surface: Surface,
    status: DispatchStatus,
    reason: Option<&str>,
    failure: Option<&Failure>,
) -> (String, String) {
    let word = status.as_str().to_ascii_lowercase();
    let mut text = match status {
        DispatchStatus::Completed => surface.green(&word),
        DispatchStatus::Failed | DispatchStatus::Timeout => surface.red(&word),
        DispatchStatus::Cancelled => surface.yellow(&word),
        _ => word,
    };
    if let Some(why) = failure.map(|failure| failure.message.as_str()).or(reason) {
        text.push_str(&format!(": {}", sanitize::line(why)));
    }
    let mark = match status {
        DispatchStatus::Completed => surface.green(surface.glyph("✓", "v")),
        DispatchStatus::Failed | DispatchStatus::Timeout | DispatchStatus::Cancelled => {
            surface.red(surface.glyph("✗", "x"))
        }
        _ => surface.cyan(surface.glyph("▸", ">")),
    };
    (mark, text)
}

fn log_text(surface: Surface, stream: LogStreamName, text: &str) -> (String, String) {
    let mark = surface.glyph("│", "|");
    let mark = match stream {
        LogStreamName::Stdout => surface.dim(mark),
        LogStreamName::Stderr => surface.yellow(mark),
    };
    (mark, sanitize::text(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, assert_golden};

    fn print(surface: Surface) -> String {
        let mut printer = EventPrinter::new(surface, samples::CREATED_AT);
        let lines: Vec<String> =
            samples::events().iter().flat_map(|event| printer.lines(event)).collect();
        lines.join("\n") + "\n"
    }

    #[test]
    fn a_whole_run_in_a_pipe() {
        let text = print(Surface::PLAIN);
        assert!(!text.contains('\x1b'));
        assert_golden("events.txt", &text);
    }

    #[test]
    fn a_whole_run_on_a_narrow_ascii_terminal() {
        let text = print(Surface { tty: true, unicode: false, columns: Some(50), color: false });
        assert_golden("events-narrow.txt", &text);
        for line in text.lines() {
            assert!(crate::format::width(line) <= 50, "{line}");
        }
    }

    #[test]
    fn a_shell_around_a_command_is_left_out() {
        assert_eq!(bare_command("/bin/bash -lc 'ls -l'"), "ls -l");
        assert_eq!(bare_command("/bin/bash -lc ls"), "ls");
        assert_eq!(bare_command("bash script"), "bash script");
    }

    #[test]
    fn open_calls_are_bounded() {
        let mut printer = EventPrinter::new(Surface::PLAIN, samples::CREATED_AT);
        for index in 0..1_000 {
            let _ = printer.lines(&samples::event(
                index,
                EventData::Tool {
                    name: "Bash".into(),
                    call_id: Some(index.to_string()),
                    phase: ToolPhase::Start,
                    summary: None,
                    is_error: None,
                    raw: None,
                },
            ));
        }
        assert_eq!(printer.open.len(), OPEN_CALLS_MAX);
    }
}
