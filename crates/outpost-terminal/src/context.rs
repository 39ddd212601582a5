//! Where the context of an agent comes from: a table.

use outpost_types::{ContextKind, ContextSection, ContextSkipReason, ContextTrim, ContextView};

use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// The parts of a context with their tokens, then what was left out, masked, and the sum.
#[must_use]
pub fn context(surface: Surface, view: &ContextView) -> String {
    const COLUMNS: [Column; 5] = [
        Column::new("PART"),
        Column::new("FILE").flexible(),
        Column::new("TOKENS").right(),
        Column::new("OF").right(),
        Column::new("HOW"),
    ];
    let row = |section: &ContextSection| {
        vec![
            kind(section.kind).to_owned(),
            section.path.as_deref().map_or_else(|| "-".to_owned(), sanitize::line),
            section.tokens_after.to_string(),
            section.tokens_before.to_string(),
            trim(section.trimmed).to_owned(),
        ]
    };
    let mut lines = Vec::new();
    if !view.sections.is_empty() {
        lines.push(table(surface, &COLUMNS, &view.sections.iter().map(row).collect::<Vec<_>>()));
    }
    for skip in &view.skipped {
        lines.push(format!("Left out: {} ({})", sanitize::line(&skip.path), why(skip.reason)));
    }
    for (rule, count) in &view.redactions {
        lines.push(format!("Masked: {} ({count})", sanitize::line(rule)));
    }
    lines.push(format!("{} of {} tokens", view.tokens, view.budget_tokens));
    lines.join("\n")
}

const fn kind(kind: ContextKind) -> &'static str {
    match kind {
        ContextKind::Identity => "identity",
        ContextKind::Decisions => "decisions",
        ContextKind::Profile => "profile",
        ContextKind::Journal => "journal",
        ContextKind::Roadmap => "roadmap",
        ContextKind::Map => "map",
    }
}

const fn trim(trim: ContextTrim) -> &'static str {
    match trim {
        ContextTrim::None => "whole",
        ContextTrim::Cut => "cut",
        ContextTrim::Headings => "its headings",
        ContextTrim::Ends => "both ends",
        ContextTrim::Dropped => "no room",
    }
}

const fn why(reason: ContextSkipReason) -> &'static str {
    match reason {
        ContextSkipReason::Binary => "no text",
        ContextSkipReason::Empty => "empty",
        ContextSkipReason::Irregular => "a link, or no file",
        ContextSkipReason::Unreadable => "not readable",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use outpost_types::{ContextLevel, ContextSkip};

    use super::*;

    #[test]
    fn parts_files_and_masks_are_named_without_control_characters() {
        let section = ContextSection {
            kind: ContextKind::Identity,
            path: Some("README\u{1b}[2J.md".into()),
            bytes: 900,
            tokens_before: 225,
            tokens_after: 120,
            trimmed: ContextTrim::Cut,
            redactions: BTreeMap::new(),
        };
        let skip = ContextSkip { path: "SOUL.md".into(), reason: ContextSkipReason::Irregular };
        let view = ContextView {
            version: 1,
            level: ContextLevel::Standard,
            budget_tokens: 1_200,
            tokens: 140,
            sections: vec![section],
            skipped: vec![skip],
            redactions: BTreeMap::from([("github-token".into(), 2)]),
            text: String::new(),
        };
        let text = context(Surface::PLAIN, &view);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        for expected in [
            "identity",
            "120",
            "225",
            "cut",
            "Left out: SOUL.md (a link, or no file)\n",
            "Masked: github-token (2)\n",
            "140 of 1200 tokens",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
