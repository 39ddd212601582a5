//! Programs of the host: are they there, and new enough. Each is run once with `--version` or the like.

use std::process::Stdio;
use std::time::Duration;

use outpost_agents::Tool;
use tokio::process::Command;

use super::{Finding, State};

/// Longest run of a program that only says its version, seconds.
const RUN_SECONDS_MAX: u64 = 15;
/// Oldest git that the workspaces work with.
const GIT_MIN: (u32, u32) = (2, 38);
/// Oldest node that runs the agents from npm, and the Python versions that aider's wheels exist for; the install
/// plans of `outpost-agents` ask for the same.
const NODE_MAJOR_MIN: u32 = 20;
const PYTHON_MINOR_MIN: u32 = 10;
const PYTHON_MINOR_MAX: u32 = 12;
/// Says version and whether `venv` and `ensurepip` are there.
const PYTHON_PROBE: &str = "import sys, venv, ensurepip; print('%d.%d.%d' % sys.version_info[:3])";

/// Git, which everything needs.
pub(super) async fn git() -> Finding {
    let hint =
        format!("install git {}.{} or newer (on Debian: apt install git)", GIT_MIN.0, GIT_MIN.1);
    match version(&["git", "--version"]).await {
        Ok(text) if number(&text) >= Some(GIT_MIN) => Finding::new("git", State::Ok, text),
        Ok(text) => Finding::new("git", State::Fail, format!("{text} is too old")).hint(hint),
        Err(what) => Finding::new("git", State::Fail, what).hint(hint),
    }
}

/// Runtimes, which some agents need.
pub(super) async fn runtimes() -> Vec<Finding> {
    let mut findings = Vec::new();
    for (tool, minimum) in [(Tool::Node, NODE_MAJOR_MIN), (Tool::Npm, 0)] {
        let name = tool.as_str();
        let hint = format!("for the agents from npm: install {}", tool.needed());
        findings.push(match version(&[name, "--version"]).await {
            Ok(text) if number(&text).is_some_and(|(major, _)| major >= minimum) => {
                Finding::new(name, State::Ok, text)
            }
            Ok(text) => Finding::new(name, State::Warn, format!("{text} is too old")).hint(hint),
            Err(what) => Finding::new(name, State::Warn, what).hint(hint),
        });
    }
    findings.push(python().await);
    findings
}

async fn python() -> Finding {
    let (from, to) = (PYTHON_MINOR_MIN, PYTHON_MINOR_MAX);
    let hint = format!("for aider: install {}", Tool::Python.needed());
    let names = (from..=to).rev().map(|minor| format!("python3.{minor}"));
    let mut seen = None;
    for name in names.chain(["python3".to_owned()]) {
        let Ok(text) = version(&[&name, "-c", PYTHON_PROBE]).await else {
            continue;
        };
        if number(&text).is_some_and(|(major, minor)| major == 3 && (from..=to).contains(&minor)) {
            return Finding::new("python", State::Ok, format!("{text} with venv"));
        }
        seen = Some(text);
    }
    let what = match seen {
        Some(text) => format!("{text} is not what aider runs on"),
        None => "no python with venv was found".to_owned(),
    };
    Finding::new("python", State::Warn, what).hint(hint)
}

/// First line a program prints, without its own name.
async fn version(command: &[&str]) -> Result<String, String> {
    let [program, arguments @ ..] = command else {
        return Err("nothing to run".to_owned());
    };
    let run = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(RUN_SECONDS_MAX), run)
        .await
        .map_err(|_| format!("{program} did not answer within {RUN_SECONDS_MAX} s"))?
        .map_err(|_| format!("{program} was not found"))?;
    if !output.status.success() {
        return Err(format!("{program} failed ({})", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    let version = first.trim_start_matches("git version ").trim_start_matches('v');
    Ok(version.trim().to_owned())
}

/// Major and minor number at the start of a version.
fn number(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(['.', ' ', '-']);
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(number("2.47.0"), Some((2, 47)));
        assert_eq!(number("2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(number("22"), Some((22, 0)));
        assert_eq!(number("unknown"), None);
    }

    #[tokio::test]
    async fn a_missing_program_is_said_to_be_missing() {
        let error = version(&["outpost-no-such-program"]).await.unwrap_err();
        assert!(error.contains("was not found"));
        assert!(version(&["false"]).await.unwrap_err().contains("failed"));
    }
}
