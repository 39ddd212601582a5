//! How many tests ran, read from what cargo test and cargo nextest print.

use std::ops::AddAssign;

/// Outcomes of test cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// Ignored or filtered out.
    pub(super) skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Counts {
    /// Adds what one line of output says; other lines say nothing.
    pub(super) fn read(&mut self, line: &str) {
        let plain = without_escapes(line);
        let summary = if plain.trim_start().starts_with("Summary [") {
            plain.split_once("run:").map(|(_, rest)| rest)
        } else {
            // Only at the start of a line: nextest repeats a failed test's own output, indented.
            plain
                .strip_prefix("test result:")
                .and_then(|rest| rest.split_once('.'))
                .map(|(_, rest)| rest)
        };
        for part in summary.unwrap_or_default().split([',', ';']) {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed" | "timed" | "exec") => self.failed += count,
                Some("skipped" | "ignored") => self.skipped += count,
                _ => {}
            }
        }
    }
}

/// The text without terminal colours.
pub(super) fn without_escapes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char != '\u{1b}' {
            plain.push(char);
            continue;
        }
        // A colour is `ESC [ ... letter`.
        if chars.next() == Some('[') {
            for end in chars.by_ref() {
                if end.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lines: &[&str]) -> (u64, u64, u64) {
        let mut counts = Counts::default();
        for line in lines {
            counts.read(line);
        }
        (counts.passed, counts.failed, counts.skipped)
    }

    #[test]
    fn nextest() {
        let plain = "     Summary [   1.203s] 12 tests run: 12 passed (2 slow), 3 skipped";
        assert_eq!(counted(&[plain]), (12, 0, 3));
        assert_eq!(counted(&["    test result: FAILED. 0 passed; 1 failed; 0 ignored"]), (0, 0, 0));
        let bad = "     Summary [  61.0s] 9/12 tests run: 5 passed (1 leaky), 2 failed, 1 timed out, 1 exec failed, 0 skipped";
        assert_eq!(counted(&[bad]), (5, 4, 0));
    }

    #[test]
    fn nextest_in_colour() {
        let line = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] \u{1b}[1m2\u{1b}[0m tests run: \u{1b}[1m2\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m skipped";
        assert_eq!(counted(&[line]), (2, 0, 0));
    }

    #[test]
    fn cargo_test_sums_its_binaries() {
        let lines = [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ];
        assert_eq!(counted(&lines), (7, 2, 1));
    }

    #[test]
    fn other_lines_say_nothing() {
        assert_eq!(
            counted(&["5 passed, 3 failed", "PASS [ 0.1s] a b", "", "test result"]),
            (0, 0, 0)
        );
    }
}
