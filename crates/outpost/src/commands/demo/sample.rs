//! The sample repository: a calculator that subtracts where it should add, and a test that says so.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use outpost_terminal::sanitize;
use serde::Serialize;
use tokio::process::Command;

use crate::error::CliError;

/// Longest run of git or of the test, seconds.
const RUN_SECONDS_MAX: u64 = 60;
/// Lines of the test's output that are shown.
const LINES_SHOWN: usize = 6;
/// Where the sandbox finds programs; the demo's check runs python3 there.
const SANDBOX_PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

const CALC: &str = "\"\"\"A very small calculator.\"\"\"\n\n\ndef add(a, b):\n    return a - b\n";
const TEST: &str = "\
import unittest

from calc import add


class CalcTest(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(2, 3), 5)


if __name__ == \"__main__\":
    unittest.main()
";
const README: &str = "# calculator\n\nRun the tests with `python3 -m unittest`.\n";
const IGNORE: &str = "__pycache__/\n";

/// How the test went.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TestRun {
    pub(super) passed: bool,
    pub(super) output: String,
}

impl TestRun {
    /// The end of the output, without the lines that only draw.
    pub(super) fn last_lines(&self) -> Vec<&str> {
        let lines: Vec<&str> = self
            .output
            .lines()
            .filter(|line| !line.trim_matches(['-', '=', ' ']).is_empty())
            .collect();
        let from = lines.len().saturating_sub(LINES_SHOWN);
        lines.get(from..).unwrap_or_default().to_vec()
    }
}

/// The sample needs Python where the sandbox sees it.
pub(super) fn check_python() -> Result<(), CliError> {
    let found = SANDBOX_PATH.iter().any(|dir| Path::new(dir).join("python3").exists());
    if found {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "the demo's sample is in Python, but python3 is in none of {}",
        SANDBOX_PATH.join(", ")
    ))
    .with_hint("install it (on Debian: apt install python3)"))
}

/// Makes the repository with one commit.
pub(super) async fn make(dir: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(dir)?;
    for (name, text) in
        [("calc.py", CALC), ("test_calc.py", TEST), ("README.md", README), (".gitignore", IGNORE)]
    {
        std::fs::write(dir.join(name), text)?;
    }
    git(dir, &["init", "--quiet", "--initial-branch=main"]).await?;
    git(dir, &["add", "--all"]).await?;
    git(dir, &["commit", "--quiet", "--message=A calculator with a test"]).await
}

async fn git(dir: &Path, arguments: &[&str]) -> Result<(), CliError> {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=Outpost Demo", "-c", "user.email=demo@outpost.invalid"])
        .args(["-c", "commit.gpgSign=false", "-c", "init.templateDir="])
        .args(arguments)
        // Neither the user's configuration nor a repository around this one matters.
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    let run = run(command, dir, "git").await?;
    if run.passed {
        return Ok(());
    }
    Err(CliError::failed(format!("the sample repository cannot be made: {}", run.output.trim()))
        .with_hint("`outpost doctor` checks git"))
}

/// Runs the test here. The files are our own; nothing an agent wrote is ever run outside a sandbox.
pub(super) async fn test(dir: &Path) -> Result<TestRun, CliError> {
    let mut command = Command::new("python3");
    command.args(["-B", "-m", "unittest"]).env_clear().env("PATH", SANDBOX_PATH.join(":"));
    run(command, dir, "python3").await
}

async fn run(mut command: Command, dir: &Path, name: &str) -> Result<TestRun, CliError> {
    let output = command.current_dir(dir).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(RUN_SECONDS_MAX), output)
        .await
        .map_err(|_| CliError::failed(format!("{name} did not end within {RUN_SECONDS_MAX} s")))?
        .map_err(|error| {
            CliError::failed(format!("{name} cannot be run: {error}"))
                .with_hint("`outpost doctor` says what is missing")
        })?;
    let text = [output.stdout, output.stderr].concat();
    Ok(TestRun {
        passed: output.status.success(),
        output: sanitize::text(&String::from_utf8_lossy(&text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_test_of_the_sample_fails_for_its_one_reason() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("calculator");
        make(&dir).await.unwrap();
        assert!(dir.join(".git").is_dir());
        if check_python().is_err() {
            // A machine without Python cannot show the demo either, and says so.
            return;
        }
        let before = test(&dir).await.unwrap();
        assert!(!before.passed && before.output.contains("-1 != 5"), "{}", before.output);
        assert!(before.last_lines().len() <= LINES_SHOWN);
        std::fs::write(dir.join("calc.py"), CALC.replace("a - b", "a + b")).unwrap();
        assert!(test(&dir).await.unwrap().passed);
    }

    #[test]
    fn the_script_and_the_sample_fit_together() {
        let script = include_str!("../../../../outpost-scripted/scripts/demo.toml");
        assert!(script.contains("    return a - b\\n") && CALC.contains("    return a - b\n"));
        assert!(script.contains("failing test") && super::super::TASK.contains("failing test"));
    }
}
