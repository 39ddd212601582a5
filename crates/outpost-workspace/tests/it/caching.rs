//! What is kept between workspaces: who is asked, what is made anew, what goes.

use std::path::{Path, PathBuf};

use outpost_workspace::{
    Layers, PrepareError, PrepareRequest, Prepared, Workspaces, WorkspacesConfig,
};

use crate::world::{World, codes, commit, config, git, write};

fn lower(prepared: &Prepared) -> &Path {
    prepared.overlay.as_ref().unwrap().lower.last().unwrap()
}

#[tokio::test]
async fn a_known_commit_of_a_local_source_needs_no_git() {
    let world = World::noting("source");
    let source = world.source();
    let first = world.layered("a1", Some(&source)).await;
    assert!(!world.calls().is_empty());
    let second = world.layered("a2", Some(&source)).await;
    let mut other = world.request("a3", Some(&source));
    (other.layers, other.branch) = (Layers::Overlay, Some("refs/heads/main".to_owned()));
    let third = world.workspaces.prepare(other).await.unwrap();
    assert_eq!(world.calls(), Vec::<String>::new());
    assert!(lower(&first) == lower(&second) && lower(&first) == lower(&third));
    assert_eq!(second.tracked_files, first.tracked_files);
    // Each move of the branch is seen, packed or not.
    write(&source, "more", "x\n");
    commit(&source, "more");
    let moved = world.layered("a4", Some(&source)).await;
    assert_eq!(moved.base_commit, git(&source, &["rev-parse", "main"]));
    assert!(!world.calls().contains(&"ls-remote".to_owned()));
    git(&source, &["pack-refs", "--all"]);
    assert_eq!(lower(&world.layered("a5", Some(&source)).await), lower(&moved));
    git(&source, &["update-ref", "refs/heads/main", &first.base_commit]);
    assert_eq!(lower(&world.layered("a6", Some(&source)).await), lower(&first));
    assert_eq!(world.calls(), Vec::<String>::new());
    // What is not plain is asked for.
    git(&source, &["checkout", "-q", "--detach"]);
    assert_eq!(world.layered("a7", Some(&source)).await.base_commit, first.base_commit);
    assert_eq!(world.calls(), ["ls-remote"]);
}

#[tokio::test]
async fn without_a_repository_git_is_needed_once() {
    let world = World::noting("source");
    world.layered("a1", None).await;
    assert!(!world.calls().is_empty());
    world.layered("a2", None).await;
    assert_eq!(world.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_host_is_asked_once_for_a_branch_and_never_for_a_known_commit() {
    let world = World::noting("source");
    world.source();
    let request = |name: &str, branch: Option<&str>| PrepareRequest {
        laid_out: false,
        source: Some(world.workspaces.parse_source("octo/hello").unwrap()),
        branch: branch.map(str::to_owned),
        layers: Layers::Overlay,
        ..world.request(name, None)
    };
    let first = world.workspaces.prepare(request("a1", None)).await.unwrap();
    world.calls();
    let second = world.workspaces.prepare(request("a2", None)).await.unwrap();
    assert_eq!(world.calls(), ["ls-remote"]);
    assert_eq!(lower(&first), lower(&second));
    let commit = Some(first.base_commit.as_str());
    // Its local branch is another one, so it is another checkout, made once.
    let third = world.workspaces.prepare(request("a3", commit)).await.unwrap();
    world.calls();
    let fourth = world.workspaces.prepare(request("a4", commit)).await.unwrap();
    assert_eq!(world.calls(), Vec::<String>::new());
    assert!(lower(&third) == lower(&fourth) && lower(&third) != lower(&first));
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let (workspaces, request) = (world.workspaces.clone(), request(&format!("b{n}"), None));
            tokio::spawn(async move { workspaces.prepare(request).await.unwrap().base_commit })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), first.base_commit);
    }
    // They all came while the first asked.
    assert_eq!(world.calls(), ["ls-remote", "ls-remote"]);
}

