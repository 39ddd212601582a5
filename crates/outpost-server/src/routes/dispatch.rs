//! Creating, reading, changing, cancelling and listing dispatches.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, Uri, header};
use outpost_types::limits::{
    AGENT_ID_BYTES_MAX, CURSOR_BYTES_MAX, REPO_BYTES_MAX, TAG_BYTES_MAX, USER_ID_BYTES_MAX,
    WAIT_SECONDS_MAX,
};
use outpost_types::{
    ApiError, CancelRequest, DispatchRequest, DispatchView, ErrorCode, ListQuery, NetworkRequest,
    Page,
};

use crate::body::{self, FormShape};
use crate::bounds;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::IdPath;
use crate::routes::{ANSWER_BYTES_USUAL, Shared, json};
use crate::stop::stopped;

/// Longest status or instant a filter may hold, bytes.
const FILTER_BYTES_MAX: usize = 64;
/// A dispatch request as a form.
pub(crate) const DISPATCH_FORM: FormShape = FormShape {
    lists: &["tags", "checks", "setup", "secrets", "allowHosts"],
    numbers: &["timeoutSeconds", "deadlineSeconds", "budgetUsd"],
};

/// Create a dispatch
///
/// Gives a task to an agent. When this answers, the dispatch is on disk. With an `Idempotency-Key`
/// the request can be repeated for 24 hours: the same key and body answer the same dispatch, with
/// the header `Idempotency-Replayed: true`.
#[utoipa::path(
    post, path = "/dispatch", operation_id = "createDispatch", tag = "dispatches",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "1 to 255 visible ASCII characters that make the request repeatable")),
    request_body(content(
        (DispatchRequest = "application/json"),
        (DispatchRequest = "application/x-www-form-urlencoded"),
    )),
    responses((status = 201, description = "Accepted and durable", body = DispatchView, headers(
        ("Location" = String, description = "Address of the dispatch"),
        ("Idempotency-Replayed" = Option<String>, description = "`true` when it was made by an earlier request"),
    ))),
)]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let key = bounds::idempotency_key(request.headers())?;
    let (parts, body) = request.into_parts();
    let wanted: DispatchRequest =
        body::read(&parts.headers, body, DISPATCH_FORM).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send at least {\"agent\": …, \"task\": …}.")
        })?;
    bounds::dispatch(&wanted)?;
    let created = session.api.create_dispatch(wanted, key).await?;
    let id = created.dispatch.dispatch_id;
    tracing::Span::current().record("dispatch_id", tracing::field::display(id));
    let mut response = json(StatusCode::CREATED, &created.dispatch, ANSWER_BYTES_USUAL);
    let headers = response.headers_mut();
    let base = shared.config.public_url.as_deref().unwrap_or_default();
    if let Ok(location) = HeaderValue::try_from(format!("{base}/dispatch/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if created.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Read a dispatch
///
/// With `wait`, answers as soon as the dispatch changes, is finished, or the time is over.
#[utoipa::path(
    get, path = "/dispatch/{id}", operation_id = "getDispatch", tag = "dispatches",
    params(
        ("id" = String, Path, description = "Id of the dispatch"),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 60, description = "Seconds to wait for a change"),
        ("generation" = Option<u64>, Query, minimum = 0,
            description = "`generation` of the answer before: wait for a newer one"),
    ),
    responses((status = 200, description = "The dispatch", body = DispatchView)),
)]
pub(crate) async fn get(
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    request: Request,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(request.uri().query())?;
    let wait = query.number("wait", 0..=WAIT_SECONDS_MAX)?;
    let generation = query.number("generation", 0..=u64::MAX)?;
    query.finish()?;
    let Some(wait) = wait.filter(|seconds| *seconds > 0) else {
        let view = session.api.get_dispatch(id, None, None).await?;
        return Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL));
    };
    let wait = Some(Duration::from_secs(wait));
    let view = tokio::select! {
        view = session.api.get_dispatch(id, wait, generation) => view?,
        // A stopping server answers with what it has; the client asks the next one.
        () = stopped(request.extensions()) => session.api.get_dispatch(id, None, None).await?,
    };
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

