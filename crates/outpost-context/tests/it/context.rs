//! What an agent is told of a project fits, has no secrets, and says where it came from.

use outpost_context::{Day, Read, Scrubber, Wanted, budget_tokens, build, tokens, wanted};
use outpost_types::{ContextKind, ContextLevel, ContextSkipReason, ContextTrim, ContextView};
use proptest::prelude::*;

const LEVELS: [ContextLevel; 3] =
    [ContextLevel::Minimal, ContextLevel::Standard, ContextLevel::Full];

fn read(kind: ContextKind, path: &str, text: impl AsRef<[u8]>) -> Read {
    let content = text.as_ref().to_vec();
    let wanted = Wanted { kind, path: path.to_owned() };
    Read { wanted, bytes: content.len() as u64, content: Ok(content) }
}

fn today() -> Day {
    Day::in_text("2026-03-10").unwrap()
}

fn context(level: ContextLevel, read: &[Read]) -> ContextView {
    build(level, today(), read, &[], &Scrubber::default())
}

/// So many words, each with its number, ten on a line.
fn words(name: &str, count: usize) -> String {
    let word = |at| format!("{name}{at}{}", if at % 10 == 9 { '\n' } else { ' ' });
    (0..count).map(word).collect()
}

fn section(view: &ContextView, kind: ContextKind) -> &outpost_types::ContextSection {
    view.sections.iter().find(|section| section.kind == kind).unwrap()
}

#[test]
fn parts_stand_in_order_with_their_origin_and_the_task_is_at_the_end() {
    let files = ["README.md", "docs/ANCHORS.md", "src/a.rs", "src/b.rs"].map(str::to_owned);
    let reads: Vec<_> = wanted(ContextLevel::Standard, &files)
        .into_iter()
        .map(|wanted| read(wanted.kind, &wanted.path, format!("Text of {}.", wanted.path)))
        .collect();
    let view = build(ContextLevel::Standard, today(), &reads, &files, &Scrubber::default());
    let at = |text: &str| view.text.find(text).unwrap_or_else(|| panic!("{text}: {}", view.text));
    assert!(at("(README.md)") < at("Text of README.md."));
    assert!(at("Text of README.md.") < at("Text of docs/ANCHORS.md."));
    assert!(at("Text of docs/ANCHORS.md.") < at("src/ (2 files)"));
    assert!(view.text.ends_with("# Task\n\n"), "{}", view.text);
    assert_eq!(view.tokens, tokens(&view.text) as u64);
    let paths: Vec<_> = view.sections.iter().map(|section| section.path.as_deref()).collect();
    assert_eq!(paths, [Some("README.md"), Some("docs/ANCHORS.md"), None]);
    // What is told is in the document too, and the document reads back.
    let json = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<ContextView>(&json).unwrap(), view);
}

#[test]
fn there_is_no_text_where_there_is_nothing_to_tell() {
    let view = context(ContextLevel::Full, &[]);
    assert_eq!((view.text.as_str(), view.tokens, view.sections.len()), ("", 0, 0));
}

#[test]
fn the_roadmap_goes_first_then_the_profile_then_the_journal_and_decisions_stay() {
    let parts = |size: usize| {
        [
            read(ContextKind::Identity, "docs/SOUL.md", words("soul", 40)),
            read(ContextKind::Decisions, "docs/ANCHORS.md", words("anchor", 150)),
            read(ContextKind::Profile, "docs/PROFILE.md", words("profile", size)),
            read(ContextKind::Journal, "docs/journal/2026-03-09.md", words("journal", size)),
            read(ContextKind::Roadmap, "docs/ROADMAP.md", words("roadmap", size)),
        ]
    };
    let mut seen = Vec::new();
    for size in (10..900).step_by(20) {
        let view = context(ContextLevel::Full, &parts(size));
        let cut = |kind| section(&view, kind).tokens_after < section(&view, kind).tokens_before;
        let cuts = [ContextKind::Roadmap, ContextKind::Profile, ContextKind::Journal].map(cut);
        if seen.last() != Some(&cuts) {
            seen.push(cuts);
        }
        assert!(!cut(ContextKind::Decisions) && view.text.contains("anchor149"), "{}", view.text);
        if cuts[1] {
            assert_eq!(section(&view, ContextKind::Roadmap).trimmed, ContextTrim::Dropped);
        }
    }
    let first = [true, false, false];
    assert_eq!(seen, [[false; 3], first, [true, true, false], [true; 3]]);
}

#[test]
fn a_journal_is_told_by_its_age() {
    let text = format!("# Began\n{}\n## Ended\nthe very last line\n", words("word", 600));
    for (day, trimmed, has, lacks) in [
        ("2026-03-10", ContextTrim::None, "word300", "nothing"),
        ("2026-03-07", ContextTrim::None, "word300", "nothing"),
        ("2026-03-06", ContextTrim::Headings, "## Ended", "word1 "),
        ("2026-03-03", ContextTrim::Headings, "Began", "the very last line"),
        ("2026-03-02", ContextTrim::Ends, "the very last line", "word300"),
    ] {
        let path = format!("docs/journal/{day}.md");
        let view = context(ContextLevel::Full, &[read(ContextKind::Journal, &path, &text)]);
        let journal = section(&view, ContextKind::Journal);
        assert!(view.text.contains(has) && !view.text.contains(lacks), "{day}: {}", view.text);
        assert_eq!(journal.trimmed, trimmed, "{day}");
        if trimmed == ContextTrim::Ends {
            assert!(journal.tokens_after <= 251, "{}", journal.tokens_after);
        }
    }
    // Without a day in its name the newest in its text counts; without any it is old.
    let dated = format!("## 2026-03-08\n{text}");
    for (text, trimmed) in [(&dated, ContextTrim::None), (&text, ContextTrim::Ends)] {
        let view = context(ContextLevel::Full, &[read(ContextKind::Journal, "JOURNAL.md", text)]);
        assert_eq!(section(&view, ContextKind::Journal).trimmed, trimmed);
    }
}

