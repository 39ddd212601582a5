//! Manifests: folder and name agree, lints and versions are inherited, few integration test binaries.
//!
//! Versions live in the workspace so that every crate builds the same features of a dependency and
//! nothing is compiled twice; one test binary per crate because links dominate build time (the
//! end-to-end tests of the whole product have their own, `e2e`, since they need minutes and installs).

use std::path::Path;

use anyhow::Context;
use toml::{Table, Value};

use super::Finding;
use crate::workspace::{Member, TargetKind};

/// Roots of test binaries.
const TEST_ROOTS: [&str; 2] = ["tests/it/main.rs", "tests/e2e/main.rs"];

/// Finds breaches in one manifest.
pub(super) fn check(manifest: &str, path: &Path, member: &Member) -> anyhow::Result<Vec<Finding>> {
    let table: Table = manifest.parse().with_context(|| format!("reading {}", path.display()))?;
    let mut findings = Vec::new();
    let folder = member.dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let folder = folder.unwrap_or_default();
    // Beside `crates/` a folder speaks for itself: `sim` holds `outpost-sim`.
    let product = member.dir.parent().is_some_and(|parent| parent.ends_with("crates"));
    let short = if product { None } else { member.name.strip_prefix("outpost-") };
    if folder != member.name && Some(folder.as_str()) != short {
        let what = format!("crate `{}` lives in folder `{folder}`", member.name);
        findings.push(Finding::error(path, 0, what, "give both the same name"));
    }
    if !inherits(table.get("lints")) {
        findings.push(Finding::error(
            path,
            0,
            "the workspace's lints do not hold here",
            "add `[lints]` with `workspace = true`",
        ));
    }
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(list) = table.get(section).and_then(Value::as_table) else {
            continue;
        };
        for (name, value) in list {
            if !inherits(Some(value)) {
                findings.push(Finding::error(
                    path,
                    line_of(manifest, name),
                    format!("`{name}` has its own version in [{section}]"),
                    "put it under [workspace.dependencies] and write `workspace = true`",
                ));
            }
        }
    }
    for target in &member.targets {
        let usual = TEST_ROOTS.iter().any(|root| target.source.ends_with(root));
        if target.kind == TargetKind::Test && !usual {
            findings.push(Finding::error(
                path,
                0,
                format!(
                    "`{}` is a test binary of its own, and links cost seconds",
                    target.source.display()
                ),
                "make it a module of tests/it/main.rs",
            ));
        }
    }
    Ok(findings)
}

/// Finds versions in the workspace's manifest that no member asks for.
pub(super) fn check_versions(root: &str, members: &[String]) -> anyhow::Result<Vec<Finding>> {
    let table: Table = root.parse().context("reading Cargo.toml")?;
    let declared = table.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let asked_for = |name: &str| {
        let starts = |line: &str| {
            let rest = line.strip_prefix(name).map(str::trim_start);
            rest.is_some_and(|rest| rest.starts_with(['.', '=']))
        };
        members.iter().any(|manifest| manifest.lines().any(starts))
    };
    let names = declared.and_then(Value::as_table).into_iter().flat_map(Table::keys);
    let unused = names.filter(|name| !asked_for(name)).map(|name| {
        let what = format!("no crate asks for `{name}`");
        Finding::error(Path::new("Cargo.toml"), line_of(root, name), what, "remove it")
    });
    Ok(unused.collect())
}

fn inherits(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
}

fn line_of(manifest: &str, name: &str) -> usize {
    manifest
        .lines()
        .position(|line| line.trim_start().trim_start_matches('"').starts_with(name))
        .map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::Target;

    fn member(dir: &str, tests: &[&str]) -> Member {
        Member {
            name: "outpost-a".to_owned(),
            dir: PathBuf::from(dir),
            targets: tests
                .iter()
                .map(|source| Target { kind: TargetKind::Test, source: PathBuf::from(source) })
                .collect(),
            dependencies: Vec::new(),
        }
    }

    fn found(manifest: &str, member: &Member) -> Vec<String> {
        let findings = check(manifest, Path::new("Cargo.toml"), member).unwrap();
        findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_lawful_manifest_passes() {
        let manifest = "[lints]\nworkspace = true\n[dependencies]\nserde.workspace = true\n\
                        tokio = { workspace = true, features = [\"fs\"] }\n";
        let member = member("/w/crates/outpost-a", &["/w/crates/outpost-a/tests/it/main.rs"]);
        assert_eq!(found(manifest, &member), [""; 0]);
    }

    #[test]
    fn only_beside_the_product_may_a_folder_leave_out_the_prefix() {
        let manifest = "[lints]\nworkspace = true\n";
        assert_eq!(found(manifest, &member("/w/a", &[])), [""; 0]);
        assert_eq!(found(manifest, &member("/w/b", &[])).len(), 1);
        assert_eq!(found(manifest, &member("/w/crates/a", &[])).len(), 1);
    }

    #[test]
    fn breaches_are_found() {
        let manifest =
            "[dependencies]\nserde = \"1\"\n[dev-dependencies]\ntokio = { version = \"1\" }\n";
        let found = found(manifest, &member("/w/crates/other", &["/w/tests/cli.rs"]));
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn a_version_nobody_asks_for_is_found() {
        let root = "[workspace.dependencies]\nserde = \"1\"\nserde_json = \"1\"\ntoml = \"1\"\n";
        let member = "[dependencies]\nserde_json.workspace = true\ntoml = { workspace = true }\n";
        let found = check_versions(root, &[member.to_owned()]).unwrap();
        let found: Vec<_> = found.iter().map(|found| (found.line, found.what.as_str())).collect();
        assert_eq!(found, [(2, "no crate asks for `serde`")]);
    }

    #[test]
    fn a_breach_names_its_line() {
        let manifest = "[lints]\nworkspace = true\n\n[dependencies]\nserde = \"1\"\n";
        let findings =
            check(manifest, Path::new("Cargo.toml"), &member("/w/crates/outpost-a", &[])).unwrap();
        assert_eq!(findings[0].line, 5);
    }
}
