//! Workspaces made of layers: what an agent sees, what is collected, what stays as it was.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use outpost_workspace::{Layers, PersistentRequest, PrepareRequest, Prepared, Workspaces};

use crate::world::{World, codes, commit, git, write};

#[tokio::test]
async fn the_overlay_is_a_whole_and_clean_checkout() {
    let world = World::new();
    let source = world.source();
    let prepared = world.layered("a1", Some(&source)).await;
    assert_eq!(prepared.base_commit, git(&source, &["rev-parse", "main"]));
    assert_eq!(prepared.tracked_files, ["README.md", "src/lib.rs"]);
    assert_eq!(prepared.tracked_sizes, [6, 13]);
    let seen = world.agent(
        &prepared,
        "cat src/lib.rs; git status --porcelain; git rev-parse --abbrev-ref HEAD; git log --oneline | wc -l",
    );
    assert_eq!(seen, "fn main() {}\nmain\n2");
    assert!(prepared.shows_file("src/lib.rs") && !prepared.shows_file("src"));
    assert!(!prepared.shows_file("../task.md"));
    // The workspace itself has nothing in the overlay's place, and its JSON does not carry the names of all files.
    assert_eq!(std::fs::read_dir(&prepared.repo_dir).unwrap().count(), 0);
    let json = serde_json::to_string(&prepared).unwrap();
    let back: Prepared = serde_json::from_str(&json).unwrap();
    assert_eq!(back.overlay, prepared.overlay);
    assert!(back.tracked_files.is_empty() && !json.contains("src/lib.rs"));
}

#[tokio::test]
async fn git_reads_no_file_again_and_sees_every_change() {
    let world = World::new();
    let source = world.source();
    let prepared = world.layered("a1", Some(&source)).await;
    // A file of the same size and time passes for unchanged: so nothing was read.
    let file = prepared.overlay.as_ref().unwrap().lower[0].join("README.md");
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    std::fs::write(&file, "HELLO\n").unwrap();
    std::fs::File::open(&file).unwrap().set_modified(time).unwrap();
    assert_eq!(world.agent(&prepared, "git status --porcelain"), "");
    // An agent's own change is younger, even in the first moment.
    let seen =
        world.agent(&prepared, "printf 'fn MAIN() {}\\n' > src/lib.rs; git status --porcelain");
    assert_eq!(seen, "M src/lib.rs");
    assert_eq!(
        world.agent(
            &prepared,
            "git fsck --no-dangling 2>&1; git commit -qam x; git log --oneline | wc -l"
        ),
        "3"
    );
}

#[tokio::test]
async fn what_a_run_changed_is_collected_through_its_layers() {
    let world = World::new();
    let source = world.source();
    write(&source, "old/a", "a\n".repeat(20));
    write(&source, "old/b", "b\n".repeat(20));
    commit(&source, "old");
    let prepared = world.layered("a1", Some(&source)).await;
    let before = listing(&world.path("cache"));
    world.agent(
        &prepared,
        "mv old new; rm README.md; git add -A; git commit -qm moved; rm -r src; mkdir src; echo x > src/other; ln -s /etc/passwd link",
    );
    write(&prepared.dir, "artifacts/report", "x");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!((collected.commits, collected.files_changed), (2, 6), "{collected:?}");
    assert!(collected.notes.is_empty(), "{:?}", collected.notes);
    let clone = world.check_round_trip(&source, &prepared, &collected);
    let files = git(&clone, &["ls-tree", "-r", "--name-only", "result"]);
    assert_eq!(files.lines().collect::<Vec<_>>(), ["link", "new/a", "new/b", "src/other"]);
    assert!(world.kept(&prepared).join("artifacts/report").is_file());
    assert_eq!(listing(&world.path("cache")), before);
    let other = world.layered("a2", Some(&source)).await;
    assert!(!world.collect(&other).await.unwrap().changed);
    // What the kernel left behind is removed, too.
    world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    assert!(!prepared.attempt_dir.exists());
}

#[tokio::test]
async fn a_directory_made_ahead_becomes_the_same_workspace() {
    let world = World::new();
    let source = world.source();
    for (name, layers) in [("o", Layers::Overlay), ("c", Layers::Copy)] {
        let request = world.request(&format!("made-{name}"), Some(&source));
        let request = PrepareRequest { layers, ..request };
        let made = world.workspaces.prepare(request.clone()).await.unwrap();
        let (ahead, dir) = (world.path("ahead"), world.path(&format!("ahead-{name}")));
        Workspaces::lay_out(&ahead, None).unwrap();
        std::fs::rename(&ahead, &dir).unwrap();
        let inside = dir.join("workspace");
        let request = PrepareRequest { dir, inside, laid_out: true, ..request };
        let prepared = world.workspaces.prepare(request).await.unwrap();
        let files = |prepared: &Prepared| {
            let of = prepared.dir.display().to_string();
            let listed = listing(&prepared.dir).into_iter();
            listed.map(|(path, bytes, uid)| (path.replace(&of, ""), bytes, uid)).collect::<Vec<_>>()
        };
        assert_eq!(files(&prepared), files(&made), "{name}");
        let script = "cat ../task.md; git status --porcelain; echo x > new; git add new; ls";
        assert_eq!(world.agent(&prepared, script), world.agent(&made, script), "{name}");
    }
}

