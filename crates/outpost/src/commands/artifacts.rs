//! `outpost artifacts`: lists and fetches kept files.

use std::io::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use outpost_terminal::{artifact_previews, artifacts};
use outpost_types::Api;
use outpost_types::limits::SIGNED_URL_SECONDS_DEFAULT;

use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::{ArtifactGetArgs, ArtifactsArgs, ArtifactsCommand, ArtifactsLsArgs};

/// Runs a command below `outpost artifacts`.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: ArtifactsArgs) -> Result<Exit, CliError> {
    match args.command {
        ArtifactsCommand::Ls(args) => ls(ui, api, &args).await,
        ArtifactsCommand::Get(args) => get(ui, api, &args).await,
    }
}

async fn ls(ui: &Ui, api: &dyn Api, args: &ArtifactsLsArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    let life = Duration::from_secs(SIGNED_URL_SECONDS_DEFAULT);
    let views = if args.preview {
        api.artifacts_with_previews(id, life).await?
    } else {
        api.artifacts(id, life).await?
    };
    if ui.verbosity.json {
        ui.json(&views)?;
    } else if views.is_empty() {
        ui.note("Nothing is kept of it.");
    } else if args.preview {
        ui.data(&artifact_previews(ui.out, &views))?;
    } else {
        ui.data(&artifacts(ui.out, &views))?;
    }
    Ok(Exit::Ok)
}

/// Bytes as they are, so never to a terminal: an agent wrote them.
async fn get(ui: &Ui, api: &dyn Api, args: &ArtifactGetArgs) -> Result<Exit, CliError> {
    if args.output.is_none() && ui.out.tty {
        return Err(CliError::usage("a kept file is not written to a terminal")
            .with_hint("name a file with --output, or `outpost artifacts ls --preview`"));
    }
    let id = select::dispatch(api, &args.id).await?;
    let mut stream = api.artifact(id, &args.name).await?;
    let Some(path) = &args.output else {
        while let Some(piece) = stream.next().await {
            ui.data_bytes(&piece?)?;
        }
        return Ok(Exit::Ok);
    };
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let mut file = std::fs::File::create_new(path).map_err(failed)?;
    while let Some(piece) = stream.next().await {
        file.write_all(&piece?).map_err(failed)?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn what_is_kept_is_listed_and_what_is_not_there_is_an_error() {
        let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        let api = FakeApi::default();
        let args = ArtifactsLsArgs { id: "last".into(), preview: true };
        ls(&ui, &api, &args).await.unwrap();
        assert_eq!(out.text().trim(), "[]");
        let dir = tempfile::tempdir().unwrap();
        let output = Some(dir.path().join("file"));
        let args = ArtifactGetArgs { id: "last".into(), name: "no.txt".into(), output };
        assert!(get(&ui, &api, &args).await.is_err());
        assert!(!dir.path().join("file").exists(), "nothing is written for what is not there");
    }
}
