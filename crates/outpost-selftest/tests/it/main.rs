//! The probes against this host: all hold in a real sandbox, and each would notice a weak one.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use outpost_sandbox::SandboxPolicy;
use outpost_selftest::{Options, Standing, prove, run};

/// Tells a re-executed test where the program is; set only by `as_ordinary_user`.
const PROGRAM_VARIABLE: &str = "OUTPOST_TEST_PROBE";

fn options() -> Options {
    let program = std::env::var_os(PROGRAM_VARIABLE)
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_outpost-probe")), PathBuf::from);
    Options {
        launcher_program: program.clone(),
        launcher_arguments: Vec::new(),
        probe_program: program,
        policy: SandboxPolicy::allow_missing_limits(),
    }
}

#[tokio::test]
async fn everything_holds() {
    let report = run(&options(), |verdict| {
        println!("{:?} {:28} {}", verdict.standing, verdict.name, verdict.detail);
    })
    .await
    .unwrap();
    let broken: Vec<_> =
        report.verdicts.iter().filter(|verdict| verdict.standing == Standing::Broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(report.holds(true));
}

/// Nobody, on every Linux system.
const ORDINARY_ID: u32 = 65_534;

/// Runs the first test again in a process of an ordinary user, with the program where that user can read it.
#[test]
fn everything_holds_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: this is an ordinary user, the other test covers it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o755);
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        // By another process: a descriptor open for writing here could be inherited by a program that another test
        // is just starting, and then the copy could not be executed.
        assert!(Command::new("cp").arg(from).arg(&to).status().unwrap().success());
        open(&to, 0o755);
        to
    };
    let this = copy(&std::env::current_exe().unwrap(), "it");
    let program = copy(env!("CARGO_BIN_EXE_outpost-probe").as_ref(), "probe");
    let work = dir.path().join("tmp");
    std::fs::create_dir(&work).unwrap();
    open(&work, 0o777);
    let output = Command::new(this)
        .args(["--nocapture", "--exact", "everything_holds"])
        .env(PROGRAM_VARIABLE, program)
        .env("TMPDIR", &work)
        .env("HOME", &work)
        .current_dir("/")
        .uid(ORDINARY_ID)
        .gid(ORDINARY_ID)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "as an ordinary user: {}", output.status);
    assert!(said.contains("call.keyctl"), "the probes did not run");
}

/// Probes whose attack succeeds nowhere on some hosts, and why. On others they are proven like all.
const UNPROVABLE: &[(&str, &str)] = &[
    ("call.delete-module", "a kernel without modules answers ENOSYS to everybody"),
    ("call.finit-module", "a kernel without modules answers ENOSYS to everybody"),
    ("call.init-module", "a kernel without modules answers ENOSYS to everybody"),
    ("call.iopl", "a kernel without port access answers ENOSYS to everybody"),
    ("call.kexec-load", "a kernel without kexec answers ENOSYS to everybody"),
    ("proc.sysrq", "a kernel without magic keys has no such file"),
];

#[tokio::test]
async fn every_probe_would_notice() {
    let proofs = prove(&options()).await.unwrap();
    for proof in &proofs {
        println!("{proof}");
    }
    let excused = |name: &str| UNPROVABLE.iter().find(|(probe, _)| *probe == name);
    let unproven: Vec<String> = proofs
        .iter()
        .filter(|proof| match (&proof.attempt, excused(proof.name)) {
            (Some(attempt), Some((_, why))) if !attempt.succeeded => {
                println!("not proven here: {}: {why}", proof.name);
                ![Some(libc::ENOSYS), Some(libc::ENOENT)].contains(&attempt.errno)
            }
            (Some(attempt), _) => !attempt.succeeded,
            (None, _) => false,
        })
        .map(ToString::to_string)
        .collect();
    assert!(unproven.is_empty(), "{}", unproven.join("\n"));
}
