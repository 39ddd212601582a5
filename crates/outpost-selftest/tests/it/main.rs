//! The probes against this host: all hold in a real sandbox, and each would notice a weak one.

#[path = "../../../outpost-sandbox/tests/it/ordinary.rs"]
mod ordinary;

use std::path::PathBuf;

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

/// Runs the first test again in a process of an ordinary user, with the program where that user can read it.
#[test]
fn everything_holds_for_an_ordinary_user() {
    let program = env!("CARGO_BIN_EXE_outpost-probe").as_ref();
    let arguments = ["--exact", "everything_holds"];
    let Some(said) = ordinary::again(PROGRAM_VARIABLE, program, &arguments) else { return };
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
