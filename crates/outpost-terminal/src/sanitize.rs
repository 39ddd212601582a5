//! Makes text that strangers wrote safe to print: no escape sequences, no control characters, no
//! reordering of what is read. An agent that could write to the terminal could hide what it did.

/// Columns a tab stands for.
const TAB_COLUMNS: usize = 4;

/// Where the scanner is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate byte, as in `ESC ( B`.
    EscapeIntermediate,
    /// In a control sequence, until its final byte.
    Control,
    /// In a string (OSC, DCS, SOS, PM, APC), until BEL, ST or the end of the line.
    Text7,
    /// In a string, after ESC.
    Text7Escape,
}

/// Text of several lines: keeps line ends, turns tabs into spaces, drops what could act on a terminal.
#[must_use]
pub fn text(input: &str) -> String {
    clean(input, true)
}

/// One line: also turns line ends into spaces.
#[must_use]
pub fn line(input: &str) -> String {
    if is_plain_line(input.as_bytes()) {
        return input.to_owned();
    }
    let text = clean(input, true);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether [`line`] would change nothing: every field of every log line comes through it.
fn is_plain_line(bytes: &[u8]) -> bool {
    let mut after_blank = true;
    for byte in bytes {
        match byte {
            b'!'..=b'~' => after_blank = false,
            b' ' if !after_blank => after_blank = true,
            _ => return false,
        }
    }
    !after_blank || bytes.is_empty()
}

/// Text of several lines with its tabs, for diffs.
#[must_use]
pub fn with_tabs(input: &str) -> String {
    clean(input, false)
}

/// A JSON document with everything escaped that a terminal may obey. JSON itself leaves the C1 controls
/// (U+0080 to U+009F) as they are, and what reorders text; a reader of the document sees no difference.
#[must_use]
pub fn json(document: &str) -> String {
    let mut output = String::with_capacity(document.len());
    for character in document.chars() {
        if ('\u{7f}'..='\u{9f}').contains(&character) || reorders(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                output.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            output.push(character);
        }
    }
    output
}

fn clean(input: &str, expand_tabs: bool) -> String {
    let mut output = String::with_capacity(input.len());
    let mut state = State::Text;
    for character in input.chars() {
        state = match (state, character) {
            // An unfinished sequence never swallows the next line.
            (_, '\n') => {
                output.push('\n');
                State::Text
            }
            (State::Text7, '\x07' | '\u{9c}') | (State::Text7Escape, '\\') => State::Text,
            (State::Text7 | State::Text7Escape, '\x1b') => State::Text7Escape,
            (State::Text7 | State::Text7Escape, _) => State::Text7,
            (_, '\x1b') => State::Escape,
            (_, '\u{9b}') => State::Control,
            (_, '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}') => State::Text7,
            (State::Escape, '[') => State::Control,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::Text7,
            (State::Escape | State::EscapeIntermediate, ' '..='/') => State::EscapeIntermediate,
            (State::Escape | State::EscapeIntermediate, _) => State::Text,
            (State::Control, '\u{20}'..='\u{3f}') => State::Control,
            (State::Control, '\u{40}'..='\u{7e}') => State::Text,
            (State::Control | State::Text, _) => {
                push(&mut output, character, expand_tabs);
                State::Text
            }
        };
    }
    output
}

fn push(output: &mut String, character: char, expand_tabs: bool) {
    match character {
        '\t' if expand_tabs => output.extend(std::iter::repeat_n(' ', TAB_COLUMNS)),
        '\t' => output.push('\t'),
        _ if character.is_control() || reorders(character) => {}
        _ => output.push(character),
    }
}

/// Characters that change the order or presence of others on the screen ("Trojan Source").
const fn reorders(character: char) -> bool {
    matches!(
        character,
        '\u{061c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_to_a_line_is_the_long_way() {
        let long =
            |input: &str| clean(input, true).split_whitespace().collect::<Vec<_>>().join(" ");
        let all =
            ["", " ", "a", "a b", " a", "a ", "a  b", "a\tb", "a\nb", "ü", "\u{1b}[2Jx", "~!"];
        for input in all {
            assert_eq!(line(input), long(input), "{input:?}");
            assert!(!is_plain_line(input.as_bytes()) || long(input) == input, "{input:?}");
        }
    }

    #[test]
    fn sequences_vanish_whole() {
        for (input, expected) in [
            ("a\x1b[31mred\x1b[0mb", "aredb"),
            ("a\x1b]0;title\x07b", "ab"),
            ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
            ("a\x1bP1$r\x1b\\b", "ab"),
            ("a\x1b(Bb\x1bcd", "abd"),
            ("a\u{9b}31mb\u{9d}0;t\u{9c}c", "abc"),
            ("a\x1b[?25lb\x1b[2;3Hc", "abc"),
            ("\rover\x08write\x7f\0", "overwrite"),
            ("unfinished \x1b[31", "unfinished "),
            ("unfinished \x1b]0;title\nnext", "unfinished \nnext"),
            ("a\u{202e}b\u{2066}c", "abc"),
            ("tab\tbed", "tab    bed"),
            ("ünï 日本 🙂", "ünï 日本 🙂"),
        ] {
            assert_eq!(text(input), expected, "{input:?}");
        }
    }

    #[test]
    fn nothing_that_acts_survives_any_mix() {
        let parts = [
            "\x1b", "[", "]", "P", "\\", "31", "m", "\x07", "\u{9b}", "\u{9d}", "\u{9c}", "\n",
            "x", ";", "\r", "\x08", "é",
        ];
        // Every text of four parts.
        for index in 0..parts.len().pow(4) {
            let mut rest = index;
            let mut input = String::new();
            for _ in 0..4 {
                input.push_str(parts[rest % parts.len()]);
                rest /= parts.len();
            }
            let output = text(&input);
            assert!(
                output.chars().all(|c| c == '\n' || !c.is_control()),
                "{input:?} became {output:?}"
            );
        }
    }

    #[test]
    fn a_line_has_no_end() {
        assert_eq!(line("  a\n b\t\tc "), "a b c");
    }

    #[test]
    fn diffs_keep_tabs() {
        assert_eq!(with_tabs("+\tx\x1b[0m"), "+\tx");
    }

    #[test]
    fn json_is_escaped_and_reads_back() {
        let document = json("\"a\u{9b}31m\u{7f}é\u{202e}\"");
        assert_eq!(document, "\"a\\u009b31m\\u007fé\\u202e\"");
        let back: String = serde_json::from_str(&document).unwrap();
        assert_eq!(back, "a\u{9b}31m\u{7f}é\u{202e}");
    }
}
