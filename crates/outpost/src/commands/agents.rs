//! `outpost agents`: which agents there are, and installing their CLIs. Works without a server.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use outpost_agents::{Agent, Installed};
use outpost_runner::install::{InstallProgress, install as install_agent};
use outpost_terminal::format::{bytes, millis};
use outpost_terminal::{LocalAgent, sanitize};
use outpost_types::AgentId;
use serde::Serialize;

use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use outpost_args::InstallArgs;
use outpost_args::ModelSource;
use outpost_config::Config;

/// What can be told without a server.
pub(crate) fn local_rows(config: &Config) -> Result<Vec<LocalAgent>, CliError> {
    let registry = config.registry()?;
    Ok(registry.iter().map(|agent| row(config, agent.as_ref())).collect())
}

fn row(config: &Config, agent: &dyn Agent) -> LocalAgent {
    let profile = agent.profile();
    let install_reason =
        Installed::load(&config.agents_dir, agent).err().map(|unavailable| unavailable.reason);
    let provider = agent.provider(&profile.default_model);
    let key_variables = provider.map(|provider| config.key_variables(provider)).unwrap_or_default();
    let key_present = provider.map(|provider| config.provider_key(provider).is_some());
    let key_reason = (key_present == Some(false) && config.model == ModelSource::Real)
        .then(|| format!("set {} where the server runs", key_variables.join(" or ")));
    let reason = install_reason.clone().or(key_reason);
    LocalAgent {
        agent: profile.id.to_string(),
        version: profile.version.clone(),
        default_model_id: profile.default_model.clone(),
        installed: install_reason.is_none(),
        install_reason,
        key_present,
        key_variables,
        available: reason.is_none(),
        reason,
        licence: profile.licence.clone(),
    }
}

/// Lists the agents; a running server's word counts for whether they are available.
pub(crate) async fn ls(ctx: &Ctx) -> Result<Exit, CliError> {
    let mut rows = local_rows(&ctx.config()?)?;
    // A server that does not answer does not stop a list that needs none.
    if let Ok(Some(connection)) = ctx.connect_if_running()
        && let Ok(fleet) = connection.api.fleet().await
    {
        for view in fleet.agents {
            if let Some(row) = rows.iter_mut().find(|row| row.agent == view.agent) {
                row.available = view.availability.available;
                row.reason = view.availability.reason;
            }
        }
    }
    if ctx.ui.verbosity.json {
        ctx.ui.json(&rows)?;
    } else {
        ctx.ui.data(&outpost_terminal::local_agents(ctx.ui.out, &rows))?;
    }
    Ok(Exit::Ok)
}

/// What became of one installation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    agent: String,
    version: Option<String>,
    installed: bool,
    already: bool,
    millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Installs the named agents, or all.
pub(crate) async fn install(ctx: &Ctx, args: &InstallArgs) -> Result<Exit, CliError> {
    let config = ctx.config()?;
    let agents = chosen(&config, args)?;
    config.dir().create()?;
    let mut outcomes = Vec::new();
    for agent in agents {
        outcomes.push(install_one(&ctx.ui, &config.agents_dir, agent.as_ref()).await);
    }
    if ctx.ui.verbosity.json {
        ctx.ui.json(&outcomes)?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.installed).count();
    if failed == 0 {
        return Ok(Exit::Ok);
    }
    Err(CliError::failed(format!("{failed} of {} agents could not be installed", outcomes.len()))
        .with_hint("`outpost doctor` shows which programs are missing"))
}

