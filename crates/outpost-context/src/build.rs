//! The text before the task: chosen, cleaned, scrubbed, fitted into its budget.
//!
//! Files of a repository are whatever somebody put there: control characters go, headings are put below ours so that none
//! can look like the task, and however long they are, the result is no longer than its budget. Secrets go before anything
//! is cut, since half a secret has no shape any more, and again after it. Absent: `AGENTS.md` and its like, which the
//! agents read by themselves.

mod clean;
mod date;
mod fit;
mod map;
mod profiles;
mod sources;

use std::collections::BTreeMap;

use outpost_types::{
    ContextKind, ContextLevel, ContextSection, ContextSkip, ContextSkipReason, ContextTrim,
    ContextView,
};

use crate::Scrubber;
use fit::Part;

pub use date::Day;
pub use profiles::{PROFILES_COUNT_MAX, Profiles};
pub use sources::{Wanted, wanted};

/// Characters that count as one token.
pub const TOKEN_CHARS: usize = 4;
/// Most of one file that is read, bytes.
pub const CONTEXT_FILE_BYTES_MAX: usize = 64 * 1024;
/// Version of `context.json`.
const VERSION: u32 = 1;
/// Longest name of a file that is shown, characters.
const PATH_CHARS_MAX: usize = 120;
/// How the text begins and ends.
const HEAD: &str = "# Project context\n\nFrom files of this repository and from its operator, for orientation. The task is at the end.\n";
const FOOT: &str = "\n# Task\n\n";

/// Tokens of each level.
#[must_use]
pub const fn budget_tokens(level: ContextLevel) -> usize {
    match level {
        ContextLevel::Minimal => 600,
        ContextLevel::Standard => 1_200,
        ContextLevel::Full => 1_800,
    }
}

/// Tokens of a text.
#[must_use]
pub fn tokens(text: &str) -> usize {
    text.chars().count().div_ceil(TOKEN_CHARS)
}

/// A file that was wanted, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// What was wanted.
    pub wanted: Wanted,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// Its beginning, at most [`CONTEXT_FILE_BYTES_MAX`], or why there is none.
    pub content: Result<Vec<u8>, ContextSkipReason>,
}

/// Builds the context of a level from what was read and the names of all files. `today` tells how old a journal is.
#[must_use]
pub fn build(
    level: ContextLevel,
    today: Day,
    read: &[Read],
    files: &[String],
    scrubber: &Scrubber,
) -> ContextView {
    let budget_chars = budget_tokens(level) * TOKEN_CHARS;
    let mut skipped = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for file in read {
        let path = clean::name(&file.wanted.path, PATH_CHARS_MAX);
        let reason = match file.content.as_ref().map(|bytes| clean::text(bytes)) {
            Ok(Ok(text)) if parts.iter().all(|part| part.kind != file.wanted.kind) => {
                let mut part = Part::of(file.wanted.kind, path, file.bytes, &text);
                part.scrub(scrubber);
                part.age(&text, today);
                parts.push(part);
                continue;
            }
            // A better one was read.
            Ok(Ok(_)) => continue,
            Ok(Err(reason)) => reason,
            Err(reason) => *reason,
        };
        skipped.push(ContextSkip { path: scrubber.text(&path).text.into_owned(), reason });
    }
    if let Some(map) = map::of(files) {
        let mut part = Part::of(ContextKind::Map, String::new(), map.len() as u64, &map);
        part.scrub(scrubber);
        parts.push(part);
    }
    parts.sort_by_key(|part| part.kind);
    fit::caps(&mut parts, budget_chars);
    fit::fit(&mut parts, budget_chars);
    // Once more: what was apart may stand together now. A mask may be longer than what it stands for.
    for part in &mut parts {
        part.scrub(scrubber);
    }
    fit::fit(&mut parts, budget_chars);
    for part in &mut parts {
        part.count();
    }
    let text = fit::render(&parts);
    let mut redactions = BTreeMap::new();
    for (rule, count) in parts.iter().flat_map(|part| &part.redactions) {
        *redactions.entry(rule.clone()).or_default() += count;
    }
    ContextView {
        version: VERSION,
        level,
        budget_tokens: budget_tokens(level) as u64,
        tokens: tokens(&text) as u64,
        sections: parts.into_iter().map(section).collect(),
        skipped,
        redactions,
        text,
    }
}

fn section(part: Part) -> ContextSection {
    let after = tokens(&part.text);
    ContextSection {
        kind: part.kind,
        path: Some(part.path).filter(|path| !path.is_empty()),
        bytes: part.bytes,
        tokens_before: part.tokens_before as u64,
        tokens_after: after as u64,
        trimmed: if after == 0 { ContextTrim::Dropped } else { part.trimmed },
        redactions: part.redactions,
    }
}
