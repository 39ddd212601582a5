//! Webhooks over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use outpost_types::{
    ApiError, CreateWebhook, CreatedWebhook, DeliveryView, Page, WebhookApi, WebhookId, WebhookView,
};
use reqwest::Method;

use crate::HttpApi;
use crate::http::UNARY_SECONDS_MAX;

const UNARY: Duration = Duration::from_secs(UNARY_SECONDS_MAX);

#[async_trait]
impl WebhookApi for HttpApi {
    async fn create_webhook(&self, request: CreateWebhook) -> Result<CreatedWebhook, ApiError> {
        let post = self.request(Method::POST, ["webhooks"]).json(&request);
        Ok(self.unary(post, UNARY).await?.0)
    }

    async fn list_webhooks(&self) -> Result<Vec<WebhookView>, ApiError> {
        let get = self.request(Method::GET, ["webhooks"]);
        let (page, _): (Page<WebhookView>, _) = self.unary(get, UNARY).await?;
        Ok(page.items)
    }

    async fn delete_webhook(&self, id: WebhookId) -> Result<WebhookView, ApiError> {
        let delete = self.request(Method::DELETE, ["webhooks", &id.to_string()]);
        Ok(self.unary(delete, UNARY).await?.0)
    }

    async fn test_webhook(&self, id: WebhookId) -> Result<DeliveryView, ApiError> {
        let post = self.request(Method::POST, ["webhooks", &id.to_string(), "test"]);
        Ok(self.unary(post, UNARY).await?.0)
    }

    async fn deliveries(
        &self,
        id: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Page<DeliveryView>, ApiError> {
        let get = self.request(Method::GET, ["webhooks", &id.to_string(), "deliveries"]);
        let get = get.query(&[("limit", u64::from(limit))]);
        let get = before.iter().fold(get, |get, before| get.query(&[("cursor", before)]));
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn replay_delivery(
        &self,
        id: WebhookId,
        delivery: u64,
    ) -> Result<DeliveryView, ApiError> {
        let (id, delivery) = (id.to_string(), delivery.to_string());
        let segments = ["webhooks", &id, "deliveries", &delivery, "replay"];
        Ok(self.unary(self.request(Method::POST, segments), UNARY).await?.0)
    }
}
