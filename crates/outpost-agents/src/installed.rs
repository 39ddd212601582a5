//! What is installed: the manifest an installation leaves behind, and the way from it to a command.
//!
//! A manifest is written last and published with the directory by one rename, so a directory with a
//! valid manifest is complete. Bounded: [`MANIFEST_BYTES_MAX`].

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use outpost_types::AgentId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::agent::Agent;
use crate::plan::{InstallPlan, Tool, Word};

/// Largest manifest that is read, bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Name of the manifest in an installation.
pub const MANIFEST_NAME: &str = "installed.json";
/// Format of the manifest written by this version.
pub const MANIFEST_SCHEMA: u32 = 1;

/// Content of `installed.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`MANIFEST_SCHEMA`].
    pub schema: u32,
    /// The agent.
    pub agent: AgentId,
    /// The exact version.
    pub version: String,
    /// Absolute paths of the host's programs it runs with, by [`Tool::as_str`].
    #[serde(default)]
    pub tools: BTreeMap<String, PathBuf>,
    /// Files and directories outside `/usr` those programs need, absolute.
    #[serde(default)]
    pub runtime_paths: Vec<PathBuf>,
}

impl Manifest {
    /// An empty manifest for `plan`.
    #[must_use]
    pub fn new(plan: &InstallPlan) -> Self {
        Self {
            schema: MANIFEST_SCHEMA,
            agent: plan.agent.clone(),
            version: plan.version.clone(),
            tools: BTreeMap::new(),
            runtime_paths: Vec::new(),
        }
    }
}

/// An agent that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The agent.
    pub agent: AgentId,
    /// Its version; empty for commands the operator brings.
    pub version: String,
    /// Where it lies; `None` for commands the operator brings.
    pub root: Option<PathBuf>,
    /// The command that starts it, without arguments; empty for commands the operator brings.
    pub command: Vec<String>,
    /// Directories to put before `PATH`.
    pub path_dirs: Vec<PathBuf>,
    /// Paths of the host it needs read-only at the same place.
    pub ro_paths: Vec<PathBuf>,
}

/// Why an agent cannot be started here. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Unavailable {
    /// One sentence.
    pub reason: String,
}

impl Unavailable {
    /// From a sentence that says what to do.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl Installed {
    /// Directory of `plan` below `agents_dir`.
    #[must_use]
    pub fn dir(agents_dir: &Path, plan: &InstallPlan) -> PathBuf {
        agents_dir.join(plan.agent.as_str()).join(&plan.version)
    }

    /// Finds the installation of `agent`, or the command its configuration names.
    ///
    /// Reads the manifest and checks that what it names is still there; runs nothing.
    ///
    /// # Errors
    /// [`Unavailable`] with a sentence that says what to do.
    pub fn load(agents_dir: &Path, agent: &dyn Agent) -> Result<Self, Unavailable> {
        let plan = agent.install_plan().map_err(|error| Unavailable::new(error.to_string()))?;
        match plan {
            Some(plan) => Self::load_plan(agents_dir, &plan),
            None => crate::custom::find(agent),
        }
    }

    fn load_plan(agents_dir: &Path, plan: &InstallPlan) -> Result<Self, Unavailable> {
        let (agent, version) = (&plan.agent, &plan.version);
        let root = Self::dir(agents_dir, plan);
        let again = |what: String| {
            Unavailable::new(format!(
                "{agent} {version} {what}: run `outpost agents install {agent}`"
            ))
        };
        let manifest = match read_manifest(&root.join(MANIFEST_NAME)) {
            Ok(manifest) => manifest,
            Err(ReadError::Missing) => return Err(again("is not installed".to_owned())),
            Err(ReadError::Broken) => return Err(again("is damaged".to_owned())),
        };
        if manifest.schema != MANIFEST_SCHEMA
            || manifest.agent != *agent
            || manifest.version != *version
        {
            return Err(again("was installed by another Outpost".to_owned()));
        }
        Self::from_manifest(&root, plan, &manifest)
            .map_err(|missing| again(format!("needs {}, which is gone", missing.display())))
    }

    /// Puts the command together from a plan and the manifest of its installation in `root`.
    ///
    /// # Errors
    /// The path of a file that does not exist.
    pub fn from_manifest(
        root: &Path,
        plan: &InstallPlan,
        manifest: &Manifest,
    ) -> Result<Self, PathBuf> {
        let mut command = Vec::with_capacity(plan.command.len());
        for word in &plan.command {
            let path = match word {
                Word::Text(text) => {
                    command.push(text.clone());
                    continue;
                }
                Word::File(path) => root.join(path),
                Word::Tool(tool) => manifest
                    .tools
                    .get(tool.as_str())
                    .filter(|path| is_plain_absolute(path))
                    .cloned()
                    .ok_or_else(|| PathBuf::from(Tool::as_str(*tool)))?,
            };
            if !path.is_file() {
                return Err(path);
            }
            command.push(path.to_str().ok_or_else(|| path.clone())?.to_owned());
        }
        for check in &plan.checks {
            let path = root.join(check);
            if !path.exists() {
                return Err(path);
            }
        }
        let mut ro_paths = vec![root.to_owned()];
        for path in &manifest.runtime_paths {
            if !is_plain_absolute(path) || !path.exists() {
                return Err(path.clone());
            }
            ro_paths.push(path.clone());
        }
        Ok(Self {
            agent: plan.agent.clone(),
            version: plan.version.clone(),
            root: Some(root.to_owned()),
            command,
            path_dirs: plan.path_dirs.iter().map(|dir| root.join(dir)).collect(),
            ro_paths,
        })
    }
}

enum ReadError {
    Missing,
    Broken,
}

fn read_manifest(path: &Path) -> Result<Manifest, ReadError> {
    let file = std::fs::File::open(path).map_err(|_| ReadError::Missing)?;
    let mut text = String::new();
    file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text).map_err(|_| ReadError::Broken)?;
    serde_json::from_str(&text).map_err(|_| ReadError::Broken)
}

/// Absolute, without `..`, and not the root itself: safe to show inside a sandbox.
pub(crate) fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute()
        && path.components().count() > 1
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}
