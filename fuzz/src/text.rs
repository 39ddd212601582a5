//! What is asked of texts that people will read.

/// A text of one line: bounded, and without any control character.
#[track_caller]
pub(crate) fn assert_line(text: &str, bytes_max: usize) {
    assert!(text.len() <= bytes_max, "{} bytes, at most {bytes_max}: {text:?}", text.len());
    assert!(!text.chars().any(char::is_control), "a control character: {text:?}");
}

/// A text of several lines: bounded, and without control characters but line breaks and tabs.
#[track_caller]
pub(crate) fn assert_text(text: &str, bytes_max: usize) {
    assert!(text.len() <= bytes_max, "{} bytes, at most {bytes_max}", text.len());
    let acts = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    assert!(!text.chars().any(acts), "a control character: {text:?}");
}
