//! Scrubbing a patch so that it still applies.
//!
//! Lines that the patch adds lose secrets of every shape; others belong to the repository and are needed as they are, so
//! only known values are masked in them. A value that only its name makes secret is told but not masked: it may as well
//! be code. Bounded: what is told of it.

use std::collections::BTreeSet;

use super::stream::{StreamScrubber, has_named};
use super::{Redactions, Scrubber, WINDOW_BYTES_MAX};
use crate::scrub::rules::NAMED;

/// Most findings that are told.
pub const FINDINGS_COUNT_MAX: usize = 100;
/// Longest name of a file that is told, bytes.
const FILE_BYTES_MAX: usize = 512;

/// A secret in a file of the patch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, as the patch names it.
    pub file: String,
    /// The rule, or the name of the value.
    pub rule: String,
    /// Whether it was masked.
    pub masked: bool,
}

/// Scrubs one patch in pieces.
#[derive(Debug)]
pub struct PatchScrubber {
    lines: StreamScrubber,
    pending: Vec<u8>,
    in_head: bool,
    /// Whether the line before was cut, and whether it is one the patch adds.
    cut: Option<bool>,
    file: String,
    findings: BTreeSet<Finding>,
}

impl PatchScrubber {
    pub(super) fn new(scrubber: Scrubber) -> Self {
        Self {
            lines: scrubber.stream(),
            pending: Vec::new(),
            in_head: true,
            cut: None,
            file: String::new(),
            findings: BTreeSet::new(),
        }
    }

    /// Takes the next bytes and appends to `out` what can be given out by now.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            while self.pending.len() + piece.len() > WINDOW_BYTES_MAX {
                let (head, tail) = piece.split_at(WINDOW_BYTES_MAX - self.pending.len());
                self.pending.extend_from_slice(head);
                self.line(out);
                piece = tail;
            }
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.line(out);
            }
        }
    }

    /// Appends the rest, and tells what was found.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Vec<Finding> {
        self.line(out);
        self.findings.into_iter().collect()
    }

    /// How often each rule masked something so far.
    #[must_use]
    pub const fn redactions(&self) -> &Redactions {
        self.lines.redactions()
    }

    fn line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.pending);
        if line.is_empty() {
            return;
        }
        let added = self.cut.unwrap_or_else(|| self.read(&line));
        self.cut = (!line.ends_with(b"\n")).then_some(added);
        let before = self.lines.redactions().clone();
        let start = out.len();
        self.lines.patch_line(&line, added, out);
        if out[start..] != line[..] {
            for (rule, count) in self.lines.redactions().clone() {
                if before.get(&rule) != Some(&count) {
                    self.find(rule, true);
                }
            }
        } else if added && has_named(&line) {
            self.find(NAMED.to_owned(), false);
        }
        let mut line = line;
        line.clear();
        self.pending = line;
    }

    /// What a line is; whether it is one the patch adds.
    fn read(&mut self, line: &[u8]) -> bool {
        if line.starts_with(b"diff --git ") {
            self.in_head = true;
        } else if line.starts_with(b"@@ ") {
            self.in_head = false;
        } else if self.in_head
            && let Some(name) = line.strip_prefix(b"+++ ")
        {
            let name = String::from_utf8_lossy(&name[..name.len().min(FILE_BYTES_MAX)]);
            let name = name.trim().trim_matches('"');
            self.file =
                self.lines.scrubber.text(name.strip_prefix("b/").unwrap_or(name)).text.into_owned();
        }
        !self.in_head && line.first() == Some(&b'+')
    }

    fn find(&mut self, rule: String, masked: bool) {
        if self.findings.len() < FINDINGS_COUNT_MAX {
            let file = self.file.clone();
            self.findings.insert(Finding { file, rule, masked });
        }
    }
}
