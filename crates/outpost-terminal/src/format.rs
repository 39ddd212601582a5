//! Numbers, times and widths for people.

use outpost_types::{DispatchId, Timestamp, Usage};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Characters of an id that are shown where space is short. The end of a ULID is its random part, so
/// that few characters tell dispatches of the same second apart.
const SHORT_ID_CHARACTERS: usize = 8;

/// `7 ms`, `1.24 s`, `2 m 05 s`, `1 h 02 m`.
#[must_use]
pub fn millis(millis: u64) -> String {
    let seconds = millis / 1_000;
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..10_000 => format!("{}.{:02} s", seconds, millis % 1_000 / 10),
        10_000..60_000 => format!("{}.{} s", seconds, millis % 1_000 / 100),
        60_000..3_600_000 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// `512 B`, `1.5 KB`, `20 MB` (powers of 1,024).
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let (mut unit, mut tenths) = (0, bytes.saturating_mul(10));
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    if unit == 0 || tenths >= 100 || tenths % 10 == 0 {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

/// `950`, `12.3k`, `1.2M`.
pub(crate) fn count(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{}.{}k", count / 1_000, count % 1_000 / 100),
        _ => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
    }
}

/// `$0.0213`, `$1.50`.
pub(crate) fn dollars(dollars: f64) -> String {
    let cents = dollars * 100.0;
    if dollars < 1.0 && (cents - cents.round()).abs() > 1e-6 {
        format!("${dollars:.4}")
    } else {
        format!("${dollars:.2}")
    }
}

/// `12.3k in (8.1k cached), 950 out, $0.02`; money only when it is known.
pub(crate) fn usage(usage: &Usage) -> String {
    let mut text =
        format!("{} in", count(usage.input_tokens.saturating_add(usage.cached_input_tokens)));
    if usage.cached_input_tokens > 0 {
        text.push_str(&format!(" ({} cached)", count(usage.cached_input_tokens)));
    }
    text.push_str(&format!(", {} out", count(usage.output_tokens)));
    match (usage.cost_usd, usage.unpriced_models.is_empty()) {
        (Some(cost), true) => text.push_str(&format!(", {}", dollars(cost))),
        (Some(cost), false) => {
            text.push_str(&format!(
                ", at least {} (price of {} unknown)",
                dollars(cost),
                unpriced(usage)
            ));
        }
        (None, true) => {}
        (None, false) => text.push_str(&format!(", price of {} unknown", unpriced(usage))),
    }
    text
}

fn unpriced(usage: &Usage) -> String {
    let names = usage.unpriced_models.iter().map(|name| crate::sanitize::line(name));
    names.collect::<Vec<_>>().join(", ")
}

/// `now`, `45s ago`, `12m ago`, `3h ago`, `5d ago`.
#[must_use]
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.millis_since(at) / 1_000;
    match seconds {
        0..5 => "now".to_owned(),
        5..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// The end of an id, which the commands accept in its place.
#[must_use]
pub fn short_id(id: DispatchId) -> String {
    let text = id.to_string();
    let from = text.len().saturating_sub(SHORT_ID_CHARACTERS);
    text.get(from..).unwrap_or(&text).to_owned()
}

/// Columns a text takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text, cut to `columns` with an ellipsis when it is longer.
#[must_use]
pub fn truncate(text: &str, columns: usize, unicode: bool) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let ellipsis = if unicode { "…" } else { "..." };
    let room = columns.saturating_sub(width(ellipsis));
    let (mut used, mut output) = (0, String::new());
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > room {
            break;
        }
        output.push(character);
    }
    output.push_str(ellipsis);
    output
}

/// The text with spaces up to `columns`.
#[must_use]
pub fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// The text with spaces before it up to `columns`.
pub(crate) fn pad_left(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{}{text}", " ".repeat(missing))
}

/// Lines of at most `columns`, broken at spaces where there are any.
#[must_use]
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let (mut current, mut used) = (String::new(), 0);
        for word in paragraph.split_inclusive(' ') {
            let word_columns = width(word.trim_end());
            if used > 0 && used + word_columns > columns {
                lines.push(current.trim_end().to_owned());
                (current, used) = (String::new(), 0);
            }
            for character in word.chars() {
                let character_columns = character.width().unwrap_or(0);
                if used + character_columns > columns && character != ' ' {
                    lines.push(std::mem::take(&mut current));
                    used = 0;
                }
                current.push(character);
                used += character_columns;
            }
        }
        lines.push(current.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(millis(7), "7 ms");
        assert_eq!(millis(1_249), "1.24 s");
        assert_eq!(millis(59_960), "59.9 s");
        assert_eq!(millis(125_000), "2 m 05 s");
        assert_eq!(millis(3_725_000), "1 h 02 m");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1_536), "1.5 KB");
        assert_eq!(bytes(20 * 1_024 * 1_024), "20 MB");
        assert_eq!(bytes(u64::MAX), "1677721 TB");
        assert_eq!(count(12_345), "12.3k");
        assert_eq!(dollars(0.0213), "$0.0213");
        assert_eq!(dollars(0.0), "$0.00");
    }

    #[test]
    fn money_is_not_shown_when_unknown() {
        let mut used = Usage {
            input_tokens: 200,
            cached_input_tokens: 1_000,
            output_tokens: 30,
            ..Usage::default()
        };
        assert_eq!(usage(&used), "1.2k in (1.0k cached), 30 out");
        used.cost_usd = Some(0.5);
        assert_eq!(usage(&used), "1.2k in (1.0k cached), 30 out, $0.50");
        used.unpriced_models = vec!["m\u{1b}[2J".into()];
        assert_eq!(
            usage(&used),
            "1.2k in (1.0k cached), 30 out, at least $0.50 (price of m unknown)"
        );
        used.cost_usd = None;
        assert!(usage(&used).ends_with("30 out, price of m unknown"), "{}", usage(&used));
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(truncate("日本語", 5, true), "日本…");
        assert_eq!(truncate("日本語", 6, true), "日本語");
        assert_eq!(width(&pad("日", 4)), 4);
    }

    #[test]
    fn wrapping_keeps_every_word() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("a\n\nb", 10), ["a", "", "b"]);
    }
}
