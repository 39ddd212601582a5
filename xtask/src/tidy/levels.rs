//! Direction of dependencies, by the tables of ARCHITECTURE.md.
//!
//! The document is the law and this reads it, so that neither can drift: a table with the columns
//! `crate`, `level` and `holds` lists every crate; a table with `edge` and `why` lists the few edges
//! within one level. Dev-dependencies may point anywhere: tests are allowed to see the whole.

use std::collections::BTreeMap;
use std::path::Path;

use super::Finding;
use crate::workspace::{DependencyKind, Member};

/// How high a crate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Number(u32),
    /// Tools and test kits: they may use anything and nothing shipped may use them.
    Dev,
}

/// What ARCHITECTURE.md says.
#[derive(Debug, Default)]
pub(super) struct Law {
    /// Crate to its level and line.
    crates: BTreeMap<String, (Level, usize)>,
    /// Edges allowed within one level, with the line.
    edges: Vec<(String, String, usize)>,
}

/// Reads the two tables; what cannot be read is a finding.
pub(super) fn parse(document: &str, path: &Path, findings: &mut Vec<Finding>) -> Law {
    let mut law = Law::default();
    let mut table = Table::Other;
    for (index, line) in document.lines().enumerate() {
        let line_number = index + 1;
        let Some(cells) = cells(line) else {
            table = Table::Other;
            continue;
        };
        let head: Vec<&str> = cells.iter().map(|cell| cell.trim_matches('`')).collect();
        if head.starts_with(&["crate", "level", "holds"]) {
            table = Table::Crates;
            continue;
        }
        if head.starts_with(&["edge", "why"]) {
            table = Table::Edges;
            continue;
        }
        if head.iter().all(|cell| cell.chars().all(|char| char == '-' || char == ':')) {
            continue;
        }
        match table {
            Table::Crates => {
                let level = match head.get(1) {
                    Some(&"dev") => Some(Level::Dev),
                    Some(number) => number.parse().ok().map(Level::Number),
                    None => None,
                };
                let Some(level) = level else {
                    let what = format!("`{line}` has no level");
                    findings.push(Finding::error(
                        path,
                        line_number,
                        what,
                        "write a number or `dev`",
                    ));
                    continue;
                };
                law.crates.insert(head[0].to_owned(), (level, line_number));
            }
            Table::Edges => match head[0].split_once('→') {
                Some((from, to)) => law.edges.push((name(from), name(to), line_number)),
                None => findings.push(Finding::error(
                    path,
                    line_number,
                    format!("`{}` is no edge", head[0]),
                    "write `` `from` → `to` ``",
                )),
            },
            Table::Other => {}
        }
    }
    law
}

enum Table {
    Crates,
    Edges,
    Other,
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

fn name(text: &str) -> String {
    text.trim().trim_matches('`').trim().to_owned()
}

/// Compares the workspace with the law.
pub(super) fn check(law: &Law, members: &[Member], path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        let manifest = Path::new("crates").join(&member.name).join("Cargo.toml");
        let Some(&(level, _)) = law.crates.get(&member.name) else {
            findings.push(Finding::error(
                path,
                0,
                format!("`{}` is not in the crate table", member.name),
                "add a row with its level and what it holds",
            ));
            continue;
        };
        for (dependency, kind) in &member.dependencies {
            let known = law.crates.get(dependency);
            if let (Some(&(below, _)), true) = (known, *kind != DependencyKind::Dev)
                && let Some(what) = breach(law, (&member.name, level), (dependency, below))
            {
                let fix = "move the shared part down, or hand it in through a trait from above";
                findings.push(Finding::error(&manifest, 0, what, fix));
            }
        }
    }
    for (name, (_, line)) in &law.crates {
        if !members.iter().any(|member| member.name == *name) {
            let what = format!("`{name}` is in the crate table but not in the workspace");
            findings.push(Finding::error(path, *line, what, "remove the row"));
        }
    }
    for (from, to, line) in &law.edges {
        let used = members.iter().any(|member| {
            member.name == *from
                && member.dependencies.iter().any(|(dependency, _)| dependency == to)
        });
        if !used {
            let what = format!("the edge {from} → {to} is allowed but does not exist");
            findings.push(Finding::error(path, *line, what, "remove the row"));
        }
    }
    findings
}

