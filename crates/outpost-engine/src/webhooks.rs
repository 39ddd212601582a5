//! Webhooks: made and removed by their tenant, told of events from the outbox.
//!
//! The secret that signs is sealed like every other one, in the transaction that stores its webhook. It is shown once,
//! and after that only signs here; it is given to nobody, so its use is not audited. Bounded: webhooks of a tenant, a
//! page of deliveries, deliveries at once. Absent: an order of deliveries, and changing a webhook.

mod courier;
mod places;

use async_trait::async_trait;
use outpost_core::{budget_notice, test_notice};
use outpost_store::{AuditEntry, DeliveryRecord, StoreError, WebhookRecord};
use outpost_types::limits::LIST_LIMIT_MAX;
use outpost_types::{
    ApiError, Caller, CreateWebhook, CreatedWebhook, DeliveryState, DeliveryView, EventData, Page,
    SecretValue, Timestamp, WebhookApi, WebhookId, WebhookKind, WebhookView,
};
use serde_json::json;
use tracing::warn;

use crate::api::{EngineApi, panicked, store_error};
use crate::engine::Engine;
use crate::live::Live;

pub(crate) use courier::run;

/// Random bytes of a secret that signs.
const SECRET_BYTES: usize = 32;
/// What such a secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// Newest deliveries among which one is looked for that was just queued.
const JUST_QUEUED_ROWS: u32 = 16;

