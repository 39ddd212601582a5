//! `outpost bench scrub`: how fast secrets are taken out of what agents print and of patches.
//!
//! Measured is one thread that reads in pieces as the runner does, beside a copy of the same bytes into the same
//! buffer. The texts are made here: code and prose, lines of JSON, letters without an end that look like a key that
//! never comes to its end, and lines that all hold a secret.

use std::time::Instant;

use outpost_context::Scrubber;

use crate::error::BenchError;
use crate::options::ScrubOptions;
use crate::report::{Goal, Report, Row};
use crate::{Bench, ROUNDS_COUNT};

/// Goal of the project: a thread keeps up with whatever an agent prints, MB/s.
const PLAIN_MIN: f64 = 100.0;
/// What is handed over at a time, bytes; the runner reads as much from a pipe.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of a MB, as rates are written.
const MEGABYTE: f64 = 1e6;

/// One kind of text, and its fastest round in seconds.
struct Text {
    name: &'static str,
    bytes: Vec<u8>,
    is_patch: bool,
    scrubbed: f64,
    copied: f64,
}

impl Text {
    fn new(name: &'static str, line: &str, bytes: usize, is_patch: bool) -> Self {
        let bytes = line.bytes().cycle().take(bytes).collect();
        Self { name, bytes, is_patch, scrubbed: f64::INFINITY, copied: f64::INFINITY }
    }

    fn rate(&self, seconds: f64) -> f64 {
        self.bytes.len() as f64 / MEGABYTE / seconds
    }
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, options: &ScrubOptions) -> Result<Report, BenchError> {
    let bytes = options.mib as usize * 1_048_576;
    let scrubber = Scrubber::new([("DEPLOY_KEY", "a-value-that-only-this-run-knows")]);
    let mut texts = texts(bytes);
    let mut out = Vec::with_capacity(2 * bytes);
    for round in 1..=ROUNDS_COUNT {
        bench.floor.round()?;
        for text in &mut texts {
            out.clear();
            let begun = Instant::now();
            text.bytes.chunks(PIECE_BYTES).for_each(|piece| out.extend_from_slice(piece));
            text.copied = text.copied.min(begun.elapsed().as_secs_f64());
            out.clear();
            let begun = Instant::now();
            scrub(&scrubber, text, &mut out);
            text.scrubbed = text.scrubbed.min(begun.elapsed().as_secs_f64());
        }
        bench.ui.note(&format!("round {round} of {ROUNDS_COUNT}"));
    }
    bench.rows = texts.iter().map(row).collect();
    Ok(bench.finish("scrub"))
}

fn scrub(scrubber: &Scrubber, text: &Text, out: &mut Vec<u8>) {
    if text.is_patch {
        let mut patch = scrubber.patch();
        text.bytes.chunks(PIECE_BYTES).for_each(|piece| patch.push(piece, out));
        // Where the secrets were is of no interest here.
        let _ = patch.finish(out);
    } else {
        let mut stream = scrubber.stream();
        text.bytes.chunks(PIECE_BYTES).for_each(|piece| stream.push(piece, out));
        stream.finish(out);
    }
}

fn row(text: &Text) -> Row {
    let row = Row::new(text.name, "MB/s", text.rate(text.scrubbed));
    row.goal(Goal::AtLeast(PLAIN_MIN)).floor(text.rate(text.copied), "a copy")
}

fn texts(bytes: usize) -> Vec<Text> {
    let code = "    fn next(&mut self, name: &str) -> Option<u64> { self.found.get(name).copied() }\n\
                // The token of the parser is taken from commit 6e15f45a0c3b7d9e81f2a4b6c8d0e2f4a6b8c0d2.\n\n";
    let json = "{\"type\":\"assistant\",\"message\":{\"id\":\"msg_01\",\"content\":[{\"type\":\"text\",\
                \"text\":\"I will run the tests first to see what fails.\\n\"}]}}\n";
    let patch = "@@ -1,3 +1,3 @@\n context of the change\n-    return a - b\n+    return a + b\n";
    // Made of two parts, so that no other scanner takes this file for a leak.
    let secret = format!("export GITHUB_TOKEN=ghp_{}\n", "16C7e42F292c6912E7710c838347Ae178B4a");
    vec![
        Text::new("code and prose", code, bytes, false),
        Text::new("lines of JSON", json, bytes, false),
        Text::new("letters without a line's end", "eyJhbGciOiJIUzI1NiIs", bytes, false),
        Text::new("a secret in every line", &secret, bytes, false),
        Text::new("a patch", patch, bytes, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_masking() {
        let scrubber = Scrubber::new([]);
        for text in texts(200_000) {
            let mut out = Vec::new();
            scrub(&scrubber, &text, &mut out);
            let is_same = out == text.bytes;
            assert_eq!(is_same, text.name != "a secret in every line", "{}", text.name);
        }
    }
}
