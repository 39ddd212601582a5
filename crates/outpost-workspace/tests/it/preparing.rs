//! Sources, the cache, and what a workspace looks like.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use outpost_workspace::{PrepareError, Workspaces, WorkspacesConfig};

use crate::world::{World, codes, commit, config, git, write};

#[tokio::test]
async fn a_checkout_is_whole_clean_and_carries_no_address() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    assert_eq!(prepared.base_commit, git(&source, &["rev-parse", "main"]));
    assert_eq!(prepared.branch.as_deref(), Some("main"));
    assert_eq!(prepared.tracked_files, ["README.md", "src/lib.rs"]);
    assert!(prepared.notes.is_empty(), "{:?}", prepared.notes);
    let repo = &prepared.repo_dir;
    assert_eq!(std::fs::read_to_string(repo.join("src/lib.rs")).unwrap(), "fn main() {}\n");
    assert_eq!(git(repo, &["status", "--porcelain"]), "");
    assert_eq!(git(repo, &["rev-parse", "--abbrev-ref", "HEAD"]), "main");
    assert_eq!(git(repo, &["remote"]), "");
    assert_eq!(git(repo, &["log", "--oneline"]).lines().count(), 2);
    assert_eq!(std::fs::read_to_string(prepared.dir.join("task.md")).unwrap(), "Do it.\n");
    assert!(prepared.dir.join("context.json").is_file() && prepared.dir.join("artifacts").is_dir());
    assert_eq!(prepared.ro_binds, [(prepared.mirror.clone(), prepared.mirror.clone())]);
    let config = std::fs::read_to_string(repo.join(".git/config")).unwrap();
    assert!(!config.contains("source") && !config.contains("url"), "{config}");
    let json = serde_json::to_string(&prepared).unwrap();
    let back: outpost_workspace::Prepared = serde_json::from_str(&json).unwrap();
    assert_eq!(back.base_commit, prepared.base_commit);
    world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    assert!(!prepared.attempt_dir.exists());
}

#[tokio::test]
async fn branches_tags_and_commits_are_found() {
    let world = World::new();
    let source = world.source();
    let one = git(&source, &["rev-parse", "feature/login"]);
    for (index, (asked, branch)) in [
        ("feature/login", Some("feature/login")),
        ("refs/heads/main", Some("main")),
        ("v1", None),
        (one.as_str(), None),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = world.request(&format!("a{index}"), Some(&source));
        request.branch = Some(asked.to_owned());
        let prepared = world.workspaces.prepare(request).await.unwrap();
        assert_eq!(prepared.branch.as_deref(), branch, "{asked}");
        let expected = if asked.ends_with("main") {
            git(&source, &["rev-parse", "main"])
        } else {
            one.clone()
        };
        assert_eq!(prepared.base_commit, expected, "{asked}");
        assert_eq!(git(&prepared.repo_dir, &["rev-parse", "HEAD"]), expected);
    }
}

#[tokio::test]
async fn a_missing_branch_names_close_ones_and_is_final() {
    let world = World::new();
    let source = world.source();
    for (asked, close) in [("feature/logn", "feature/login"), ("Main", "main")] {
        let mut request = world.request(&asked.replace('/', "-"), Some(&source));
        request.branch = Some(asked.to_owned());
        let error = world.workspaces.prepare(request).await.unwrap_err();
        assert!(!error.retry() && error.hint().unwrap().contains(close), "{error:?}");
    }
    let mut request = world.request("sha", Some(&source));
    request.branch = Some("0".repeat(40));
    let error = world.workspaces.prepare(request).await.unwrap_err();
    assert!(matches!(error, PrepareError::BranchMissing { .. }), "{error:?}");
    let mut request = world.request("bad", Some(&source));
    request.branch = Some("--upload-pack=x".to_owned());
    assert!(matches!(
        world.workspaces.prepare(request).await,
        Err(PrepareError::BranchInvalid { .. })
    ));
}

#[tokio::test]
async fn new_commits_rewritten_and_deleted_branches_arrive() {
    let world = World::new();
    let source = world.source();
    let first = world.prepare("a1", Some(&source)).await.unwrap();
    write(&source, "new.txt", "new\n");
    commit(&source, "three");
    git(&source, &["branch", "-D", "feature/login"]);
    git(&source, &["branch", "feature"]);
    let second = world.prepare("a2", Some(&source)).await.unwrap();
    assert_eq!(first.mirror, second.mirror);
    // Whatever the umask: the agent's user must be able to read what it borrows.
    for dir in ["", "objects", "objects/info", "objects/pack"] {
        let path = first.mirror.join(dir);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o005, 0o005, "{dir}");
    }
    for entry in std::fs::read_dir(first.mirror.join("objects/pack")).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o004, 0o004, "{entry:?}");
    }
    assert_ne!(first.base_commit, second.base_commit);
    git(&source, &["commit", "-q", "--amend", "-m", "three again"]);
    let third = world.prepare("a3", Some(&source)).await.unwrap();
    assert_eq!(third.base_commit, git(&source, &["rev-parse", "main"]));
    // The commit that is gone upstream still serves the workspace that borrows it.
    assert_eq!(git(&second.repo_dir, &["status", "--porcelain"]), "");
    git(&second.repo_dir, &["fsck", "--connectivity-only"]);
}

