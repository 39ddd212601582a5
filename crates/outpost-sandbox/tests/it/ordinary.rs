//! Running tests of this program again in a process of an ordinary user.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what another process said is for a reader of the test"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Nobody, on every Linux system.
const ORDINARY_ID: u32 = 65_534;

/// Runs the tests that `arguments` choose, and answers what they said. `variable` leads them to a copy of `program`:
/// the build directory may be closed to others. `None` when this is an ordinary user already.
pub(crate) fn again(variable: &str, program: &Path, arguments: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: this is an ordinary user, the tests themselves cover it");
        return None;
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
    let program = copy(program, "program");
    let work = dir.path().join("tmp");
    std::fs::create_dir(&work).unwrap();
    open(&work, 0o777);
    let output = Command::new(this)
        .arg("--nocapture")
        .args(arguments)
        .env(variable, program)
        .env("TMPDIR", &work)
        .env("HOME", &work)
        .current_dir("/")
        .uid(ORDINARY_ID)
        .gid(ORDINARY_ID)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "as an ordinary user: {}", output.status);
    Some(said)
}
