//! Webhooks of the fake `Api`.

use async_trait::async_trait;
use outpost_types::{
    ApiError, CreateWebhook, CreatedWebhook, DeliveryState, DeliveryView, Page, Timestamp,
    WebhookApi, WebhookId, WebhookKind, WebhookView,
};

use crate::FakeApi;

/// A webhook that is there.
pub fn webhook() -> WebhookView {
    WebhookView {
        id: WebhookId::from_parts(1, 1),
        url: "https://example.com/hook".into(),
        events: vec![WebhookKind::CostRecorded],
        created_at: Timestamp::from_millis(1),
    }
}

/// A delivery of it that was given up.
pub(crate) fn delivery(id: u64) -> DeliveryView {
    DeliveryView {
        id,
        event_id: "cost-1".into(),
        kind: WebhookKind::CostRecorded,
        at: Timestamp::from_millis(1),
        state: DeliveryState::Dead,
        tries: 8,
        due_at: None,
        tried_at: Some(Timestamp::from_millis(2)),
        status_code: Some(500),
        problem: Some("the receiver answered 500\u{1b}[2J".into()),
    }
}

fn known(id: WebhookId) -> Result<WebhookView, ApiError> {
    if id == webhook().id { Ok(webhook()) } else { Err(ApiError::not_found()) }
}

#[async_trait]
impl WebhookApi for FakeApi {
    async fn create_webhook(&self, request: CreateWebhook) -> Result<CreatedWebhook, ApiError> {
        let events = request.events.unwrap_or_else(|| WebhookKind::ALL.into());
        let webhook = WebhookView { url: request.url, events, ..webhook() };
        Ok(CreatedWebhook { webhook, secret: "whsec_fake".into() })
    }

    async fn list_webhooks(&self) -> Result<Vec<WebhookView>, ApiError> {
        Ok(vec![webhook()])
    }

    async fn delete_webhook(&self, id: WebhookId) -> Result<WebhookView, ApiError> {
        known(id)
    }

    async fn test_webhook(&self, id: WebhookId) -> Result<DeliveryView, ApiError> {
        known(id).map(|_| delivery(3))
    }

    async fn deliveries(
        &self,
        id: WebhookId,
        _before: Option<u64>,
        _limit: u32,
    ) -> Result<Page<DeliveryView>, ApiError> {
        known(id).map(|_| Page { items: vec![delivery(2)], next_cursor: None })
    }

    async fn replay_delivery(&self, id: WebhookId, number: u64) -> Result<DeliveryView, ApiError> {
        known(id)?;
        Ok(DeliveryView { state: DeliveryState::Waiting, tries: 0, ..delivery(number) })
    }
}
