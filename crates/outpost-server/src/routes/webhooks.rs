//! Webhooks: making, listing and removing them, and what was delivered. Only the answer that makes one has its
//! secret.

use axum::extract::{Extension, Request};
use axum::response::Response;
use http::{StatusCode, Uri};
use outpost_types::limits::{LIST_LIMIT_DEFAULT, WEBHOOK_URL_BYTES_MAX};
use outpost_types::{
    ApiError, CreateWebhook, CreatedWebhook, DeliveryView, ErrorCode, Page, WebhookKind,
    WebhookView,
};

use crate::body;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::ids::{DeliveryPath, WebhookPath};
use crate::routes::{ANSWER_BYTES_USUAL, json};

/// Longest body that makes a webhook, bytes: each byte of the longest address escaped, and a rest.
const WEBHOOK_BODY_BYTES_MAX: usize = 6 * WEBHOOK_URL_BYTES_MAX + 16 * 1024;

/// Make a webhook
///
/// From now on the address is told of events. The answer has the secret that signs them, which is shown only here.
/// Deliveries follow Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. Each event is
/// delivered at least once; tell repetitions by `webhook-id`.
#[utoipa::path(
    post, path = "/webhooks", operation_id = "createWebhook", tag = "webhooks",
    request_body(content = CreateWebhook, content_type = "application/json"),
    responses((status = 201, description = "Made and durable", body = CreatedWebhook)),
)]
pub(crate) async fn create(
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: CreateWebhook =
        body::read_json(&parts.headers, body, WEBHOOK_BODY_BYTES_MAX).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::MalformedBody, "The body is empty.")
                .with_hint("Send at least {\"url\": …}.")
        })?;
    check(&wanted)?;
    let created = session.api.create_webhook(wanted).await?;
    Ok(json(StatusCode::CREATED, &created, ANSWER_BYTES_USUAL))
}

fn check(wanted: &CreateWebhook) -> Result<(), ApiError> {
    if !(1..=WEBHOOK_URL_BYTES_MAX).contains(&wanted.url.len()) {
        let message = format!("`url` must be 1 to {WEBHOOK_URL_BYTES_MAX} bytes.");
        return Err(ApiError::field("url", message));
    }
    let most = WebhookKind::ALL.len();
    if wanted.events.as_ref().is_some_and(|events| !(1..=most).contains(&events.len())) {
        return Err(ApiError::field("events", format!("`events` must have 1 to {most} names.")));
    }
    Ok(())
}

/// List webhooks
///
/// Oldest first, at most 16, so there is only one page; never their secrets.
#[utoipa::path(
    get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks",
    responses((status = 200, description = "All of them", body = Page<WebhookView>)),
)]
pub(crate) async fn list(
    Extension(session): Extension<Session>,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let items = session.api.list_webhooks().await?;
    Ok(json(StatusCode::OK, &Page { items, next_cursor: None }, ANSWER_BYTES_USUAL))
}

/// Remove a webhook
///
/// With its secret. What waits for it is not delivered any more.
#[utoipa::path(
    delete, path = "/webhooks/{id}", operation_id = "deleteWebhook", tag = "webhooks",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "What it was", body = WebhookView)),
)]
pub(crate) async fn delete(
    Extension(session): Extension<Session>,
    WebhookPath(id): WebhookPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.delete_webhook(id).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

/// Test a webhook
///
/// Queues an event `webhook.test` for it alone. The list of its deliveries shows what came of it.
#[utoipa::path(
    post, path = "/webhooks/{id}/test", operation_id = "testWebhook", tag = "webhooks",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 202, description = "Queued and durable", body = DeliveryView)),
)]
pub(crate) async fn test(
    Extension(session): Extension<Session>,
    WebhookPath(id): WebhookPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.test_webhook(id).await?;
    Ok(json(StatusCode::ACCEPTED, &view, ANSWER_BYTES_USUAL))
}

/// List deliveries of a webhook
///
/// Newest first: what waits, what arrived, and what was given up after 8 tries.
#[utoipa::path(
    get, path = "/webhooks/{id}/deliveries", operation_id = "listDeliveries", tag = "webhooks",
    params(
        ("id" = String, Path, description = "Id of the webhook"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100,
            description = "Most of a page; 20 when absent"),
        ("cursor" = Option<u64>, Query, minimum = 1,
            description = "`nextCursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = Page<DeliveryView>)),
)]
pub(crate) async fn deliveries(
    Extension(session): Extension<Session>,
    WebhookPath(id): WebhookPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(uri.query())?;
    let limit = query.page_limit()?.unwrap_or(LIST_LIMIT_DEFAULT);
    let before = query.number("cursor", 1..=u64::MAX)?;
    query.finish()?;
    let page = session.api.deliveries(id, before, limit).await?;
    Ok(json(StatusCode::OK, &page, ANSWER_BYTES_USUAL))
}

/// Deliver again
///
/// Queues a delivery again with all its tries, whatever came of it.
#[utoipa::path(
    post, path = "/webhooks/{id}/deliveries/{delivery}/replay", operation_id = "replayDelivery",
    tag = "webhooks",
    params(
        ("id" = String, Path, description = "Id of the webhook"),
        ("delivery" = u64, Path, description = "Number of the delivery"),
    ),
    responses((status = 202, description = "Queued and durable", body = DeliveryView)),
)]
pub(crate) async fn replay(
    Extension(session): Extension<Session>,
    DeliveryPath { webhook, delivery }: DeliveryPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::parse(uri.query())?.finish()?;
    let view = session.api.replay_delivery(webhook, delivery).await?;
    Ok(json(StatusCode::ACCEPTED, &view, ANSWER_BYTES_USUAL))
}
