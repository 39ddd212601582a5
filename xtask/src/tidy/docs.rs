//! Links, paths and commands in documents that lead nowhere.
//!
//! Checked: targets of relative links, paths in backticks below the folders of this repository, and
//! names of `cargo xtask` commands (these inside code blocks too, since there they are copied).
//! Not checked: the network, and anchors within a page.

use std::path::{Component, Path, PathBuf};

use super::Finding;

/// A backticked word that starts with one of these claims to be a path of the repository.
const FOLDERS: [&str; 7] = ["crates/", "docs/", "xtask/", "openapi/", "fuzz/", ".ci/", ".cargo/"];
/// Signs of a pattern or placeholder instead of a path.
const PATTERN_SIGNS: [char; 8] = ['*', '<', '{', '…', ' ', '[', '$', '('];

/// Finds dead links of one document; `exists` is asked for paths relative to the workspace.
pub(super) fn check(document: &str, path: &Path, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut in_code_block = false;
    for (index, line) in document.lines().enumerate() {
        for command in commands(line).filter(|command| !crate::COMMANDS.contains(command)) {
            findings.push(Finding::error(
                path,
                index + 1,
                format!("`cargo xtask {command}` is no command"),
                "write one that `cargo xtask help` lists",
            ));
        }
        if line.trim_start().starts_with("```") {
            in_code_block = !in_code_block;
            continue;
        }
        if in_code_block {
            continue;
        }
        let links = links(line).map(|target| (target, resolve(folder, target)));
        let paths = paths(line).map(|target| (target, PathBuf::from(target)));
        for (written, target) in links.chain(paths) {
            if !exists(&target) {
                findings.push(Finding::error(
                    path,
                    index + 1,
                    format!("`{written}` does not exist"),
                    "correct the path or remove the mention",
                ));
            }
        }
    }
    findings
}

/// Targets of `[text](target)` that are files of the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?;
        let target = target.split('#').next()?.trim();
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        (!target.is_empty() && !elsewhere).then_some(target)
    })
}

/// Backticked paths of the repository.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|word| {
        FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.contains(PATTERN_SIGNS)
    })
}

/// Names that follow `cargo xtask`.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    line.split("cargo xtask ").skip(1).filter_map(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_lowercase() && char != '-');
        let name = &rest[..end.unwrap_or(rest.len())];
        (!name.is_empty()).then_some(name)
    })
}

fn resolve(folder: &Path, target: &str) -> PathBuf {
    let mut resolved = if target.starts_with('/') { PathBuf::new() } else { folder.to_owned() };
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::Normal(name) => resolved.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str, path: &str) -> Vec<(usize, String)> {
        let there = ["README.md", "docs/errors/a.md", "crates/outpost/src"];
        check(document, Path::new(path), &|target| there.iter().any(|own| Path::new(own) == target))
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect()
    }

    #[test]
    fn living_links_pass() {
        let document = "[a](docs/errors/a.md#top) [b](https://x.example/y) [c](#here) `crates/outpost/src`\n\
                        `crates/*/src` `crates/<name>` [d](mailto:a@b)\n```\n[x](gone.md)\n```\n";
        assert_eq!(found(document, "README.md"), []);
        assert_eq!(found("[up](../../README.md) [beside](a.md)", "docs/errors/b.md"), []);
    }

    #[test]
    fn commands_must_exist() {
        let document =
            "`cargo xtask test --quick`, `cargo xtask <command>`\n```\ncargo xtask tset\n```\n";
        let lines: Vec<usize> =
            found(document, "README.md").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [3]);
    }

    #[test]
    fn dead_links_and_paths_are_found() {
        let document = "fine\n[a](gone.md) and `docs/gone/`\n[b](README.md) [c](docs/b.md)\n";
        let lines: Vec<usize> =
            found(document, "README.md").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 2, 3]);
    }
}
