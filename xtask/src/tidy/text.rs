//! What every text file owes its reader: length, no tabs or trailing spaces, no loose ends.

use std::path::Path;

use super::Finding;

/// Longest Rust file, lines, its tests included.
const FILE_LINES_MAX: usize = 800;

/// Files that may be longer, as (path, reason). Empty is the goal.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// Marks of work left for later, with what to do instead. Spelled in parts, or this file would
/// find itself.
const LOOSE_ENDS: [(&str, &str); 5] = [
    (concat!("TO", "DO"), "do it, or say in ARCHITECTURE.md that it is absent"),
    (concat!("FIX", "ME"), "fix it, or say in ARCHITECTURE.md what is known weak"),
    (concat!("XX", "X"), "say what is meant"),
    (concat!("DESIGN", ".md"), "name ARCHITECTURE.md or state the fact: that file is not here"),
    (concat!("/wo", "rk/"), "leave out paths of the machine this was written on"),
];

/// Finds breaches in the text of one file.
pub(super) fn check(text: &str, path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    let lines = text.lines().count();
    let excepted = EXCEPTIONS.iter().any(|(exception, _)| Path::new(exception) == path);
    if extension == "rs" && lines > FILE_LINES_MAX && !excepted {
        findings.push(Finding::error(
            path,
            0,
            format!("{lines} lines, over {FILE_LINES_MAX}: it holds more than one concern"),
            "split it by concern",
        ));
    }
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.contains('\t') {
            findings.push(Finding::error(
                path,
                number,
                "a tab",
                "use spaces, or `\\t` in a string",
            ));
        }
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::error(
                path,
                number,
                "space at the end of the line",
                "remove it",
            ));
        }
        for (mark, fix) in LOOSE_ENDS {
            if has_word(line, mark) {
                findings.push(Finding::error(path, number, format!("`{mark}` left in"), fix));
            }
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::error(path, lines, "no newline at the end", "add one"));
    }
    findings
}

/// `mark` stands in `line`, not as part of a longer word.
fn has_word(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + mark.len()..].chars().next();
        let opens = mark.starts_with('/') || !before.is_some_and(is_word);
        let closes = mark.ends_with('/') || !after.is_some_and(is_word);
        opens && closes
    })
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, path: &str) -> Vec<(usize, String)> {
        check(text, Path::new(path))
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect()
    }

    #[test]
    fn clean_text_passes() {
        assert_eq!(found("fn a() {}\n", "a.rs"), []);
        assert_eq!(found("", "a.rs"), []);
    }

    #[test]
    fn long_files_are_found_by_their_kind() {
        let text = "// x\n".repeat(801);
        assert_eq!(found(&text, "a.rs").len(), 1);
        assert_eq!(found(&text, "a.md").len(), 0, "prose has no such bound");
        assert_eq!(found(&"// x\n".repeat(800), "a.rs").len(), 0);
    }

    #[test]
    fn whitespace_is_found() {
        let lines: Vec<usize> =
            found("a \n\tb\nc", "a.md").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn loose_ends_are_found_as_words_only() {
        let text = format!(
            "// {}: later\n// {}Write\n// see {}\n",
            LOOSE_ENDS[0].0, LOOSE_ENDS[0].0, LOOSE_ENDS[3].0
        );
        let lines: Vec<usize> = found(&text, "a.rs").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 3]);
    }
}
