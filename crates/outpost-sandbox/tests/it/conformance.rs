//! The public suite, as this user and as an ordinary one.

use std::sync::Arc;

use outpost_sandbox::conformance::{Outcome, Target, cases};

use crate::{Bed, LAUNCHER_VARIABLE, ordinary};

#[tokio::test(flavor = "multi_thread")]
async fn suite() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let target = Arc::new(Target::new(sandbox.clone(), bed.scratch()));
    let mut failed = Vec::new();
    for case in cases() {
        let started = std::time::Instant::now();
        match case.run(Arc::clone(&target)).await {
            Ok(Outcome::Passed) => println!("passed  {} ({:?})", case.name, started.elapsed()),
            Ok(Outcome::Skipped(why)) => println!("SKIPPED {}: {why}", case.name),
            Err(problem) => failed.push(format!("{}: {problem}", case.name)),
        }
    }
    sandbox.shut_down().await.unwrap();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// Runs `suite` again in a process of an ordinary user; when the tests run as one, `suite` is that already.
#[test]
fn as_ordinary_user() {
    let arguments =
        ["--test-threads=2", "conformance::suite", "lifetime::", "disk::", "overlay::", "claim::"];
    let launcher = env!("CARGO_BIN_EXE_outpost-launcher").as_ref();
    let Some(said) = ordinary::again(LAUNCHER_VARIABLE, launcher, &arguments) else { return };
    assert!(said.contains("passed  twenty sandboxes at once"), "the suite did not run");
}
