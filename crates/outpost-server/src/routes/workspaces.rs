//! Persistent workspaces: listing, looking at and deleting them. Dispatches make them.

use axum::extract::Extension;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri};
use outpost_types::{Page, WorkspaceView};

use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::WorkspacePath;
use crate::routes::json;

/// Most answers about one workspace need no more, bytes.
const WORKSPACE_BYTES_USUAL: usize = 512;

/// List persistent workspaces
///
/// The last used first, at most 1,000, so there is only one page.
#[utoipa::path(
    get, path = "/workspaces", operation_id = "listWorkspaces", tag = "workspaces",
    responses((status = 200, description = "All of them", body = Page<WorkspaceView>)),
)]
pub(crate) async fn list(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let items = session.api.list_workspaces().await?;
    let bytes_usual = WORKSPACE_BYTES_USUAL * items.len().max(1);
    Ok(json(StatusCode::OK, &Page { items, next_cursor: None }, bytes_usual))
}

/// Look at a persistent workspace
#[utoipa::path(
    get, path = "/workspaces/{id}", operation_id = "getWorkspace", tag = "workspaces",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "What is known of it", body = WorkspaceView)),
)]
pub(crate) async fn get(
    Extension(session): Extension<Session>,
    WorkspacePath(id): WorkspacePath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.get_workspace(&id).await?;
    Ok(json(StatusCode::OK, &view, WORKSPACE_BYTES_USUAL))
}

/// Delete a persistent workspace
///
/// With all its files; the next dispatch of its user in its repository starts afresh. Refused while a run is in
/// it.
#[utoipa::path(
    delete, path = "/workspaces/{id}", operation_id = "deleteWorkspace", tag = "workspaces",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete(
    Extension(session): Extension<Session>,
    WorkspacePath(id): WorkspacePath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    session.api.delete_workspace(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
