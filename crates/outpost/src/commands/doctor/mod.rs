//! `outpost doctor`: is everything there that dispatches need, and if not, what to do.

mod host;
mod program;

use outpost_terminal::format::{pad, width, wrap};
use outpost_terminal::{Surface, sanitize};
use serde::Serialize;

use super::agents;
use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use outpost_args::ModelSource;
use outpost_config::Config;

/// Columns of the names.
const NAME_COLUMNS: usize = 18;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Something will not work, but not everything.
    Warn,
    /// No dispatch can run.
    Fail,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    name: String,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    /// A check that found `detail`.
    pub(crate) fn new(name: &str, state: State, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state, detail: detail.into(), hint: None }
    }

    /// The same, saying what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Checks everything and prints it.
pub(crate) async fn run(ctx: &Ctx) -> Result<Exit, CliError> {
    let mut findings = Vec::new();
    let config = match ctx.config() {
        Ok(config) => {
            findings.push(Finding::new("configuration", State::Ok, source(ctx, &config)));
            config
        }
        Err(error) => {
            let mut finding = Finding::new("configuration", State::Fail, error.to_string());
            finding.hint = error.hint().map(str::to_owned);
            return report(&ctx.ui, &[finding]);
        }
    };
    findings.push(host::kernel());
    findings.push(host::data_dir(&config));
    findings.push(program::git().await);
    findings.extend(program::runtimes().await);
    findings.push(host::cgroups());
    findings.push(host::sandbox(&config).await);
    findings.extend(agent_findings(&config)?);
    findings.push(key_finding(&config));
    findings.push(server(ctx).await);
    report(&ctx.ui, &findings)
}

fn source(ctx: &Ctx, config: &Config) -> String {
    let own = config.dir().config_file();
    match &ctx.global.config {
        Some(named) => named.display().to_string(),
        None if own.exists() => own.display().to_string(),
        None => "defaults".to_owned(),
    }
}

fn agent_findings(config: &Config) -> Result<Vec<Finding>, CliError> {
    let rows = agents::local_rows(config)?;
    let none = !rows.iter().any(|row| row.installed);
    let mut findings: Vec<Finding> = rows
        .into_iter()
        .map(|row| {
            let name = format!("agent {}", row.agent);
            match row.install_reason {
                None => Finding::new(&name, State::Ok, row.version.unwrap_or_default()),
                // One agent is enough to work.
                Some(reason) => Finding::new(&name, State::Warn, reason),
            }
        })
        .collect();
    if none {
        findings.push(
            Finding::new("agents", State::Fail, "none is installed")
                .hint("`outpost agents install codex` installs one; --all installs all"),
        );
    }
    Ok(findings)
}

fn key_finding(config: &Config) -> Finding {
    const NAME: &str = "provider keys";
    if config.model == ModelSource::Scripted {
        return Finding::new(NAME, State::Ok, "none needed: the model is the scripted provider");
    }
    let (present, absent): (Vec<_>, Vec<_>) = outpost_types::Provider::ALL
        .into_iter()
        .partition(|provider| config.provider_key(*provider).is_some());
    let names = |providers: &[outpost_types::Provider]| {
        let names = providers.iter().map(|provider| config.key_variables(*provider).join(" or "));
        names.collect::<Vec<_>>().join(", ")
    };
    if present.is_empty() {
        return Finding::new(NAME, State::Warn, format!("none is set of {}", names(&absent)))
            .hint("set one where the server is started; `outpost demo` works without");
    }
    let mut text = format!("set: {}", names(&present));
    if !absent.is_empty() {
        text.push_str(&format!("; not set: {}", names(&absent)));
    }
    Finding::new(NAME, State::Ok, text)
}

async fn server(ctx: &Ctx) -> Finding {
    let connection = match ctx.connect_if_running() {
        Ok(Some(connection)) => connection,
        Ok(None) => {
            return Finding::new("server", State::Ok, "not running; `outpost dispatch` starts one");
        }
        Err(error) => {
            let mut finding = Finding::new("server", State::Fail, error.to_string());
            finding.hint = error.hint().map(str::to_owned);
            return finding;
        }
    };
    match connection.api.fleet().await {
        Ok(fleet) => Finding::new(
            "server",
            State::Ok,
            format!("{}: {} running, {} queued", connection.url, fleet.running, fleet.queued),
        ),
        Err(error) => {
            let mut finding = Finding::new(
                "server",
                State::Fail,
                format!("{} does not answer well: {error}", connection.url),
            );
            finding.hint = error.hint;
            finding
        }
    }
}

fn report(ui: &Ui, findings: &[Finding]) -> Result<Exit, CliError> {
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    if ui.verbosity.json {
        ui.json(&serde_json::json!({ "ok": !failed, "checks": findings }))?;
    } else {
        ui.data(&text(ui.out, findings))?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

fn text(surface: Surface, findings: &[Finding]) -> String {
    let mut output = String::new();
    for finding in findings {
        let mark = match finding.state {
            State::Ok => surface.green(surface.glyph("✓", "ok  ")),
            State::Warn => surface.yellow(surface.glyph("!", "warn")),
            State::Fail => surface.red(surface.glyph("✗", "FAIL")),
        };
        let name = pad(&sanitize::line(&finding.name), NAME_COLUMNS);
        let indent = " ".repeat(width(&sanitize::text(mark.as_str())) + NAME_COLUMNS + 2);
        let room = match surface.columns {
            Some(columns) => columns.saturating_sub(indent.len()).max(20),
            None => usize::MAX,
        };
        let detail = wrap(&sanitize::text(&finding.detail), room);
        let mut lines = detail.into_iter();
        let first = lines.next().unwrap_or_default();
        output.push_str(&format!("{mark} {name} {first}\n"));
        for line in lines {
            output.push_str(&format!("{indent}{line}\n"));
        }
        if let (Some(hint), true) = (&finding.hint, finding.state != State::Ok) {
            for line in wrap(&sanitize::line(hint), room) {
                output.push_str(&format!("{indent}{}\n", surface.dim(&line)));
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::assert_golden;
    use crate::ui::Verbosity;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::new("git", State::Ok, "2.47.0"),
            Finding::new("key openai", State::Warn, "OPENAI_API_KEY is not set").hint("set it"),
            Finding::new("sandbox", State::Fail, "no user namespaces\x1b[2J").hint("allow them"),
        ]
    }

    #[test]
    fn findings_in_a_pipe() {
        assert_golden("doctor.txt", &text(Surface::PLAIN, &findings()));
    }

    #[test]
    fn only_a_failure_fails() {
        let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        assert_eq!(report(&ui, &findings()[..2]).unwrap(), Exit::Ok);
        assert_eq!(report(&ui, &findings()).unwrap(), Exit::Failed);
        let text = out.text();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["ok"], false);
        assert_eq!(last["checks"][2]["state"], "fail");
    }

    #[test]
    fn keys_are_never_shown() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = outpost_config::datadir::DataDir::new(temporary.path().into());
        let mut config = Config::for_dir(&dir).unwrap();
        // PATH is set wherever tests run, and stands for a key here.
        config.providers.insert(
            outpost_types::Provider::Xai,
            outpost_config::ProviderConfig { base_url: None, key_env: Some("PATH".into()) },
        );
        let secret = std::env::var("PATH").unwrap();
        let text = text(Surface::PLAIN, &[key_finding(&config)]);
        assert!(text.contains("set: PATH") && !text.contains(&secret));
    }
}
