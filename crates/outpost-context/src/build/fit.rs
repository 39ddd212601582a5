//! Making parts fit into a budget.

use std::collections::BTreeMap;

use outpost_types::{ContextKind, ContextTrim};

use super::clean::MARK;
use super::date::Day;
use super::{FOOT, HEAD, TOKEN_CHARS, tokens};
use crate::Scrubber;
use crate::scrub::mask_of;

/// A journal is whole up to this age, and only its headings up to the next, days.
const WHOLE_DAYS_MAX: i64 = 3;
const HEADINGS_DAYS_MAX: i64 = 7;
/// What is left of an older one, tokens.
const BEGINNING_TOKENS: usize = 150;
const END_TOKENS: usize = 100;
/// What of a journal is cut last, tokens.
const JOURNAL_TOKENS_MIN: usize = 200;

/// One part of the context on its way.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) kind: ContextKind,
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) tokens_before: usize,
    pub(super) text: String,
    pub(super) trimmed: ContextTrim,
    pub(super) redactions: BTreeMap<String, u64>,
}

impl Part {
    /// A part of a clean text.
    pub(super) fn of(kind: ContextKind, path: String, bytes: u64, text: &str) -> Self {
        Self {
            kind,
            path,
            bytes,
            tokens_before: tokens(text),
            text: text.to_owned(),
            trimmed: ContextTrim::None,
            redactions: BTreeMap::new(),
        }
    }

    /// A journal loses what its age makes worthless.
    pub(super) fn age(&mut self, whole: &str, today: Day) {
        if self.kind == ContextKind::Journal {
            let day = Day::in_text(&self.path).or_else(|| Day::newest_in(whole, today));
            let age = day.map_or(i64::MAX, |day| today.since(day));
            (self.text, self.trimmed) = aged(std::mem::take(&mut self.text), age);
        }
    }

    /// Masks secrets.
    pub(super) fn scrub(&mut self, scrubber: &Scrubber) {
        let scrubbed = scrubber.text(&self.text);
        self.redactions.extend(scrubbed.redactions);
        self.text = scrubbed.text.into_owned();
        scrubber.mask(&mut self.path);
    }

    /// Counts the masks that are left.
    pub(super) fn count(&mut self) {
        let text = &self.text;
        self.redactions.retain(|label, count| {
            *count = text.matches(&mask_of(label)).count() as u64;
            *count > 0
        });
    }

    fn chars(&self) -> usize {
        self.text.chars().count()
    }

    fn cut(&mut self, chars_max: usize) {
        if self.chars() > chars_max {
            self.text = cut(&self.text, chars_max);
            if self.trimmed == ContextTrim::None {
                self.trimmed = ContextTrim::Cut;
            }
        }
    }
}

fn aged(text: String, age: i64) -> (String, ContextTrim) {
    if age <= WHOLE_DAYS_MAX {
        return (text, ContextTrim::None);
    }
    if age <= HEADINGS_DAYS_MAX {
        let headings: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        let headings = headings.join("\n");
        if !headings.is_empty() {
            return (headings, ContextTrim::Headings);
        }
    }
    if tokens(&text) <= BEGINNING_TOKENS + END_TOKENS {
        return (text, ContextTrim::None);
    }
    let beginning = cut(&text, BEGINNING_TOKENS * TOKEN_CHARS);
    let end = end_of(&text, END_TOKENS * TOKEN_CHARS);
    (format!("{beginning}\n{end}").trim().to_owned(), ContextTrim::Ends)
}

/// The last whole lines of at most so many characters.
fn end_of(text: &str, chars_max: usize) -> &str {
    let (mut chars, mut start) = (0, text.len());
    for line in text.split_inclusive('\n').rev() {
        chars += line.chars().count();
        if chars > chars_max {
            break;
        }
        start -= line.len();
    }
    &text[start..]
}

/// The first whole lines, or words where the first line alone is too long, of at most so many characters, and a mark.
/// A word is never cut: half a secret would not be known for one.
fn cut(text: &str, chars_max: usize) -> String {
    let room = chars_max.saturating_sub(MARK.chars().count() + 1);
    let Some((end, _)) = text.char_indices().nth(room) else { return text.to_owned() };
    let kept = &text[..end];
    let kept = match (kept.rfind('\n'), kept.rfind(char::is_whitespace)) {
        (Some(line), _) => &kept[..line],
        (None, Some(word)) => &kept[..word],
        (None, None) => "",
    };
    let kept = kept.trim_end();
    if kept.is_empty() { String::new() } else { format!("{kept}\n{MARK}") }
}

/// What is long by nature leaves room for the others.
pub(super) fn caps(parts: &mut [Part], budget_chars: usize) {
    for part in parts {
        match part.kind {
            ContextKind::Identity => part.cut(budget_chars / 3),
            ContextKind::Map => part.cut(budget_chars / 6),
            _ => {}
        }
    }
}

/// Cuts parts one after the other until all together fit.
pub(super) fn fit(parts: &mut [Part], budget_chars: usize) {
    let journal = JOURNAL_TOKENS_MIN * TOKEN_CHARS;
    for (kind, least) in [
        (ContextKind::Roadmap, 0),
        (ContextKind::Profile, 0),
        (ContextKind::Journal, journal),
        (ContextKind::Map, 0),
        (ContextKind::Identity, 0),
        (ContextKind::Journal, 0),
        // Decisions are cut only when they alone are too long.
        (ContextKind::Decisions, 0),
    ] {
        let Some(over) = render(parts).chars().count().checked_sub(budget_chars) else { return };
        if over == 0 {
            return;
        }
        if let Some(part) = parts.iter_mut().find(|part| part.kind == kind) {
            part.cut(part.chars().saturating_sub(over).max(least));
        }
    }
}

/// The whole text; empty when there is nothing to tell.
pub(super) fn render(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts.iter().filter(|part| !part.text.is_empty()) {
        if text.is_empty() {
            text.push_str(HEAD);
        }
        let title = match part.kind {
            ContextKind::Identity => "What this is",
            ContextKind::Decisions => "Decisions that hold",
            ContextKind::Profile => "Who asks",
            ContextKind::Journal => "What was done last",
            ContextKind::Roadmap => "What comes next",
            ContextKind::Map => "Files",
        };
        match part.path.as_str() {
            "" => text.push_str(&format!("\n## {title}\n{}\n", part.text)),
            path => text.push_str(&format!("\n## {title} ({path})\n{}\n", part.text)),
        }
    }
    if !text.is_empty() {
        text.push_str(FOOT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_keeps_lines_or_words_whole() {
        assert_eq!(cut("one\ntwo\nthree", 100), "one\ntwo\nthree");
        assert_eq!(cut("one\ntwo\nthree", 12), "one\ntwo\n[…]");
        assert_eq!(cut("one two three", 11), "one\n[…]");
        assert_eq!(cut(&"x".repeat(100), 50), "");
        assert_eq!(end_of("one\ntwo\nthree", 9), "two\nthree");
        assert_eq!(end_of("onetwothree", 5), "");
    }
}
