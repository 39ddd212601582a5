//! Finding installations, and saying what to do when there is none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use outpost_agents::{Agent, InstallPlan, Installed, MANIFEST_NAME, Manifest, Registry, Word};

fn agents() -> Registry {
    Registry::new(Vec::new()).unwrap()
}

/// Lays out what a finished installation of `plan` has.
fn lay_out(agents_dir: &Path, plan: &InstallPlan) {
    let root = Installed::dir(agents_dir, plan);
    let files = plan.command.iter().filter_map(|word| match word {
        Word::File(path) => Some(path),
        _ => None,
    });
    for path in files.chain(&plan.checks) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut manifest = Manifest::new(plan);
    manifest.tools.insert("node".into(), "/bin/sh".into());
    manifest.tools.insert("python".into(), "/bin/sh".into());
    write(&root, &serde_json::to_string(&manifest).unwrap());
}

fn write(root: &Path, manifest: &str) {
    std::fs::write(root.join(MANIFEST_NAME), manifest).unwrap();
}

fn reason(agents_dir: &Path, agent: &dyn Agent) -> String {
    Installed::load(agents_dir, agent).unwrap_err().to_string()
}

#[test]
fn a_complete_installation_is_found() {
    let dir = tempfile::tempdir().unwrap();
    for agent in agents().iter() {
        let plan = agent.install_plan().unwrap().unwrap();
        lay_out(dir.path(), &plan);
        let installed = Installed::load(dir.path(), agent.as_ref()).unwrap();
        assert_eq!(installed.agent, agent.profile().id);
        assert_eq!(Some(&installed.version), agent.profile().version.as_ref());
        assert!(Path::new(&installed.command[0]).is_absolute());
        assert_eq!(installed.ro_paths[0], Installed::dir(dir.path(), &plan));
        assert!(plan.installed_bytes > 50_000_000);
    }
}

#[test]
fn reasons_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let agents = agents();
    let gemini = agents.get(&"gemini".parse().unwrap()).unwrap().as_ref();
    let plan = gemini.install_plan().unwrap().unwrap();
    let root = Installed::dir(dir.path(), &plan);
    assert_eq!(
        reason(dir.path(), gemini),
        format!("gemini {} is not installed: run `outpost agents install gemini`", plan.version)
    );
    lay_out(dir.path(), &plan);
    write(&root, "{\"schema\":");
    assert!(reason(dir.path(), gemini).contains("is damaged: run"));
    write(&root, "{\"schema\":99,\"agent\":\"gemini\",\"version\":\"1\"}");
    assert!(reason(dir.path(), gemini).contains("by another Outpost: run"));
    let mut manifest = Manifest::new(&plan);
    manifest.tools.insert("node".into(), dir.path().join("gone"));
    write(&root, &serde_json::to_string(&manifest).unwrap());
    assert!(reason(dir.path(), gemini).contains("which is gone: run"));
}

#[test]
fn a_manifest_cannot_show_the_whole_host() {
    let dir = tempfile::tempdir().unwrap();
    let agents = agents();
    let claude = agents.get(&"claude".parse().unwrap()).unwrap().as_ref();
    let plan = claude.install_plan().unwrap().unwrap();
    lay_out(dir.path(), &plan);
    for path in ["/", "/usr/../etc", "etc", ""] {
        let mut manifest = Manifest::new(&plan);
        manifest.runtime_paths.push(path.into());
        let root = Installed::dir(dir.path(), &plan);
        write(&root, &serde_json::to_string(&manifest).unwrap());
        assert!(Installed::load(dir.path(), claude).is_err(), "{path:?}");
    }
}

#[test]
fn plans_run_no_package_scripts_and_pin_versions() {
    for agent in agents().iter() {
        let plan = agent.install_plan().unwrap().unwrap();
        let words: Vec<String> = plan.steps.iter().flat_map(|step| step.args.clone()).collect();
        let safe = ["--ignore-scripts", "--only-binary=:all:"];
        assert!(words.iter().any(|word| safe.contains(&word.as_str())), "{}", plan.agent);
        let pins: String =
            words.into_iter().chain(plan.files.iter().map(|file| file.contents.clone())).collect();
        assert!(pins.contains(&plan.version), "{}", plan.agent);
        let paths = plan.remove.iter().chain(&plan.checks).chain(&plan.path_dirs);
        for path in paths.chain(plan.files.iter().map(|file| &file.path)) {
            assert!(!path.starts_with('/') && !path.contains(".."), "{path}");
        }
    }
}
