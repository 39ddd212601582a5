//! What is masked, and what an agent is told of a project.

use outpost_context::scrub::WINDOW_BYTES_MAX;
use outpost_context::{
    CONTEXT_FILE_BYTES_MAX, Day, Read, Scrubber, Wanted, budget_tokens, build, tokens, wanted,
};
use outpost_types::{ContextKind, ContextLevel, ContextSkipReason, ContextView};

use crate::feed::{Feed, grown, pieces};

/// A value that is known to be secret.
const SECRET: &[u8] = b"hunter2!hunter2";
/// Most files of an input.
const FILES_MAX: usize = 64;

fn scrubber() -> Scrubber {
    Scrubber::new([("PASSWORD", "hunter2!hunter2")])
}

/// What comes out does not depend on how it came in, keeps its lines, and has no known value.
pub fn scrub_stream(data: &[u8]) {
    let mut feed = Feed(data);
    let seed = feed.byte();
    let bytes = grown(feed.0);
    let whole = scrub([bytes.as_slice()]);
    assert!(scrub(pieces(&bytes, seed)) == whole, "it depends on the pieces");
    assert!(!has_secret(&whole));
    assert_eq!(lines(&whole), lines(&bytes));
    if let Ok(text) = std::str::from_utf8(&bytes) {
        let scrubbed = scrubber().text(text);
        assert_eq!(scrubbed.text.as_bytes(), whole);
        assert_eq!(scrubbed.redactions.is_empty(), whole == bytes);
    }
    let patched = patch([bytes.as_slice()]);
    assert!(patch(pieces(&bytes, seed)) == patched, "a patch depends on the pieces");
    assert_eq!(lines(&patched), lines(&bytes));
    let short = bytes.split(|byte| *byte == b'\n').all(|line| line.len() < WINDOW_BYTES_MAX);
    assert!(!short || !has_secret(&patched));
}

fn scrub<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut stream, mut out) = (scrubber().stream(), Vec::new());
    for piece in pieces {
        stream.push(piece, &mut out);
    }
    stream.finish(&mut out);
    out
}

fn patch<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut patch, mut out) = (scrubber().patch(), Vec::new());
    for piece in pieces {
        patch.push(piece, &mut out);
    }
    for finding in patch.finish(&mut out) {
        assert!(!has_secret(finding.file.as_bytes()));
    }
    out
}

fn has_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET)
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Whatever files say and are called, what is told of them fits, is text, and does not look like the task.
pub fn context(data: &[u8]) {
    let mut feed = Feed(data);
    let level = match feed.byte() % 3 {
        0 => ContextLevel::Minimal,
        1 => ContextLevel::Standard,
        _ => ContextLevel::Full,
    };
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for part in feed.0.split(|byte| *byte == 0xfe).take(FILES_MAX) {
        let (name, text) = part.split_at(part.iter().position(|b| *b == b'\n').unwrap_or(0));
        names.push(String::from_utf8_lossy(name).into_owned());
        texts.push(grown(text));
    }
    let read = |wanted: Wanted| {
        let at = names.iter().position(|name| *name == wanted.path);
        let text = |at: usize| texts[at][..texts[at].len().min(CONTEXT_FILE_BYTES_MAX)].to_vec();
        let content = at.map(text).ok_or(ContextSkipReason::Unreadable);
        Read { bytes: content.as_ref().map_or(0, |text| text.len() as u64), wanted, content }
    };
    let read: Vec<Read> = wanted(level, &names).into_iter().map(read).collect();
    let today = Day::in_text("2026-03-10").unwrap_or_default();
    let view = build(level, today, &read, &names, &scrubber());
    assert!(tokens(&view.text) <= budget_tokens(level), "{}", view.text);
    assert!(!has_secret(view.text.as_bytes()));
    assert!(view.text.chars().all(|char| !char.is_control() || matches!(char, '\n' | '\t')));
    let tasks = view.text.lines().filter(|line| *line == "# Task").count();
    assert_eq!(tasks, usize::from(!view.text.is_empty()), "{}", view.text);
    for kind in [ContextKind::Identity, ContextKind::Roadmap, ContextKind::Map] {
        assert!(view.sections.iter().filter(|section| section.kind == kind).count() <= 1);
    }
    let json = serde_json::to_string(&view).unwrap_or_default();
    assert_eq!(serde_json::from_str::<ContextView>(&json).ok(), Some(view));
}
