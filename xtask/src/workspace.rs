//! What `cargo metadata` says about the workspace, reduced to what the tasks need.
//!
//! Only Linux targets are asked for: the product runs nowhere else, and packages for other systems
//! would be judged without ever being built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// Targets whose dependencies count.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// A dependency edge's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DependencyKind {
    /// Linked into the crate.
    Normal,
    /// Of its build script.
    Build,
    /// Of its tests, examples and benches.
    Dev,
}

/// What a root source file is compiled as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Library,
    Binary,
    Test,
    Example,
    Bench,
    BuildScript,
}

/// One compilation target of a member.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) source: PathBuf,
}

/// A member of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    pub(crate) targets: Vec<Target>,
    /// Declared dependencies by package name.
    pub(crate) dependencies: Vec<(String, DependencyKind)>,
}

/// A package that is built, ours or not.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// SPDX expression; absent when the manifest has none.
    pub(crate) license: Option<String>,
    /// Where it comes from; absent for members.
    pub(crate) source: Option<String>,
}

/// The workspace and everything it builds on Linux.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) members: Vec<Member>,
    pub(crate) packages: Vec<Package>,
    /// Packages linked into the binary `outpost`, itself included.
    pub(crate) linked_count: usize,
}

/// Folder of the workspace: the parent of this crate's own.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.parent().context("xtask has no parent folder")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("no Cargo.toml in {}; was the checkout moved? rebuild xtask", root.display());
    }
    Ok(root.to_owned())
}

/// The cargo that started us, or the one on the path.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Variables that `cargo run` sets for this program. A cargo that we start must not see them: build
/// scripts (ring's, for one) watch some, and everything above would be built again each time.
const CARGO_RUN_VARIABLES: [&str; 6] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_MANIFEST_LINKS",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
];
/// Prefix of more of them.
const CARGO_RUN_PREFIX: &str = "CARGO_PKG_";

/// Gives a command the environment that a person's own shell would.
pub(crate) fn forget_cargo_run(command: &mut Command) {
    for name in CARGO_RUN_VARIABLES {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(CARGO_RUN_PREFIX) {
            command.env_remove(name);
        }
    }
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load(root: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--format-version", "1"]).current_dir(root);
        for target in TARGETS {
            command.args(["--filter-platform", target]);
        }
        forget_cargo_run(&mut command);
        let output = command.output().context("running cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let document: Value =
            serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
        Self::from_metadata(&document)
    }

    fn from_metadata(document: &Value) -> anyhow::Result<Self> {
        let resolve = Resolve::read(document);
        let mut members = Vec::new();
        let mut packages = Vec::new();
        let member_ids: BTreeSet<&str> = strings(&document["workspace_members"]).collect();
        for package in array(&document["packages"]) {
            let id = text(package, "id")?;
            if !resolve.contains(id) {
                continue;
            }
            if member_ids.contains(id) {
                members.push(member(package)?);
            }
            packages.push(Package {
                name: text(package, "name")?.to_owned(),
                version: text(package, "version")?.to_owned(),
                license: package["license"].as_str().map(str::to_owned),
                source: package["source"].as_str().map(str::to_owned),
            });
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        let binary = array(&document["packages"])
            .find(|package| package["name"] == "outpost")
            .and_then(|package| package["id"].as_str());
        let linked_count = binary.map_or(0, |id| resolve.linked_from(id));
        Ok(Self { members, packages, linked_count })
    }
}

/// The resolved graph: package id to the ids it links (normal edges), build and dev edges left out.
struct Resolve<'a> {
    normal: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Resolve<'a> {
    fn read(document: &'a Value) -> Self {
        let mut normal = BTreeMap::new();
        for node in array(&document["resolve"]["nodes"]) {
            let linked = array(&node["deps"])
                .filter(|edge| array(&edge["dep_kinds"]).any(|kind| kind["kind"].is_null()))
                .filter_map(|edge| edge["pkg"].as_str())
                .collect();
            if let Some(id) = node["id"].as_str() {
                normal.insert(id, linked);
            }
        }
        Self { normal }
    }

    fn contains(&self, id: &str) -> bool {
        self.normal.contains_key(id)
    }

    fn linked_from(&self, id: &'a str) -> usize {
        let mut seen = BTreeSet::from([id]);
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            for &dependency in self.normal.get(next).into_iter().flatten() {
                if seen.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        seen.len()
    }
}

fn member(package: &Value) -> anyhow::Result<Member> {
    let manifest = PathBuf::from(text(package, "manifest_path")?);
    let dir = manifest.parent().context("a manifest without a folder")?.to_owned();
    let mut targets = Vec::new();
    for target in array(&package["targets"]) {
        let kind = match strings(&target["kind"]).next() {
            Some("bin") => TargetKind::Binary,
            Some("test") => TargetKind::Test,
            Some("example") => TargetKind::Example,
            Some("bench") => TargetKind::Bench,
            Some("custom-build") => TargetKind::BuildScript,
            _ => TargetKind::Library,
        };
        targets.push(Target { kind, source: PathBuf::from(text(target, "src_path")?) });
    }
    let mut dependencies = Vec::new();
    for dependency in array(&package["dependencies"]) {
        let kind = match dependency["kind"].as_str() {
            Some("dev") => DependencyKind::Dev,
            Some("build") => DependencyKind::Build,
            _ => DependencyKind::Normal,
        };
        dependencies.push((text(dependency, "name")?.to_owned(), kind));
    }
    Ok(Member { name: text(package, "name")?.to_owned(), dir, targets, dependencies })
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    array(value).filter_map(Value::as_str)
}

fn text<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("cargo metadata has no `{key}` where one was expected"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_only_linked_packages() {
        let package = |id: &str| {
            json!({"id": id, "name": id, "version": "1.0.0", "license": "MIT", "source": "registry",
                   "manifest_path": format!("/w/{id}/Cargo.toml"), "targets": [], "dependencies": []})
        };
        let edge = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let document = json!({
            "packages": [package("outpost"), package("a"), package("b"), package("onlytest"), package("windows")],
            "workspace_members": ["outpost"],
            "resolve": {"nodes": [
                {"id": "outpost", "deps": [edge("a", Value::Null), edge("onlytest", json!("dev"))]},
                {"id": "a", "deps": [edge("b", Value::Null)]},
                {"id": "b", "deps": []},
                {"id": "onlytest", "deps": []},
            ]},
        });
        let workspace = Workspace::from_metadata(&document).unwrap();
        assert_eq!(workspace.linked_count, 3);
        assert_eq!(workspace.packages.len(), 4, "what no Linux build needs is left out");
        assert_eq!(workspace.members.len(), 1);
    }
}
