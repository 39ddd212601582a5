//! `outpost demo`: the whole product on a sample repository, with nothing prepared beforehand.
//!
//! Server, records and repository live in a temporary directory; agent CLIs in the user's data
//! directory, so that they are installed once. The dispatch goes through HTTP like any other.

mod report;
mod sample;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use outpost_agents::{Agent, Installed};
use outpost_terminal::format::millis;
use outpost_types::{AgentId, Api, BuiltinAgent, DispatchRequest, DispatchView};

use super::agents::ensure_installed;
use super::diff::fetch;
use crate::compose::{self, Running};
use crate::ctx::{Ctx, http_api};
use crate::engine::Agents;
use crate::error::CliError;
use crate::exit::Exit;
use crate::follow::{Followed, Interrupts, OnInterrupt, follow};
use crate::ui::Ui;
use outpost_args::DemoArgs;
use outpost_args::ModelSource;
use outpost_config::Config;

use report::{DemoMillis, DemoResult};

/// The task of the demo; the scripted provider's own script answers it.
const TASK: &str = "Fix the failing test in this repository.";
/// What proves that it is done.
const CHECK: &str = "python3 -m unittest";
/// Longest running time of the agent, seconds.
const TIMEOUT_SECONDS: u64 = 300;

/// Runs the demo.
pub(crate) async fn run(ctx: &Ctx, args: &DemoArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let ui = &ctx.ui;
    sample::check_python()?;
    let mut config = ctx.config()?;
    let agent = choose(&config, args)?;
    config.model = model(&config, agent.as_ref(), args);
    if config.model == ModelSource::Real {
        config.script = None;
    }
    let heading = format!(
        "Outpost demo: an AI coding agent fixes a failing test, in a sandbox of this machine.\n\n{}",
        report::model_notice(ui.err, &config, agent.as_ref())
    );
    ui.note(&heading);
    config.dir().create()?;
    let installing = Instant::now();
    let installed = ensure_installed(ui, &config.agents_dir, agent.as_ref()).await?;
    let install_millis = elapsed(installing);
    let place = Place::new(args.keep)?;
    config.data_dir = place.path.join("data");
    config.admin_key_file = config.dir().admin_key_file();
    config.listen = ([127, 0, 0, 1], 0).into();
    config.allow_local_repos = true;
    config.public_url = None;
    let demo =
        Demo { ui, config, agent, version: installed.version, repo: place.path.join("calculator") };
    let mut spent = DemoMillis { install: install_millis, ..DemoMillis::default() };
    let result = demo.play(&mut spent).await;
    spent.total = elapsed(started);
    let exit = match result? {
        Some(mut result) => {
            result.demo_millis = spent;
            result.directory = args.keep.then(|| place.path.clone());
            demo.finish(&result)?
        }
        None => Exit::Cancelled,
    };
    place.end(ui);
    Ok(exit)
}

struct Demo<'a> {
    ui: &'a Ui,
    config: Config,
    agent: Arc<dyn Agent>,
    version: String,
    repo: PathBuf,
}

impl Demo<'_> {
    /// Everything from the sample to the result; `None` when the person left.
    async fn play(&self, spent: &mut DemoMillis) -> Result<Option<DemoResult>, CliError> {
        let step = |what: &str, took: u64| {
            let surface = self.ui.err;
            let mark = surface.green(surface.glyph("✓", "v"));
            let took = surface.dim(&millis(took));
            self.ui.note(&format!("{mark} {what}  {took}"));
        };
        let at = Instant::now();
        sample::make(&self.repo).await?;
        spent.sample = elapsed(at);
        step("sample repository: calc.py and test_calc.py", spent.sample);
        // From here on Ctrl-C must end the server in an orderly way.
        let mut interrupts = Interrupts::listen();
        let at = Instant::now();
        let _lock = self.config.dir().lock_server()?;
        let running = compose::start(&self.config).await.map_err(start_failed)?;
        spent.server = elapsed(at);
        step(&format!("server at {}", running.url), spent.server);
        let before = sample::test(&self.repo).await?;
        self.show_before(&before);
        let at = Instant::now();
        let outcome = self.dispatch(&running, &mut interrupts).await;
        spent.dispatch = elapsed(at);
        let at = Instant::now();
        let ended = running.shutdown(Agents::End).await;
        spent.shutdown = elapsed(at);
        let outcome = outcome?;
        if let Err(error) = ended {
            self.ui.warn(&format!("the server did not end cleanly: {error:#}"));
        }
        Ok(outcome.map(|(view, diff)| {
            let scripted = self.config.model == ModelSource::Scripted;
            DemoResult::new(view, &diff, before, self.version.clone(), scripted)
        }))
    }

    fn show_before(&self, before: &sample::TestRun) {
        let surface = self.ui.err;
        self.ui.note(&format!(
            "\n{}  {}",
            surface.bold("The test before"),
            surface.dim("(our own files, run here; the agent works in the sandbox)")
        ));
        for line in before.last_lines() {
            self.ui.note(&surface.dim(&format!("  {line}")));
        }
    }

    async fn dispatch(
        &self,
        running: &Running,
        interrupts: &mut Interrupts,
    ) -> Result<Option<(DispatchView, Vec<u8>)>, CliError> {
        let ui = self.ui;
        let agent = &self.agent.profile().id;
        ui.note(&format!(
            "\n{}\n  {}\n",
            ui.err.bold("The dispatch"),
            ui.err.dim(&format!("outpost dispatch {agent} \"{TASK}\" --check \"{CHECK}\" --wait"))
        ));
        let api = http_api(&running.url, &running.key)?;
        let repo = self.repo.to_str().map(str::to_owned);
        let request = DispatchRequest {
            agent: agent.to_string(),
            task: TASK.to_owned(),
            repo,
            timeout_seconds: Some(TIMEOUT_SECONDS),
            tags: vec!["demo".to_owned()],
            checks: vec![CHECK.to_owned()],
            ..DispatchRequest::default()
        };
        let created = api.create_dispatch(request, None).await?;
        let view = created.dispatch;
        match follow(ui, &api, &view, interrupts, OnInterrupt::Cancel).await? {
            Followed::Ended(view) => {
                let diff = fetch(&api, view.dispatch_id).await?;
                Ok(Some((*view, diff)))
            }
            Followed::Detached => Ok(None),
        }
    }

    fn finish(&self, result: &DemoResult) -> Result<Exit, CliError> {
        if self.ui.verbosity.json {
            self.ui.json(result)?;
        } else {
            let notice = report::model_notice(self.ui.out, &self.config, self.agent.as_ref());
            let next = report::next(&self.config, self.agent.as_ref());
            self.ui.note("");
            self.ui.data(&report::text(self.ui.out, result, &notice, &next))?;
        }
        Ok(result.exit())
    }
}