fn breach(law: &Law, (from, level): (&str, Level), (to, below): (&str, Level)) -> Option<String> {
    match (level, below) {
        (Level::Dev, _) => None,
        (_, Level::Dev) => Some(format!("{from} uses {to}, which is for tests and tools only")),
        (Level::Number(own), Level::Number(other)) if other < own => None,
        (Level::Number(own), Level::Number(other)) if other == own => {
            let allowed = law.edges.iter().any(|(a, b, _)| a == from && b == to);
            (!allowed).then(|| format!("{from} uses {to} of the same level {own}"))
        }
        (Level::Number(own), Level::Number(other)) => {
            Some(format!("{from} (level {own}) uses {to} (level {other}), which is above it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# Map

| crate | level | holds |
|---|---|---|
| `types` | 0 | nouns |
| `store` | 2 | records |
| `sandbox` | 2 | isolation |
| `runner` | 3 | attempts |
| `engine` | 3 | all |
| `kit` | dev | tests |

Text | with | bars

| edge | why |
|---|---|
| `engine` → `runner` | it runs them |
";

    fn member(name: &str, dependencies: &[(&str, DependencyKind)]) -> Member {
        Member {
            name: name.to_owned(),
            dir: Path::new("crates").join(name),
            targets: Vec::new(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), *kind))
                .collect(),
        }
    }

    fn findings(changed: &[Member]) -> Vec<String> {
        use DependencyKind::Normal;
        let mut members = vec![
            member("types", &[("serde", Normal)]),
            member("store", &[("types", Normal)]),
            member("sandbox", &[]),
            member("runner", &[("sandbox", Normal)]),
            member("engine", &[("runner", Normal), ("store", Normal)]),
            member("kit", &[("engine", Normal)]),
        ];
        for new in changed {
            members.retain(|old| old.name != new.name);
            members.push(new.clone());
        }
        let mut unread = Vec::new();
        let law = parse(DOCUMENT, Path::new("A.md"), &mut unread);
        assert_eq!(unread, []);
        check(&law, &members, Path::new("A.md")).into_iter().map(|found| found.what).collect()
    }

    #[test]
    fn a_lawful_workspace_passes() {
        assert_eq!(findings(&[]), [""; 0]);
    }

    #[test]
    fn edges_upward_sideways_and_to_tools_are_found() {
        use DependencyKind::{Build, Normal};
        let upward = findings(&[member("types", &[("store", Normal)])]);
        assert_eq!(upward, ["types (level 0) uses store (level 2), which is above it"]);
        let sideways = findings(&[member("store", &[("sandbox", Build)])]);
        assert_eq!(sideways, ["store uses sandbox of the same level 2"]);
        let tools = findings(&[member("store", &[("kit", Normal)])]);
        assert_eq!(tools, ["store uses kit, which is for tests and tools only"]);
    }

    #[test]
    fn an_allowed_edge_goes_one_way_and_must_exist() {
        use DependencyKind::Normal;
        let found = findings(&[
            member("engine", &[("store", Normal)]),
            member("runner", &[("engine", Normal)]),
        ]);
        let expected = [
            "runner uses engine of the same level 3",
            "the edge engine → runner is allowed but does not exist",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn tests_may_look_anywhere() {
        assert_eq!(findings(&[member("types", &[("engine", DependencyKind::Dev)])]), [""; 0]);
    }

    #[test]
    fn table_and_workspace_must_agree() {
        let unknown = findings(&[member("stray", &[])]);
        assert_eq!(unknown, ["`stray` is not in the crate table"]);
        let mut unread = Vec::new();
        let law = parse(DOCUMENT, Path::new("A.md"), &mut unread);
        let gone = check(&law, &[], Path::new("A.md"));
        assert_eq!(gone.len(), 7, "six rows and one edge");
        assert!(gone.iter().all(|found| found.line > 0));
    }

    #[test]
    fn a_row_without_a_level_is_said() {
        let mut unread = Vec::new();
        parse(
            "| crate | level | holds |\n|---|---|---|\n| `a` | high | x |\n",
            Path::new("A.md"),
            &mut unread,
        );
        assert_eq!(unread.len(), 1);
        assert_eq!(unread[0].line, 3);
    }
}
