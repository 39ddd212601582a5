//! `cargo xtask sizes`: lines per crate, product and tests apart, dependencies, size of the binary.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::tidy::{files_below, modules, tokens};
use crate::workspace::{DependencyKind, Member, Workspace};

/// Prints the table.
pub(crate) fn command(root: &Path) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::load(root)?;
    println!("{:<20} {:>6} {:>8} {:>8} {:>6}", "crate", "files", "product", "tests", "deps");
    let mut total = Lines::default();
    for member in &workspace.members {
        let lines = measure(member)?;
        let direct =
            member.dependencies.iter().filter(|(_, kind)| *kind == DependencyKind::Normal).count();
        println!(
            "{:<20} {:>6} {:>8} {:>8} {:>6}",
            member.name, lines.files, lines.product, lines.tests, direct
        );
        total.files += lines.files;
        total.product += lines.product;
        total.tests += lines.tests;
    }
    println!("{:<20} {:>6} {:>8} {:>8}", "total", total.files, total.product, total.tests);
    println!();
    println!("packages linked into `outpost`: {}", workspace.linked_count);
    println!("packages in the whole build, tests and tools included: {}", workspace.packages.len());
    for profile in ["release", "debug"] {
        let path = root.join("target").join(profile).join("outpost");
        if let Ok(metadata) = fs::metadata(&path) {
            println!("target/{profile}/outpost: {:.1} MB", metadata.len() as f64 / 1e6);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct Lines {
    files: usize,
    product: usize,
    tests: usize,
}

fn measure(member: &Member) -> anyhow::Result<Lines> {
    let sources = modules::reachable(member)?;
    let mut paths = Vec::new();
    files_below(&member.dir, "rs", &mut paths)?;
    let mut lines = Lines::default();
    for path in paths {
        let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let all = source.lines().count();
        let whole_is_test = sources.iter().any(|known| known.path == path && known.in_test);
        let tests = if whole_is_test { all } else { tokens::test_line_count(&source, &path)? };
        lines.files += 1;
        lines.tests += tests;
        lines.product += all - tests;
    }
    Ok(lines)
}