fn start_failed(error: anyhow::Error) -> CliError {
    match error.downcast::<CliError>() {
        Ok(error) => error,
        Err(error) => CliError::failed(format!("the demo's server cannot start: {error:#}"))
            .with_hint("`outpost doctor` checks this machine"),
    }
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The agent that was asked for; else one that is installed, best with its key here; else the one whose
/// key is here; else Codex, whose installation is the quickest of those that are one static program.
fn choose(config: &Config, args: &DemoArgs) -> Result<Arc<dyn Agent>, CliError> {
    let registry = config.registry()?;
    if let Some(name) = &args.agent {
        let found = name.parse::<AgentId>().ok().and_then(|id| registry.get(&id).cloned());
        return found.ok_or_else(|| {
            CliError::usage(format!("--agent {name:?}: there is no such agent"))
                .with_hint("`outpost agents ls` shows them")
        });
    }
    let installed =
        |agent: &Arc<dyn Agent>| Installed::load(&config.agents_dir, agent.as_ref()).is_ok();
    let builtin = || registry.iter().filter(|agent| agent.profile().id.builtin().is_some());
    let fallback = AgentId::from(BuiltinAgent::Codex);
    builtin()
        .find(|agent| installed(agent) && has_key(config, agent.as_ref()))
        .or_else(|| builtin().find(|agent| installed(agent)))
        .or_else(|| builtin().find(|agent| has_key(config, agent.as_ref())))
        .or_else(|| registry.get(&fallback))
        .cloned()
        .ok_or_else(|| CliError::failed("there is no agent to show"))
}

fn has_key(config: &Config, agent: &dyn Agent) -> bool {
    agent
        .provider(&agent.profile().default_model)
        .is_some_and(|provider| config.provider_key(provider).is_some())
}

fn model(config: &Config, agent: &dyn Agent, args: &DemoArgs) -> ModelSource {
    if args.scripted || !has_key(config, agent) { ModelSource::Scripted } else { config.model }
}

/// The temporary directory.
struct Place {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(keep: bool) -> Result<Self, CliError> {
        let dir = tempfile::Builder::new()
            .prefix("outpost-demo-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|error| CliError::chain("no temporary directory can be made", &error))?;
        let path = std::fs::canonicalize(dir.path())?;
        if keep {
            // From now on nothing removes it.
            let _kept: PathBuf = dir.keep();
            return Ok(Self { path, temporary: None });
        }
        Ok(Self { path, temporary: Some(dir) })
    }

    fn end(self, ui: &Ui) {
        match self.temporary {
            None => ui.note(&format!("\nKept: {}", self.path.display())),
            Some(dir) => {
                if let Err(error) = dir.close() {
                    ui.warn(&format!("{} could not be removed: {error}", show(&self.path)));
                }
            }
        }
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outpost_config::datadir::DataDir;

    fn config() -> (tempfile::TempDir, Config) {
        let temporary = tempfile::tempdir().unwrap();
        let mut config = Config::for_dir(&DataDir::new(temporary.path().into())).unwrap();
        // Variables that are set nowhere, whatever the machine has.
        for provider in outpost_types::Provider::ALL {
            config.providers.insert(
                provider,
                outpost_config::ProviderConfig {
                    base_url: None,
                    key_env: Some("OUTPOST_TEST_NO_SUCH_KEY".into()),
                },
            );
        }
        (temporary, config)
    }

    #[test]
    fn the_agent_is_the_asked_one_or_the_one_that_is_ready() {
        let (_keep, mut config) = config();
        let name = |config: &Config, args: &DemoArgs| {
            choose(config, args).map(|agent| agent.profile().id.to_string())
        };
        let mut args = DemoArgs::default();
        assert_eq!(name(&config, &args).unwrap(), "codex");
        let key = outpost_config::ProviderConfig { base_url: None, key_env: Some("PATH".into()) };
        config.providers.insert(outpost_types::Provider::Google, key);
        assert_eq!(name(&config, &args).unwrap(), "gemini");
        args.agent = Some("grok".into());
        assert_eq!(name(&config, &args).unwrap(), "grok");
        args.agent = Some("nobody".into());
        assert_eq!(name(&config, &args).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn without_a_key_the_model_is_scripted() {
        let (_keep, config) = config();
        let agent = choose(&config, &DemoArgs::default()).unwrap();
        let source = model(&config, agent.as_ref(), &DemoArgs::default());
        assert_eq!(source, ModelSource::Scripted);
    }
}
