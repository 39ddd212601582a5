//! The agent CLIs that tests drive: installed by the product itself, into the project's cache.
//!
//! Nothing is installed globally. What a machine cannot install is skipped with the reason; the
//! caller decides whether a skip is a failure.

use std::process::Command;

/// What an agent's installer needs on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Npm,
    Python,
}

/// An agent as the tests need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agent {
    pub(super) name: &'static str,
    needs: Needs,
}

/// All agents with an installer; the quickest first, so that a broken machine is noticed early.
pub(super) const AGENTS: [Agent; 5] = [
    Agent { name: "codex", needs: Needs::Npm },
    Agent { name: "gemini", needs: Needs::Npm },
    Agent { name: "grok", needs: Needs::Npm },
    Agent { name: "claude", needs: Needs::Npm },
    Agent { name: "aider", needs: Needs::Python },
];

/// Lowest Node.js major version the npm agents run on.
const NODE_MAJOR_MIN: u32 = 20;
/// Python 3 minor versions aider runs on.
const PYTHON_MINORS: std::ops::RangeInclusive<u32> = 10..=12;
/// Interpreters to try, as the product does.
const PYTHONS: [&str; 5] =
    ["python3.12", "python3.11", "python3.10", "python3", "/usr/bin/python3"];

impl Agent {
    /// Why this machine cannot install the agent; `None` when it can.
    pub(super) fn missing_tool(self) -> Option<String> {
        match self.needs {
            Needs::Npm => missing_npm_here(),
            Needs::Python => missing_python(PYTHONS.iter().filter_map(|python| minor_of(python))),
        }
    }
}

/// Why this machine cannot install from npm; `None` when it can.
pub(super) fn missing_npm_here() -> Option<String> {
    missing_npm(&first_line("node", &["--version"]), &first_line("npm", &["--version"]))
}

/// A Python that can make the environments the tests use.
pub(super) fn python() -> Option<&'static str> {
    PYTHONS.into_iter().find(|python| missing_python(minor_of(python).into_iter()).is_none())
}

/// Minor version of a Python 3 with venv.
fn minor_of(python: &str) -> Option<String> {
    let script = "import sys, venv, ensurepip; print(sys.version_info.minor)";
    first_line(python, &["-c", script])
}

fn missing_npm(node: &Option<String>, npm: &Option<String>) -> Option<String> {
    let Some(node) = node else {
        return Some(format!("node is not installed; install Node.js {NODE_MAJOR_MIN} or newer"));
    };
    let major =
        node.trim_start_matches('v').split('.').next().and_then(|word| word.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MAJOR_MIN) {
        return Some(format!("node is {node}; install Node.js {NODE_MAJOR_MIN} or newer"));
    }
    if npm.is_none() {
        return Some("npm is not installed; install it beside Node.js".to_owned());
    }
    None
}

fn missing_python(mut minors: impl Iterator<Item = String>) -> Option<String> {
    let fits = |minor: String| minor.parse().is_ok_and(|minor: u32| PYTHON_MINORS.contains(&minor));
    if minors.any(fits) {
        return None;
    }
    Some("no Python 3.10 to 3.12 with venv; install for example Debian's python3-venv".to_owned())
}

/// First line that a program prints, when it runs and succeeds.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next()?.trim().to_owned();
    output.status.success().then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn node_must_be_there_and_new_enough() {
        assert_eq!(missing_npm(&some("v20.20.2"), &some("11.1.0")), None);
        for (node, npm) in [
            (None, None),
            (some("v18.1.0"), some("9")),
            (some("?"), some("9")),
            (some("v22.0.0"), None),
        ] {
            assert!(missing_npm(&node, &npm).is_some(), "{node:?} {npm:?}");
        }
    }

    #[test]
    fn one_fitting_python_is_enough() {
        let list = |minors: &[&str]| {
            minors.iter().map(|minor| (*minor).to_owned()).collect::<Vec<_>>().into_iter()
        };
        assert_eq!(missing_python(list(&["13", "11"])), None);
        assert!(missing_python(list(&["13", "9"])).is_some());
        assert!(missing_python(list(&[])).is_some());
    }
}
