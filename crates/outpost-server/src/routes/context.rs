//! What an agent was told before its task.

use axum::extract::Extension;
use axum::response::Response;
use http::{StatusCode, Uri};
use outpost_types::ContextView;

use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::IdPath;
use crate::routes::json;

/// Most answers need no more beside their text, bytes.
const CONTEXT_BYTES_USUAL: usize = 4 * 1024;

/// Read what the agent was told before its task
///
/// The text that was put before the task, where each part of it comes from, and how often something was
/// masked. There is none before the workspace is being prepared; that of an agent whose session goes on is
/// empty.
#[utoipa::path(
    get, path = "/dispatch/{id}/context", operation_id = "readContext", tag = "dispatches",
    params(("id" = String, Path, description = "Id of the dispatch")),
    responses((status = 200, description = "The context", body = ContextView)),
)]
pub(crate) async fn read(
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.context(id).await?;
    Ok(json(StatusCode::OK, &view, CONTEXT_BYTES_USUAL + view.text.len()))
}
