//! What agents do to a repository, and what is kept of it.

use crate::world::{World, codes, commit, git, write};

#[tokio::test]
async fn nothing_changed_gives_an_empty_patch_and_no_bundle() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let collected = world.collect(&prepared).await.unwrap();
    assert!(!collected.changed && collected.result_commit.is_none(), "{collected:?}");
    assert_eq!(collected.artifacts, [("diff.patch".to_owned(), 0)]);
    assert!(
        world.diff(&prepared).is_empty() && !world.kept(&prepared).join("changes.bundle").exists()
    );
}

#[tokio::test]
async fn commits_and_work_on_top_of_them_are_both_kept() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let repo = &prepared.repo_dir;
    write(repo, "README.md", "hello\nworld\n");
    commit(repo, "agent one");
    let agent = git(repo, &["rev-parse", "HEAD"]);
    write(repo, "later.txt", "a\nb\n");
    std::fs::remove_file(repo.join("src/lib.rs")).unwrap();
    write(&prepared.dir, "artifacts/report.md", "# done\n");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!(
        (collected.commits, collected.files_changed, collected.insertions, collected.deletions),
        (2, 3, 3, 1)
    );
    assert!(collected.notes.is_empty(), "{:?}", collected.notes);
    let names: Vec<&str> = collected.artifacts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["artifacts/report.md", "changes.bundle", "diff.patch"]);
    let clone = world.check_round_trip(&source, &prepared, &collected);
    assert_eq!(git(&clone, &["rev-parse", "result~1"]), agent);
    assert_eq!(git(&clone, &["log", "-1", "--format=%s", "result~1"]), "agent one");
    // Collecting again after a crash gives the same work.
    let again = world.collect(&prepared).await.unwrap();
    assert_eq!(again.insertions, collected.insertions);
    assert!(!prepared.attempt_dir.join("ingest").exists());
}

#[tokio::test]
async fn only_commits_keep_their_ids() {
    let world = World::new();
    let source = world.source();
    for (name, steps) in [
        ("moved", vec![vec!["switch", "-q", "-c", "agent/work"]]),
        ("detached", vec![vec!["checkout", "-q", "--detach"]]),
    ] {
        let prepared = world.prepare(name, Some(&source)).await.unwrap();
        for step in steps {
            git(&prepared.repo_dir, &step);
        }
        write(&prepared.repo_dir, "x", "x\n");
        commit(&prepared.repo_dir, "x");
        let collected = world.collect(&prepared).await.unwrap();
        assert_eq!(
            collected.result_commit,
            Some(git(&prepared.repo_dir, &["rev-parse", "HEAD"])),
            "{name}"
        );
        assert!(collected.notes.is_empty());
        world.check_round_trip(&source, &prepared, &collected);
    }
}

#[tokio::test]
async fn a_rewritten_history_becomes_one_commit_on_the_base() {
    let world = World::new();
    let source = world.source();
    for (name, args) in [
        ("amended", vec!["commit", "-q", "--amend", "-m", "amended"]),
        ("orphan", vec!["checkout", "-q", "--orphan", "fresh"]),
    ] {
        let prepared = world.prepare(name, Some(&source)).await.unwrap();
        write(&prepared.repo_dir, "x", "x\n");
        git(&prepared.repo_dir, &["add", "-A"]);
        git(&prepared.repo_dir, &args);
        if name == "orphan" {
            commit(&prepared.repo_dir, "fresh");
        }
        let collected = world.collect(&prepared).await.unwrap();
        assert_eq!(codes(&collected.notes), ["history_rewritten"], "{name}");
        assert_eq!((collected.commits, collected.files_changed), (1, 1));
        let clone = world.check_round_trip(&source, &prepared, &collected);
        assert_eq!(git(&clone, &["rev-parse", "result~1"]), prepared.base_commit);
    }
    // Rewritten, but with the same files: nothing changed.
    let prepared = world.prepare("same", Some(&source)).await.unwrap();
    git(&prepared.repo_dir, &["commit", "-q", "--amend", "-m", "other words"]);
    assert!(!world.collect(&prepared).await.unwrap().changed);
}

#[tokio::test]
async fn reset_below_the_base_is_a_change_back() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    git(&prepared.repo_dir, &["reset", "-q", "--hard", "HEAD~1"]);
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!((collected.files_changed, collected.deletions), (1, 1));
    world.check_round_trip(&source, &prepared, &collected);
}

#[tokio::test]
async fn a_merge_of_the_agents_own_branches_is_kept() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let repo = &prepared.repo_dir;
    git(repo, &["switch", "-q", "-c", "side"]);
    write(repo, "side", "x\n");
    commit(repo, "side");
    git(repo, &["switch", "-q", "main"]);
    write(repo, "main", "x\n");
    commit(repo, "main");
    git(repo, &["merge", "-q", "--no-edit", "side"]);
    git(repo, &["gc", "-q"]);
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!((collected.commits, collected.files_changed), (3, 2));
    world.check_round_trip(&source, &prepared, &collected);
}

