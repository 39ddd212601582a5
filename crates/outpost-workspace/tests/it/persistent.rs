//! Workspaces that outlive a run.

use std::path::Path;
use std::time::{Duration, SystemTime};

use outpost_workspace::{
    Layers, PersistentConfig, PersistentRequest, PrepareError, PrepareRequest, Prepared, Setup,
    SetupNetwork, SetupRequest, SetupSpec, WorkspaceError, Workspaces, WorkspacesConfig,
};

use crate::world::{World, codes, commit, config, git, write};

fn request(world: &World, name: &str, source: Option<&Path>, user: &str) -> PrepareRequest {
    PrepareRequest {
        laid_out: false,
        layers: Layers::Overlay,
        persistent: Some(PersistentRequest { user: user.to_owned() }),
        ..world.request(name, source)
    }
}

async fn enter(world: &World, name: &str, source: &Path) -> Result<Prepared, PrepareError> {
    world.workspaces.prepare(request(world, name, Some(source), "ann")).await
}

/// Ends a run as the runner does.
async fn leave(world: &World, prepared: &Prepared) -> Vec<String> {
    let notes = world.workspaces.release_persistent(prepared).await.unwrap();
    world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
    codes(&notes).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn work_is_there_in_the_next_run_and_each_run_tells_its_own() {
    let world = World::new();
    let source = world.source();
    let first = enter(&world, "a1", &source).await.unwrap();
    assert!(!first.persistent.as_ref().unwrap().resumed);
    world.agent(
        &first,
        "echo one > one; git add one; git commit -qm one; mkdir -p ignored; echo x >> README.md",
    );
    let collected = world.collect(&first).await.unwrap();
    assert_eq!((collected.commits, collected.files_changed), (2, 2));
    assert_eq!(collected.own, None);
    assert!(leave(&world, &first).await.is_empty());

    // A server that starts anew finds it.
    let workspaces = Workspaces::new(config(world.dir.path())).unwrap();
    let second = workspaces.prepare(request(&world, "a2", Some(&source), "ann")).await.unwrap();
    assert!(second.persistent.as_ref().unwrap().resumed && second.notes.is_empty());
    assert_eq!(second.base_commit, first.base_commit);
    assert_eq!(world.agent(&second, "cat one; git log --oneline | wc -l"), "one\n3");
    world.agent(&second, "echo two > two; rm one");
    // Collected twice, as after a crash: the same.
    for _ in 0..2 {
        let collected = world.collect(&second).await.unwrap();
        assert_eq!(collected.files_changed, 2, "{collected:?}");
        let own = collected.own.clone().unwrap();
        assert_eq!((own.files_changed, own.insertions, own.deletions), (2, 1, 1));
        world.check_round_trip(&source, &second, &collected);
        std::fs::remove_dir_all(second.attempt_dir.with_extension("clone")).unwrap();
    }
    let patch = std::fs::read_to_string(world.kept(&second).join("run.patch")).unwrap();
    assert!(patch.contains("+two") && patch.contains("-one") && !patch.contains("README"));
    leave(&world, &second).await;

    // A run that does nothing, and one that takes everything back.
    let third = enter(&world, "a3", &source).await.unwrap();
    let collected = world.collect(&third).await.unwrap();
    assert_eq!((collected.files_changed, collected.own), (2, Some(Default::default())));
    leave(&world, &third).await;
    let fourth = enter(&world, "a4", &source).await.unwrap();
    let base = &fourth.base_commit;
    world.agent(&fourth, &format!("git reset -q --hard {base}; git clean -fdq"));
    let collected = world.collect(&fourth).await.unwrap();
    assert!(!collected.changed);
    assert_eq!(collected.own.unwrap().files_changed, 2);
    leave(&world, &fourth).await;
    // Never mixed up with another's.
    let other = world.workspaces.prepare(request(&world, "b1", Some(&source), "bob")).await;
    assert_eq!(world.agent(&other.unwrap(), "ls"), "README.md\nsrc");
}

#[tokio::test]
async fn one_run_at_a_time() {
    let world = World::new();
    let source = world.source();
    let first = enter(&world, "a1", &source).await.unwrap();
    let id = first.persistent.clone().unwrap().id;
    let error = enter(&world, "a2", &source).await.unwrap_err();
    assert!(matches!(&error, PrepareError::WorkspaceBusy { id: other } if *other == id));
    assert!(error.retry() && error.hint().is_some());
    // Another server knows it, too; and the attempt itself may come again.
    let workspaces = Workspaces::new(config(world.dir.path())).unwrap();
    assert!(workspaces.persistent_get("t1", &id).await.unwrap().unwrap().busy);
    let error = workspaces.persistent_delete("t1", &id).await.unwrap_err();
    assert!(matches!(error, WorkspaceError::Busy));
    world.agent(&first, "echo x > kept");
    // Its server is killed, and the attempt goes without a word.
    world.workspaces.remove(&first.attempt_dir).await.unwrap();
    world.workspaces.remove(&world.path("a2")).await.unwrap();
    let second = enter(&world, "a2", &source).await.unwrap();
    assert_eq!(world.agent(&second, "cat kept"), "x");
    // A prepare that fails leaves nobody in it.
    leave(&world, &second).await;
    let mut missing = request(&world, "a3", Some(&source), "ann");
    missing.branch = Some("missing".to_owned());
    assert!(world.workspaces.prepare(missing).await.is_err());
    assert!(enter(&world, "a4", &source).await.is_ok());
}

#[tokio::test]
async fn a_branch_that_moved_is_followed_only_without_work() {
    let world = World::new();
    let source = world.source();
    let first = enter(&world, "a1", &source).await.unwrap();
    world.agent(&first, "git status; cat README.md");
    leave(&world, &first).await;
    write(&source, "new", "x\n");
    commit(&source, "new");
    let second = enter(&world, "a2", &source).await.unwrap();
    assert!(second.notes.is_empty() && !second.persistent.as_ref().unwrap().resumed);
    assert_eq!(second.base_commit, git(&source, &["rev-parse", "main"]));
    world.agent(&second, "cat new; rm -r src; mkdir src");
    leave(&world, &second).await;
    for name in ["newer", "newest"] {
        write(&source, name, "x\n");
        commit(&source, name);
    }
    let third = enter(&world, "a3", &source).await.unwrap();
    assert_eq!(third.base_commit, second.base_commit);
    assert_eq!(codes(&third.notes), ["branch_moved"]);
    assert!(third.notes[0].message.contains("has 2 commits more"), "{:?}", third.notes);
    // What the note says can be done.
    let new = git(&source, &["rev-parse", "main"]);
    let merged = format!("git merge -q --no-edit {new} 2>&1; ls src newest");
    assert_eq!(world.agent(&third, &merged), "newest\n\nsrc:");
    let collected = world.collect(&third).await.unwrap();
    assert!(collected.changed);
    leave(&world, &third).await;
    // However the cache is swept: what it stands on stays, until it is deleted.
    let small = WorkspacesConfig { cache_bytes_max: 1, ..config(world.dir.path()) };
    let workspaces = Workspaces::new(small).unwrap();
    workspaces.evict_cache().await;
    assert!(third.overlay.as_ref().unwrap().lower[0].exists());
    let id = third.persistent.unwrap().id;
    assert!(workspaces.persistent_delete("t1", &id).await.unwrap());
    workspaces.evict_cache().await;
    assert!(!third.overlay.as_ref().unwrap().lower[0].exists());
    let fresh = enter(&world, "a4", &source).await.unwrap();
    assert!(fresh.base_commit == new && fresh.notes.is_empty());
}

#[tokio::test]
async fn a_lost_checkout_is_made_anew_below_the_work() {
    let world = World::new();
    let source = world.source();
    let first = enter(&world, "a1", &source).await.unwrap();
    world.agent(&first, "echo x > kept; rm README.md");
    leave(&world, &first).await;
    git(&source, &["commit", "-q", "--amend", "-m", "rewritten"]);
    std::fs::remove_file(first.overlay.as_ref().unwrap().lower[0].join(".git/index")).unwrap();
    let second = enter(&world, "a2", &source).await.unwrap();
    assert_eq!(codes(&second.notes), ["cache_repaired", "branch_moved"]);
    assert_eq!(world.agent(&second, "cat kept; ls"), "x\nkept\nsrc");
    assert_eq!(world.agent(&second, "git rev-parse main"), first.base_commit);
}

#[tokio::test]
async fn beyond_its_bound_no_run_starts_until_it_is_deleted() {
    let world = World::new();
    let source = world.source();
    let base = config(world.dir.path());
    let persistent = PersistentConfig { bytes_max: 100_000, ..base.persistent.clone() };
    let workspaces = Workspaces::new(WorkspacesConfig { persistent, ..base }).unwrap();
    let world = World { workspaces, ..world };
    let first = enter(&world, "a1", &source).await.unwrap();
    world.agent(&first, "head -c 200000 /dev/zero > big");
    assert_eq!(leave(&world, &first).await, ["workspace_too_large"]);
    let error = enter(&world, "a2", &source).await.unwrap_err();
    let PrepareError::WorkspaceTooLarge { id, limit_bytes: 100_000 } = &error else {
        panic!("{error:?}")
    };
    assert!(!error.retry() && error.hint().unwrap().contains(id.as_str()));
    assert!(world.workspaces.persistent_get("t1", id).await.unwrap().unwrap().too_large);
    assert!(world.workspaces.persistent_delete("t1", id).await.unwrap());
    world.workspaces.remove(&world.path("a2")).await.unwrap();
    let third = enter(&world, "a2", &source).await.unwrap();
    // It is looked at before the next run if nobody came to do it after this one.
    world.agent(&third, "head -c 200000 /dev/zero > big");
    world.workspaces.remove(&third.attempt_dir).await.unwrap();
    let error = enter(&world, "a3", &source).await.unwrap_err();
    assert!(matches!(error, PrepareError::WorkspaceTooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn they_are_listed_for_their_tenant_and_go_when_idle() {
    let world = World::new();
    let source = world.source();
    assert!(world.workspaces.persistent_list("t1").await.unwrap().is_empty());
    for (name, user) in [("a1", "ann"), ("a2", "bob")] {
        let made = world.workspaces.prepare(request(&world, name, Some(&source), user)).await;
        world.agent(made.as_ref().unwrap(), "echo x > x");
        leave(&world, &made.unwrap()).await;
    }
    let none = world.workspaces.prepare(request(&world, "a3", None, "ann")).await.unwrap();
    let listed = world.workspaces.persistent_list("t1").await.unwrap();
    let mut seen: Vec<_> = listed
        .iter()
        .map(|one| (one.user.as_str(), one.repo.is_some(), one.busy, one.runs))
        .collect();
    seen.sort();
    assert_eq!(seen, [("ann", false, true, 1), ("ann", true, false, 1), ("bob", true, false, 1)]);
    let bob = listed.iter().find(|one| one.user == "bob").unwrap();
    assert!(bob.bytes > 0 && bob.branch.as_deref() == Some("main") && !bob.too_large);
    assert!(world.workspaces.persistent_list("t2").await.unwrap().is_empty());
    for (tenant, id) in [("t2", bob.id.as_str()), ("t1", "../x"), ("t1", &"0".repeat(32))] {
        assert_eq!(world.workspaces.persistent_get(tenant, id).await.unwrap(), None);
        assert!(!world.workspaces.persistent_delete(tenant, id).await.unwrap());
    }
    let now = SystemTime::now();
    assert_eq!(world.workspaces.sweep_persistent(now).await, 0);
    // The one with a run in it stays.
    assert_eq!(world.workspaces.sweep_persistent(now + Duration::from_secs(3700)).await, 2);
    let left = world.workspaces.persistent_list("t1").await.unwrap();
    assert_eq!(left.len(), 1);
    leave(&world, &none).await;
    assert!(world.workspaces.persistent_delete("t1", &left[0].id).await.unwrap());
    assert_eq!(std::fs::read_dir(world.path("workspaces/gone")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let world = World::new();
    let source = world.source();
    for user in ["", "a\nb", &"x".repeat(300)] {
        let error =
            world.workspaces.prepare(request(&world, "a1", Some(&source), user)).await.unwrap_err();
        assert!(matches!(error, PrepareError::UserInvalid), "{error:?}");
        world.workspaces.remove(&world.path("a1")).await.unwrap();
    }
    let copy =
        PrepareRequest { layers: Layers::Copy, ..request(&world, "a1", Some(&source), "ann") };
    let error = world.workspaces.prepare(copy).await.unwrap_err();
    assert!(matches!(error, PrepareError::LayersNeeded) && !error.retry());
    // A record that is not one hides no work.
    let first = enter(&world, "a2", &source).await.unwrap();
    world.agent(&first, "echo x > kept");
    leave(&world, &first).await;
    let used = first.persistent.unwrap();
    for text in ["{", ""] {
        write(&used.dir, "record.json", text);
        let name = format!("b{}", text.len());
        let error = enter(&world, &name, &source).await.unwrap_err();
        assert!(matches!(error, PrepareError::WorkspaceDamaged { .. }), "{error:?}");
    }
    std::fs::remove_file(used.dir.join("record.json")).unwrap();
    let error = enter(&world, "b3", &source).await.unwrap_err();
    assert!(matches!(error, PrepareError::WorkspaceDamaged { .. }), "{error:?}");
    assert!(world.workspaces.persistent_delete("t1", &used.id).await.unwrap());
}

#[tokio::test]
async fn what_its_first_run_set_up_stays_with_it() {
    let world = World::new();
    let source = world.source();
    write(&source, "outpost.toml", "[setup]\ncommands = [\"echo set up > deps\"]\n");
    write(&source, ".gitignore", "deps\n");
    commit(&source, "setup");
    let ask = || SetupRequest { network_max: SetupNetwork::None, ..SetupRequest::default() };
    let mut first = enter(&world, "a1", &source).await.unwrap();
    let Setup::Run(job) = world.workspaces.setup(&mut first, ask()).await.unwrap() else {
        panic!("nothing to set up")
    };
    assert!(world.run_setup(&first, &job));
    world.workspaces.keep_setup(&mut first, *job, true).await.unwrap();
    world.agent(&first, "cat deps; echo x > work");
    assert_eq!(world.collect(&first).await.unwrap().files_changed, 1);
    leave(&world, &first).await;
    let small = WorkspacesConfig { cache_bytes_max: 1, ..config(world.dir.path()) };
    Workspaces::new(small).unwrap().evict_cache().await;
    let mut second = enter(&world, "a2", &source).await.unwrap();
    assert!(matches!(world.workspaces.setup(&mut second, ask()).await.unwrap(), Setup::Nothing));
    assert!(!codes(&second.notes).contains(&"setup_not_run"));
    let own = SetupRequest { commands: vec!["echo own > deps".to_owned()], ..ask() };
    assert!(matches!(world.workspaces.setup(&mut second, own).await.unwrap(), Setup::Nothing));
    assert!(
        codes(&second.notes).contains(&"setup_not_run"),
        "what was asked for and not done is told"
    );
    assert_eq!(world.agent(&second, "cat deps work"), "set up\nx");
    leave(&world, &second).await;
    // One that was never worked in starts afresh, with the setup that is there already.
    let other = request(&world, "b1", Some(&source), "bob");
    let mut other = world.workspaces.prepare(other).await.unwrap();
    assert!(matches!(world.workspaces.setup(&mut other, ask()).await.unwrap(), Setup::Ready));
    assert_eq!(world.agent(&other, "cat deps"), "set up");
    std::fs::remove_dir_all(second.overlay.as_ref().unwrap().lower[0].parent().unwrap()).unwrap();
    // One that is too deep for others stays, too.
    let deep = SetupSpec {
        commands: vec![format!("mkdir -p deps/{} && echo deep > deps/f", "d/".repeat(200))],
        ..SetupSpec::parse("[setup]\ncommands = [\"true\"]\n").unwrap().unwrap()
    };
    let mut cleo =
        world.workspaces.prepare(request(&world, "c1", Some(&source), "cleo")).await.unwrap();
    let deep = SetupRequest { spec: Some(deep), ..ask() };
    let Setup::Run(job) = world.workspaces.setup(&mut cleo, deep).await.unwrap() else {
        panic!("nothing to set up")
    };
    assert!(world.run_setup(&cleo, &job));
    let notes = world.workspaces.keep_setup(&mut cleo, *job, true).await.unwrap();
    assert_eq!(codes(&notes), ["setup_not_kept"]);
    world.agent(&cleo, "echo x > work");
    leave(&world, &cleo).await;
    let cleo = world.workspaces.prepare(request(&world, "c2", Some(&source), "cleo")).await;
    assert_eq!(world.agent(&cleo.unwrap(), "cat deps/f work"), "deep\nx");

    let third = enter(&world, "a3", &source).await.unwrap();
    assert_eq!(codes(&third.notes), ["setup_lost"]);
    assert_eq!(world.agent(&third, "ls deps 2>&1 | wc -l; cat work"), "1\nx");
}
