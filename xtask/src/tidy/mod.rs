//! `cargo xtask tidy`: the style law as a program.
//!
//! Each check is a function from text or metadata to [`Finding`]s, so that it can be tested on small
//! samples; this module reads the files and prints. Bounds live beside the check that holds them.
//! Deliberately absent: formatting (rustfmt) and everything clippy already says.

mod docs;
mod functions;
mod levels;
mod licences;
mod manifests;
pub(crate) mod modules;
mod text;
pub(crate) mod tokens;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use crate::workspace::{Member, TargetKind, Workspace};
use modules::SourceFile;
use tokens::Rules;

/// Largest crate, lines of Rust with its tests; a larger one is split.
const CRATE_LINES_MAX: usize = 12_000;
/// Smallest crate, lines of Rust with its tests; a smaller one should be part of another.
const CRATE_LINES_MIN: usize = 400;
/// The crates that may hold `unsafe`: one of the product, and the harness that is a file system to SQLite.
const UNSAFE_CRATES: [&str; 2] = ["outpost-sandbox", "outpost-powerloss"];

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// Said, but tidy still passes.
    Warning,
    /// Tidy fails.
    Error,
}

/// One breach of the style law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Relative to the workspace.
    pub(crate) path: PathBuf,
    /// 1-based; 0 means the file as a whole.
    pub(crate) line: usize,
    pub(crate) weight: Weight,
    /// What is wrong, and why it matters where that is not obvious.
    pub(crate) what: String,
    /// What to do.
    pub(crate) fix: String,
}

impl Finding {
    pub(crate) fn error(
        path: &Path,
        line: usize,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            line,
            weight: Weight::Error,
            what: what.into(),
            fix: fix.into(),
        }
    }

    pub(crate) fn warning(
        path: &Path,
        line: usize,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { weight: Weight::Warning, ..Self::error(path, line, what, fix) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if self.weight == Weight::Warning {
            f.write_str(" warning:")?;
        }
        write!(f, " {}; {}", self.what, self.fix)
    }
}

/// Runs all checks and prints what they found.
pub(crate) fn command(root: &Path) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::load(root)?;
    let mut findings = check(root, &workspace)?;
    findings.sort_by(|a, b| (a.weight, &a.path, a.line).cmp(&(b.weight, &b.path, b.line)));
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.weight == Weight::Error).count();
    let warnings = findings.len() - errors;
    println!(
        "tidy: {} crates, {} packages, {errors} errors, {warnings} warnings",
        workspace.members.len(),
        workspace.packages.len()
    );
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(root: &Path, workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let architecture = read(root, Path::new("ARCHITECTURE.md"))?;
    let law = levels::parse(&architecture, Path::new("ARCHITECTURE.md"), &mut findings);
    findings.extend(levels::check(&law, &workspace.members, Path::new("ARCHITECTURE.md")));
    let mut manifests = Vec::new();
    for member in &workspace.members {
        check_member(root, member, &mut findings)?;
        manifests.push(read(root, &relative(root, &member.dir).join("Cargo.toml"))?);
    }
    let versions = read(root, Path::new("Cargo.toml"))?;
    findings.extend(manifests::check_versions(&versions, &manifests)?);
    let deny = read(root, Path::new("deny.toml"))?;
    findings.extend(licences::check(&deny, &workspace.packages, Path::new("deny.toml"))?);
    check_documents(root, &mut findings)?;
    check_fuzzers(root, &mut findings)?;
    Ok(findings)
}

/// The fuzzers are a workspace of their own, but as readable as the rest.
fn check_fuzzers(root: &Path, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let mut sources = Vec::new();
    files_below(&root.join("fuzz"), "rs", &mut sources)?;
    for path in sources {
        let shown = relative(root, &path);
        let source = read(root, &shown)?;
        findings.extend(text::check(&source, &shown));
        findings.extend(functions::check(&source, &shown)?);
    }
    Ok(())
}

