//! Sources and agents that want something else.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use outpost_workspace::{CollectError, Prepared};

use crate::world::{World, codes, commit, git, write};

/// A program that leaves a mark when anybody runs it.
fn trap(world: &World) -> (String, std::path::PathBuf) {
    let mark = world.path("mark");
    let program = world.path("trap.sh");
    std::fs::write(&program, format!("#!/bin/sh\ntouch '{}'\ncat\n", mark.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program.display().to_string(), mark)
}

/// Sets every trap git's settings know.
fn arm(repo: &Path, program: &str) {
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "core.askPass",
        "core.alternateRefsCommand",
        "diff.external",
        "uploadpack.packObjectsHook",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.evil.command",
        "merge.evil.driver",
        "gpg.program",
        "credential.helper",
        "core.gitProxy",
    ] {
        git(repo, &["config", key, program]);
    }
    git(repo, &["config", "filter.evil.required", "true"]);
    git(repo, &["config", "commit.gpgSign", "true"]);
    let hooks = repo.join(".git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    for hook in [
        "post-checkout",
        "pre-commit",
        "post-commit",
        "post-index-change",
        "reference-transaction",
        "post-update",
        "fsmonitor-watchman",
    ] {
        std::fs::copy(program, hooks.join(hook)).unwrap();
    }
    git(repo, &["config", "core.hooksPath", hooks.to_str().unwrap()]);
}

#[tokio::test]
async fn nothing_of_a_hostile_source_runs() {
    let world = World::new();
    let (program, mark) = trap(&world);
    let source = world.source();
    write(&source, ".gitattributes", "* filter=evil diff=evil merge=evil\n");
    write(&source, ".lfsconfig", "[lfs]\n\turl = https://evil.invalid\n");
    write(
        &source,
        ".gitmodules",
        "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% mark\n\tupdate = !touch mark\n",
    );
    symlink("/etc", source.join("etc")).unwrap();
    commit(&source, "hostile");
    arm(&source, &program);
    write(&source, "README.md", "uncommitted\n");
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    assert!(!mark.exists());
    assert!(codes(&prepared.notes).contains(&"uncommitted_changes"));
    write(&prepared.repo_dir, "README.md", "changed\n");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!(collected.files_changed, 1);
    assert!(!mark.exists());
}

#[tokio::test]
async fn nothing_of_a_hostile_agent_runs() {
    let world = World::new();
    let (program, mark) = trap(&world);
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let repo = &prepared.repo_dir;
    write(repo, ".gitattributes", "* filter=evil diff=evil merge=evil text\n");
    write(repo, "x", "x\n");
    arm(repo, &program);
    let collected = world.collect(&prepared).await.unwrap();
    assert!(collected.changed);
    assert!(!mark.exists());
}

#[tokio::test]
async fn attributes_that_end_git_do_not_lose_work() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    write(&prepared.repo_dir, ".gitattributes", "* text working-tree-encoding=UTF-16\n");
    write(&prepared.repo_dir, "x.txt", "not UTF-16\n");
    let collected = world.collect(&prepared).await.unwrap();
    assert!(codes(&collected.notes).contains(&"attributes_ignored"), "{:?}", collected.notes);
    let patch = String::from_utf8(world.diff(&prepared)).unwrap();
    assert!(collected.files_changed == 2 && patch.contains("+not UTF-16\n"), "{patch}");
}

#[tokio::test]
async fn a_submodule_setting_of_the_agent_that_runs_programs_is_refused() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    write(
        &prepared.repo_dir,
        ".gitmodules",
        "[submodule \"x\"]\n\tpath = x\n\turl = https://h/x\n\tupdate = !touch mark\n",
    );
    let error = world.collect(&prepared).await.unwrap_err();
    assert!(matches!(error, CollectError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn the_cache_is_never_written_by_an_agent() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let before = listing(&prepared.mirror);
    write(&prepared.repo_dir, "x", "x\n");
    commit(&prepared.repo_dir, "x");
    git(&prepared.repo_dir, &["gc", "-q", "--prune=now"]);
    world.collect(&prepared).await.unwrap();
    assert_eq!(listing(&prepared.mirror), before);
    // No file of the checkout is a second name of a file of the cache.
    for path in std::fs::read_dir(prepared.repo_dir.join(".git/objects/pack")).unwrap().flatten() {
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&path.metadata().unwrap()), 1);
    }
}

