//! Reading what an agent prints: the trait, the report, and the bounded text every parser makes.
//!
//! An agent is hostile code. Bounded: every text kept from a line ([`TEXT_BYTES_MAX`],
//! [`SUMMARY_BYTES_MAX`], [`RAW_BYTES_MAX`]), the events of one line ([`EVENTS_PER_LINE_MAX`]), what
//! is held between lines. Terminal control sequences survive only in `raw`.

use outpost_types::limits::LINE_BYTES_MAX;
use outpost_types::{EventData, FailureCode, LogStreamName, ToolPhase, Usage};
use serde_json::Value;

/// Longest text of a message, thought or log event, bytes; the output log has the rest.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest one-line summary of a tool call, bytes.
pub const SUMMARY_BYTES_MAX: usize = 300;
/// Longest raw line kept beside an event, bytes; the output log has the whole line.
pub const RAW_BYTES_MAX: usize = 16 * 1024;
/// Longest name or id taken from a CLI, bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest error message in a report, bytes.
pub const ERROR_BYTES_MAX: usize = 1_000;
/// Most events made from one line.
pub const EVENTS_PER_LINE_MAX: usize = 32;
/// Largest number of dollars believed; beyond it the CLI's figure is dropped.
const COST_USD_MAX: f64 = 1_000_000.0;
/// Largest number of tokens believed; a sum of such numbers cannot overflow.
const TOKENS_MAX: u64 = 1 << 50;

/// Reads the output of one run, line by line.
pub trait OutputParser: Send {
    /// Takes one line without its end, in the order it was printed. Never panics, whatever it holds.
    fn line(&mut self, stream: LogStreamName, line: &str) -> Vec<EventData>;

    /// Events that were held back for more text. Call it when the output ends.
    fn flush(&mut self) -> Vec<EventData> {
        Vec::new()
    }

    /// What the agent reported. Call it last.
    fn finish(&mut self) -> AgentReport;
}

/// What an agent said about its own run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentReport {
    /// Its final event; `None` when it sent none.
    pub finished: Option<FinalStatus>,
    /// The last thing it said.
    pub summary: Option<String>,
    /// Its session, for going on later.
    pub session_id: Option<String>,
    /// The model that answered, by its own account.
    pub model_id: Option<String>,
    /// Tokens and dollars of the whole run, by its own account.
    pub usage: Option<Usage>,
    /// What went wrong.
    pub error: Option<(FailureCode, String)>,
}

/// How a run ended by the agent's own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalStatus {
    /// Done.
    Completed,
    /// Not done.
    Failed,
    /// It went on without tools it was refused.
    Denied,
    /// Interrupted.
    Cancelled,
}

/// `text` without terminal control sequences and control characters (newline and tab stay), cut to
/// `bytes_max` at a character boundary.
#[must_use]
pub fn clean(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        let kept = match character {
            '\u{1b}' => {
                skip_escape(&mut chars);
                continue;
            }
            '\u{9b}' => {
                skip_csi(&mut chars);
                continue;
            }
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => {
                skip_string(&mut chars);
                continue;
            }
            '\r' if chars.peek() == Some(&'\n') => continue,
            '\r' => '\n',
            '\n' | '\t' => character,
            _ if character.is_control() => continue,
            _ => character,
        };
        if out.len() + kept.len_utf8() > bytes_max {
            break;
        }
        out.push(kept);
    }
    out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Skips what follows an ESC (ECMA-48).
fn skip_escape(chars: &mut Chars<'_>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_csi(chars);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            skip_string(chars);
        }
        // Intermediate bytes and one final byte, such as ESC ( B.
        Some(' '..='/') => {
            while chars.next_if(|next| (' '..='/').contains(next)).is_some() {}
            chars.next_if(|next| ('0'..='~').contains(next));
        }
        Some('0'..='~') => {
            chars.next();
        }
        _ => {}
    }
}

/// Skips parameters and the final byte of a control sequence.
fn skip_csi(chars: &mut Chars<'_>) {
    while chars.next_if(|next| (' '..='?').contains(next)).is_some() {}
    chars.next_if(|next| ('@'..='~').contains(next));
}

