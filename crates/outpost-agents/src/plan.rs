//! How an agent is installed, as data: the steps run in a staging directory that becomes the
//! installation by one rename.
//!
//! Install scripts of packages are off everywhere (`--ignore-scripts`, wheels only): nothing a
//! registry serves runs on the host before the finished program is asked for its version.

use std::fmt;

use outpost_types::AgentId;

use crate::agent::AgentError;

/// Oldest major version of node that can run and install the npm agents.
pub const NODE_MAJOR_MIN: u32 = 20;
/// Python minor versions (of 3) that Aider's dependencies have wheels for: from this one …
pub const PYTHON_MINOR_MIN: u32 = 10;
/// … to this one.
pub const PYTHON_MINOR_MAX: u32 = 12;

/// A program of the host that an installation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// `node`, [`NODE_MAJOR_MIN`] or newer.
    Node,
    /// `npm`, any version that node brings.
    Npm,
    /// `python3` between [`PYTHON_MINOR_MIN`] and [`PYTHON_MINOR_MAX`], with `venv`.
    Python,
}

impl Tool {
    /// Its name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Npm => "npm",
            Self::Python => "python",
        }
    }

    /// What to install when it is missing.
    #[must_use]
    pub fn needed(self) -> String {
        match self {
            Self::Node => format!("node {NODE_MAJOR_MIN} or newer (https://nodejs.org)"),
            Self::Npm => "npm, which comes with node (https://nodejs.org)".to_owned(),
            Self::Python => format!(
                "python 3.{PYTHON_MINOR_MIN} to 3.{PYTHON_MINOR_MAX} with its venv module \
                 (on Debian: apt install python3-venv)"
            ),
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How to install one agent at one version. All paths are relative to the staging directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallPlan {
    /// The agent.
    pub agent: AgentId,
    /// The exact version.
    pub version: String,
    /// Programs the host must have.
    pub tools: Vec<Tool>,
    /// Files written before the first step.
    pub files: Vec<PlanFile>,
    /// Commands, in order.
    pub steps: Vec<InstallStep>,
    /// Files and directories removed afterwards: duplicates, and what no run needs.
    pub remove: Vec<String>,
    /// Files that must exist afterwards.
    pub checks: Vec<String>,
    /// The command that starts the agent, without arguments.
    pub command: Vec<Word>,
    /// Directories put before `PATH` of a run.
    pub path_dirs: Vec<String>,
    /// The command line that proves the version.
    pub version_check: VersionCheck,
    /// What it takes on disk once installed, bytes (measured, x86_64).
    pub installed_bytes: u64,
}

/// A file of an [`InstallPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFile {
    /// Path in the staging directory.
    pub path: String,
    /// Content.
    pub contents: String,
}

/// One command of an [`InstallPlan`], run in the staging directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallStep {
    /// What it does, for a progress line.
    pub title: String,
    /// The program.
    pub program: StepProgram,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables beside those every step gets.
    pub env: Vec<(String, String)>,
}

/// Program of an [`InstallStep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepProgram {
    /// One of the host.
    Tool(Tool),
    /// One an earlier step made.
    Staged(String),
}

/// Part of the command that starts an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A file of the installation.
    File(String),
    /// A program of the host.
    Tool(Tool),
    /// As it stands.
    Text(String),
}

/// How the version is proven: `command` + `args` prints `expect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCheck {
    /// Arguments after the command.
    pub args: Vec<String>,
    /// Text its output must contain.
    pub expect: String,
}

/// Processor names as npm packages and target triples spell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Platform {
    /// As in npm package names: `x64`, `arm64`.
    pub(crate) npm: &'static str,
    /// As in target triples: `x86_64`, `aarch64`.
    pub(crate) triple: &'static str,
}

impl Platform {
    /// The one this binary was built for.
    pub(crate) fn here(agent: &AgentId) -> Result<Self, AgentError> {
        let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
        match (arch, os) {
            ("x86_64", "linux") => Ok(Self { npm: "x64", triple: "x86_64" }),
            ("aarch64", "linux") => Ok(Self { npm: "arm64", triple: "aarch64" }),
            _ => {
                Err(AgentError::Platform { agent: agent.clone(), platform: format!("{arch} {os}") })
            }
        }
    }
}

/// A `package.json` that asks for exactly one package.
pub(crate) fn package_json(package: &str, version: &str) -> PlanFile {
    PlanFile {
        path: "package.json".to_owned(),
        contents: format!(
            "{{\n  \"private\": true,\n  \"dependencies\": {{ \"{package}\": \"{version}\" }}\n}}\n"
        ),
    }
}

/// `npm install` of what `package.json` asks for, without running any package's scripts.
pub(crate) fn npm_install(package: &str, version: &str) -> InstallStep {
    let args = [
        "install",
        "--ignore-scripts",
        "--engine-strict=false",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--no-package-lock",
        "--no-progress",
        "--loglevel=error",
    ];
    InstallStep {
        title: format!("npm install {package}@{version}"),
        program: StepProgram::Tool(Tool::Npm),
        args: args.map(str::to_owned).to_vec(),
        env: Vec::new(),
    }
}
