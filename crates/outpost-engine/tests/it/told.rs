//! Retention and outbox of the failing store: they never fail, unless a test says that records stay.

use async_trait::async_trait;
use outpost_core::Notice;
use outpost_store::{
    AuditEntry, DeliveryRecord, DueDelivery, Ended, EndedRange, Envelope, Outbox, Purge, Retention,
    SecretRecord, StoreError, Tried, WebhookRecord,
};
use outpost_types::{DispatchId, TenantId, Timestamp, WebhookId};

use crate::world::{Faulty, broken};

#[async_trait]
impl Retention for Faulty {
    async fn ended(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError> {
        self.inner.ended(range).await
    }
    async fn forget(&self, ended: Vec<(DispatchId, AuditEntry)>) -> Result<u64, StoreError> {
        if self.stays() { Err(broken()) } else { self.inner.forget(ended).await }
    }
    async fn leftovers(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError> {
        self.inner.leftovers(range).await
    }
    async fn leftover(&self, id: DispatchId) -> Result<Option<Ended>, StoreError> {
        self.inner.leftover(id).await
    }
    async fn drop_leftovers(&self, ids: &[DispatchId]) -> Result<u64, StoreError> {
        if self.stays() { Err(broken()) } else { self.inner.drop_leftovers(ids).await }
    }
    async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        self.inner.purge(what).await
    }
}

#[async_trait]
impl Outbox for Faulty {
    async fn insert_webhook(
        &self,
        webhook: WebhookRecord,
        secret: (SecretRecord, Envelope),
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        self.inner.insert_webhook(webhook, secret, audit).await
    }
    async fn webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
    ) -> Result<Option<WebhookRecord>, StoreError> {
        self.inner.webhook(tenant, id).await
    }
    async fn webhooks(&self, tenant: &TenantId) -> Result<Vec<WebhookRecord>, StoreError> {
        self.inner.webhooks(tenant).await
    }
    async fn delete_webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
        audit: AuditEntry,
    ) -> Result<Option<WebhookRecord>, StoreError> {
        self.inner.delete_webhook(tenant, id, audit).await
    }
    async fn tell(&self, notice: &Notice, only: Option<WebhookId>) -> Result<u64, StoreError> {
        self.inner.tell(notice, only).await
    }
    async fn due_deliveries(
        &self,
        now: Timestamp,
        limit: u32,
        except: &[WebhookId],
    ) -> Result<Vec<DueDelivery>, StoreError> {
        self.inner.due_deliveries(now, limit, except).await
    }
    async fn next_delivery_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.next_delivery_at().await
    }
    async fn note_try(&self, tried: Tried) -> Result<bool, StoreError> {
        self.inner.note_try(tried).await
    }
    async fn deliveries(
        &self,
        webhook: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        self.inner.deliveries(webhook, before, limit).await
    }
    async fn replay(
        &self,
        webhook: WebhookId,
        delivery: u64,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Option<DeliveryRecord>, StoreError> {
        self.inner.replay(webhook, delivery, now, audit).await
    }
}
