//! What libFuzzer tells on its way, as one row of a table.

use std::fmt;

/// Part of a panic's message that is repeated, characters.
const REASON_CHARS_MAX: usize = 400;

/// One target.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) target: String,
    /// Inputs that were tried.
    executions: u64,
    /// Edges of the program that some input took.
    edges: u64,
    /// Inputs worth keeping.
    corpus: u64,
    /// Why it counts as failed.
    pub(super) problem: Option<String>,
    /// The input that did it.
    artifact: Option<String>,
    /// The line after this one is the panic's message.
    panicked: bool,
    reason: String,
}

impl Row {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), ..Self::default() }
    }

    /// Takes what one line of output says; other lines say nothing.
    pub(super) fn read(&mut self, line: &str) {
        if std::mem::take(&mut self.panicked) {
            self.reason = line.chars().take(REASON_CHARS_MAX).collect();
        } else if line.contains("' panicked at ") || line.contains(") panicked at ") {
            self.panicked = self.reason.is_empty();
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.artifact = Some(path.to_owned());
        } else if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
        } else if let Some(progress) = line.strip_prefix('#') {
            self.progress(progress);
        } else if let Some(what) = line.strip_prefix("SUMMARY: ")
            && self.reason.is_empty()
        {
            self.reason = what.chars().take(REASON_CHARS_MAX).collect();
        }
    }

    /// `1024 NEW cov: 70 ft: 90 corp: 5/20b ...`
    fn progress(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.parse().ok()) else { return };
        self.executions = executions;
        while let Some(word) = words.next() {
            let number = |words: &mut std::str::SplitWhitespace<'_>| {
                words.next().and_then(|word| word.split('/').next()?.parse().ok())
            };
            match word {
                "cov:" => self.edges = number(&mut words).unwrap_or(self.edges),
                "corp:" => self.corpus = number(&mut words).unwrap_or(self.corpus),
                _ => {}
            }
        }
    }

    /// The fuzzer did not end well.
    pub(super) fn failed(&mut self, status: &str) {
        let reason = if self.reason.is_empty() { status } else { &self.reason };
        self.problem = Some(reason.to_owned());
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, executions, edges, corpus, .. } = self;
        let crashes = u8::from(self.problem.is_some());
        write!(f, "{target:<16} {executions:>12} {edges:>9} {corpus:>8} {crashes:>8}")?;
        if let Some(problem) = &self.problem {
            write!(f, "\n    {problem}")?;
        }
        if let Some(artifact) = &self.artifact {
            write!(f, "\n    {artifact}")?;
        }
        Ok(())
    }
}

/// Prints all rows.
pub(super) fn print(rows: &[Row]) {
    println!(
        "\n{:<16} {:>12} {:>9} {:>8} {:>8}",
        "target", "executions", "coverage", "corpus", "crashes"
    );
    for row in rows {
        println!("{row}");
    }
    if rows.iter().any(|row| row.problem.is_some()) {
        println!("\nfuzz/README.md says what to do with an input that was found.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lines: &[&str]) -> Row {
        let mut row = Row::new("ids");
        lines.iter().for_each(|line| row.read(line));
        row
    }

    #[test]
    fn a_run_that_found_nothing() {
        let row = row(&[
            "INFO: Seed: 1",
            "#2\tINITED cov: 7 ft: 7 corp: 1/1b exec/s: 0 rss: 27Mb",
            "#56\tNEW    cov: 8 ft: 9 corp: 2/5b lim: 4 exec/s: 0 rss: 27Mb L: 4/4 MS: 4 X-",
            "stat::number_of_executed_units: 18567806",
        ]);
        assert_eq!((row.executions, row.edges, row.corpus), (18_567_806, 8, 2));
        assert!(row.problem.is_none() && row.to_string().ends_with(" 0"));
    }

    #[test]
    fn a_panic_is_told_with_its_input() {
        let mut row = row(&[
            "thread '<unnamed>' (17) panicked at src/ids.rs:5:1:",
            "left is not right",
            "==17== ERROR: libFuzzer: deadly signal",
            "SUMMARY: libFuzzer: deadly signal",
            "artifact_prefix='a/'; Test unit written to a/crash-1",
        ]);
        row.failed("exit status: 77");
        let shown = row.to_string();
        assert!(shown.ends_with("1\n    left is not right\n    a/crash-1"), "{shown}");
    }

    #[test]
    fn an_input_that_takes_too_long_is_told_in_the_fuzzers_words() {
        let mut row = row(&["SUMMARY: libFuzzer: timeout"]);
        row.failed("exit status: 70");
        assert_eq!(row.problem.as_deref(), Some("libFuzzer: timeout"));
    }
}