fn listing(dir: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                pending.push(entry.path());
            }
            found.push((entry.path().display().to_string(), meta.len()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_broken_repository_directory_still_gives_the_files() {
    let world = World::new();
    let source = world.source();
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 6] = [
        ("removed", |repo| std::fs::remove_dir_all(repo.join(".git")).unwrap(), "git_dir_missing"),
        (
            "head",
            |repo| {
                std::fs::write(repo.join(".git/HEAD"), "ref: refs/heads/../../../etc/passwd\n")
                    .unwrap()
            },
            "head_unreadable",
        ),
        (
            "config",
            |repo| std::fs::write(repo.join(".git/config"), "[core\nbroken").unwrap(),
            "head_unreadable",
        ),
        (
            "file",
            |repo| {
                std::fs::remove_dir_all(repo.join(".git")).unwrap();
                std::fs::write(repo.join(".git"), "gitdir: /etc\n").unwrap();
            },
            "head_unreadable",
        ),
        (
            "objects",
            |repo| {
                write(repo, "more", "more\n");
                commit(repo, "more");
                std::fs::remove_dir_all(repo.join(".git/objects")).unwrap();
            },
            "head_unreadable",
        ),
        (
            "missing tree",
            |repo| {
                write(repo, "more", "more\n");
                commit(repo, "more");
                let tree = git(repo, &["rev-parse", "HEAD^{tree}"]);
                std::fs::remove_file(repo.join(".git/objects").join(&tree[..2]).join(&tree[2..]))
                    .unwrap();
            },
            "commits_unreadable",
        ),
    ];
    for (name, damage, code) in cases {
        let prepared = world.prepare(name, Some(&source)).await.unwrap();
        write(&prepared.repo_dir, "work.txt", "work\n");
        damage(&prepared.repo_dir);
        let collected =
            world.collect(&prepared).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(codes(&collected.notes).contains(&code), "{name}: {:?}", collected.notes);
        assert!(collected.changed && collected.commits == 1, "{name}");
        world.check_round_trip(&source, &prepared, &collected);
    }
}

#[tokio::test]
async fn a_repository_that_became_a_link_or_vanished_is_named() {
    let world = World::new();
    let source = world.source();
    for name in ["link", "gone"] {
        let prepared = world.prepare(name, Some(&source)).await.unwrap();
        std::fs::remove_dir_all(&prepared.repo_dir).unwrap();
        if name == "link" {
            symlink("/etc", &prepared.repo_dir).unwrap();
        }
        write(&prepared.dir, "artifacts/note", "x");
        let error = world.collect(&prepared).await.unwrap_err();
        assert!(matches!(error, CollectError::RepositoryGone), "{error:?}");
        assert!(world.kept(&prepared).join("artifacts/note").is_file());
    }
}

#[tokio::test]
async fn special_and_unreadable_files_do_not_stop_the_rest() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let repo = &prepared.repo_dir;
    let mode = rustix::fs::Mode::RWXU;
    for name in ["pipe", "README.md"] {
        let _ = std::fs::remove_file(repo.join(name));
        rustix::fs::mknodat(rustix::fs::CWD, repo.join(name), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
    }
    symlink("loop", repo.join("loop")).unwrap();
    write(repo, "good", "x\n");
    let collected = world.collect(&prepared).await.unwrap();
    let patch = String::from_utf8(world.diff(&prepared)).unwrap();
    assert!(collected.changed && patch.contains("b/good") && !patch.contains("b/pipe"), "{patch}");
}

async fn ready(world: &World) -> Prepared {
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    write(&prepared.repo_dir, "x", "x\n");
    world.run_job(&prepared);
    prepared
}

#[tokio::test]
async fn a_job_that_did_not_run_or_finish_is_told() {
    let world = World::new();
    let prepared = ready(&world).await;
    let kept = world.kept(&prepared);
    let out = prepared.attempt_dir.join("collect/out");
    std::fs::write(out.join("status"), "note history_rewritten\n").unwrap();
    assert!(matches!(
        world.workspaces.ingest(&prepared, &kept).await,
        Err(CollectError::NoResult(_))
    ));
    std::fs::write(out.join("status"), "same\n").unwrap();
    assert!(matches!(
        world.workspaces.ingest(&prepared, &kept).await,
        Err(CollectError::NoResult(_))
    ));
    std::fs::remove_file(out.join("status")).unwrap();
    assert!(matches!(
        world.workspaces.ingest(&prepared, &kept).await,
        Err(CollectError::NoResult(_))
    ));
    symlink("/etc/hostname", out.join("status")).unwrap();
    assert!(matches!(
        world.workspaces.ingest(&prepared, &kept).await,
        Err(CollectError::NoResult(_))
    ));
}

/// Makes the job's output say that `commit` of `repo` is the result, with its objects but those of `not`.
fn forge(prepared: &Prepared, repo: &Path, commit: &str, not: &str) {
    let out = prepared.attempt_dir.join("collect/out");
    write(&out, "revs", format!("{commit}\n{not}\n"));
    let output = std::process::Command::new("git")
        .args(["pack-objects", "-q", "--revs", "--stdout"])
        .current_dir(repo)
        .stdin(std::fs::File::open(out.join("revs")).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success());
    std::fs::write(out.join("result.pack"), output.stdout).unwrap();
    std::fs::write(out.join("status"), format!("result {commit}\nend\n")).unwrap();
}

#[tokio::test]
async fn forged_packs_are_refused() {
    let world = World::new();
    let prepared = ready(&world).await;
    let kept = world.kept(&prepared);
    let out = prepared.attempt_dir.join("collect/out");
    let pack = out.join("result.pack");
    let good = std::fs::read(&pack).unwrap();
    // Not a pack; a cut one; one with a flipped bit.
    let mut flipped = good.clone();
    let at = flipped.len() - 40;
    flipped[at] ^= 1;
    for bad in [b"hello".to_vec(), good[..good.len() / 2].to_vec(), flipped] {
        std::fs::write(&pack, bad).unwrap();
        let error = world.workspaces.ingest(&prepared, &kept).await.unwrap_err();
        assert!(matches!(error, CollectError::Refused { .. }), "{error:?}");
    }
    // A commit that is not in the pack; one whose files are not; a file in its place.
    std::fs::write(&pack, &good).unwrap();
    let blob = git(&prepared.repo_dir, &["rev-parse", "HEAD:README.md"]);
    for result in ["0".repeat(40), blob] {
        std::fs::write(out.join("status"), format!("result {result}\nend\n")).unwrap();
        let error = world.workspaces.ingest(&prepared, &kept).await.unwrap_err();
        assert!(matches!(error, CollectError::Refused { .. }), "{error:?}");
    }
    // Commits that do not start from the base.
    let other = world.path("other");
    git(world.dir.path(), &["init", "-q", "-b", "outpost", other.to_str().unwrap()]);
    write(&other, "evil", "x\n");
    commit(&other, "unrelated");
    forge(&prepared, &other, &git(&other, &["rev-parse", "HEAD"]), "");
    let error = world.workspaces.ingest(&prepared, &kept).await.unwrap_err();
    assert!(
        matches!(&error, CollectError::Refused { why } if why.contains("do not start")),
        "{error:?}"
    );
    // A link in place of the pack, and in place of its directory.
    std::fs::remove_file(&pack).unwrap();
    symlink("/etc/passwd", &pack).unwrap();
    assert!(world.workspaces.ingest(&prepared, &kept).await.is_err());
    std::fs::rename(&out, prepared.attempt_dir.join("moved")).unwrap();
    symlink(prepared.attempt_dir.join("moved"), &out).unwrap();
    assert!(matches!(
        world.workspaces.ingest(&prepared, &kept).await,
        Err(CollectError::NoResult(_))
    ));
    assert!(!kept.join("changes.bundle").exists() && !prepared.attempt_dir.join("ingest").exists());
}

#[tokio::test]
async fn trees_that_hold_a_git_directory_are_refused() {
    let world = World::new();
    let prepared = ready(&world).await;
    let repo = &prepared.repo_dir;
    let blob = git(repo, &["hash-object", "-w", "README.md"]);
    let mut raw = b"100644 .GIT\0".to_vec();
    raw.extend((0..20).map(|n| u8::from_str_radix(&blob[2 * n..2 * n + 2], 16).unwrap()));
    write(&prepared.attempt_dir, "raw", raw);
    let file = prepared.attempt_dir.join("raw");
    let tree =
        git(repo, &["hash-object", "-w", "-t", "tree", "--literally", file.to_str().unwrap()]);
    let evil = git(repo, &["commit-tree", &tree, "-p", &prepared.base_commit, "-m", "evil"]);
    forge(&prepared, repo, &evil, &format!("^{}", prepared.base_commit));
    let error = world.workspaces.ingest(&prepared, &world.kept(&prepared)).await.unwrap_err();
    assert!(matches!(error, CollectError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn content_that_unpacks_to_very_much_is_refused() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    // A tracked file stays tracked, so the job takes it; half a gigabyte of zeros packs to half a megabyte.
    let readme = std::fs::File::create(prepared.repo_dir.join("README.md")).unwrap();
    readme.set_len(300 * 1024 * 1024).unwrap();
    let error = world.collect(&prepared).await.unwrap_err();
    assert!(matches!(error, CollectError::TooLarge { what: "one file", .. }), "{error:?}");
}

#[tokio::test]
async fn anything_an_agent_leaves_can_be_removed() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let locked = prepared.repo_dir.join("locked/inner");
    std::fs::create_dir_all(&locked).unwrap();
    std::fs::write(locked.join("f"), "x").unwrap();
    symlink(&source, locked.join("link")).unwrap();
    for dir in [locked.clone(), prepared.repo_dir.join("locked"), prepared.dir.clone()] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    assert!(!prepared.attempt_dir.exists() && source.join("README.md").exists());
}
