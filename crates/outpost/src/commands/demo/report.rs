//! What the demo says about itself at the end.

use std::path::PathBuf;

use outpost_agents::Agent;
use outpost_terminal::format::millis;
use outpost_terminal::{Surface, card, patch};
use outpost_types::{DispatchStatus, DispatchView};
use serde::Serialize;

use super::sample::TestRun;
use crate::clock::now;
use crate::exit::Exit;
use outpost_args::ModelSource;
use outpost_config::Config;

/// Where the demo's time went, milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct DemoMillis {
    /// Installing the agent's CLI; next to nothing when it was there.
    pub(super) install: u64,
    /// Making the sample repository.
    pub(super) sample: u64,
    /// Starting the server.
    pub(super) server: u64,
    /// From sending the dispatch to holding its result.
    pub(super) dispatch: u64,
    /// Ending the server.
    pub(super) shutdown: u64,
    /// Everything.
    pub(super) total: u64,
}

/// The result, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DemoResult {
    /// The dispatch completed and its check passed.
    ok: bool,
    agent_version: String,
    /// No real model took part.
    scripted_model: bool,
    test_before: TestRun,
    dispatch: DispatchView,
    diff: String,
    pub(super) demo_millis: DemoMillis,
    /// The temporary directory, when it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) directory: Option<PathBuf>,
}

impl DemoResult {
    /// Judges what happened.
    pub(super) fn new(
        dispatch: DispatchView,
        diff: &[u8],
        test_before: TestRun,
        agent_version: String,
        scripted_model: bool,
    ) -> Self {
        let passed =
            !dispatch.checks.is_empty() && dispatch.checks.iter().all(|check| check.passed);
        Self {
            ok: dispatch.status == DispatchStatus::Completed && passed && !test_before.passed,
            agent_version,
            scripted_model,
            test_before,
            dispatch,
            diff: String::from_utf8_lossy(diff).into_owned(),
            demo_millis: DemoMillis::default(),
            directory: None,
        }
    }

    /// How the process ends.
    pub(super) const fn exit(&self) -> Exit {
        match Exit::of_status(self.dispatch.status) {
            Exit::Ok if !self.ok => Exit::Failed,
            exit => exit,
        }
    }
}

/// Says which model answers; nobody is to take the script for a model.
pub(super) fn model_notice(surface: Surface, config: &Config, agent: &dyn Agent) -> String {
    let profile = agent.profile();
    if config.model == ModelSource::Real {
        return format!(
            "The model is real ({}): this spends a little of your provider's credit.",
            profile.default_model
        );
    }
    let variables = agent
        .provider(&profile.default_model)
        .map(|provider| config.key_variables(provider).join(" or "))
        .unwrap_or_default();
    let text = format!(
        "No model takes part: the answers are scripted. {}'s real CLI, the sandbox, the gateway and git are real.\nFor a real model set {variables} and run it again.",
        profile.title
    );
    surface.yellow(&text)
}

/// How to do the same with one's own repository.
pub(super) fn next(config: &Config, agent: &dyn Agent) -> String {
    let program = program();
    let profile = agent.profile();
    let mut lines = vec!["  cd your-repository".to_owned()];
    let provider = agent.provider(&profile.default_model);
    if let (ModelSource::Scripted, Some(provider)) = (config.model, provider) {
        let variables = config.key_variables(provider);
        let variable = variables.first().map_or("KEY", String::as_str);
        lines.push(format!("  export {variable}=…"));
    }
    let agent = &profile.id;
    lines.push(format!("  {program} dispatch {agent} \"what to do\" --wait"));
    lines.push(format!("  {program} diff last"));
    lines.push(format!("  {program} apply last"));
    lines.join("\n")
}

/// How this program is called from here: by name when that finds it.
fn program() -> String {
    let Ok(own) = std::env::current_exe() else {
        return "outpost".to_owned();
    };
    let search = std::env::var_os("PATH").unwrap_or_default();
    let by_name = std::env::split_paths(&search)
        .map(|dir| dir.join("outpost"))
        .find_map(|path| std::fs::canonicalize(path).ok());
    if by_name.as_deref() == Some(own.as_path()) {
        return "outpost".to_owned();
    }
    own.display().to_string()
}

/// Change, result, times, and what to do next.
pub(super) fn text(surface: Surface, result: &DemoResult, notice: &str, next: &str) -> String {
    let heading = |text: &str| format!("{}\n", surface.bold(text));
    let mut output = heading("The change");
    output.push_str(&patch(surface, &result.diff));
    output.push('\n');
    output.push_str(&heading("The result"));
    output.push_str(&card(surface, &result.dispatch, now()));
    if result.scripted_model && result.dispatch.usage.is_some() {
        output.push_str("\nThe tokens are what the CLI made of the script; nothing was spent.\n");
    }
    let spent = &result.demo_millis;
    output.push_str(&format!(
        "\nDemo: agent {}, sample {}, server {}, dispatch {}, end {}; {} in all.\n",
        millis(spent.install),
        millis(spent.sample),
        millis(spent.server),
        millis(spent.dispatch),
        millis(spent.shutdown),
        millis(spent.total)
    ));
    let verdict = if result.ok {
        surface.green("The test failed before and passes now.")
    } else {
        surface.red("The demo did not succeed: see the result above.")
    };
    output.push_str(&format!("\n{verdict}\n{notice}\n\n"));
    output.push_str(&heading("The same in a repository of yours"));
    output.push_str(next);
    output.push('\n');
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use outpost_config::datadir::DataDir;

    fn before() -> TestRun {
        TestRun { passed: false, output: "FAILED".into() }
    }

    fn result(view: DispatchView) -> DemoResult {
        DemoResult::new(view, b"-a\n+b\n", before(), "1.0".into(), true)
    }

    #[test]
    fn only_a_passed_check_is_success() {
        assert_eq!(result(fake::completed()).exit(), Exit::Ok);
        assert_eq!(result(fake::failed()).exit(), Exit::Failed);
        let mut unchecked = fake::completed();
        unchecked.checks.clear();
        assert_eq!(result(unchecked).exit(), Exit::Failed);
        let mut late = fake::completed();
        late.status = DispatchStatus::Timeout;
        assert_eq!(result(late).exit(), Exit::Timeout);
    }

    #[test]
    fn a_scripted_model_is_admitted() {
        let temporary = tempfile::tempdir().unwrap();
        let mut config = Config::for_dir(&DataDir::new(temporary.path().into())).unwrap();
        config.model = ModelSource::Scripted;
        let registry = config.registry().unwrap();
        let agent = registry.iter().next().unwrap();
        let notice = model_notice(Surface::PLAIN, &config, agent.as_ref());
        assert!(notice.contains("No model takes part") && notice.contains("ANTHROPIC_API_KEY"));
        let text = text(
            Surface::PLAIN,
            &result(fake::completed()),
            &notice,
            &next(&config, agent.as_ref()),
        );
        for part in
            ["+b", "passes now", "python3 -m unittest", "scripted", "isolation", "dispatch claude"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
