//! Webhooks of the backend in memory: the tenant `local` has one once it has a workspace; nobody else has any.

use async_trait::async_trait;
use outpost_types::{
    Api as _, ApiError, CreateWebhook, CreatedWebhook, DeliveryState, DeliveryView, Page,
    Timestamp, WebhookApi, WebhookId, WebhookKind, WebhookView,
};

use crate::memory::Session;

/// The webhook of the tenant `local`.
pub(crate) const WEBHOOK: &str = "01J9Z3NDEKTSV4RRFFQ69G5FAW";

fn view(id: WebhookId) -> WebhookView {
    WebhookView {
        id,
        url: "https://example.com/hook".into(),
        events: WebhookKind::ALL.into(),
        created_at: Timestamp::from_millis(1),
    }
}

fn delivery(id: u64) -> DeliveryView {
    DeliveryView {
        id,
        event_id: "test-1".into(),
        kind: WebhookKind::Test,
        at: Timestamp::from_millis(1),
        state: DeliveryState::Waiting,
        tries: 0,
        due_at: Some(Timestamp::from_millis(1)),
        tried_at: None,
        status_code: None,
        problem: None,
    }
}

impl Session {
    async fn own(&self, id: WebhookId) -> Result<WebhookView, ApiError> {
        let known = !self.list_workspaces().await?.is_empty();
        if known && id.to_string() == WEBHOOK && self.is("local") {
            Ok(view(id))
        } else {
            Err(ApiError::not_found())
        }
    }
}

#[async_trait]
impl WebhookApi for Session {
    async fn create_webhook(&self, request: CreateWebhook) -> Result<CreatedWebhook, ApiError> {
        let webhook = WebhookView { url: request.url, ..view(WebhookId::from_parts(1, 1)) };
        Ok(CreatedWebhook { webhook, secret: "whsec_canary".into() })
    }
    async fn list_webhooks(&self) -> Result<Vec<WebhookView>, ApiError> {
        let found = self.own(WEBHOOK.parse().map_err(|_| ApiError::not_found())?).await;
        Ok(found.into_iter().collect())
    }
    async fn delete_webhook(&self, id: WebhookId) -> Result<WebhookView, ApiError> {
        self.own(id).await
    }
    async fn test_webhook(&self, id: WebhookId) -> Result<DeliveryView, ApiError> {
        self.own(id).await.map(|_| delivery(1))
    }
    async fn deliveries(
        &self,
        id: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Page<DeliveryView>, ApiError> {
        self.own(id).await?;
        let next = before.map_or(9, |before| before - 1);
        let items = vec![delivery(next); limit as usize];
        Ok(Page { items, next_cursor: Some(next.to_string()) })
    }
    async fn replay_delivery(&self, id: WebhookId, number: u64) -> Result<DeliveryView, ApiError> {
        self.own(id).await?;
        if number == 7 { Ok(delivery(7)) } else { Err(ApiError::not_found()) }
    }
}