#[tokio::test]
async fn renames_binaries_links_modes_and_strange_names_survive() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let world = World::new();
    let source = world.source();
    for index in 0..50 {
        write(&source, &format!("old/file{index}"), format!("content of {index}\n").repeat(20));
    }
    write(&source, "logo.png", (0..=255_u8).cycle().take(5000).collect::<Vec<_>>());
    commit(&source, "more");
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let repo = &prepared.repo_dir;
    std::fs::rename(repo.join("old"), repo.join("new")).unwrap();
    write(repo, "logo.png", (0..=255_u8).rev().cycle().take(5000).collect::<Vec<_>>());
    for name in [
        "ünï cødé/日本語.txt",
        "-leading",
        "new\nline",
        "quote\"back\\slash",
        "tab\there",
        " space ",
        "*?[x]",
    ] {
        write(repo, name, "x\n");
    }
    symlink("/etc/passwd", repo.join("link")).unwrap();
    std::fs::set_permissions(repo.join("README.md"), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!(collected.files_changed, 50 + 1 + 7 + 1 + 1, "{collected:?}");
    let patch = String::from_utf8_lossy(&world.diff(&prepared)).into_owned();
    assert_eq!(patch.matches("\nrename from old/").count(), 50);
    let clone = world.check_round_trip(&source, &prepared, &collected);
    assert_eq!(std::fs::read_link(clone.join("link")).unwrap().to_str(), Some("/etc/passwd"));
}

#[tokio::test]
async fn ignored_files_stay_out() {
    let world = World::new();
    let source = world.source();
    write(&source, ".gitignore", "target/\n*.log\n");
    commit(&source, "ignore");
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    write(&prepared.repo_dir, "target/debug/x", "x");
    write(&prepared.repo_dir, "a.log", "x");
    write(&prepared.repo_dir, ".git/info/exclude", "scratch\n");
    write(&prepared.repo_dir, "scratch", "x");
    git(&prepared.dir, &["init", "-q", "repo/target/vendored"]);
    write(&prepared.repo_dir, "target/vendored/x", "x");
    assert!(!world.collect(&prepared).await.unwrap().changed);
}

#[tokio::test]
async fn repositories_inside_are_kept_as_files() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let repo = &prepared.repo_dir;
    for (name, committed) in [("app", true), ("it's new", false)] {
        git(repo, &["init", "-q", name]);
        write(repo, &format!("{name}/main.js"), "x\n");
        write(repo, &format!("{name}/.gitignore"), "node_modules\n");
        write(repo, &format!("{name}/node_modules/dep"), "x\n");
        if committed {
            commit(&repo.join(name), "inner");
        }
    }
    git(repo, &["init", "-q", "app/deep"]);
    write(repo, "app/deep/file", "x\n");
    // The agent committed one of them as a link to nowhere.
    git(repo, &["add", "app"]);
    git(repo, &["commit", "-q", "-m", "app"]);
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!(codes(&collected.notes), ["nested_repository"]);
    let clone = world.check_round_trip(&source, &prepared, &collected);
    let files = git(&clone, &["ls-tree", "-r", "--name-only", "result"]);
    let names: Vec<&str> = files.lines().collect();
    assert_eq!(
        names,
        [
            "README.md",
            "app/.gitignore",
            "app/deep/file",
            "app/main.js",
            "it's new/.gitignore",
            "it's new/main.js",
            "src/lib.rs"
        ]
    );
}

#[tokio::test]
async fn files_no_host_takes_are_left_out_and_named() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let big = std::fs::File::create(prepared.repo_dir.join("big [1].iso")).unwrap();
    big.set_len(101 * 1024 * 1024).unwrap();
    write(&prepared.repo_dir, "small", "x\n");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!(collected.files_changed, 1);
    let note = collected.notes.iter().find(|note| note.code == "large_file").unwrap();
    assert!(note.message.contains("big [1].iso"), "{note:?}");
}

#[tokio::test]
async fn without_a_source_the_work_is_kept_too() {
    let world = World::new();
    let prepared = world.prepare("a1", None).await.unwrap();
    write(&prepared.repo_dir, "hello.py", "print('hi')\n");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!((collected.changed, collected.files_changed, collected.insertions), (true, 1, 1));
}

#[tokio::test]
async fn what_the_agents_program_leaves_by_itself_is_no_result() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    write(&prepared.repo_dir, ".litter.cache/a", "x");
    let nothing = world.collect(&prepared).await.unwrap();
    assert!(!nothing.changed, "{nothing:?}");
    write(&prepared.repo_dir, "src/.litter", "named alike, but elsewhere");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!(collected.files_changed, 1);
}
