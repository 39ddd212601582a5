//! Reader of Aider's text. It prints a banner, a blank line, the model's reply, a line of tokens, and
//! then what it did with the edits; after a failed edit all but the banner comes again.
//!
//! A line of tokens is printed only when the model answered, so it stands for the final event; an error
//! after the last one makes the run a failure. Model text that looks like an error is therefore
//! harmless: the line of tokens after it clears it. Bounded: the text held back ([`TEXT_BYTES_MAX`]).

use outpost_types::{Attention, EventData, FailureCode, LogStreamName, ToolPhase, Usage};

use crate::fault;
use crate::parse::{
    AgentReport, FinalStatus, NAME_BYTES_MAX, OutputParser, SUMMARY_BYTES_MAX, TEXT_BYTES_MAX,
    clean, log, one_line, raw, tool,
};

/// Lines that tell of a failure of Aider's own, by how they begin.
const FAILURES: [&str; 4] = [
    "Exception while updating files:",
    "Empty response received from LLM",
    "Error: Unable to",
    "Model error",
];
/// Ends a run whose edits could not be applied in several tries ("Only 3 reflections allowed, …").
const GAVE_UP: &str = "reflections allowed, stopping.";
/// The model's context or output limit was hit.
const TOKEN_LIMIT: &str = "has hit a token limit!";

/// Where in the output the reader is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Before the blank line that ends the banner.
    #[default]
    Banner,
    /// The model's reply.
    Reply,
    /// After a line of tokens: what was done, or the next reply.
    After,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct AiderParser {
    report: AgentReport,
    part: Part,
    named: bool,
    held: String,
    usage: Usage,
}

impl OutputParser for AiderParser {
    fn line(&mut self, stream: LogStreamName, line: &str) -> Vec<EventData> {
        if stream == LogStreamName::Stderr {
            return vec![log(stream, line)];
        }
        let text = clean(line, TEXT_BYTES_MAX);
        if let Some(event) = self.known(&text, line) {
            return event;
        }
        match self.part {
            Part::Banner => self.banner(&text),
            Part::Reply | Part::After => self.hold(&text),
        }
    }

    fn flush(&mut self) -> Vec<EventData> {
        let held = std::mem::take(&mut self.held);
        let text = held.trim();
        if text.is_empty() {
            Vec::new()
        } else if self.part == Part::Reply {
            vec![message(text)]
        } else {
            vec![log(LogStreamName::Stdout, text)]
        }
    }

    fn finish(&mut self) -> AgentReport {
        let report = std::mem::take(&mut self.report);
        *self = Self::default();
        report
    }
}

fn message(text: &str) -> EventData {
    EventData::Message { text: text.to_owned(), raw: None }
}

impl AiderParser {
    /// Lines with a meaning wherever they are.
    fn known(&mut self, text: &str, line: &str) -> Option<Vec<EventData>> {
        if let Some(counts) = text.strip_prefix("Tokens: ") {
            return self.tokens(counts, line);
        }
        if let Some(path) = text.strip_prefix("Applied edit to ") {
            let summary = Some(one_line(path, SUMMARY_BYTES_MAX));
            let edit = tool("edit", None, ToolPhase::End, summary, Some(false), line);
            return Some(vec![edit]);
        }
        if text.starts_with("Retrying in ") && text.ends_with("seconds...") {
            return Some(vec![EventData::Attention(Attention {
                code: "model_retry".to_owned(),
                message: "The model did not answer; the agent tries again.".to_owned(),
            })]);
        }
        if text.starts_with("The API provider") {
            return Some(vec![log(LogStreamName::Stdout, line)]);
        }
        let (code, said) = failure(text)?;
        let mut events = self.flush();
        self.report.finished = Some(FinalStatus::Failed);
        self.report.error = Some((code, said));
        events.push(log(LogStreamName::Stdout, line));
        Some(events)
    }

    fn banner(&mut self, text: &str) -> Vec<EventData> {
        if text.starts_with("Aider v") {
            self.named = true;
        }
        for start in ["Model: ", "Main model: "] {
            if let Some(model) = text.strip_prefix(start).filter(|_| self.named) {
                let name = model.split_whitespace().next().unwrap_or_default();
                self.report.model_id = Some(clean(name, NAME_BYTES_MAX));
            }
        }
        if text.is_empty() {
            if self.named {
                self.part = Part::Reply;
            }
            return Vec::new();
        }
        vec![log(LogStreamName::Stdout, text)]
    }

