//! The last thing between what an agent wrote and the user's terminal.

use outpost_terminal::sanitize;

use crate::text::assert_line;

/// Texts, lines, diffs and JSON documents as the command line prints them.
pub fn terminal(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let text = sanitize::text(&input);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' || reorders(c)), "{text:?}");
    assert_eq!(sanitize::text(&text), text);
    let breaks = |text: &str| text.matches('\n').count();
    assert_eq!(breaks(&text), breaks(&input), "a line vanished or came");
    let line = sanitize::line(&input);
    assert_line(&line, usize::MAX);
    assert!(!line.chars().any(reorders) && line.trim() == line && !line.contains("  "), "{line:?}");
    assert_eq!(sanitize::line(&line), line);
    let diff = sanitize::with_tabs(&input);
    assert!(
        !diff.chars().any(|c| c.is_control() && !"\n\t".contains(c) || reorders(c)),
        "{diff:?}"
    );
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(&input) {
        let plain = value.to_string();
        let document = sanitize::json(&plain);
        assert!(!document.chars().any(|c| c.is_control() || reorders(c)), "{document:?}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(read(&document), read(&plain));
    }
}

/// The marks and overrides of Unicode's bidirectional algorithm (UAX 9).
const fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