#[tokio::test]
async fn many_at_once_make_one_checkout_each_tenant() {
    let world = World::new();
    let source = world.source();
    let tasks: Vec<_> = (0..8)
        .map(|index| {
            let mut request = world.request(&format!("a{index}"), Some(&source));
            (request.tenant, request.layers) = (format!("t{}", index % 2), Layers::Overlay);
            let workspaces = world.workspaces.clone();
            tokio::spawn(async move { workspaces.prepare(request).await.unwrap() })
        })
        .collect();
    let mut layers = Vec::new();
    for task in tasks {
        layers.push(lower(&task.await.unwrap()).to_owned());
    }
    layers.sort();
    layers.dedup();
    assert_eq!((layers.len(), count(&world.path("cache/checkouts"))), (2, 2));
    assert_eq!(count(&world.path("cache/tmp")), 0);
}

#[tokio::test]
async fn what_is_damaged_is_made_anew_and_told() {
    let world = World::new();
    let source = world.source();
    let first = world.layered("a0", Some(&source)).await;
    let (tree, entry) = (lower(&first).to_owned(), lower(&first).parent().unwrap().to_owned());
    let damages: [&dyn Fn(); 5] = [
        &|| std::fs::remove_file(tree.join(".git/index")).unwrap(),
        &|| std::fs::write(entry.join("facts.json"), "{\"version\":1").unwrap(),
        &|| std::fs::remove_file(entry.join("facts.json")).unwrap(),
        &|| std::fs::remove_dir_all(&first.mirror).unwrap(),
        &|| std::fs::remove_file(first.mirror.join("HEAD")).unwrap(),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        damage();
        let next = world.layered(&format!("b{index}"), Some(&source)).await;
        assert_eq!(codes(&next.notes), ["cache_repaired"], "{index}");
        assert_eq!(world.agent(&next, "git status --porcelain; cat README.md"), "hello");
        assert!(world.layered(&format!("c{index}"), Some(&source)).await.notes.is_empty());
    }
    // A mirror that cannot give the files of a new commit.
    write(&source, "more", "x\n");
    commit(&source, "more");
    let second = world.prepare("d0", Some(&source)).await.unwrap();
    spoil(&second.mirror);
    let third = world.layered("d1", Some(&source)).await;
    assert_eq!(codes(&third.notes), ["cache_repaired"]);
    assert_eq!(world.agent(&third, "cat more; git fsck --no-dangling 2>&1"), "x");
    spoil(&third.mirror);
    let copy = world.prepare("d2", Some(&source)).await.unwrap();
    assert_eq!(codes(&copy.notes), ["cache_repaired"]);
    assert_eq!(git(&copy.repo_dir, &["status", "--porcelain"]), "");
}

