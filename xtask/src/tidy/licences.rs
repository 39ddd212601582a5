//! Licences, bans and sources of everything we build, by the same deny.toml that cargo-deny reads.
//!
//! cargo-deny says more and CI uses it when it is there; this needs no install, so that the rule
//! holds everywhere. Deliberately absent: advisories, which need a database from the network.

use std::path::Path;

use anyhow::{Context, bail};
use toml::{Table, Value};

use super::Finding;
use crate::workspace::Package;

/// Nesting of parentheses in a licence expression that is followed.
const DEPTH_MAX: usize = 16;
/// The one registry packages may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Judges all packages.
pub(super) fn check(deny: &str, packages: &[Package], path: &Path) -> anyhow::Result<Vec<Finding>> {
    let table: Table = deny.parse().with_context(|| format!("reading {}", path.display()))?;
    let allowed: Vec<&str> = strings(at(&table, &["licenses", "allow"]));
    let banned: Vec<&str> = at(&table, &["bans", "deny"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.get("crate").or(Some(entry)).and_then(Value::as_str))
        .collect();
    let exceptions = exceptions(&table);
    let mut findings = Vec::new();
    for package in packages {
        let shown = format!("{} {}", package.name, package.version);
        if banned.contains(&package.name.as_str()) {
            let fix = "find who asks for it with `cargo tree -i` and choose other features";
            findings.push(Finding::error(path, 0, format!("{shown} is banned"), fix));
        }
        if package.source.as_deref().is_some_and(|source| source != REGISTRY) {
            let fix = "use a release from crates.io";
            findings.push(Finding::error(
                path,
                0,
                format!("{shown} does not come from the registry"),
                fix,
            ));
        }
        let own =
            exceptions.iter().filter(|(name, _)| *name == package.name).flat_map(|(_, list)| list);
        let allowed: Vec<&str> = allowed.iter().chain(own).copied().collect();
        let judged = package.license.as_deref().map(|expression| permits(expression, &allowed));
        match judged {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                let license = package.license.as_deref().unwrap_or_default();
                let what = format!("{shown} has the licence `{license}`, which is not allowed");
                findings.push(Finding::error(
                    path,
                    0,
                    what,
                    "replace it, or allow the licence after reading it",
                ));
            }
            Some(Err(error)) => {
                let fix = "read its licence and add an exception";
                findings.push(Finding::error(path, 0, format!("{shown}: {error:#}"), fix));
            }
            None => {
                let fix = "read its licence file and add an exception";
                findings.push(Finding::error(path, 0, format!("{shown} states no licence"), fix));
            }
        }
    }
    Ok(findings)
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn exceptions(table: &Table) -> Vec<(&str, Vec<&str>)> {
    at(table, &["licenses", "exceptions"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.get("crate")?.as_str()?;
            Some((name, strings(entry.get("allow"))))
        })
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences alone.
fn permits(expression: &str, allowed: &[&str]) -> anyhow::Result<bool> {
    // `/` is how old manifests wrote OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, at: 0, depth: 0, allowed };
    let result = parser.alternatives()?;
    if parser.at != words.len() {
        bail!("`{expression}` is no licence expression");
    }
    Ok(result)
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    depth: usize,
    allowed: &'a [&'a str],
}

impl Parser<'_> {
    fn accept(&mut self, word: &str) -> bool {
        let next = self.words.get(self.at) == Some(&word);
        self.at += usize::from(next);
        next
    }

    fn alternatives(&mut self) -> anyhow::Result<bool> {
        let mut met = self.requirements()?;
        while self.accept("OR") {
            met |= self.requirements()?;
        }
        Ok(met)
    }

    fn requirements(&mut self) -> anyhow::Result<bool> {
        let mut met = self.licence()?;
        while self.accept("AND") {
            met &= self.licence()?;
        }
        Ok(met)
    }

    fn licence(&mut self) -> anyhow::Result<bool> {
        if self.accept("(") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                bail!("a licence expression nested deeper than {DEPTH_MAX}");
            }
            let met = self.alternatives()?;
            if !self.accept(")") {
                bail!("a licence expression without its closing parenthesis");
            }
            self.depth -= 1;
            return Ok(met);
        }
        let name = *self.words.get(self.at).context("an incomplete licence expression")?;
        if ["OR", "AND", "WITH", ")"].contains(&name) {
            bail!("a licence expression with `{name}` in the wrong place");
        }
        self.at += 1;
        let full = if self.accept("WITH") {
            let exception =
                *self.words.get(self.at).context("a licence expression that ends in WITH")?;
            self.at += 1;
            format!("{name} WITH {exception}")
        } else {
            name.to_owned()
        };
        Ok(self.allowed.contains(&full.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"
[licenses]
allow = ["MIT", "Apache-2.0", "Unicode-3.0"]
exceptions = [{ crate = "roots", allow = ["CDLA-Permissive-2.0"] }]
[bans]
deny = [{ crate = "openssl-sys" }, "native-tls"]
"#;

    fn package(name: &str, license: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            source: Some(REGISTRY.to_owned()),
        }
    }

    fn found(package: Package) -> usize {
        check(DENY, &[package], Path::new("deny.toml")).unwrap().len()
    }

    #[test]
    fn expressions_are_judged_as_written() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
        let good = [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ];
        for expression in good {
            assert!(permits(expression, &allowed).unwrap(), "{expression}");
        }
        for expression in ["GPL-3.0", "MIT AND GPL-3.0", "MIT AND (GPL-3.0 OR BSD)", "MIT WITH x"] {
            assert!(!permits(expression, &allowed).unwrap(), "{expression}");
        }
        for expression in ["", "MIT OR", "(MIT", "MIT MIT", "OR MIT", "MIT WITH", &"(".repeat(40)] {
            assert!(permits(expression, &allowed).is_err(), "{expression}");
        }
    }

    #[test]
    fn packages_are_judged() {
        assert_eq!(found(package("serde", Some("MIT OR Apache-2.0"))), 0);
        assert_eq!(found(package("roots", Some("CDLA-Permissive-2.0"))), 0);
        assert_eq!(found(package("other", Some("CDLA-Permissive-2.0"))), 1);
        assert_eq!(found(package("openssl-sys", Some("MIT"))), 1);
        assert_eq!(found(package("native-tls", Some("MIT"))), 1);
        assert_eq!(found(package("nameless", None)), 1);
        let git = Package {
            source: Some("git+https://x.example/y".to_owned()),
            ..package("a", Some("MIT"))
        };
        assert_eq!(found(git), 1);
        let own = Package { source: None, ..package("outpost", Some("Apache-2.0")) };
        assert_eq!(found(own), 0);
    }
}
