//! `outpost apply`: takes an agent's changes into the user's repository.

use std::path::Path;

use outpost_terminal::sanitize;
use outpost_types::Api;
use outpost_workspace::{ApplyReport, apply_patch_to};

use super::diff::fetch;
use super::dispatch::repository_around;
use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::ApplyArgs;

/// Shows what changes, then changes it.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &ApplyArgs) -> Result<Exit, CliError> {
    let dir = std::fs::canonicalize(&args.dir).map_err(|error| {
        CliError::usage(format!("--dir {} cannot be used: {error}", args.dir.display()))
    })?;
    let Some(root) = repository_around(&dir) else {
        return Err(CliError::usage(format!("{} is in no git repository", dir.display()))
            .with_hint("go to the repository, or name it with --dir"));
    };
    let id = select::dispatch(api, &args.id).await?;
    let patch = fetch(api, id).await?;
    if patch.is_empty() {
        let view = api.get_dispatch(id, None, None).await?;
        if !view.status.is_terminal() {
            return Err(CliError::failed("there is no diff yet: the dispatch has not ended")
                .with_hint(format!("`outpost status --wait {id}` waits for it")));
        }
        ui.note("The agent changed nothing, so there is nothing to apply.");
        return Ok(Exit::Ok);
    }
    let report = change(&root, patch, args.dry_run).await?;
    if ui.verbosity.json {
        ui.json(&serde_json::json!({
            "dispatchId": id, "directory": root, "applied": report.applied,
            "files": report.files, "merged": report.merged, "stat": report.stat
        }))?;
        return Ok(Exit::Ok);
    }
    ui.data(&sanitize::text(&report.stat))?;
    ui.note(&if !report.applied {
        "Nothing was changed; leave --dry-run out to apply it.".to_owned()
    } else if report.merged {
        format!(
            "Merged into {}, whose files had moved on; look at `git diff HEAD`. Nothing is committed.",
            root.display()
        )
    } else {
        format!("Applied to {}; nothing is committed.", root.display())
    });
    Ok(Exit::Ok)
}

/// Applies the patch, unless `dry_run`. Git runs on the user's own repository, with the user's own
/// configuration; what the patch may touch was checked before.
async fn change(root: &Path, patch: Vec<u8>, dry_run: bool) -> Result<ApplyReport, CliError> {
    let root = root.to_owned();
    let work = tokio::task::spawn_blocking(move || apply_patch_to(&root, &patch, dry_run));
    let result =
        work.await.map_err(|error| CliError::chain("the changes cannot be applied", &error))?;
    result.map_err(|error| CliError::chain("the changes cannot be applied", &error))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::fake::{self, FakeApi};
    use crate::ui::Verbosity;

    const BEFORE: &str = "def add(a, b):\n    return a - b\n";
    const PATCH: &str = "diff --git a/calc.py b/calc.py\n--- a/calc.py\n+++ b/calc.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n";

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("calc.py"), BEFORE).unwrap();
        for arguments in [
            vec!["init", "-q"],
            vec!["add", "-A"],
            vec!["-c", "user.name=a", "-c", "user.email=a@b.invalid", "commit", "-qm", "x"],
        ] {
            let status = Command::new("git").args(arguments).current_dir(dir.path()).status();
            assert!(status.unwrap().success());
        }
        dir
    }

    fn args(dir: &Path, dry_run: bool) -> ApplyArgs {
        ApplyArgs { id: fake::id(0).to_string(), dir: dir.to_owned(), dry_run }
    }

    fn api(patch: &str) -> FakeApi {
        FakeApi { patch: patch.as_bytes().to_vec(), ..FakeApi::default() }
    }

    #[tokio::test]
    async fn a_dry_run_changes_nothing_and_a_real_one_does() {
        let repository = repository();
        let file = repository.path().join("calc.py");
        let (ui, out, _) = Ui::captured(Verbosity::default());
        run(&ui, &api(PATCH), &args(repository.path(), true)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), BEFORE);
        run(&ui, &api(PATCH), &args(repository.path(), false)).await.unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("a + b"));
        assert!(out.text().contains("calc.py"));
        // A second time it does not fit, and nothing more happens.
        let error = run(&ui, &api(PATCH), &args(repository.path(), false)).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
    }

    #[tokio::test]
    async fn only_repositories_are_changed_and_only_by_what_there_is() {
        let (ui, _, err) = Ui::captured(Verbosity::default());
        let plain = tempfile::tempdir().unwrap();
        let error = run(&ui, &api(PATCH), &args(plain.path(), false)).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        let repository = repository();
        run(&ui, &api(""), &args(repository.path(), false)).await.unwrap();
        assert!(err.text().contains("nothing to apply"));
        let mut early = args(repository.path(), false);
        early.id = "last".into();
        let error = run(&ui, &api(""), &early).await.unwrap_err();
        assert!(error.to_string().contains("has not ended"));
    }
}
