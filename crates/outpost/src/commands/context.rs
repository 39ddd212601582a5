//! `outpost context`: what an agent would be told of a repository before its task, and what one was told.

use std::path::Path;

use outpost_context::{
    CONTEXT_FILE_BYTES_MAX, Day, Profiles, Read, Scrubber, Wanted, build, wanted,
};
use outpost_terminal::sanitize;
use outpost_types::{Api, ContextLevel, ContextSkipReason, ContextView};
use outpost_workspace::{beginning_of, tracked_files_of};

use crate::clock::now;
use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::{PreviewArgs, ShowContextArgs};

/// Shows what would be told of a repository of this machine.
pub(crate) fn preview(ui: &Ui, profiles: &Profiles, args: &PreviewArgs) -> Result<Exit, CliError> {
    let (top, files) = tracked_files_of(&args.dir).map_err(|error| {
        CliError::usage(format!("--dir {} cannot be used: {error}", args.dir.display()))
    })?;
    let level: ContextLevel = args.level.into();
    let found = wanted(level, &files).into_iter().map(|wanted| read(&top, wanted));
    let today = Day::of_unix_seconds(now().as_millis() / 1_000);
    let read: Vec<_> = profiles.of(None).into_iter().chain(found).collect();
    show_view(ui, &build(level, today, &read, &files, &Scrubber::default()))
}

/// Shows what the agent of a dispatch was told.
pub(crate) async fn show(ui: &Ui, api: &dyn Api, args: &ShowContextArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    show_view(ui, &api.context(id).await?)
}

fn read(top: &Path, wanted: Wanted) -> Read {
    match beginning_of(top, &wanted.path, CONTEXT_FILE_BYTES_MAX) {
        Ok(beginning) => Read { wanted, bytes: beginning.size_bytes, content: Ok(beginning.bytes) },
        Err(error) => {
            let reason = match error.kind() {
                std::io::ErrorKind::InvalidInput => ContextSkipReason::Irregular,
                _ => ContextSkipReason::Unreadable,
            };
            Read { wanted, bytes: 0, content: Err(reason) }
        }
    }
}

/// The text is the data; where it comes from is a note.
fn show_view(ui: &Ui, view: &ContextView) -> Result<Exit, CliError> {
    if ui.verbosity.json {
        ui.json(view)?;
        return Ok(Exit::Ok);
    }
    if view.text.is_empty() {
        ui.note("There is nothing to tell before the task.");
    } else {
        ui.data(&sanitize::text(&view.text))?;
    }
    ui.note(&outpost_terminal::context(ui.err, view));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use outpost_args::ContextArg;

    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    #[test]
    fn a_preview_needs_no_server_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let done =
                std::process::Command::new("git").args(args).current_dir(dir.path()).status();
            assert!(done.unwrap().success());
        };
        git(&["init", "-q"]);
        std::fs::write(dir.path().join("README.md"), "A project.\n").unwrap();
        std::fs::create_dir(dir.path().join("docs")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("docs/SOUL.md")).unwrap();
        git(&["add", "."]);
        let args = PreviewArgs { level: ContextArg::Minimal, dir: dir.path().join("docs") };
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let none = Profiles::default();
        preview(&ui, &none, &args).unwrap();
        assert!(
            out.text().contains("A project.") && !out.text().contains("root"),
            "{}",
            out.text()
        );
        assert!(err.text().contains("docs/SOUL.md (a link"), "{}", err.text());
        let none = tempfile::tempdir().unwrap();
        let args = PreviewArgs { level: ContextArg::Minimal, dir: none.path().to_owned() };
        assert!(
            preview(&ui, &Profiles::default(), &args)
                .unwrap_err()
                .to_string()
                .contains("not inside a git repository")
        );
    }

    #[tokio::test]
    async fn what_was_told_is_shown() {
        let args = ShowContextArgs { id: "last".into() };
        let (ui, out, err) = Ui::captured(Verbosity::default());
        show(&ui, &FakeApi::default(), &args).await.unwrap();
        assert!(out.text().starts_with("# Project context"), "{}", out.text());
        assert!(err.text().contains("README.md"), "{}", err.text());
    }
}
