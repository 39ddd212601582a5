//! Which files Aider is given whole. Without any it sees only a map of the repository, and it has no
//! tool to look further; with too many the prompt outgrows the model.
//!
//! Bounded: [`FILES_MAX`], [`FILES_BYTES_MAX`], [`FILE_BYTES_MAX`].

use crate::agent::{TRACKED_FILES_MAX, TrackedFile};

/// Most files.
pub const FILES_MAX: usize = 32;
/// Their size together, bytes (about 24,000 tokens).
pub const FILES_BYTES_MAX: u64 = 96 * 1024;
/// Largest file that is given without being named in the task, bytes.
pub const FILE_BYTES_MAX: u64 = 32 * 1024;
/// Shortest file name that counts as named when the task has only the name, not the path.
const NAME_BYTES_MIN: usize = 5;

/// Ends of names that are no text, or text nobody edits.
const SKIPPED: [&str; 36] = [
    ".7z",
    ".a",
    ".bin",
    ".bmp",
    ".class",
    ".db",
    ".dll",
    ".dylib",
    ".eot",
    ".exe",
    ".gif",
    ".gz",
    ".ico",
    ".jar",
    ".jpeg",
    ".jpg",
    ".lock",
    ".min.css",
    ".min.js",
    ".mp3",
    ".mp4",
    ".o",
    ".otf",
    ".pdf",
    ".png",
    ".pyc",
    ".so",
    ".sqlite",
    ".svg",
    ".tar",
    ".ttf",
    ".wasm",
    ".webp",
    ".woff2",
    ".zip",
    "package-lock.json",
];

/// Files the prompt names, then, if all the rest fits too, the rest: a small project is shown whole.
pub(super) fn choose<'a>(prompt: &str, tracked: &'a [TrackedFile]) -> Vec<&'a str> {
    let tracked = &tracked[..tracked.len().min(TRACKED_FILES_MAX)];
    let usable = || tracked.iter().filter(|file| is_usable(file));
    let mut chosen: Vec<&str> = Vec::new();
    let mut bytes = 0;
    for file in usable().filter(|file| is_named(prompt, &file.path)) {
        if chosen.len() == FILES_MAX || bytes + file.size_bytes > FILES_BYTES_MAX {
            continue;
        }
        bytes += file.size_bytes;
        chosen.push(&file.path);
    }
    let rest: Vec<&TrackedFile> =
        usable().filter(|file| !chosen.contains(&file.path.as_str())).collect();
    let rest_bytes: u64 = rest.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes));
    let fits = chosen.len() + rest.len() <= FILES_MAX
        && bytes.saturating_add(rest_bytes) <= FILES_BYTES_MAX
        && rest.iter().all(|file| file.size_bytes <= FILE_BYTES_MAX);
    if fits {
        chosen.extend(rest.iter().map(|file| file.path.as_str()));
    }
    chosen
}

fn is_usable(file: &TrackedFile) -> bool {
    let name = file.path.to_ascii_lowercase();
    file.size_bytes <= FILES_BYTES_MAX
        && !file.path.is_empty()
        && !file.path.starts_with(['/', '.'])
        && !file.path.split('/').any(|part| part == "..")
        && !file.path.contains(char::is_control)
        && !SKIPPED.iter().any(|end| name.ends_with(end))
}

/// Whether the prompt has the path, or at least a telling file name, as a word of its own.
fn is_named(prompt: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    has_word(prompt, path) || (name.len() >= NAME_BYTES_MIN && has_word(prompt, name))
}

fn has_word(prompt: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || "_-".contains(character);
    prompt.match_indices(word).take(64).any(|(at, _)| {
        let before = prompt[..at].chars().next_back();
        let mut after = prompt[at + word.len()..].chars();
        let next = after.next();
        // "calc.py." ends a sentence, "calc.pyc" and "calc.py.orig" are other files.
        let goes_on = match next {
            Some('.') => after.next().is_some_and(char::is_alphanumeric),
            Some(character) => part(character),
            None => false,
        };
        !before.is_some_and(part) && !goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size_bytes: u64) -> TrackedFile {
        TrackedFile { path: path.to_owned(), size_bytes }
    }

    #[test]
    fn a_small_project_is_given_whole_without_binaries() {
        let tracked = [
            file("README.md", 100),
            file("logo.png", 5),
            file("src/calc.py", 50),
            file("-odd.py", 5),
            file("Cargo.lock", 10),
            file(".env", 5),
            file("a\nb.py", 5),
        ];
        assert_eq!(choose("Fix calc.py.", &tracked), ["src/calc.py", "README.md", "-odd.py"]);
    }

    #[test]
    fn a_large_project_gives_only_named_files() {
        let mut tracked: Vec<TrackedFile> =
            (0..200).map(|n| file(&format!("src/file{n}.rs"), 2_000)).collect();
        tracked.push(file("src/huge.rs", FILES_BYTES_MAX + 1));
        let chosen =
            choose("look at src/file7.rs, (file12.rs) and huge.rs; not file1.rsx", &tracked);
        assert_eq!(chosen, ["src/file7.rs", "src/file12.rs"]);
        assert!(choose("anything", &tracked).is_empty());
    }

    #[test]
    fn what_is_given_stays_within_its_bounds() {
        let tracked: Vec<TrackedFile> =
            (0..100).map(|n| file(&format!("file{n}.rs"), 4_000)).collect();
        let prompt: String = tracked.iter().map(|file| file.path.clone() + " ").collect();
        let chosen = choose(&prompt, &tracked);
        assert!(chosen.len() <= FILES_MAX && chosen.len() as u64 * 4_000 <= FILES_BYTES_MAX);
        assert!(choose("x", &[file("a.rs", u64::MAX), file("b.rs", u64::MAX)]).is_empty());
    }
}