    fn hold(&mut self, text: &str) -> Vec<EventData> {
        let mut events = Vec::new();
        if self.held.len() + text.len() + 1 > TEXT_BYTES_MAX {
            events = self.flush();
        }
        self.held.push_str(text);
        self.held.push('\n');
        events
    }

    /// "2.4k sent, 1.1k cache hit, 19 received. Cost: $0.0003 message, $0.0005 session."
    fn tokens(&mut self, counts: &str, line: &str) -> Option<Vec<EventData>> {
        let (counts, cost) = match counts.split_once(". Cost: ") {
            Some((counts, cost)) => (counts, Some(cost)),
            None => (counts.trim_end_matches('.'), None),
        };
        let (mut sent, mut cached, mut received) = (0, 0, None);
        for count in counts.split(", ").take(8) {
            let (number, what) = count.split_once(' ')?;
            let number = count_of(number)?;
            match what.trim_end_matches('.') {
                "sent" => sent = number,
                "cache hit" => cached = number,
                "received" => received = Some(number),
                _ => {}
            }
        }
        self.usage.input_tokens += sent.saturating_sub(cached);
        self.usage.cached_input_tokens += cached;
        self.usage.output_tokens += received?;
        self.usage.cost_usd = cost.and_then(session_cost).or(self.usage.cost_usd);
        self.usage.model_id.clone_from(&self.report.model_id);
        let mut events = Vec::new();
        let reply = std::mem::take(&mut self.held);
        if !reply.trim().is_empty() {
            self.report.summary = Some(reply.trim().to_owned());
            events.push(message(reply.trim()));
        }
        self.part = Part::After;
        self.report.finished = Some(FinalStatus::Completed);
        self.report.error = None;
        self.report.usage = Some(self.usage.clone());
        events.push(EventData::Usage { usage: self.usage.clone(), raw: raw(line) });
        Some(events)
    }
}

/// The failure a line tells of.
fn failure(text: &str) -> Option<(FailureCode, String)> {
    let library = text.strip_prefix("litellm.").is_some_and(|rest| {
        let class: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        (class.ends_with("Error") || class == "Timeout") && rest[class.len()..].starts_with(':')
    });
    if library || FAILURES.iter().any(|start| text.starts_with(start)) {
        return Some(fault::of_text(None, text));
    }
    if text.starts_with("Only ") && text.ends_with(GAVE_UP) {
        let said = "the model's edits could not be applied".to_owned();
        return Some((FailureCode::AgentExit, said));
    }
    if text.starts_with("Model ") && text.ends_with(TOKEN_LIMIT) {
        let said = "the task and its files are too long for the model".to_owned();
        return Some((FailureCode::AgentExit, said));
    }
    None
}

/// "26", "2.4k", "12k" or "1.5M" as a number.
fn count_of(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1e6),
            None => (text, 1.0),
        },
    };
    let number: f64 = digits.parse().ok()?;
    // A trillion tokens is more than any run reads, and far below where sums overflow.
    let number = number * unit;
    ((0.0..1e12).contains(&number)).then_some(number.round() as u64)
}

/// The second amount of "$0.0003 message, $0.0005 session."
fn session_cost(text: &str) -> Option<f64> {
    let amount = text.split(", ").nth(1)?.strip_prefix('$')?;
    let number = amount.split(' ').next()?.replace(',', "");
    let cost: f64 = number.parse().ok()?;
    (cost.is_finite() && cost > 0.0 && cost < 1e6).then_some(cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count_of("26"), Some(26));
        assert_eq!(count_of("2.4k"), Some(2_400));
        assert_eq!(count_of("12k"), Some(12_000));
        for text in ["", "k", "-1", "NaN", "inf", "1e300", "1e300k"] {
            assert_eq!(count_of(text), None, "{text}");
        }
    }

    #[test]
    fn costs() {
        assert_eq!(session_cost("$0.0003 message, $0.50 session."), Some(0.5));
        assert_eq!(session_cost("$1 message"), None);
    }
}