#[test]
fn secrets_are_masked_also_those_that_a_cut_goes_through() {
    let token = format!("{}_{}", "ghp", "aZ3kQ9xW7".repeat(4));
    let key_line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo";
    let key =
        format!("-----BEGIN PRIVATE KEY-----\n{}-----END", format!("{key_line}\n").repeat(40));
    let key = format!("{key} PRIVATE KEY-----\n");
    let scrubber = Scrubber::new([("DB_PASSWORD", "hunter2!hunter2")]);
    let reads = [
        read(ContextKind::Identity, "README.md", format!("a {token} b\nhunter2!hunter2\n")),
        // Its head is not among what is told of it.
        read(ContextKind::Journal, "JOURNAL.md", format!("{}{key}", words("old", 400))),
    ];
    let view = build(ContextLevel::Standard, today(), &reads, &[], &scrubber);
    assert_eq!(section(&view, ContextKind::Journal).trimmed, ContextTrim::Ends);
    for secret in [token.as_str(), "hunter2", &key_line[..12]] {
        assert!(!view.text.contains(secret), "{}", view.text);
    }
    let masks = |rule: &str| view.text.matches(&format!("[masked:{rule}]")).count() as u64;
    assert_eq!((masks("github-token"), masks("DB_PASSWORD")), (1, 1));
    for (rule, count) in &view.redactions {
        assert_eq!(*count, masks(rule), "{rule}: {}", view.text);
    }
    assert!(view.redactions.contains_key("private-key"));
}

#[test]
fn what_is_no_text_is_named_and_the_next_one_taken() {
    let mut link = read(ContextKind::Identity, "docs/SOUL.md", "");
    link.content = Err(ContextSkipReason::Irregular);
    let reads = [
        link,
        read(ContextKind::Identity, "README.md", b"\x7fELF\0"),
        read(ContextKind::Identity, "README.txt", "Here."),
    ];
    let view = context(ContextLevel::Minimal, &reads);
    let skipped: Vec<_> = view.skipped.iter().map(|skip| (&*skip.path, skip.reason)).collect();
    let expected =
        [("docs/SOUL.md", ContextSkipReason::Irregular), ("README.md", ContextSkipReason::Binary)];
    assert_eq!(skipped, expected);
    assert!(view.text.contains("Here."));
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let token = format!(" {}_{} ", "ghp", "aZ3kQ9xW7".repeat(4));
    let pieces = prop_oneof![
        Just(b"# Task\n".to_vec()),
        Just(b"x".repeat(5_000)),
        Just(b"word ".repeat(800)),
        Just(b"one line\n".repeat(300)),
        Just(token.into_bytes()),
        Just("\u{202e}\u{1b}[2J\r\n".as_bytes().to_vec()),
        Just(b"password=q7Rk2Zp9xLw4Tn8V\n".repeat(60)),
        Just("\u{1F600}".repeat(700).into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..200),
    ];
    proptest::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn no_level_is_ever_exceeded(texts in proptest::collection::vec(any_text(), 5), names in proptest::collection::vec("\\PC{0,200}", 0..80)) {
        let kinds = [
            (ContextKind::Identity, "README.md"),
            (ContextKind::Decisions, "docs/ANCHORS.md"),
            (ContextKind::Profile, "docs/PROFILE.md"),
            (ContextKind::Journal, "docs/journal/2026-03-09.md"),
            (ContextKind::Roadmap, "docs/ROADMAP.md"),
        ];
        let reads: Vec<_> =
            kinds.iter().zip(&texts).map(|((kind, path), text)| read(*kind, path, text)).collect();
        for level in LEVELS {
            let view = build(level, today(), &reads, &names, &Scrubber::default());
            prop_assert!(tokens(&view.text) <= budget_tokens(level), "{}", view.text);
            prop_assert_eq!(view.tokens, tokens(&view.text) as u64);
            // Only ours is a task, nothing can be hidden, no secret is told.
            prop_assert_eq!(view.text.lines().filter(|line| *line == "# Task").count(), usize::from(!view.text.is_empty()));
            prop_assert!(view.text.chars().all(|char| !char.is_control() || matches!(char, '\n' | '\t')));
            let turned = view.text.contains('\u{202e}');
            prop_assert!(!turned && !view.text.contains("aZ3kQ9xW7aZ"), "{}", view.text);
            let told: u64 = view.sections.iter().map(|section| section.tokens_after).sum();
            prop_assert!(told <= view.tokens + view.sections.len() as u64);
        }
    }
}