/// Makes the packs of a mirror unreadable.
fn spoil(mirror: &Path) {
    for pack in std::fs::read_dir(mirror.join("objects/pack")).unwrap().flatten() {
        if pack.path().extension().is_some_and(|end| end == "pack") {
            let mut bytes = std::fs::read(pack.path()).unwrap();
            let (from, to) = (12, bytes.len() - 20);
            bytes[from..to].fill(0xAA);
            std::fs::remove_file(pack.path()).unwrap();
            std::fs::write(pack.path(), bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn after_another_start_of_the_host_a_checkout_is_made_anew() {
    let world = World::noting("source");
    let source = world.source();
    let first = world.layered("a1", Some(&source)).await;
    let facts = lower(&first).parent().unwrap().join("facts.json");
    let text = std::fs::read_to_string(&facts).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&facts, text.replace(boot.trim(), "another")).unwrap();
    world.calls();
    let second = world.layered("a2", Some(&source)).await;
    assert!(world.calls().contains(&"read-tree".to_owned()) && second.notes.is_empty());
}

#[tokio::test]
async fn beyond_its_bound_the_cache_drops_what_nobody_uses() {
    let world = World::new();
    let source = world.source();
    let small = WorkspacesConfig { cache_bytes_max: 1, ..config(world.dir.path()) };
    let workspaces = Workspaces::new(small.clone()).unwrap();
    let request = |name: &str| PrepareRequest {
        laid_out: false,
        layers: Layers::Overlay,
        ..world.request(name, Some(&source))
    };
    let first = workspaces.prepare(request("a1")).await.unwrap();
    write(&source, "more", "x\n");
    commit(&source, "more");
    let second = workspaces.prepare(request("a2")).await.unwrap();
    // Both run; a server that starts now knows that.
    drop(workspaces);
    let workspaces = Workspaces::new(small).unwrap();
    assert_eq!(workspaces.evict_cache().await, 0);
    workspaces.remove(&first.attempt_dir).await.unwrap();
    assert_eq!(workspaces.evict_cache().await, 1);
    assert!(!lower(&first).exists() && lower(&second).exists());
    assert_eq!(world.agent(&second, "git status --porcelain; cat more"), "x");
    workspaces.remove(&second.attempt_dir).await.unwrap();
    assert_eq!(workspaces.evict_cache().await, 2);
    let kinds = ["mirrors", "checkouts", "tmp", "aside", "leases"];
    assert_eq!(kinds.map(|kind| count(&world.path(&format!("cache/{kind}")))), [0; 5]);
    let third = workspaces.prepare(request("a3")).await.unwrap();
    assert!(third.notes.is_empty() && third.base_commit == second.base_commit);
}

#[tokio::test]
async fn the_longest_unused_goes_first() {
    let world = World::new();
    let source = world.source();
    let mut made: Vec<PathBuf> = Vec::new();
    for name in ["a0", "a1", "a2"] {
        write(&source, "more", format!("{name}\n"));
        commit(&source, name);
        let prepared = world.layered(name, Some(&source)).await;
        made.push(lower(&prepared).parent().unwrap().to_owned());
        world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    }
    let now = std::time::SystemTime::now();
    for (index, age) in [(0, 10), (1, 30), (2, 20)] {
        let used = std::fs::File::open(made[index].join("outpost-used")).unwrap();
        used.set_modified(now - std::time::Duration::from_secs(age)).unwrap();
    }
    let bytes = |path: &Path| {
        std::fs::read_to_string(path.join("outpost-used")).unwrap().trim().parse::<u64>().unwrap()
    };
    let mirrors = du(&world.path("cache/mirrors"));
    let cache_bytes_max = mirrors + bytes(&made[0]) + bytes(&made[2]);
    let config = WorkspacesConfig { cache_bytes_max, ..config(world.dir.path()) };
    assert_eq!(Workspaces::new(config).unwrap().evict_cache().await, 1);
    assert_eq!([0, 1, 2].map(|index| made[index].exists()), [true, false, true]);
}

#[tokio::test]
async fn uncommitted_files_are_told_late() {
    let world = World::new();
    let source = world.source();
    write(&source, "new", "x\n");
    let prepared = world.layered("a1", Some(&source)).await;
    assert!(prepared.notes.is_empty());
    let notes = world.workspaces.late_notes(&prepared).await;
    assert_eq!(codes(&notes), ["uncommitted_changes"]);
    assert!(!prepared.attempt_dir.join("status.git").exists());
    let mut request = world.request("a2", Some(&source));
    (request.layers, request.branch) = (Layers::Overlay, Some("feature/login".to_owned()));
    let other = world.workspaces.prepare(request).await.unwrap();
    assert!(world.workspaces.late_notes(&other).await.is_empty());
}

#[tokio::test]
async fn a_checkout_belongs_to_the_agents_user() {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    let source = world.source();
    let mut request = world.request("a1", Some(&source));
    (request.layers, request.owner) = (Layers::Overlay, Some((12345, 12346)));
    let prepared = world.workspaces.prepare(request).await.unwrap();
    let overlay = prepared.overlay.as_ref().unwrap();
    let Some(owner) = prepared.owner else { return };
    let tree = lower(&prepared);
    for path in [
        tree.to_owned(),
        tree.join(".git/index"),
        tree.join("src/lib.rs"),
        overlay.upper.clone(),
        overlay.work.clone().unwrap(),
        prepared.dir.join("artifacts"),
    ] {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), owner, "{path:?}");
    }
    // Another owner gets another checkout.
    let mut request = world.request("a2", Some(&source));
    (request.layers, request.owner) = (Layers::Overlay, None);
    assert_ne!(lower(&world.workspaces.prepare(request).await.unwrap()), tree);
}

#[tokio::test]
async fn a_source_that_vanished_is_missing_for_layers_too() {
    let world = World::new();
    let source = world.source();
    let mut request = world.request("a1", Some(&source));
    request.layers = Layers::Overlay;
    std::fs::remove_dir_all(&source).unwrap();
    let error = world.workspaces.prepare(request).await.unwrap_err();
    assert!(matches!(error, PrepareError::RepositoryMissing { .. }), "{error:?}");
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn du(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { du(&entry.path()) } else { meta.len() }
        })
        .sum()
}