/// Skips a control string up to its terminator. An unterminated one ends with the line, so that it
/// cannot swallow what follows.
fn skip_string(chars: &mut Chars<'_>) {
    while let Some(&next) = chars.peek() {
        if next == '\n' {
            return;
        }
        chars.next();
        match next {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                chars.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

/// [`clean`]ed text on one line, white space folded, cut with an ellipsis.
#[must_use]
pub fn one_line(text: &str, bytes_max: usize) -> String {
    // Folding only shrinks, so a generous cut first keeps the work bounded.
    let cleaned = clean(text, bytes_max.saturating_mul(4));
    let mut out = String::new();
    for word in cleaned.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    if out.len() > bytes_max {
        cut(&mut out, bytes_max.saturating_sub('…'.len_utf8()));
        out.push('…');
    }
    out
}

/// Cuts `text` to `bytes_max` at a character boundary.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}

/// The line as it was printed, cut to [`RAW_BYTES_MAX`].
pub(crate) fn raw(line: &str) -> Option<String> {
    let mut text = line[..line.floor_char_boundary(RAW_BYTES_MAX)].to_owned();
    text.shrink_to_fit();
    Some(text)
}

/// A log event for a line nothing else was made of.
pub(crate) fn log(stream: LogStreamName, line: &str) -> EventData {
    EventData::Log { stream, text: clean(line, TEXT_BYTES_MAX) }
}

/// A message event; `None` when nothing readable is left.
pub(crate) fn message(text: &str, line: &str) -> Option<EventData> {
    let text = clean(text, TEXT_BYTES_MAX);
    (!text.trim().is_empty()).then(|| EventData::Message { text, raw: raw(line) })
}

/// A thought event; `None` when nothing readable is left.
pub(crate) fn thought(text: &str, line: &str) -> Option<EventData> {
    let text = clean(text, TEXT_BYTES_MAX);
    (!text.trim().is_empty()).then(|| EventData::Thought { text, raw: raw(line) })
}

/// A tool event.
pub(crate) fn tool(
    name: &str,
    call_id: Option<&str>,
    phase: ToolPhase,
    summary: Option<String>,
    is_error: Option<bool>,
    line: &str,
) -> EventData {
    EventData::Tool {
        name: name_of(name),
        call_id: call_id.map(|id| one_line(id, NAME_BYTES_MAX)),
        phase,
        summary: summary.filter(|text| !text.is_empty()),
        is_error,
        raw: raw(line),
    }
}

/// A tool's name, bounded; never empty.
fn name_of(name: &str) -> String {
    let name = one_line(name, NAME_BYTES_MAX);
    if name.is_empty() { "tool".to_owned() } else { name }
}

/// The object of a JSON line, if it is one and not too long to parse.
pub(crate) fn object(line: &str) -> Option<Value> {
    let line = line.trim();
    if line.len() > LINE_BYTES_MAX || !line.starts_with('{') {
        return None;
    }
    serde_json::from_str(line).ok()
}

/// The text of a field.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// A session or model id: bounded, without white space; `None` when there is none.
pub(crate) fn id(value: &Value, field: &str) -> Option<String> {
    text(value, field).and_then(id_of)
}

/// A text as such an id.
pub(crate) fn id_of(text: &str) -> Option<String> {
    let id = clean(text, NAME_BYTES_MAX);
    (!id.is_empty() && !id.contains(char::is_whitespace)).then_some(id)
}

/// A number of tokens; anything else is 0.
pub(crate) fn tokens(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0).min(TOKENS_MAX)
}

/// A cost in dollars. Several CLIs print 0 for unknown, which is not free of charge.
pub(crate) fn cost(value: Option<&Value>) -> Option<f64> {
    value
        .and_then(Value::as_f64)
        .filter(|cost| cost.is_finite() && *cost > 0.0 && *cost < COST_USD_MAX)
}

/// One line for a person from the arguments of a tool call: the command, the path, the pattern.
pub(crate) fn summary_of(arguments: &Value) -> Option<String> {
    const FIELDS: [&str; 14] = [
        "command",
        "cmd",
        "file_path",
        "filePath",
        "absolute_path",
        "path",
        "notebook_path",
        "dir_path",
        "target_file",
        "pattern",
        "query",
        "url",
        "description",
        "prompt",
    ];
    FIELDS.iter().find_map(|field| {
        let value = arguments.get(*field)?;
        let line = match value {
            Value::String(text) => one_line(text, SUMMARY_BYTES_MAX),
            Value::Array(words) => {
                let words: Vec<&str> = words.iter().filter_map(Value::as_str).take(64).collect();
                one_line(&words.join(" "), SUMMARY_BYTES_MAX)
            }
            _ => return None,
        };
        (!line.is_empty()).then_some(line)
    })
}

/// Keeps the raw line on the first event only, so that a line is stored once.
pub(crate) fn raw_once(events: &mut Vec<EventData>) {
    events.truncate(EVENTS_PER_LINE_MAX);
    for event in events.iter_mut().skip(1) {
        match event {
            EventData::Message { raw, .. }
            | EventData::Thought { raw, .. }
            | EventData::Tool { raw, .. }
            | EventData::Usage { raw, .. } => *raw = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_dropped() {
        for (dirty, wanted) in [
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}(Bplain\u{1b}=", "plain"),
            ("a\u{0}b\u{8}c\u{7f}d\u{85}e", "abcde"),
            ("one\r\ntwo\rthree\tend", "one\ntwo\nthree\tend"),
            ("\u{1b}]never ends\nkept", "\nkept"),
            ("\u{9b}2Jx\u{90}q\u{9c}y", "xy"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
            ("naïve ✓ 日本", "naïve ✓ 日本"),
        ] {
            assert_eq!(clean(dirty, 1000), wanted, "{dirty:?}");
        }
    }

    #[test]
    fn cuts_fall_between_characters() {
        assert_eq!(clean("日本語", 7), "日本");
        assert_eq!(one_line("日本語 日本語", 10), "日本…");
        assert_eq!(one_line("  a \n b\t c ", 100), "a b c");
        assert_eq!(raw(&"é".repeat(RAW_BYTES_MAX)).unwrap().len(), RAW_BYTES_MAX);
    }

    #[test]
    fn figures_of_a_liar_are_bounded() {
        let value = serde_json::json!({"t": u64::MAX, "n": -4, "f": 1e300, "z": 0.0, "c": 0.25});
        assert_eq!(tokens(&value, "t"), TOKENS_MAX);
        assert_eq!(tokens(&value, "n"), 0);
        assert_eq!(cost(value.get("f")), None);
        assert_eq!(cost(value.get("z")), None);
        assert_eq!(cost(value.get("c")), Some(0.25));
    }
}
