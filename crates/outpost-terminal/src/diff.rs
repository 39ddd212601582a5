//! Colours for a patch on a terminal.

use crate::Surface;
use crate::sanitize;

/// One line of a patch, cleaned and coloured.
fn line(surface: Surface, text: &str) -> String {
    let clean = sanitize::with_tabs(text);
    if clean.starts_with("diff --git")
        || clean.starts_with("+++ ")
        || clean.starts_with("--- ")
        || clean.starts_with("index ")
    {
        surface.bold(&clean)
    } else if clean.starts_with("@@") {
        surface.cyan(&clean)
    } else if clean.starts_with('+') {
        surface.green(&clean)
    } else if clean.starts_with('-') {
        surface.red(&clean)
    } else {
        clean
    }
}

/// A whole patch, cleaned and coloured.
#[must_use]
pub fn patch(surface: Surface, text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for text in text.lines() {
        output.push_str(&line(surface, text));
        output.push('\n');
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_coloured_by_their_kind_and_cleaned() {
        let colored = Surface { color: true, tty: true, ..Surface::PLAIN };
        assert_eq!(line(colored, "+a"), "\x1b[32m+a\x1b[0m");
        assert_eq!(line(colored, "-a"), "\x1b[31m-a\x1b[0m");
        assert_eq!(line(colored, " a\x1b[2J"), " a");
        assert_eq!(patch(Surface::PLAIN, "+a\n-b"), "+a\n-b\n");
    }
}