/// Cancel a dispatch
///
/// When this answers, the wish is on disk; the agent's processes end within the grace period.
#[utoipa::path(
    delete, path = "/dispatch/{id}", operation_id = "cancelDispatch", tag = "dispatches",
    params(("id" = String, Path, description = "Id of the dispatch")),
    request_body(content(
        (CancelRequest = "application/json"),
        (CancelRequest = "application/x-www-form-urlencoded"),
    ), description = "May be absent"),
    responses((status = 202, description = "It is being cancelled, or is", body = DispatchView)),
)]
pub(crate) async fn cancel(
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let shape = FormShape { lists: &[], numbers: &[] };
    let wanted: CancelRequest = body::read(&parts.headers, body, shape).await?.unwrap_or_default();
    bounds::cancel(&wanted)?;
    let view = session.api.cancel_dispatch(id, wanted).await?;
    Ok(json(StatusCode::ACCEPTED, &view, ANSWER_BYTES_USUAL))
}

/// Change what a dispatch may reach
///
/// While it waits or its agent runs; within what the operator allows. When this answers, the change is on
/// disk. It is in force for the next connection, and open ones that it does not allow are cut.
#[utoipa::path(
    patch, path = "/dispatch/{id}", operation_id = "changeNetwork", tag = "dispatches",
    params(("id" = String, Path, description = "Id of the dispatch")),
    request_body(content(
        (NetworkRequest = "application/json"),
        (NetworkRequest = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "The dispatch with its network", body = DispatchView)),
)]
pub(crate) async fn change_network(
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let shape = FormShape { lists: &["allowHosts"], numbers: &[] };
    let wanted: NetworkRequest =
        body::read(&parts.headers, body, shape).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send {\"network\": …}, {\"allowHosts\": […]} or both.")
        })?;
    bounds::network(&wanted)?;
    let view = session.api.change_network(id, wanted).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

/// List dispatches
///
/// Newest first. A page is the last when it has no `nextCursor`, not when it is short: what one answer
/// may cost is bounded, so with filters that seldom match together a page may hold fewer than `limit`
/// dispatches, even none, and the search goes on with its `nextCursor`.
#[utoipa::path(
    get, path = "/runs", operation_id = "listRuns", tag = "dispatches",
    params(ListQuery),
    responses((status = 200, description = "One page", body = Page<DispatchView>)),
)]
pub(crate) async fn runs(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let wanted = ListQuery {
        limit: query.page_limit()?,
        status: query.text("status", FILTER_BYTES_MAX)?,
        agent: query.text("agent", AGENT_ID_BYTES_MAX)?,
        repo: query.text("repo", REPO_BYTES_MAX)?,
        user: query.text("user", USER_ID_BYTES_MAX)?,
        tag: query.text("tag", TAG_BYTES_MAX)?,
        since: query.text("since", FILTER_BYTES_MAX)?,
        until: query.text("until", FILTER_BYTES_MAX)?,
        cursor: query.text("cursor", CURSOR_BYTES_MAX)?,
    };
    query.finish()?;
    let page = session.api.list_runs(wanted).await?;
    Ok(json(StatusCode::OK, &page, ANSWER_BYTES_USUAL * page.items.len().max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_knows_every_list_and_number_of_a_request() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi_json()).unwrap();
        let fields = &document["components"]["schemas"]["DispatchRequest"]["properties"];
        for (name, field) in fields.as_object().unwrap() {
            let kind = field["type"].to_string();
            let known = |names: &[&str]| names.contains(&name.as_str());
            assert_eq!(kind.contains("array"), known(DISPATCH_FORM.lists), "{name}");
            let numeric = kind.contains("number") || kind.contains("integer");
            assert_eq!(numeric, known(DISPATCH_FORM.numbers), "{name}");
        }
    }
}