#[tokio::test]
async fn tenants_do_not_share_and_many_at_once_work() {
    let world = World::new();
    let source = world.source();
    let mut tasks = Vec::new();
    for index in 0..8 {
        let mut request = world.request(&format!("a{index}"), Some(&source));
        request.tenant = format!("t{}", index % 2);
        let workspaces = world.workspaces.clone();
        tasks.push(tokio::spawn(async move { workspaces.prepare(request).await.unwrap().mirror }));
    }
    let mut mirrors = Vec::new();
    for task in tasks {
        mirrors.push(task.await.unwrap());
    }
    mirrors.sort();
    mirrors.dedup();
    assert_eq!(mirrors.len(), 2);
    assert_eq!(std::fs::read_dir(world.path("cache/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn without_a_repository_work_starts_from_one_empty_commit() {
    let world = World::new();
    let prepared = world.prepare("a1", None).await.unwrap();
    assert_eq!(git(&prepared.repo_dir, &["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(git(&prepared.repo_dir, &["status", "--porcelain"]), "");
    let source = world.path("none");
    git(world.dir.path(), &["init", "-q", source.to_str().unwrap()]);
    let empty = world.prepare("a2", Some(&source)).await.unwrap();
    assert_eq!(codes(&empty.notes), ["empty_repository"]);
    assert_eq!(empty.base_commit, prepared.base_commit);
}

#[tokio::test]
async fn facts_about_the_source_are_told() {
    let world = World::new();
    let source = world.source();
    write(&source, ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
        "a".repeat(64)
    );
    write(&source, "big.bin", pointer);
    commit(&source, "lfs");
    let head = git(&source, &["rev-parse", "HEAD"]);
    git(&source, &["update-index", "--add", "--cacheinfo", &format!("160000,{head},vendor/sub")]);
    git(&source, &["commit", "-q", "-m", "submodule"]);
    write(&source, "README.md", "changed\n");
    write(&source, "untracked.txt", "x\n");
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    assert_eq!(
        codes(&prepared.notes),
        ["uncommitted_changes", "submodules", "lfs_pointers"],
        "{:?}",
        prepared.notes
    );
    assert!(prepared.notes[0].message.starts_with("2 uncommitted"), "{:?}", prepared.notes[0]);
    assert!(
        prepared.notes[1].message.contains("vendor/sub")
            && prepared.notes[2].message.contains("big.bin")
    );
    assert!(!prepared.attempt_dir.join("status.git").exists());
}

#[tokio::test]
async fn a_shallow_source_works_with_a_note() {
    let world = World::new();
    let source = world.source();
    let shallow = world.path("shallow");
    let url = format!("file://{}", source.display());
    git(world.dir.path(), &["clone", "-q", "--depth=1", &url, shallow.to_str().unwrap()]);
    let prepared = world.prepare("a1", Some(&shallow)).await.unwrap();
    assert_eq!(codes(&prepared.notes), ["shallow_source"]);
    write(&prepared.repo_dir, "x", "x");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!(collected.files_changed, 1);
}

#[tokio::test]
async fn a_sha256_source_works() {
    let world = World::new();
    let source = world.path("sha256");
    git(
        world.dir.path(),
        &["init", "-q", "--object-format=sha256", "-b", "main", source.to_str().unwrap()],
    );
    write(&source, "a", "a\n");
    commit(&source, "one");
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    assert_eq!(prepared.base_commit.len(), 64);
    write(&prepared.repo_dir, "a", "b\n");
    let collected = world.collect(&prepared).await.unwrap();
    world.check_round_trip(&source, &prepared, &collected);
}

#[tokio::test]
async fn a_source_beyond_the_bound_leaves_nothing() {
    let world = World::new();
    let source = world.source();
    let noise: Vec<u8> =
        (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    write(&source, "noise", noise);
    commit(&source, "noise");
    let small = WorkspacesConfig { repo_bytes_max: 100_000, ..config(world.dir.path()) };
    let workspaces = Workspaces::new(small).unwrap();
    let error = workspaces.prepare(world.request("a1", Some(&source))).await.unwrap_err();
    assert!(matches!(error, PrepareError::TooLarge { .. }) && !error.retry(), "{error:?}");
    assert_eq!(count(&world.path("cache/mirrors")) + count(&world.path("cache/tmp")), 0);
}

#[tokio::test]
async fn few_trees_that_name_very_many_files_are_refused() {
    let world = World::new();
    let source = world.source();
    write(&source, "zero", vec![0_u8; 1_000_000]);
    commit(&source, "zero");
    let mut entry = format!("100644 blob {}\tf", git(&source, &["rev-parse", "HEAD:zero"]));
    for _ in 0..5 {
        let lines: String =
            (0..8).map(|n| entry.replace("\tf", &format!("\tf{n}")) + "\n").collect();
        let list = world.path("list");
        std::fs::write(&list, lines).unwrap();
        let input = std::fs::File::open(&list).unwrap();
        let output = std::process::Command::new("git")
            .arg("mktree")
            .current_dir(&source)
            .stdin(input)
            .output()
            .unwrap();
        entry = format!("040000 tree {}\tf", String::from_utf8(output.stdout).unwrap().trim());
    }
    let tree = entry.split([' ', '\t']).nth(2).unwrap().to_owned();
    let bomb = git(&source, &["commit-tree", &tree, "-m", "bomb"]);
    git(&source, &["update-ref", "refs/heads/bomb", &bomb]);
    let mut request = world.request("a1", Some(&source));
    request.branch = Some("bomb".to_owned());
    let error = world.workspaces.prepare(request).await.unwrap_err();
    assert!(matches!(error, PrepareError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn leavings_of_a_crash_are_cleared() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    let key = prepared.mirror.file_stem().unwrap().to_str().unwrap().to_owned();
    std::fs::create_dir(world.path(&format!("cache/tmp/{key}.1.0"))).unwrap();
    for stale in [
        "packed-refs.lock",
        "shallow.lock",
        "refs/heads/main.lock",
        "HEAD.lock",
        "objects/pack/tmp_pack_x",
    ] {
        write(&prepared.mirror, stale, "");
    }
    let again = Workspaces::new(config(world.dir.path())).unwrap();
    assert_eq!(count(&world.path("cache/tmp")), 0);
    write(&source, "more", "x");
    commit(&source, "more");
    let next = again.prepare(world.request("a2", Some(&source))).await.unwrap();
    assert_eq!(next.base_commit, git(&source, &["rev-parse", "main"]));
    assert!(!prepared.mirror.join("objects/pack/tmp_pack_x").exists());
}

#[tokio::test]
async fn a_source_that_vanished_is_missing() {
    let world = World::new();
    let source = world.source();
    let request = world.request("a1", Some(&source));
    std::fs::remove_dir_all(&source).unwrap();
    let error = world.workspaces.prepare(request).await.unwrap_err();
    assert!(matches!(error, PrepareError::RepositoryMissing { .. }), "{error:?}");
}

#[tokio::test]
async fn many_fetches_keep_packs_few() {
    let world = World::new();
    let source = world.source();
    let mut last = world.prepare("a0", Some(&source)).await.unwrap();
    for index in 1..46 {
        write(&source, "counter", format!("{index}\n"));
        commit(&source, "tick");
        last = world.prepare(&format!("a{index}"), Some(&source)).await.unwrap();
    }
    let packs = std::fs::read_dir(last.mirror.join("objects/pack")).unwrap().flatten();
    let packs =
        packs.filter(|entry| entry.path().extension().is_some_and(|end| end == "pack")).count();
    assert!(packs <= 42, "{packs}");
    git(&last.repo_dir, &["fsck", "--connectivity-only"]);
}

#[tokio::test]
async fn idle_mirrors_go_and_used_ones_stay() {
    let world = World::new();
    let source = world.source();
    let prepared = world.prepare("a1", Some(&source)).await.unwrap();
    assert_eq!(world.workspaces.sweep_cache(0).await, 0);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 86_400);
    std::fs::File::open(prepared.mirror.join("outpost-used")).unwrap().set_modified(old).unwrap();
    // However long ago it was taken: the attempt is there.
    assert_eq!(world.workspaces.sweep_cache(0).await, 0);
    world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    assert_eq!(world.workspaces.sweep_cache(0).await, 1);
    assert!(!prepared.mirror.exists());
}

#[tokio::test]
async fn owners_are_changed_where_that_is_possible() {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    let source = world.source();
    std::os::unix::fs::symlink("/etc/passwd", source.join("link")).unwrap();
    commit(&source, "link");
    let mut request = world.request("a1", Some(&source));
    request.owner = Some((12345, 12346));
    let passwd = std::fs::metadata("/etc/passwd").unwrap().uid();
    let prepared = world.workspaces.prepare(request).await.unwrap();
    let Some(owner) = prepared.owner else { return };
    for name in
        ["", "repo", "repo/.git/HEAD", "repo/src/lib.rs", "repo/link", "task.md", "artifacts"]
    {
        let meta = std::fs::symlink_metadata(prepared.dir.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), owner, "{name}");
    }
    assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), passwd);
    let collected = world.collect(&prepared).await.unwrap();
    assert!(!collected.changed);
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}
