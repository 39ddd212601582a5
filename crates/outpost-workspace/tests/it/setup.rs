//! Setup commands: when they run, what is kept, who gets it.

use std::path::Path;

use outpost_workspace::{
    Prepared, Setup, SetupError, SetupJob, SetupNetwork, SetupRequest, SetupSpec,
};

use crate::world::{World, codes, commit, git, write};

const SETUP: &str = "[setup]\ncommands = [\"mkdir -p deps && cp deps.lock deps/\", \"date +%N > deps/when\"]\n\
                     lockfiles = [\"deps.lock\"]\nnetwork = \"trusted\"\ntimeout_seconds = 60\n";

/// A source whose setup makes an ignored directory `deps`.
fn source(world: &World) -> std::path::PathBuf {
    let source = world.source();
    write(&source, "outpost.toml", SETUP);
    write(&source, "deps.lock", "1\n");
    write(&source, ".gitignore", "deps/\n");
    commit(&source, "setup");
    source
}

fn request() -> SetupRequest {
    SetupRequest { network_max: SetupNetwork::Trusted, ..SetupRequest::default() }
}

async fn setup(world: &World, prepared: &mut Prepared) -> Setup {
    world.workspaces.setup(prepared, request()).await.unwrap()
}

fn job(setup: Setup) -> SetupJob {
    let Setup::Run(job) = setup else { panic!("{setup:?}") };
    *job
}

/// Prepares, sets up if that is to be done, and tells whether it was.
async fn set_up(world: &World, name: &str, source: &Path) -> (Prepared, bool) {
    let mut prepared = world.layered(name, Some(source)).await;
    match setup(world, &mut prepared).await {
        Setup::Run(job) => {
            assert!(world.run_setup(&prepared, &job));
            world.workspaces.keep_setup(&mut prepared, *job, true).await.unwrap();
            (prepared, true)
        }
        Setup::Ready => (prepared, false),
        Setup::Nothing => panic!("nothing to set up"),
    }
}

