//! Patches on the user's own repository.

use outpost_workspace::{ApplyError, apply_patch_to, patch_stat};

use crate::world::{World, commit, git, write};

/// A patch made by the whole path: prepare, change, collect.
async fn patch(world: &World, source: &std::path::Path) -> Vec<u8> {
    let prepared = world.prepare("a1", Some(source)).await.unwrap();
    write(&prepared.repo_dir, "README.md", "hello\nfrom the agent\n");
    write(&prepared.repo_dir, "bin", [0_u8, 1, 2, 255]);
    world.collect(&prepared).await.unwrap();
    world.diff(&prepared)
}

#[tokio::test]
async fn a_fitting_patch_is_applied_and_a_dry_run_is_not() {
    let world = World::new();
    let source = world.source();
    let patch = patch(&world, &source).await;
    let report = apply_patch_to(&source.join("src"), &patch, true).unwrap();
    assert!(
        !report.applied && report.files == 2 && report.stat.contains("README.md"),
        "{report:?}"
    );
    assert_eq!(git(&source, &["status", "--porcelain"]), "");
    let report = apply_patch_to(&source.join("src"), &patch, false).unwrap();
    assert!(report.applied && !report.merged);
    assert_eq!(std::fs::read(source.join("bin")).unwrap(), [0, 1, 2, 255]);
    assert_eq!(
        std::fs::read_to_string(source.join("README.md")).unwrap(),
        "hello\nfrom the agent\n"
    );
}

#[tokio::test]
async fn files_that_moved_on_are_merged_or_left_alone() {
    let world = World::new();
    let source = world.source();
    let lines: String = (1..=20).map(|n| format!("line {n}\n")).collect();
    write(&source, "list", &lines);
    commit(&source, "list");
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    write(&prepared.repo_dir, "list", lines.replace("line 10\n", "line ten\n"));
    world.collect(&prepared).await.unwrap();
    let patch = world.diff(&prepared);
    write(&source, "list", lines.replace("line 8\n", "line eight\n"));
    commit(&source, "mine");
    let report = apply_patch_to(&source, &patch, false).unwrap();
    assert!(report.merged && report.applied);
    let merged = std::fs::read_to_string(source.join("list")).unwrap();
    assert!(merged.contains("line eight\n") && merged.contains("line ten\n"));
    git(&source, &["reset", "-q", "--hard"]);
    write(&source, "list", lines.replace("line 10\n", "line 10, mine\n"));
    commit(&source, "conflict");
    let before = git(&source, &["status", "--porcelain"]);
    let error = apply_patch_to(&source, &patch, false).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Conflict { detail } if detail.contains("list")),
        "{error:?}"
    );
    assert_eq!(git(&source, &["status", "--porcelain"]), before);
    assert_eq!(git(&source, &["diff", "HEAD"]), "");
}

#[tokio::test]
async fn patches_that_reach_out_are_refused() {
    let world = World::new();
    let source = world.source();
    for name in [".git/hooks/pre-commit", "../outside", "a/.GIT/config"] {
        let patch = format!(
            "diff --git a/{name} b/{name}\nnew file mode 100755\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+evil\n"
        );
        let error = apply_patch_to(&source, patch.as_bytes(), false).unwrap_err();
        assert!(
            matches!(error, ApplyError::Forbidden(_) | ApplyError::Conflict { .. }),
            "{name}: {error:?}"
        );
    }
    assert!(!source.join(".git/hooks/pre-commit").exists() && !world.path("outside").exists());
    assert!(matches!(patch_stat(b"\n"), Err(ApplyError::Empty)));
    assert!(matches!(
        apply_patch_to(world.dir.path(), b"x", false),
        Err(ApplyError::NotARepository(_))
    ));
}
