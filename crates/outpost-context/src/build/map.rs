//! A map of the repository: its directories and what is in them, by names alone.

use std::collections::{BTreeMap, BTreeSet};

use super::clean;

/// Most directories and files of the first level, and most of the second that are named for each.
const FIRST_COUNT_MAX: usize = 60;
const SECOND_COUNT_MAX: usize = 12;
/// Longest name that is shown, characters.
const NAME_CHARS_MAX: usize = 40;

/// What is below one directory.
#[derive(Default)]
struct Below<'a> {
    files: usize,
    dirs: BTreeSet<&'a str>,
}

/// The map of these files; `None` without any.
pub(super) fn of(files: &[String]) -> Option<String> {
    let mut dirs: BTreeMap<&str, Below<'_>> = BTreeMap::new();
    let mut here = Vec::new();
    for path in files {
        let Some((first, rest)) = path.split_once('/') else {
            if here.len() < FIRST_COUNT_MAX {
                here.push(path.as_str());
            }
            continue;
        };
        if dirs.len() >= FIRST_COUNT_MAX && !dirs.contains_key(first) {
            continue;
        }
        let below = dirs.entry(first).or_default();
        below.files += 1;
        if let Some((second, _)) = rest.split_once('/')
            && below.dirs.len() <= SECOND_COUNT_MAX
        {
            below.dirs.insert(second);
        }
    }
    if dirs.is_empty() && here.is_empty() {
        return None;
    }
    let shown = |name: &&str| clean::name(name, NAME_CHARS_MAX);
    let mut map = String::new();
    for (name, below) in &dirs {
        let plural = if below.files == 1 { "" } else { "s" };
        map.push_str(&format!("{}/ ({} file{plural})", shown(name), below.files));
        if !below.dirs.is_empty() {
            let dirs = below.dirs.iter().take(SECOND_COUNT_MAX);
            let dirs: Vec<_> = dirs.map(|name| format!("{}/", shown(name))).collect();
            map.push_str(&format!(": {}", dirs.join(" ")));
            if below.dirs.len() > SECOND_COUNT_MAX {
                map.push_str(" …");
            }
        }
        map.push('\n');
    }
    let here: Vec<_> = here.iter().map(shown).collect();
    map.push_str(&here.join(" "));
    Some(map.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_counted_and_named() {
        let files =
            ["a/b/c.rs", "a/b/d.rs", "a/e/f", "g/h\nx", "README.md", "z"].map(str::to_owned);
        assert_eq!(of(&files).unwrap(), "a/ (3 files): b/ e/\ng/ (1 file)\nREADME.md z");
        assert_eq!(of(&[]), None);
        let many: Vec<_> = (0..9_999).map(|at| format!("{at}/{at}/{}", "x".repeat(99))).collect();
        assert!(of(&many).unwrap().lines().count() <= FIRST_COUNT_MAX);
    }
}
