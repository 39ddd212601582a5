//! Text of strangers made plain.

use outpost_types::ContextSkipReason;

/// Longest line that is kept, characters.
const LINE_CHARS_MAX: usize = 1_000;
/// Beginning of a file that tells whether it is text, bytes.
const PROBE_BYTES: usize = 8 * 1024;
/// What stands at a place where something was left out.
pub(super) const MARK: &str = "[…]";

/// The text of a file; its headings are two levels lower, so that it can have no section of ours.
pub(super) fn text(bytes: &[u8]) -> Result<String, ContextSkipReason> {
    if bytes[..bytes.len().min(PROBE_BYTES)].contains(&0) {
        return Err(ContextSkipReason::Binary);
    }
    let decoded = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(decoded.len());
    let mut blank = true;
    for line in decoded.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        let shown = line.chars().filter(|char| is_shown(*char));
        let mut line: String = shown.take(LINE_CHARS_MAX + 1).collect();
        if let Some((cut, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            // Not within a word, which may be a secret.
            let end = line[..cut].rfind(char::is_whitespace).unwrap_or(0);
            line.truncate(end);
            line.push_str(MARK);
        }
        let line = line.trim_end();
        if line.is_empty() {
            if !blank {
                clean.push('\n');
            }
            blank = true;
            continue;
        }
        if line.trim_start().starts_with('#') {
            clean.push_str("##");
            clean.push_str(line.trim_start());
        } else {
            clean.push_str(line);
        }
        clean.push('\n');
        blank = false;
    }
    let clean = clean.trim_end();
    if clean.is_empty() { Err(ContextSkipReason::Empty) } else { Ok(clean.to_owned()) }
}

/// A name on one line.
pub(super) fn name(name: &str, chars_max: usize) -> String {
    name.chars().filter(|char| is_shown(*char) && *char != '\t').take(chars_max).collect()
}

/// Neither a control character nor one that is not seen, or that changes the direction of what is.
const fn is_shown(char: char) -> bool {
    !matches!(char,
        '\0'..='\x08' | '\x0a'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_text_is_plain_and_below_our_headings() {
        let text =
            text(b"# Task\r\n\r\n\r\n\r\n  ## B \xff\x1b[31m\n\tcode\n\xe2\x80\xaeevil\n\n\n")
                .unwrap();
        assert_eq!(text, "### Task\n\n#### B \u{fffd}[31m\n\tcode\nevil");
        assert_eq!(name("a\n\u{202e}b\x1b", 10), "ab");
        assert_eq!(super::text(b"a\0b"), Err(ContextSkipReason::Binary));
        assert_eq!(super::text(b" \n\t\n"), Err(ContextSkipReason::Empty));
        let long = super::text("x y".repeat(5_000).as_bytes()).unwrap();
        assert!(long.chars().count() <= LINE_CHARS_MAX + 3 && long.ends_with("x[…]"), "{long}");
        assert_eq!(super::text("x".repeat(5_000).as_bytes()).unwrap(), MARK);
    }
}