#[async_trait]
impl WebhookApi for EngineApi {
    async fn create_webhook(&self, request: CreateWebhook) -> Result<CreatedWebhook, ApiError> {
        let api = self.clone();
        let work = async move { api.create(request).await };
        self.engine().inner.tasks.finish("webhooks", work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn list_webhooks(&self) -> Result<Vec<WebhookView>, ApiError> {
        let found = self.engine().inner.store.webhooks(&self.caller().tenant).await;
        Ok(found.map_err(store_error)?.into_iter().map(view).collect())
    }

    async fn delete_webhook(&self, id: WebhookId) -> Result<WebhookView, ApiError> {
        let caller = self.caller();
        let entry = entry("webhook.deleted", caller, id, self.engine().now());
        let gone = self.engine().inner.store.delete_webhook(&caller.tenant, id, entry).await;
        gone.map_err(store_error)?.map(view).ok_or_else(ApiError::not_found)
    }

    async fn test_webhook(&self, id: WebhookId) -> Result<DeliveryView, ApiError> {
        self.own(id).await?;
        let engine = self.engine();
        let number = u64::try_from(engine.random_u128() >> 64).unwrap_or_default();
        let notice = test_notice(id, &self.caller().tenant, number, engine.now());
        let store = &engine.inner.store;
        store.tell(&notice, Some(id)).await.map_err(store_error)?;
        engine.inner.told.notify_one();
        let newest = store.deliveries(id, None, JUST_QUEUED_ROWS).await.map_err(store_error)?;
        let queued = newest.into_iter().find(|delivery| delivery.event == notice.id);
        queued.map(delivery_view).ok_or_else(ApiError::not_found)
    }

    async fn deliveries(
        &self,
        id: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Page<DeliveryView>, ApiError> {
        self.own(id).await?;
        let limit = limit.min(LIST_LIMIT_MAX);
        let found = self.engine().inner.store.deliveries(id, before, limit).await;
        let found = found.map_err(store_error)?;
        let full = found.len() == limit as usize && limit > 0;
        let next_cursor = found.last().filter(|_| full).map(|last| last.id.to_string());
        Ok(Page { items: found.into_iter().map(delivery_view).collect(), next_cursor })
    }

    async fn replay_delivery(
        &self,
        id: WebhookId,
        delivery: u64,
    ) -> Result<DeliveryView, ApiError> {
        self.own(id).await?;
        let (engine, now) = (self.engine(), self.engine().now());
        let mut entry = entry("webhook.replayed", self.caller(), id, now);
        entry.detail = json!({ "delivery": delivery });
        let replayed = engine.inner.store.replay(id, delivery, now, entry).await;
        let replayed = replayed.map_err(store_error)?.ok_or_else(ApiError::not_found)?;
        engine.inner.told.notify_one();
        Ok(delivery_view(replayed))
    }
}

impl EngineApi {
    async fn create(&self, request: CreateWebhook) -> Result<CreatedWebhook, ApiError> {
        let (engine, caller) = (self.engine(), self.caller());
        let url = engine.inner.config.hooks.check(&request.url).map_err(|error| {
            ApiError::field("url", format!("Nothing is delivered there: {error}."))
                .with_hint("Name an address of the public internet that begins with https://.")
        })?;
        let events = wanted(request.events)?;
        let now = engine.now();
        let id = WebhookId::from_parts(now.as_millis(), engine.random_u128());
        let secret = self.new_secret();
        let sealed = engine.inner.config.secrets.seal_signing(caller, id, &secret).await?;
        let webhook = WebhookRecord {
            id,
            tenant: caller.tenant.clone(),
            url: url.into(),
            events,
            created_at: now,
        };
        let mut entry = entry("webhook.created", caller, id, now);
        entry.detail = json!({ "events": webhook.events });
        match engine.inner.store.insert_webhook(webhook.clone(), sealed, entry).await {
            Ok(()) => {}
            Err(StoreError::Invalid { field, message }) => {
                return Err(ApiError::field(field, message));
            }
            Err(error) => return Err(store_error(error)),
        }
        Ok(CreatedWebhook { webhook: view(webhook), secret: secret.expose().to_owned() })
    }

    fn new_secret(&self) -> SecretValue {
        use base64::Engine as _;
        let mut bytes = zeroize::Zeroizing::new([0; SECRET_BYTES]);
        self.engine().inner.world.fill(&mut *bytes);
        let text = base64::engine::general_purpose::STANDARD.encode(*bytes);
        SecretValue::new(format!("{SECRET_PREFIX}{text}"))
    }

    /// Refuses what is not the caller's as what is not there.
    async fn own(&self, id: WebhookId) -> Result<(), ApiError> {
        let found = self.engine().inner.store.webhook(&self.caller().tenant, id).await;
        found.map_err(store_error)?.map(drop).ok_or_else(ApiError::not_found)
    }
}

impl Engine {
    /// Looks at once whether a delivery is due, instead of by timer.
    pub fn wake_deliveries(&self) {
        self.inner.told.notify_one();
    }

    /// Tells webhooks of a budget. A store that fails keeps the event from them, not the agent from its work.
    pub(crate) async fn tell_of_budget(&self, live: &Live, data: &EventData) {
        let EventData::BudgetThreshold { scope, spent_usd, budget_usd } = *data else { return };
        let record = live.snapshot();
        let spent = (scope, spent_usd, budget_usd);
        let notice = budget_notice(record.id, &record.tenant, spent, self.now());
        match self.inner.store.tell(&notice, None).await {
            Ok(_) => self.inner.told.notify_one(),
            Err(error) => warn!(?error, id = %record.id, "webhooks are not told of a budget"),
        }
    }
}

/// The kinds that were asked for, each once, in order.
fn wanted(events: Option<Vec<WebhookKind>>) -> Result<Vec<WebhookKind>, ApiError> {
    let Some(mut events) = events else { return Ok(WebhookKind::ALL.into()) };
    events.sort_unstable();
    events.dedup();
    if events.is_empty() || events.contains(&WebhookKind::Test) {
        let names = WebhookKind::ALL.map(WebhookKind::as_str).join(", ");
        return Err(ApiError::field("events", format!("`events` must name some of {names}.")));
    }
    Ok(events)
}

fn entry(action: &'static str, caller: &Caller, id: WebhookId, at: Timestamp) -> AuditEntry {
    AuditEntry {
        at,
        tenant: caller.tenant.clone(),
        actor: Some(caller.key),
        action,
        subject: id.to_string(),
        detail: json!({}),
    }
}

fn view(webhook: WebhookRecord) -> WebhookView {
    WebhookView {
        id: webhook.id,
        url: webhook.url,
        events: webhook.events,
        created_at: webhook.created_at,
    }
}

fn delivery_view(delivery: DeliveryRecord) -> DeliveryView {
    DeliveryView {
        id: delivery.id,
        event_id: delivery.event,
        kind: delivery.kind,
        at: delivery.at,
        state: delivery.state,
        tries: delivery.tries,
        due_at: Some(delivery.due_at).filter(|_| delivery.state == DeliveryState::Waiting),
        tried_at: delivery.tried_at,
        status_code: delivery.status_code,
        problem: delivery.problem,
    }
}
