//! Which files a crate really compiles: follows `mod` from each target's root.
//!
//! A file that nothing declares is dead weight that looks alive. Modules declared inside macros are
//! not seen; there is no reason to have any.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use syn::punctuated::Punctuated;

use crate::workspace::{Member, TargetKind};

/// Deepest nesting of modules that is followed.
const DEPTH_MAX: usize = 32;

/// A file that is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    /// Of the target it belongs to; library when several share it.
    pub(crate) kind: TargetKind,
    /// Only tests compile it.
    pub(crate) in_test: bool,
}

/// All files of a member that some target reaches.
pub(crate) fn reachable(member: &Member) -> anyhow::Result<Vec<SourceFile>> {
    let mut found = BTreeMap::new();
    for target in &member.targets {
        let in_test = matches!(target.kind, TargetKind::Test | TargetKind::Bench);
        let start = Visit { kind: target.kind, in_test, depth: 0 };
        let children = target.source.parent().context("a source without a folder")?.to_owned();
        walk(&target.source, &children, start, &mut found)?;
    }
    Ok(found.into_values().collect())
}

#[derive(Clone, Copy)]
struct Visit {
    kind: TargetKind,
    in_test: bool,
    depth: usize,
}

type Found = BTreeMap<PathBuf, SourceFile>;

fn walk(path: &Path, children: &Path, visit: Visit, found: &mut Found) -> anyhow::Result<()> {
    anyhow::ensure!(
        visit.depth <= DEPTH_MAX,
        "modules nest deeper than {DEPTH_MAX} at {}",
        path.display()
    );
    let entry = found.entry(path.to_owned()).or_insert_with(|| SourceFile {
        path: path.to_owned(),
        kind: visit.kind,
        in_test: visit.in_test,
    });
    entry.in_test &= visit.in_test;
    if visit.kind == TargetKind::Library {
        entry.kind = TargetKind::Library;
    }
    let source = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let file = syn::parse_file(&source).with_context(|| format!("parsing {}", path.display()))?;
    let base = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    items(&file.items, &base, children, visit, found)
}

fn items(
    list: &[syn::Item],
    base: &Path,
    children: &Path,
    visit: Visit,
    found: &mut Found,
) -> anyhow::Result<()> {
    for item in list {
        if let syn::Item::Macro(call) = item {
            if let Some(included) = included(&call.mac) {
                let path = without_dots(&base.join(included));
                let next = Visit { depth: visit.depth + 1, ..visit };
                if path.is_file() {
                    walk(&path, children, next, found)?;
                }
            }
            continue;
        }
        let syn::Item::Mod(module) = item else {
            continue;
        };
        let next = Visit {
            in_test: visit.in_test || module.attrs.iter().any(is_cfg_test),
            depth: visit.depth + 1,
            ..visit
        };
        let name = module.ident.to_string();
        let name = name.strip_prefix("r#").unwrap_or(&name);
        if let Some((_, inner)) = &module.content {
            let inside = children.join(name);
            items(inner, &inside, &inside, next, found)?;
            continue;
        }
        let (file, below) = match module.attrs.iter().find_map(path_attribute) {
            Some(path) => {
                let file = without_dots(&base.join(path));
                let below = file.parent().unwrap_or(base).to_owned();
                (file, below)
            }
            None => located(children, name),
        };
        // A missing file is the compiler's to report, with a better message.
        if file.is_file() {
            walk(&file, &below, next, found)?;
        }
    }
    Ok(())
}

/// `name.rs` or `name/mod.rs`, and where the modules below it are.
fn located(children: &Path, name: &str) -> (PathBuf, PathBuf) {
    let below = children.join(name);
    let flat = children.join(format!("{name}.rs"));
    if flat.is_file() { (flat, below) } else { (below.join("mod.rs"), below) }
}

/// The same path without `..`, so that one file has one name.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            _ => plain.push(part),
        }
    }
    plain
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    list.path.is_ident("cfg")
        && list
            .parse_args_with(Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
            .is_ok_and(|metas| metas.iter().any(|meta| meta.path().is_ident("test")))
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &pair.value else {
        return None;
    };
    match &literal.lit {
        syn::Lit::Str(text) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}

/// The file of `include!("file.rs")`.
fn included(call: &syn::Macro) -> Option<String> {
    if !call.path.is_ident("include") {
        return None;
    }
    call.parse_body::<syn::LitStr>().ok().map(|text| text.value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Target;

    fn crate_with(
        files: &[(&str, &str)],
        roots: &[(TargetKind, &str)],
    ) -> (tempfile::TempDir, Vec<SourceFile>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let member = Member {
            name: "sample".to_owned(),
            dir: dir.path().to_owned(),
            targets: roots
                .iter()
                .map(|(kind, source)| Target { kind: *kind, source: dir.path().join(source) })
                .collect(),
            dependencies: Vec::new(),
        };
        let found = reachable(&member).unwrap();
        (dir, found)
    }

    fn names(dir: &tempfile::TempDir, found: &[SourceFile]) -> Vec<(String, bool)> {
        found
            .iter()
            .map(|file| {
                let path =
                    file.path.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned();
                (path, file.in_test)
            })
            .collect()
    }

    #[test]
    fn follows_files_folders_and_inline_modules() {
        let (dir, found) = crate_with(
            &[
                (
                    "src/lib.rs",
                    "mod a;\nmod b;\nmod inline { mod deep; }\n#[cfg(test)]\nmod tests;",
                ),
                ("src/a.rs", "mod below;"),
                ("src/a/below.rs", ""),
                ("src/b/mod.rs", "mod c;"),
                ("src/b/c.rs", ""),
                ("src/inline/deep.rs", ""),
                ("src/tests.rs", ""),
                ("src/forgotten.rs", ""),
            ],
            &[(TargetKind::Library, "src/lib.rs")],
        );
        let expected = [
            ("src/a/below.rs", false),
            ("src/a.rs", false),
            ("src/b/c.rs", false),
            ("src/b/mod.rs", false),
            ("src/inline/deep.rs", false),
            ("src/lib.rs", false),
            ("src/tests.rs", true),
        ];
        assert_eq!(names(&dir, &found), expected.map(|(path, test)| (path.to_owned(), test)));
    }

    #[test]
    fn integration_tests_and_explicit_paths() {
        let (dir, found) = crate_with(
            &[
                ("tests/it/main.rs", "mod one;\n#[path = \"../shared/two.rs\"]\nmod two;"),
                ("tests/it/one.rs", ""),
                ("tests/shared/two.rs", "include!(\"three.rs\");"),
                ("tests/shared/three.rs", ""),
            ],
            &[(TargetKind::Test, "tests/it/main.rs")],
        );
        assert!(found.iter().all(|file| file.in_test));
        assert_eq!(names(&dir, &found).len(), 4);
    }

    #[test]
    fn a_file_shared_by_product_and_tests_is_product() {
        let (_dir, found) = crate_with(
            &[
                ("src/lib.rs", "mod shared;"),
                ("src/shared.rs", ""),
                ("tests/it/main.rs", "#[path = \"../../src/shared.rs\"]\nmod shared;"),
            ],
            &[(TargetKind::Test, "tests/it/main.rs"), (TargetKind::Library, "src/lib.rs")],
        );
        let shared: Vec<_> =
            found.iter().filter(|file| file.path.ends_with("src/shared.rs")).collect();
        assert_eq!(shared.len(), 1);
        assert!(!shared[0].in_test);
        assert_eq!(shared[0].kind, TargetKind::Library);
    }
}