#[tokio::test]
async fn checks_change_nothing_that_is_collected() {
    let world = World::new();
    let source = world.source();
    let prepared = world.layered("a1", Some(&source)).await;
    world.agent(&prepared, "echo work > work");
    let layers = prepared.check_layers("check-0").unwrap();
    let seen = world.in_layers(
        &prepared,
        Some(&layers),
        "cat work; rm work README.md; echo no > src/lib.rs; git commit -qam check",
    );
    assert_eq!(seen, "work");
    // The next one begins with what the agent left, not with what the last one did.
    let next = prepared.check_layers("check-1").unwrap();
    assert_eq!(world.in_layers(&prepared, Some(&next), "cat work README.md"), "work\nhello");
    let again = prepared.check_layers("check-0").unwrap();
    assert_eq!(world.in_layers(&prepared, Some(&again), "cat work"), "work");
    let collected = world.collect(&prepared).await.unwrap();
    assert_eq!((collected.commits, collected.files_changed, collected.insertions), (1, 1, 1));
    for name in ["", "../x", "A", &"x".repeat(33)] {
        assert!(prepared.check_layers(name).is_err(), "{name}");
    }
    let copy = world.prepare("a2", Some(&source)).await.unwrap();
    let error = copy.check_layers("check-0").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_hostile_layer_hurts_only_its_own_run() {
    let world = World::new();
    let source = world.source();
    let prepared = world.layered("a1", Some(&source)).await;
    let before = listing(&world.path("cache"));
    world.agent(
        &prepared,
        "mkfifo pipe; rm README.md; mkfifo README.md; ln -s / root; ln -s loop loop; \
         mkdir locked; echo x > locked/f; chmod 0 locked/f; \
         setfattr -n user.overlay.opaque -v y src 2>/dev/null || true; \
         d=deep; mkdir $d; cd $d; for i in $(seq 200); do mkdir d; cd d; done; echo x > f",
    );
    // What no overlay lets an agent do, done from outside: the layer itself says that a directory hides what is below.
    let upper = &prepared.overlay.as_ref().unwrap().upper;
    std::fs::create_dir_all(upper.join("src")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(upper.join("src"), "user.overlay.opaque", b"y", flags).unwrap();
    write(upper, "good", "x\n");
    let collected = world.collect(&prepared).await.unwrap();
    let patch = String::from_utf8(world.diff(&prepared)).unwrap();
    assert!(collected.changed && patch.contains("b/good") && !patch.contains("b/pipe"), "{patch}");
    assert!(patch.contains("deleted file mode 100644"), "{patch}");
    std::fs::set_permissions(upper.join("locked"), std::fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(listing(&world.path("cache")), before);
    world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    assert!(!prepared.attempt_dir.exists());
}

#[tokio::test]
async fn without_a_repository_layers_work_too() {
    let world = World::new();
    let prepared = world.layered("a1", None).await;
    assert_eq!(world.agent(&prepared, "ls; git log --oneline | wc -l; echo x > f"), "1");
    assert_eq!(world.collect(&prepared).await.unwrap().files_changed, 1);
    let empty = world.path("none");
    git(world.dir.path(), &["init", "-q", empty.to_str().unwrap()]);
    let other = world.layered("a2", Some(&empty)).await;
    assert_eq!(codes(&other.notes), ["empty_repository"]);
    assert_eq!(other.overlay.unwrap().lower, prepared.overlay.unwrap().lower);
}

#[tokio::test]
async fn a_user_who_may_enter_nothing_around_them_works_in_the_layers() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root gives files to another user");
        return;
    }
    let world = World::new();
    let source = world.source();
    let owner = (12345, 12346);
    let mut request = world.request("a1", Some(&source));
    (request.layers, request.owner) = (Layers::Overlay, Some(owner));
    request.persistent = Some(PersistentRequest { user: "ann".to_owned() });
    for (name, persistent) in [("a1", request.persistent.clone()), ("a2", None)] {
        let dir = world.path(name);
        let inside = dir.join("workspace");
        let request = PrepareRequest { dir, inside, persistent, ..request.clone() };
        let prepared = world.workspaces.prepare(request).await.unwrap();
        let script = "git status --porcelain >/dev/null 2>&1; echo x >> README.md; rm -r src; mkdir src; echo x > src/new; cat README.md";
        let overlay = prepared.overlay.as_ref().unwrap();
        assert_eq!(world.as_owner(overlay, owner, script), "hello\nx", "{name}");
        let check = prepared.check_layers("check-0").unwrap();
        let seen = world.as_owner(&check, owner, "ls src; rm -r src; echo y > README.md; ls");
        assert_eq!(seen, "new\nREADME.md", "{name}");
        assert_eq!(world.as_owner(overlay, owner, "cat README.md src/new"), "hello\nx\nx");
        let meta = std::fs::metadata(overlay.upper.join("README.md")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), owner.0);
        world.workspaces.release_persistent(&prepared).await.unwrap();
        world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    }
}

/// Names, sizes and owners below a directory, without the notes of use and leases.
fn listing(dir: &Path) -> Vec<(String, u64, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                pending.push(entry.path());
            } else {
                found.push((entry.path().display().to_string(), meta.len(), meta.uid()));
            }
        }
    }
    found.sort();
    found
}
