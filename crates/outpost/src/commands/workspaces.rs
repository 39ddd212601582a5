//! `outpost workspaces`: list, show and delete persistent workspaces.

use outpost_types::{Api, ApiError, ErrorCode, is_workspace_id};

use crate::clock::now;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Lists them.
pub(crate) async fn ls(ui: &Ui, api: &dyn Api) -> Result<Exit, CliError> {
    let views = api.list_workspaces().await?;
    if ui.verbosity.json {
        ui.json(&views)?;
    } else if views.is_empty() {
        ui.note("There is no persistent workspace. `outpost dispatch --persistent` makes one.");
    } else {
        ui.data(&outpost_terminal::workspaces(ui.out, &views, now()))?;
    }
    Ok(Exit::Ok)
}

/// Shows one.
pub(crate) async fn show(ui: &Ui, api: &dyn Api, id: &str) -> Result<Exit, CliError> {
    let view = api.get_workspace(&find(api, id).await?).await.map_err(unknown)?;
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        ui.data(&outpost_terminal::workspace(&view, now()))?;
    }
    Ok(Exit::Ok)
}

/// Deletes one.
pub(crate) async fn rm(ui: &Ui, api: &dyn Api, id: &str) -> Result<Exit, CliError> {
    let id = find(api, id).await?;
    api.delete_workspace(&id).await.map_err(unknown)?;
    if ui.verbosity.json {
        ui.json(&serde_json::json!({ "id": id, "deleted": true }))?;
    } else {
        ui.note(&format!("The workspace {id} is deleted; the next dispatch starts afresh."));
    }
    Ok(Exit::Ok)
}

/// The whole id.
async fn find(api: &dyn Api, text: &str) -> Result<String, CliError> {
    if is_workspace_id(text) {
        return Ok(text.to_owned());
    }
    let views = api.list_workspaces().await?;
    let mut found = views.into_iter().map(|view| view.id).filter(|id| id.starts_with(text));
    let refused = |what: &str| {
        CliError::failed(format!("{what} begins with {text:?}"))
            .with_hint("`outpost workspaces ls` shows them")
    };
    match (found.next().filter(|_| !text.is_empty()), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(refused("more than one persistent workspace")),
        _ => Err(refused("no persistent workspace")),
    }
}

fn unknown(error: ApiError) -> CliError {
    match error.code {
        ErrorCode::NotFound => error.with_hint("`outpost workspaces ls` shows them").into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use outpost_types::WorkspaceView;

    use super::*;
    use crate::fake::{Call, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn the_list_names_user_repository_and_state() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        ls(&ui, &FakeApi::default()).await.unwrap();
        let text = out.text();
        let row = |user: &str| text.lines().find(|line| line.contains(user)).unwrap().to_owned();
        assert!(row("ann").starts_with("aaaaaaaaaaaa ") && row("ann").contains("in use"), "{text}");
        assert!(row("default").contains("free") && row("default").contains("2 KB"), "{text}");
    }

    #[tokio::test]
    async fn one_is_found_by_the_beginning_of_its_id() {
        let api = FakeApi::default();
        let (ui, out, _) = Ui::captured(Verbosity::default());
        show(&ui, &api, "aa").await.unwrap();
        assert!(out.text().contains("user    ann\n"), "{}", out.text());
        rm(&ui, &api, "bb").await.unwrap();
        assert_eq!(api.calls(), [Call::DeleteWorkspace("b".repeat(32))]);
        for wrong in ["", "c", "ab"] {
            assert!(show(&ui, &api, wrong).await.is_err(), "{wrong:?}");
        }
        let busy = rm(&ui, &api, "aa").await.unwrap_err();
        assert!(busy.to_string().contains("A run is in the workspace"), "{busy}");
        let unknown = rm(&ui, &api, &"c".repeat(32)).await.unwrap_err();
        assert!(unknown.message().contains("no such"), "{unknown}");
    }

    #[tokio::test]
    async fn json_is_the_whole_document() {
        let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        ls(&ui, &FakeApi::default()).await.unwrap();
        let views: Vec<WorkspaceView> = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(views, FakeApi::default().list_workspaces().await.unwrap());
    }
}
