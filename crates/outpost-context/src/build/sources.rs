//! Which files of a repository tell about the project.

use outpost_types::{ContextKind, ContextLevel};

use super::date::Day;

/// Most files that are read.
const WANTED_COUNT_MAX: usize = 16;
/// Most candidates of one kind; a link or an empty file leaves it to the next.
const CANDIDATES_COUNT_MAX: usize = 3;
/// Longest path that is looked at, bytes.
const PATH_BYTES_MAX: usize = 512;

/// A file to read, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is.
    pub kind: ContextKind,
    /// Path in the repository, `/`-separated.
    pub path: String,
}

/// Files to read of all that are tracked, the better of each kind first.
#[must_use]
pub fn wanted(level: ContextLevel, files: &[String]) -> Vec<Wanted> {
    let mut found: Vec<(ContextKind, Rank, &str)> = Vec::new();
    for path in files.iter().map(String::as_str) {
        // Most files are none: the cheapest question first.
        if !ends_as_text(path) || path.len() > PATH_BYTES_MAX {
            continue;
        }
        if let Some((kind, rank)) = rank(path)
            && (kind != ContextKind::Roadmap || level == ContextLevel::Full)
        {
            found.push((kind, rank, path));
        }
    }
    found.sort_unstable();
    let mut wanted: Vec<Wanted> = Vec::new();
    for (kind, _, path) in found {
        let of_kind = wanted.iter().filter(|wanted| wanted.kind == kind).count();
        if of_kind < CANDIDATES_COUNT_MAX && wanted.len() < WANTED_COUNT_MAX {
            wanted.push(Wanted { kind, path: path.to_owned() });
        }
    }
    wanted
}

fn ends_as_text(path: &str) -> bool {
    let end = &path.as_bytes()[path.len().saturating_sub(4)..];
    end.ends_with(b".md")
        || end.eq_ignore_ascii_case(b".txt")
        || end.eq_ignore_ascii_case(b".rst")
        || end.eq_ignore_ascii_case(b"adme")
}

/// The less, the better: where it is and how it is called, then the newest day.
type Rank = (u8, std::cmp::Reverse<Option<Day>>);

fn rank(path: &str) -> Option<(ContextKind, Rank)> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(dir, "journal" | "journals" | "docs/journal" | "docs/journals") {
        let day = Day::in_text(name)?;
        return Some((ContextKind::Journal, (0, std::cmp::Reverse(Some(day)))));
    }
    let place = match dir {
        "docs" => 1,
        "" => 2,
        _ => return None,
    };
    let plain = |place| (place, std::cmp::Reverse(Day::in_text(name)));
    if dir.is_empty() && name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("readme")) {
        let rest = &name[6..];
        let good = rest.is_empty()
            || [".md", ".rst", ".txt"].iter().any(|end| rest.eq_ignore_ascii_case(end));
        return good.then(|| (ContextKind::Identity, plain(if rest == ".md" { 100 } else { 101 })));
    }
    for (word, kind) in [
        ("SOUL", ContextKind::Identity),
        ("ANCHORS", ContextKind::Decisions),
        ("PROFILE", ContextKind::Profile),
        ("JOURNAL", ContextKind::Journal),
        ("ROADMAP", ContextKind::Roadmap),
    ] {
        let Some(stem) = name.strip_suffix(".md") else { continue };
        if stem == word {
            return Some((kind, plain(place)));
        }
        if stem.strip_suffix(word).is_some_and(|before| before.ends_with('_')) {
            return Some((kind, plain(place + 10)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(level: ContextLevel, files: &[&str]) -> Vec<String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        wanted(level, &files).into_iter().map(|wanted| wanted.path).collect()
    }

    #[test]
    fn the_better_one_is_first_and_the_readme_last() {
        let all = [
            "README.md",
            "docs/SOUL.md",
            "APP_SOUL.md",
            "src/SOUL.md",
            "docs/ANCHORS.md",
            "docs/journal/2026-01-02.md",
            "docs/journal/2026-02-01 late.md",
            "JOURNAL.md",
            "ROADMAP.md",
            "PROFILE.md",
            "AGENTS.md",
            "CLAUDE.md",
            "src/main.rs",
        ];
        let wanted = paths(ContextLevel::Standard, &all);
        assert_eq!(
            wanted,
            [
                "docs/SOUL.md",
                "APP_SOUL.md",
                "README.md",
                "docs/ANCHORS.md",
                "PROFILE.md",
                "docs/journal/2026-02-01 late.md",
                "docs/journal/2026-01-02.md",
                "JOURNAL.md"
            ]
        );
        assert_eq!(paths(ContextLevel::Full, &all).len(), wanted.len() + 1);
        assert_eq!(paths(ContextLevel::Full, &["readme", "é", "", "x/ROADMAP.md"]), ["readme"]);
    }
}