#[tokio::test]
async fn what_was_set_up_serves_until_a_lock_file_changes() {
    let world = World::new();
    let source = source(&world);
    let mut first = world.layered("a1", Some(&source)).await;
    let todo = job(setup(&world, &mut first).await);
    assert_eq!((todo.network, todo.seconds), (SetupNetwork::Trusted, 60));
    assert!(todo.ro_binds == first.ro_binds && todo.rw_binds.is_empty());
    assert!(world.run_setup(&first, &todo));
    let notes = world.workspaces.keep_setup(&mut first, todo, true).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let when = world.agent(&first, "cat deps/when");
    assert_eq!(world.agent(&first, "cat deps/deps.lock; git status --porcelain"), "1");
    // An agent may change it, for itself.
    world.agent(&first, "echo mine > deps/when; echo x > new");
    let collected = world.collect(&first).await.unwrap();
    assert_eq!((collected.files_changed, collected.notes.len()), (1, 0));
    let layers = first.check_layers("check-0").unwrap();
    assert_eq!(world.in_layers(&first, Some(&layers), "cat deps/when"), "mine");

    write(&source, "README.md", "another commit\n");
    commit(&source, "more");
    let (second, ran) = set_up(&world, "a2", &source).await;
    assert!(!ran && second.base_commit != first.base_commit);
    assert_eq!(world.agent(&second, "cat deps/when README.md"), format!("{when}\nanother commit"));
    write(&source, "deps.lock", "2\n");
    commit(&source, "lock");
    let (third, ran) = set_up(&world, "a3", &source).await;
    assert!(ran);
    assert_eq!(world.agent(&third, "cat deps/deps.lock"), "2");
    // Another userland or network is another setup, and so is a request's own; a tenant has its own, too.
    let mut again = world.layered("a4", Some(&source)).await;
    let userland = SetupRequest { userland: "node 22".to_owned(), ..request() };
    let spec = SetupSpec::parse(SETUP).unwrap().unwrap();
    let spec = SetupSpec { commands: vec!["true".to_owned()], ..spec };
    for other in [userland, SetupRequest::default(), SetupRequest { spec: Some(spec), ..request() }]
    {
        job(world.workspaces.setup(&mut again, other).await.unwrap());
    }
    let other = outpost_workspace::PrepareRequest {
        tenant: "t2".to_owned(),
        layers: outpost_workspace::Layers::Overlay,
        ..world.request("a5", Some(&source))
    };
    let mut other = world.workspaces.prepare(other).await.unwrap();
    job(setup(&world, &mut other).await);
    // All of them are in use as long as the attempts are there.
    assert_eq!(std::fs::read_dir(world.path("cache/snapshots")).unwrap().count(), 2);
    assert_eq!(std::fs::read_dir(world.path("cache/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_changes_the_repositorys_files_serves_that_commit_only() {
    let world = World::new();
    let source = source(&world);
    write(&source, "outpost.toml", "[setup]\ncommands = [\"echo made >> README.md\"]\n");
    commit(&source, "change");
    let mut first = world.layered("a1", Some(&source)).await;
    let todo = job(setup(&world, &mut first).await);
    assert!(world.run_setup(&first, &todo));
    let notes = world.workspaces.keep_setup(&mut first, todo, true).await.unwrap();
    assert_eq!(codes(&notes), ["setup_changes_files"]);
    let (second, ran) = set_up(&world, "a2", &source).await;
    assert!(!ran && world.agent(&second, "cat README.md") == "hello\nmade");
    write(&source, "README.md", "new\n");
    commit(&source, "more");
    let (third, ran) = set_up(&world, "a3", &source).await;
    assert!(ran && world.agent(&third, "cat README.md") == "new\nmade");
}

#[tokio::test]
async fn a_commit_with_files_where_a_layer_adds_gets_its_own() {
    let world = World::new();
    let source = source(&world);
    assert!(set_up(&world, "a1", &source).await.1);
    write(&source, "deps/own", "tracked\n");
    git(&source, &["add", "-f", "deps/own"]);
    commit(&source, "own");
    for (name, runs) in [("a2", true), ("a3", false)] {
        let (prepared, ran) = set_up(&world, name, &source).await;
        assert_eq!(ran, runs);
        assert_eq!(world.agent(&prepared, "cat deps/own deps/deps.lock"), "tracked\n1");
    }
    // The shared one is still there for the others.
    git(&source, &["reset", "-q", "--hard", "HEAD~1"]);
    assert!(!set_up(&world, "a4", &source).await.1);
}

#[tokio::test]
async fn one_runs_it_while_the_others_wait() {
    let world = World::new();
    let source = source(&world);
    let mut first = world.layered("a1", Some(&source)).await;
    let todo = job(setup(&world, &mut first).await);
    let waiting: Vec<_> = (0..3)
        .map(|index| {
            let workspaces = world.workspaces.clone();
            let prepare = world.request(&format!("b{index}"), Some(&source));
            tokio::spawn(async move {
                let layers = outpost_workspace::Layers::Overlay;
                let prepare = outpost_workspace::PrepareRequest { layers, ..prepare };
                let mut prepared = workspaces.prepare(prepare).await.unwrap();
                let setup = workspaces.setup(&mut prepared, request()).await.unwrap();
                (prepared, setup)
            })
        })
        .collect();
    // On the test's one thread, they come as far as they can.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(world.run_setup(&first, &todo));
    assert!(waiting.iter().all(|task| !task.is_finished()));
    world.workspaces.keep_setup(&mut first, todo, true).await.unwrap();
    for task in waiting {
        let (prepared, setup) = task.await.unwrap();
        assert!(matches!(setup, Setup::Ready), "{setup:?}");
        assert_eq!(prepared.overlay.unwrap().lower, first.overlay.as_ref().unwrap().lower);
    }
}

#[tokio::test]
async fn a_setup_that_failed_leaves_nothing() {
    let world = World::new();
    let source = source(&world);
    let commands = vec!["echo x > half".to_owned(), "false".to_owned(), "echo y > on".to_owned()];
    let spec = SetupSpec { commands, ..SetupSpec::parse(SETUP).unwrap().unwrap() };
    let request = SetupRequest { spec: Some(spec), ..request() };
    let mut prepared = world.layered("a1", Some(&source)).await;
    let before = prepared.overlay.clone();
    for _ in 0..2 {
        let todo = job(world.workspaces.setup(&mut prepared, request.clone()).await.unwrap());
        assert!(!world.run_setup(&prepared, &todo));
        let upper = todo.overlay.as_ref().unwrap().upper.clone();
        assert!(upper.join("half").exists() && !upper.join("on").exists());
        world.workspaces.keep_setup(&mut prepared, todo, false).await.unwrap();
        assert!(prepared.overlay == before && !upper.exists());
    }
    assert_eq!(std::fs::read_dir(world.path("cache/snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn tenants_without_a_repository_share_nothing_either() {
    let world = World::new();
    let spec = SetupSpec::parse(SETUP).unwrap().unwrap();
    let spec = SetupSpec { commands: vec!["echo x > mine".to_owned()], ..spec };
    let request = SetupRequest { spec: Some(spec), ..request() };
    let layers = outpost_workspace::Layers::Overlay;
    for (name, tenant, runs) in [("a1", "t1", true), ("a2", "t1", false), ("a3", "t2", true)] {
        let prepare = world.request(name, None);
        let tenant = tenant.to_owned();
        let prepare = outpost_workspace::PrepareRequest { tenant, layers, ..prepare };
        let mut prepared = world.workspaces.prepare(prepare).await.unwrap();
        match world.workspaces.setup(&mut prepared, request.clone()).await.unwrap() {
            Setup::Run(job) => {
                assert!(runs && world.run_setup(&prepared, &job), "{name}");
                world.workspaces.keep_setup(&mut prepared, *job, true).await.unwrap();
            }
            other => assert!(!runs && matches!(other, Setup::Ready), "{name}: {other:?}"),
        }
        assert_eq!(world.agent(&prepared, "cat mine"), "x");
    }
}

#[tokio::test]
async fn what_is_too_deep_serves_its_own_run() {
    let world = World::new();
    let source = source(&world);
    let deep = format!("mkdir -p deps/{} && echo x > deps/f", "d/".repeat(200));
    let spec = SetupSpec { commands: vec![deep], ..SetupSpec::parse(SETUP).unwrap().unwrap() };
    let request = SetupRequest { spec: Some(spec), ..request() };
    let mut prepared = world.layered("a1", Some(&source)).await;
    let todo = job(world.workspaces.setup(&mut prepared, request).await.unwrap());
    assert!(world.run_setup(&prepared, &todo));
    let notes = world.workspaces.keep_setup(&mut prepared, todo, true).await.unwrap();
    assert_eq!(codes(&notes), ["setup_not_kept"]);
    assert_eq!(world.agent(&prepared, "cat deps/f"), "x");
    assert_eq!(std::fs::read_dir(world.path("cache/snapshots")).unwrap().count(), 0);
    world.workspaces.remove(&prepared.attempt_dir).await.unwrap();
}

#[tokio::test]
async fn the_file_of_the_base_commit_counts_wherever_the_files_are() {
    let world = World::new();
    let source = source(&world);
    let mut copy = world.prepare("a1", Some(&source)).await.unwrap();
    write(&copy.repo_dir, "outpost.toml", "[setup]\ncommands = [\"evil\"]\n");
    let todo = job(setup(&world, &mut copy).await);
    assert!(todo.overlay.is_none() && todo.rw_binds == [(copy.dir.clone(), copy.inside.clone())]);
    assert!(!todo.argv.contains(&"evil".to_owned()));
    assert!(world.run_setup(&copy, &todo) && copy.repo_dir.join("deps/deps.lock").exists());
    world.workspaces.keep_setup(&mut copy, todo, true).await.unwrap();
    let mut none = world.layered("a2", None).await;
    assert!(matches!(setup(&world, &mut none).await, Setup::Nothing));
    // Broken, too large, or no regular file: told, with the name of the file.
    let large = "#".repeat(70_000);
    for (index, text) in ["[setup]\ncommands = []\n", "[setup", &large].into_iter().enumerate() {
        write(&source, "outpost.toml", text);
        commit(&source, "broken");
        for layers in [false, true] {
            let name = format!("b{index}{layers}");
            let mut prepared = if layers {
                world.layered(&name, Some(&source)).await
            } else {
                world.prepare(&name, Some(&source)).await.unwrap()
            };
            let error = world.workspaces.setup(&mut prepared, request()).await.unwrap_err();
            assert!(matches!(error, SetupError::Invalid { .. }) && !error.retry(), "{error:?}");
            assert!(error.to_string().starts_with("outpost.toml: "), "{error}");
        }
    }
    std::fs::remove_file(source.join("outpost.toml")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", source.join("outpost.toml")).unwrap();
    commit(&source, "link");
    let mut link = world.layered("c1", Some(&source)).await;
    assert!(world.workspaces.setup(&mut link, request()).await.is_err());
    std::fs::remove_file(source.join("outpost.toml")).unwrap();
    commit(&source, "none");
    let mut without = world.layered("c2", Some(&source)).await;
    assert!(matches!(setup(&world, &mut without).await, Setup::Nothing));
    let mut without = world.prepare("c3", Some(&source)).await.unwrap();
    assert!(matches!(setup(&world, &mut without).await, Setup::Nothing));
}

#[tokio::test]
async fn a_requests_own_commands_take_the_place_of_the_repositorys() {
    let world = World::new();
    let source = source(&world);
    let own = || SetupRequest {
        commands: vec!["mkdir -p deps".to_owned(), "echo own > deps/when".to_owned()],
        ..request()
    };
    let mut first = world.layered("a1", Some(&source)).await;
    let todo = job(world.workspaces.setup(&mut first, own()).await.unwrap());
    // Time and lock files are still those of outpost.toml; they ask for the network that is to be had.
    assert_eq!((todo.network, todo.seconds), (SetupNetwork::Trusted, 60));
    assert!(world.run_setup(&first, &todo));
    world.workspaces.keep_setup(&mut first, todo, true).await.unwrap();
    assert_eq!(world.agent(&first, "cat deps/when; ls deps"), "own\nwhen");

    let mut second = world.layered("a2", Some(&source)).await;
    assert!(matches!(world.workspaces.setup(&mut second, own()).await, Ok(Setup::Ready)));
    let closed = SetupRequest { network_max: SetupNetwork::None, ..own() };
    let mut third = world.layered("a3", Some(&source)).await;
    assert_eq!(
        job(world.workspaces.setup(&mut third, closed).await.unwrap()).network,
        SetupNetwork::None
    );
    // The repository's own is another one, and so is this one after a change of the lock file.
    job(setup(&world, &mut world.layered("a4", Some(&source)).await).await);
    write(&source, "deps.lock", "2\n");
    std::fs::remove_file(source.join("outpost.toml")).unwrap();
    commit(&source, "lock");
    let mut fifth = world.layered("a5", Some(&source)).await;
    assert_eq!(job(world.workspaces.setup(&mut fifth, own()).await.unwrap()).seconds, 300);
}
