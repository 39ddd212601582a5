//! Promoting a dispatch: its changes become a branch and a pull request.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use outpost_types::limits::{
    FOLLOW_ROUNDS_MAX, PROMOTE_BODY_BYTES_MAX, PROMOTE_BRANCH_BYTES_MAX, PROMOTE_TITLE_BYTES_MAX,
    WAIT_SECONDS_MAX,
};
use outpost_types::{ApiError, ErrorCode, PromoteRequest, PromotionView};

use crate::body;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::IdPath;
use crate::routes::{ANSWER_BYTES_USUAL, Shared, json};
use crate::stop::stopped;

/// Longest body that asks for a promotion, bytes: each byte of the longest texts escaped, and a rest.
const PROMOTE_REQUEST_BYTES_MAX: usize = 6 * (PROMOTE_BODY_BYTES_MAX + 1024) + 16 * 1024;

/// Promote a dispatch
///
/// Pushes the changes of a dispatch that has ended as a branch, and opens a pull request. When this answers,
/// that is on disk, and goes on by itself. However often it is asked for there is one branch and one pull
/// request: a repeated request answers the promotion there is, with the header `Idempotency-Replayed: true`.
/// One that failed is tried again. With `feedback`, also for a pull request that is there, failed checks and
/// comments of those who belong to the repository become new dispatches, whose commits are pushed to the same
/// branch; `followUp` says how far that is.
#[utoipa::path(
    post, path = "/promote", operation_id = "promote", tag = "promotions",
    params(("wait" = Option<u64>, Query, minimum = 0, maximum = 60,
        description = "Seconds to wait for its end")),
    request_body(content = PromoteRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "Begun and durable", body = PromotionView, headers(
            ("Location" = String, description = "Address of the promotion"),
        )),
        (status = 200, description = "It was begun before", body = PromotionView, headers(
            ("Idempotency-Replayed" = String, description = "`true`"),
        )),
    ),
)]
pub(crate) async fn promote(
    State(shared): State<Arc<Shared>>,
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(request.uri().query())?;
    let wait = query.number("wait", 0..=WAIT_SECONDS_MAX)?;
    query.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: PromoteRequest = body::read_json(&parts.headers, body, PROMOTE_REQUEST_BYTES_MAX)
        .await?
        .ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send at least {\"dispatchId\": …}.")
        })?;
    check(&wanted)?;
    let id = wanted.dispatch_id;
    tracing::Span::current().record("dispatch_id", tracing::field::display(id));
    let mut promoted = session.api.promote(wanted, None).await?;
    if let Some(wait) = wait.filter(|_| !promoted.promotion.status.is_over()) {
        promoted.promotion = tokio::select! {
            view = session.api.promotion(id, Some(Duration::from_secs(wait))) => view?,
            // A stopping server answers with what it has; the next one goes on with the promotion.
            () = stopped(&parts.extensions) => promoted.promotion,
        };
    }
    let status = if promoted.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = json(status, &promoted.promotion, ANSWER_BYTES_USUAL);
    let headers = response.headers_mut();
    let base = shared.config.public_url.as_deref().unwrap_or_default();
    if promoted.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    } else if let Ok(location) = HeaderValue::try_from(format!("{base}/promote/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Read a promotion
///
/// With `wait`, answers as soon as it is over, or the time is.
#[utoipa::path(
    get, path = "/promote/{id}", operation_id = "getPromotion", tag = "promotions",
    params(
        ("id" = String, Path, description = "Id of the dispatch"),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 60,
            description = "Seconds to wait for its end"),
    ),
    responses((status = 200, description = "The promotion", body = PromotionView)),
)]
pub(crate) async fn get(
    Extension(session): Extension<Session>,
    IdPath(id): IdPath,
    request: Request,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(request.uri().query())?;
    let wait = query.number("wait", 0..=WAIT_SECONDS_MAX)?;
    query.finish()?;
    let now = session.api.promotion(id, None).await?;
    let view = match wait.filter(|_| !now.status.is_over()) {
        None => now,
        Some(wait) => tokio::select! {
            view = session.api.promotion(id, Some(Duration::from_secs(wait))) => view?,
            () = stopped(request.extensions()) => now,
        },
    };
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

/// Checks the bounds of every field.
pub(crate) fn check(request: &PromoteRequest) -> Result<(), ApiError> {
    let optional = [
        ("branch", &request.branch, PROMOTE_BRANCH_BYTES_MAX),
        ("title", &request.title, PROMOTE_TITLE_BYTES_MAX),
        ("body", &request.body, PROMOTE_BODY_BYTES_MAX),
    ];
    for (name, value, bytes_max) in optional {
        if value.as_ref().is_some_and(|value| !(1..=bytes_max).contains(&value.len())) {
            return Err(ApiError::field(name, format!("`{name}` must be 1 to {bytes_max} bytes.")));
        }
    }
    if request.feedback.is_some_and(|feedback| feedback.rounds > FOLLOW_ROUNDS_MAX) {
        let message = format!("`feedback.rounds` must be 0 to {FOLLOW_ROUNDS_MAX}.");
        return Err(ApiError::field("feedback.rounds", message));
    }
    Ok(())
}