fn chosen(config: &Config, args: &InstallArgs) -> Result<Vec<Arc<dyn Agent>>, CliError> {
    let registry = config.registry()?;
    if args.all {
        return Ok(registry
            .iter()
            .filter(|agent| !matches!(agent.install_plan(), Ok(None)))
            .cloned()
            .collect());
    }
    let mut agents: Vec<Arc<dyn Agent>> = Vec::new();
    for name in &args.names {
        let found = name.parse::<AgentId>().ok().and_then(|id| registry.get(&id));
        let Some(agent) = found else {
            let known: Vec<_> =
                registry.iter().map(|agent| agent.profile().id.to_string()).collect();
            return Err(CliError::usage(format!("there is no agent {name:?}"))
                .with_hint(format!("there are {}", known.join(", "))));
        };
        if matches!(agent.install_plan(), Ok(None)) {
            return Err(CliError::usage(format!(
                "{name} is a command of your own, so there is nothing to install"
            )));
        }
        if !agents.iter().any(|known| known.profile().id == agent.profile().id) {
            agents.push(Arc::clone(agent));
        }
    }
    Ok(agents)
}

async fn install_one(ui: &Ui, agents_dir: &Path, agent: &dyn Agent) -> Outcome {
    let started = Instant::now();
    let already = Installed::load(agents_dir, agent).is_ok();
    let result = ensure_installed(ui, agents_dir, agent).await;
    let profile = agent.profile();
    let error = result.err().map(|error| sanitize::text(&error.to_string()));
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let name = format!("{} {}", profile.id, profile.version.as_deref().unwrap_or_default());
    let surface = ui.err;
    match &error {
        None if already => {
            ui.note(&format!("{} {name} is already there", surface.green(surface.glyph("✓", "v"))))
        }
        None => ui.note(&format!(
            "{} {name} installed in {}",
            surface.green(surface.glyph("✓", "v")),
            millis(took)
        )),
        Some(error) => {
            ui.err_line(&format!("{} {name}: {error}", surface.red(surface.glyph("✗", "x"))))
        }
    }
    Outcome {
        agent: profile.id.to_string(),
        version: profile.version.clone(),
        installed: error.is_none(),
        already,
        millis: took,
        error,
    }
}

/// Installs the agent unless it is there, telling each step.
pub(crate) async fn ensure_installed(
    ui: &Ui,
    agents_dir: &Path,
    agent: &dyn Agent,
) -> Result<Installed, CliError> {
    if let Ok(installed) = Installed::load(agents_dir, agent) {
        return Ok(installed);
    }
    let profile = agent.profile();
    if let Ok(Some(plan)) = agent.install_plan() {
        ui.note(&format!(
            "Installing {} {} ({}, about {} on disk)",
            profile.title,
            plan.version,
            profile.licence,
            bytes(plan.installed_bytes)
        ));
    }
    install_agent(agent, agents_dir, |progress| {
        ui.note(&ui.err.dim(&format!("  {}", sanitize::line(&words(progress)))));
    })
    .await
    .map_err(|error| CliError::chain("the installation failed", &error))
}

fn words(progress: InstallProgress) -> String {
    match progress {
        InstallProgress::Waiting => "waiting for another process that installs it".to_owned(),
        InstallProgress::Step { number, count, title } => format!("{number}/{count} {title}"),
        InstallProgress::Checking => "checking its version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outpost_config::datadir::DataDir;

    fn config() -> (tempfile::TempDir, Config) {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config::for_dir(&DataDir::new(temporary.path().into())).unwrap();
        (temporary, config)
    }

    #[test]
    fn a_fresh_machine_says_what_to_install() {
        let (_keep, config) = config();
        let rows = local_rows(&config).unwrap();
        assert_eq!(rows.len(), 5);
        for row in &rows {
            assert!(!row.installed && !row.available);
            let reason = row.reason.as_deref().unwrap();
            assert!(reason.contains(&format!("outpost agents install {}", row.agent)), "{reason}");
        }
    }

    #[test]
    fn what_to_install_is_checked_by_name() {
        let (_keep, config) = config();
        let args = |names: &[&str], all| InstallArgs {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            all,
        };
        assert_eq!(chosen(&config, &args(&[], true)).unwrap().len(), 5);
        assert_eq!(chosen(&config, &args(&["codex", "codex"], false)).unwrap().len(), 1);
        let error = chosen(&config, &args(&["codx"], false)).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("codex")));
        assert!(chosen(&config, &args(&["../x"], false)).is_err());
    }
}
