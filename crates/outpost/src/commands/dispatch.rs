//! `outpost dispatch`: gives a task to an agent.

use std::io::Read;
use std::path::{Path, PathBuf};

use outpost_terminal::format::short_id;
use outpost_terminal::{card, sanitize};
use outpost_types::limits::TASK_BYTES_MAX;
use outpost_types::{Api, DispatchRequest, DispatchView, WorkspaceMode};

use crate::check;
use crate::clock::now;
use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use crate::follow::{Followed, Interrupts, OnInterrupt, follow};
use crate::select;
use crate::ui::Ui;
use outpost_args::DispatchArgs;

/// Folders above the current one in which a repository is looked for.
const PARENTS_MAX: usize = 64;

/// Makes a dispatch; with `--wait` stays with it.
pub(crate) async fn run(ctx: &Ctx, args: DispatchArgs) -> Result<Exit, CliError> {
    make(ctx, args).await.map_err(|error| match ctx.key_came_late(&error.message()) {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

async fn make(ctx: &Ctx, args: DispatchArgs) -> Result<Exit, CliError> {
    let (agent, task) = words(&args)?;
    let mut request = request(&args, agent, task)?;
    // The limits are checked before a server is started; the agent may not be known yet.
    let named = !request.agent.is_empty();
    if !named {
        request.agent = "first-available".to_owned();
    }
    check::request(&request, args.idempotency_key.as_deref())?;
    let connection = ctx.connect().await?;
    if let Some(earlier) = &args.continue_from {
        let id = select::dispatch(&*connection.api, earlier).await?;
        request.continue_from = Some(id.to_string());
        if !named {
            request.agent = connection.api.get_dispatch(id, None, None).await?.agent;
        }
    } else if !named {
        request.agent = choose_agent(&ctx.ui, &*connection.api).await?;
    }
    if !args.no_repo && args.continue_from.is_none() {
        request.repo = repo(request.repo, connection.local)?;
        check::request(&request, args.idempotency_key.as_deref())?;
    }
    send(&ctx.ui, &*connection.api, request, &args).await
}

async fn send(
    ui: &Ui,
    api: &dyn Api,
    request: DispatchRequest,
    args: &DispatchArgs,
) -> Result<Exit, CliError> {
    let mut interrupts = args.wait.then(Interrupts::listen);
    let created = api.create_dispatch(request, args.idempotency_key.clone()).await?;
    let view = created.dispatch;
    if created.replayed {
        ui.note("This idempotency key was used before: here is the dispatch it made then.");
    }
    match interrupts.as_mut() {
        Some(interrupts) => wait(ui, api, &view, interrupts, args.cancel_on_interrupt).await,
        None => announce(ui, &view),
    }
}

fn announce(ui: &Ui, view: &DispatchView) -> Result<Exit, CliError> {
    if ui.verbosity.json {
        ui.json(view)?;
        return Ok(Exit::Ok);
    }
    ui.data(&view.dispatch_id.to_string())?;
    let id = short_id(view.dispatch_id);
    let repo = match &view.repo {
        Some(repo) => format!(" on {}", sanitize::line(repo)),
        None => String::new(),
    };
    let model = sanitize::line(&view.model_id);
    ui.note(&format!(
        "{} ({model}) works{repo}. Next:\n  outpost logs -f {id}    watch it\n  outpost status {id}     where it stands\n  outpost cancel {id}     stop it",
        sanitize::line(&view.agent)
    ));
    Ok(Exit::Ok)
}

async fn wait(
    ui: &Ui,
    api: &dyn Api,
    view: &DispatchView,
    interrupts: &mut Interrupts,
    cancel_on_interrupt: bool,
) -> Result<Exit, CliError> {
    let (id, short) = (view.dispatch_id, short_id(view.dispatch_id));
    let (on_interrupt, what) = if cancel_on_interrupt {
        (OnInterrupt::Cancel, "cancels it")
    } else {
        (OnInterrupt::Detach, "leaves it running")
    };
    ui.note(&ui.err.dim(&format!("Dispatch {id}; Ctrl-C {what}.")));
    match follow(ui, api, view, interrupts, on_interrupt).await? {
        Followed::Ended(view) => {
            if ui.verbosity.json {
                ui.json(&*view)?;
            } else {
                ui.note("");
                ui.data(&card(ui.out, &view, now()))?;
                next_steps(ui, &view);
            }
            Ok(Exit::of_status(view.status))
        }
        Followed::Detached => {
            ui.err_line(&format!(
                "Dispatch {id} goes on without you. Next:\n  outpost logs -f {short}    watch it again\n  outpost cancel {short}     stop it"
            ));
            Ok(Exit::Cancelled)
        }
    }
}

fn next_steps(ui: &Ui, view: &DispatchView) {
    let id = short_id(view.dispatch_id);
    if view.files_changed.unwrap_or(0) > 0 {
        ui.note(&format!(
            "\nNext:\n  outpost diff {id}      look at the changes\n  outpost apply {id}     take them"
        ));
    } else if view.failure.is_some() {
        ui.note(&format!("\nNext:\n  outpost logs {id}      what happened"));
    }
}

/// Agent and task from the words, the flags and the file.
fn words(args: &DispatchArgs) -> Result<(Option<String>, String), CliError> {
    let from_file = args.task_file.is_some();
    let (agent, task) = match (args.words.as_slice(), from_file) {
        ([], true) => (None, None),
        ([agent], true) => (Some(agent), None),
        ([task], false) => (None, Some(task)),
        ([agent, task], false) => (Some(agent), Some(task)),
        ([], false) => {
            return Err(CliError::usage("there is no task").with_hint(
                "outpost dispatch \"fix the failing test\"; - reads it from standard input",
            ));
        }
        (_, true) => {
            return Err(CliError::usage("a task was given both in words and with --task-file"));
        }
        (_, false) => {
            return Err(CliError::usage("the task is several words without quotes")
                .with_hint("outpost dispatch \"fix the failing test\""));
        }
    };
    if let (Some(word), Some(flag)) = (agent, &args.agent)
        && word != flag
        && std::env::var("OUTPOST_AGENT").as_ref() != Ok(flag)
    {
        return Err(CliError::usage(format!(
            "two agents are named: {word:?} and --agent {flag:?}"
        )));
    }
    let agent = agent.or(args.agent.as_ref()).cloned();
    let task = match (task.map(String::as_str), &args.task_file) {
        (_, Some(path)) => read_task(path)?,
        (Some("-"), None) => bounded(std::io::stdin().lock(), "standard input")?,
        (task, None) => task.unwrap_or_default().to_owned(),
    };
    Ok((agent, task))
}

fn read_task(path: &Path) -> Result<String, CliError> {
    let name = format!("--task-file {}", path.display());
    let file = std::fs::File::open(path)
        .map_err(|error| CliError::usage(format!("{name} cannot be read: {error}")))?;
    bounded(file, &name)
}

/// At most one byte more than allowed, so that the limit's own error follows.
fn bounded(reader: impl Read, name: &str) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    reader
        .take(TASK_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::usage(format!("{name} cannot be read: {error}")))?;
    if bytes.len() > TASK_BYTES_MAX {
        return Err(CliError::usage(format!(
            "{name} holds more than the {TASK_BYTES_MAX} bytes a task may have"
        ))
        .with_hint("put long material into a file of the repository and name it in the task"));
    }
    String::from_utf8(bytes).map_err(|_| CliError::usage(format!("{name} is not UTF-8 text")))
}

fn request(
    args: &DispatchArgs,
    agent: Option<String>,
    task: String,
) -> Result<DispatchRequest, CliError> {
    Ok(DispatchRequest {
        agent: agent.unwrap_or_default(),
        task,
        model_id: args.model.clone(),
        repo: args.repo.clone(),
        branch: args.branch.clone(),
        context_level: args.context_level.map(Into::into),
        workspace_mode: workspace_mode(args),
        timeout_seconds: args.timeout,
        priority: args.priority.map(Into::into),
        deadline_seconds: args.deadline,
        user_id: args.user.clone(),
        tags: args.tags.clone(),
        checks: args.checks.clone(),
        setup: args.setup.clone(),
        network: args.network.map(Into::into),
        tier: args.tier.map(Into::into),
        budget_usd: args.budget,
        secrets: args.secrets.clone(),
        allow_hosts: args.allow_hosts.clone(),
        continue_from: None,
    })
}

fn workspace_mode(args: &DispatchArgs) -> Option<WorkspaceMode> {
    match args.persistent {
        true => Some(WorkspaceMode::Persistent),
        false => args.workspace_mode.map(Into::into),
    }
}

/// The first agent that can run.
async fn choose_agent(ui: &Ui, api: &dyn Api) -> Result<String, CliError> {
    let fleet = api.fleet().await?;
    let available = fleet.agents.iter().find(|agent| agent.availability.available);
    if let Some(agent) = available {
        let name = sanitize::line(&agent.agent);
        ui.note(&ui.err.dim(&format!("Agent: {name} (the first available; --agent chooses).")));
        return Ok(agent.agent.clone());
    }
    let reasons: Vec<String> = fleet
        .agents
        .iter()
        .map(|agent| {
            let reason = agent.availability.reason.as_deref().unwrap_or("no reason given");
            format!("\n  {}: {}", sanitize::line(&agent.agent), sanitize::line(reason))
        })
        .collect();
    Err(CliError::failed(format!("no agent is available here:{}", reasons.concat())).with_hint(
        "`outpost agents install codex` installs one; keys come from the server's environment",
    ))
}

/// What the server is to be told: paths made absolute, and the repository around the current
/// directory when none is named.
fn repo(named: Option<String>, server_is_local: bool) -> Result<Option<String>, CliError> {
    let elsewhere = || {
        CliError::usage("the server is on another machine and cannot read this directory")
            .with_hint("name a repository it can fetch: --repo owner/name or an https address; or --no-repo")
    };
    let Some(text) = named else {
        let current = std::env::current_dir()?;
        return match repository_around(&current) {
            Some(_) if !server_is_local => Err(elsewhere()),
            Some(root) => utf8(root).map(Some),
            None => Ok(None),
        };
    };
    if !text.starts_with(['.', '/', '~']) {
        return Ok(Some(text));
    }
    if !server_is_local {
        return Err(elsewhere());
    }
    let path = std::fs::canonicalize(&text)
        .map_err(|error| CliError::usage(format!("--repo {text} cannot be used: {error}")))?;
    utf8(path).map(Some)
}

fn utf8(path: PathBuf) -> Result<String, CliError> {
    path.into_os_string().into_string().map_err(|path| {
        CliError::usage(format!("the path {} is not UTF-8 text", Path::new(&path).display()))
            .with_hint("move or link the repository to a path that is")
    })
}

/// The work tree that `from` lies in. Git itself is not asked, since it would run what the
/// repository's configuration names.
pub(crate) fn repository_around(from: &Path) -> Option<PathBuf> {
    from.ancestors().take(PARENTS_MAX).find(|dir| dir.join(".git").exists()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::fake::{Call, FakeApi};
    use crate::ui::Verbosity;
    use outpost_args::{Cli, Command};

    fn parse(line: &[&str]) -> DispatchArgs {
        let line = ["outpost", "dispatch"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Dispatch(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn agent_and_task_in_every_order() {
        for (line, agent, task) in [
            (vec!["do it"], None, "do it"),
            (vec!["claude", "do it"], Some("claude"), "do it"),
            (vec!["-a", "codex", "do it"], Some("codex"), "do it"),
            (vec!["do it", "--agent", "codex"], Some("codex"), "do it"),
            (vec!["codex", "do it", "--agent", "codex"], Some("codex"), "do it"),
        ] {
            let (found, text) = words(&parse(&line)).unwrap();
            assert_eq!((found.as_deref(), text.as_str()), (agent, task), "{line:?}");
        }
        for line in [
            vec![],
            vec!["fix", "the", "test"],
            vec!["claude", "do it", "--agent", "codex"],
            vec!["a", "b", "--task-file", "x"],
            vec!["--task-file", "/nonexistent/task"],
        ] {
            let error = words(&parse(&line)).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{line:?}");
        }
    }

    #[test]
    fn a_task_file_has_the_bound_of_a_task() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x".repeat(TASK_BYTES_MAX + 1)).unwrap();
        assert!(read_task(file.path()).is_err());
        std::fs::write(file.path(), "täsk\n").unwrap();
        assert_eq!(read_task(file.path()).unwrap(), "täsk\n");
        std::fs::write(file.path(), b"\xff").unwrap();
        assert!(read_task(file.path()).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn paths_become_absolute_and_stay_off_remote_servers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        assert_eq!(repo(Some("owner/name".into()), false).unwrap().unwrap(), "owner/name");
        assert!(repo(Some(path.clone()), true).unwrap().unwrap().starts_with('/'));
        assert!(repo(Some(path), false).is_err());
        assert!(repo(Some("./does-not-exist".into()), true).is_err());
    }

    #[test]
    fn the_repository_is_found_from_below() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(repository_around(&deep), None);
        // A worktree has a file there.
        std::fs::write(dir.path().join(".git"), "gitdir: x").unwrap();
        assert_eq!(repository_around(&deep).as_deref(), Some(dir.path()));
    }

    #[test]
    fn a_persistent_workspace_is_asked_for_in_two_ways() {
        for flags in [vec!["--persistent"], vec!["--workspace-mode", "persistent"]] {
            let args = parse(&[vec!["do it", "--user", "ann"], flags].concat());
            let wish = request(&args, None, "do it".into()).unwrap();
            assert_eq!(wish.workspace_mode, Some(WorkspaceMode::Persistent));
            assert_eq!(wish.user_id.as_deref(), Some("ann"));
        }
        assert_eq!(workspace_mode(&parse(&["do it"])), None);
    }

    #[tokio::test]
    async fn without_waiting_standard_output_is_the_id() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let args = parse(&["claude", "do it", "--tag", "x", "-t", "10m", "--idempotency-key", "k"]);
        let wish = request(&args, Some("claude".into()), "do it".into()).unwrap();
        let api = FakeApi::default();
        assert_eq!(send(&ui, &api, wish.clone(), &args).await.unwrap(), Exit::Ok);
        assert_eq!(out.text().trim().len(), 26);
        assert!(err.text().contains("outpost logs -f"));
        assert_eq!(wish.timeout_seconds, Some(600));
        assert_eq!(api.calls(), [Call::Create(Box::new(wish), Some("k".into()))]);
    }

    #[tokio::test]
    async fn waiting_streams_to_stderr_and_shows_the_result() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let args = parse(&["do it", "--wait"]);
        let wish = request(&args, Some("claude".into()), "do it".into()).unwrap();
        let exit = send(&ui, &FakeApi::default(), wish, &args).await.unwrap();
        assert_eq!(exit, Exit::Ok);
        assert!(err.text().contains("● Bash python3 -m unittest"));
        assert!(out.text().contains("COMPLETED") && !out.text().contains("● Bash"));
    }

    #[tokio::test]
    async fn an_agent_is_chosen_by_what_is_available() {
        let (ui, ..) = Ui::captured(Verbosity::default());
        let chosen = choose_agent(&ui, &FakeApi::default()).await.unwrap();
        assert_eq!(chosen, "codex");
    }
}
