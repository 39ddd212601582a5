//! What a diff touches: its files with their lines, and where each begins.

use std::ops::Range;

/// Files of a diff that are told apart; those beyond it count as one with the last.
pub(crate) const FILES_COUNT_MAX: usize = 10_000;

/// The changes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePart {
    /// Its path after the changes, or before them when it is gone.
    pub(crate) path: String,
    /// Lines that came.
    pub(crate) added: u64,
    /// Lines that went.
    pub(crate) removed: u64,
    /// Its bytes in the diff.
    pub(crate) bytes: Range<usize>,
}

/// The files of a git diff, in order. Text that is none has no files.
pub(crate) fn files(diff: &[u8]) -> Vec<FilePart> {
    let mut files: Vec<FilePart> = Vec::new();
    // Lines that the current hunk still has of the old and the new file.
    let mut hunk = (0_u64, 0_u64);
    let mut at = 0;
    for line in diff.split_inclusive(|byte| *byte == b'\n') {
        let start = at;
        at += line.len();
        if let Some(file) = files.last_mut() {
            file.bytes.end = at;
        }
        if hunk != (0, 0) {
            match line.first() {
                Some(b'+') => hunk.1 = hunk.1.saturating_sub(1),
                Some(b'-') => hunk.0 = hunk.0.saturating_sub(1),
                Some(b'\\') => {}
                _ => hunk = (hunk.0.saturating_sub(1), hunk.1.saturating_sub(1)),
            }
            count(files.last_mut(), line);
            continue;
        }
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        if let Some(names) = text.strip_prefix("diff --git ") {
            if let Some(last) = files.last_mut() {
                last.bytes.end = start;
            }
            if files.len() < FILES_COUNT_MAX {
                let path = path_of(names);
                files.push(FilePart { path, added: 0, removed: 0, bytes: start..at });
            }
        } else if let Some(ranges) = text.strip_prefix("@@ ") {
            hunk = lines_of(ranges);
        } else if let (Some(path), Some(file)) = (named(text), files.last_mut()) {
            file.path = path.to_owned();
        }
    }
    files
}

fn count(file: Option<&mut FilePart>, line: &[u8]) {
    if let Some(file) = file {
        match line.first() {
            Some(b'+') => file.added += 1,
            Some(b'-') => file.removed += 1,
            _ => {}
        }
    }
}

/// The path that a line of a file's head names for good.
fn named(line: &str) -> Option<&str> {
    let unquoted = |text: &str, prefix: &str| text.trim_matches('"').starts_with(prefix);
    let path = line.strip_prefix("+++ ").filter(|text| unquoted(text, "b/"));
    let path = path.or_else(|| line.strip_prefix("--- ").filter(|text| unquoted(text, "a/")));
    if let Some(path) = path {
        // Git puts a tab behind names with spaces.
        return path.trim_end_matches('\t').trim_matches('"').get(2..);
    }
    line.strip_prefix("rename to ").map(|path| path.trim_matches('"'))
}

/// The new path of `a/x b/x`, as far as that can be told.
fn path_of(names: &str) -> String {
    let at = names.find(" b/").map(|at| at + 3).or_else(|| names.find(" \"b/").map(|at| at + 4));
    at.and_then(|at| names.get(at..)).unwrap_or(names).trim_end_matches('"').to_owned()
}

/// Lines of old and new file in `-1,2 +3,4 @@ …`.
fn lines_of(ranges: &str) -> (u64, u64) {
    let lines = |range: Option<&str>| -> u64 {
        let numbers = range.unwrap_or_default().trim_start_matches(['-', '+']);
        match numbers.split_once(',') {
            Some((_, lines)) => lines.parse().unwrap_or(0),
            None => u64::from(!numbers.is_empty()),
        }
    };
    let mut words = ranges.split(' ');
    (lines(words.next()), lines(words.next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "\
diff --git a/calc.py b/calc.py
index 1..2 100644
--- a/calc.py
+++ b/calc.py
@@ -1,2 +1,3 @@
 def add(a, b):
-    return a - b
+    return a + b
+--- a/looks/like/a/head
diff --git a/old name b/new name
similarity index 90%
rename from old name
rename to new name
diff --git a/gone.txt b/gone.txt
deleted file mode 100644
--- a/gone.txt
+++ /dev/null
@@ -1 +0,0 @@
-x
\\ No newline at end of file
diff --git a/b.bin b/b.bin
Binary files a/b.bin and b/b.bin differ
";

    #[test]
    fn files_have_their_paths_lines_and_bytes() {
        let files = files(DIFF.as_bytes());
        let seen: Vec<_> =
            files.iter().map(|file| (file.path.as_str(), file.added, file.removed)).collect();
        let expected = [("calc.py", 2, 1), ("new name", 0, 0), ("gone.txt", 0, 1), ("b.bin", 0, 0)];
        assert_eq!(seen, expected);
        for file in &files {
            assert!(DIFF[file.bytes.clone()].starts_with("diff --git "), "{file:?}");
        }
        assert_eq!(files[0].bytes.end, files[1].bytes.start);
        assert_eq!(files[3].bytes.end, DIFF.len());
    }

    #[test]
    fn what_is_no_diff_has_no_files() {
        assert_eq!(files(b""), []);
        assert_eq!(files(b"hello\n@@ -1 +1 @@\n+x\n+++ b/x\n"), []);
        assert_eq!(files(b"\xff\xfe\n\n@@ -x,y +z @@\n"), []);
    }
}