fn check_member(root: &Path, member: &Member, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let dir = relative(root, &member.dir);
    let manifest_path = dir.join("Cargo.toml");
    let manifest = read(root, &manifest_path)?;
    findings.extend(manifests::check(&manifest, &manifest_path, member)?);
    findings.extend(text::check(&manifest, &manifest_path));

    let sources = modules::reachable(member).with_context(|| format!("reading {}", member.name))?;
    let mut all = Vec::new();
    files_below(&member.dir, "rs", &mut all)?;
    let mut lines_total = 0;
    for path in &all {
        let shown = relative(root, path);
        let source = read(root, &shown)?;
        // End-to-end tests show the whole product, not their crate.
        if !path.starts_with(member.dir.join("tests/e2e")) {
            lines_total += source.lines().count();
        }
        findings.extend(text::check(&source, &shown));
        let Some(known) = sources.iter().find(|known| known.path == *path) else {
            findings.push(Finding::error(
                &shown,
                0,
                "no module declares this file, so it is never compiled",
                "add `mod` for it or remove it",
            ));
            continue;
        };
        check_source(member, known, &source, &shown, findings);
    }
    check_size(member, lines_total, &dir, findings);
    Ok(())
}

fn check_source(
    member: &Member,
    known: &SourceFile,
    source: &str,
    shown: &Path,
    findings: &mut Vec<Finding>,
) {
    let rules = Rules {
        in_test: known.in_test,
        may_print: known.kind != TargetKind::Library || known.in_test,
        may_be_unsafe: UNSAFE_CRATES.contains(&member.name.as_str()),
    };
    match tokens::check(source, shown, rules) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(unreadable(shown, &error)),
    }
    match functions::check(source, shown) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(unreadable(shown, &error)),
    }
}

fn unreadable(path: &Path, error: &anyhow::Error) -> Finding {
    Finding::error(path, 0, format!("not readable as Rust: {error:#}"), "make it compile first")
}

fn check_size(member: &Member, lines: usize, dir: &Path, findings: &mut Vec<Finding>) {
    if lines > CRATE_LINES_MAX {
        findings.push(Finding::error(
            dir,
            0,
            format!("{lines} lines, over {CRATE_LINES_MAX}: too much to hold in one head"),
            "split the crate along its nouns",
        ));
    } else if lines < CRATE_LINES_MIN && member.name != "xtask" {
        findings.push(Finding::warning(
            dir,
            0,
            format!("{lines} lines, under {CRATE_LINES_MIN}: hardly a crate of its own"),
            "fold it into the crate that uses it",
        ));
    }
}

fn check_documents(root: &Path, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let mut documents = Vec::new();
    for entry in fs::read_dir(root).context("reading the workspace folder")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    for folder in ["docs", "crates", "xtask", "openapi", "fuzz"] {
        files_below(&root.join(folder), "md", &mut documents)?;
    }
    for path in documents {
        let shown = relative(root, &path);
        let document = read(root, &shown)?;
        findings.extend(text::check(&document, &shown));
        findings.extend(docs::check(&document, &shown, &|target| root.join(target).exists()));
    }
    Ok(())
}

/// Files with that extension below `dir`, sorted; samples kept as test data are not ours to judge.
pub(crate) fn files_below(
    dir: &Path,
    extension: &str,
    found: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        entries.push(entry?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() {
            if !hidden && name != "fixtures" && name != "target" && name != "node_modules" {
                files_below(&path, extension, found)?;
            }
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

fn read(root: &Path, path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_what_and_what_to_do() {
        let finding = Finding::error(Path::new("a/b.rs"), 7, "too long", "split it");
        assert_eq!(finding.to_string(), "a/b.rs:7: too long; split it");
        let whole = Finding::warning(Path::new("a"), 0, "small", "fold it");
        assert_eq!(whole.to_string(), "a: warning: small; fold it");
    }

    #[test]
    fn test_data_is_not_judged() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("src")).unwrap();
        fs::create_dir_all(dir.path().join("tests/fixtures")).unwrap();
        fs::write(dir.path().join("src/lib.rs"), "").unwrap();
        fs::write(dir.path().join("tests/fixtures/bad.rs"), "").unwrap();
        let mut found = Vec::new();
        files_below(dir.path(), "rs", &mut found).unwrap();
        assert_eq!(found, [dir.path().join("src/lib.rs")]);
    }
}
