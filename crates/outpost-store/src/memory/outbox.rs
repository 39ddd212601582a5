//! Webhooks and the outbox in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use outpost_core::Notice;
use outpost_types::limits::WEBHOOKS_COUNT_MAX;
use outpost_types::{DeliveryState, TenantId, Timestamp, WebhookId};

use super::{MemoryStore, State};
use crate::audit::AuditDraft;
use crate::outbox::{
    DELIVERIES_ROWS_MAX, DELIVERIES_WAITING_MAX, DeliveryRecord, DueDelivery, EventRow, Outbox,
    TOO_MANY_WAIT, Tried, WebhookRecord, bounded, check_webhook, event_row, state_after,
    too_many_webhooks,
};
use crate::secrets::check_put;
use crate::{AuditEntry, Envelope, SecretOwner, SecretRecord, StoreError};

/// Webhooks, events and deliveries.
#[derive(Debug, Default)]
pub(super) struct Kept {
    webhooks: BTreeMap<WebhookId, WebhookRecord>,
    events: BTreeMap<String, EventRow>,
    deliveries: BTreeMap<u64, DeliveryRecord>,
    last_id: u64,
}

impl Kept {
    fn of(&self, tenant: &str) -> impl Iterator<Item = &WebhookRecord> {
        self.webhooks.values().filter(move |webhook| webhook.tenant.as_str() == tenant)
    }

    fn waiting(&self, webhook: WebhookId) -> usize {
        let waits = |delivery: &&DeliveryRecord| {
            delivery.webhook == webhook && delivery.state == DeliveryState::Waiting
        };
        self.deliveries.values().filter(waits).count()
    }

    pub(super) fn tell(&mut self, event: EventRow, only: Option<WebhookId>) -> u64 {
        let wants = |webhook: &&WebhookRecord| match only {
            Some(only) => webhook.id == only,
            None => webhook.events.contains(&event.kind),
        };
        let ids: Vec<_> = self.of(&event.tenant).filter(wants).map(|webhook| webhook.id).collect();
        if ids.is_empty() || self.events.contains_key(&event.id) {
            return 0;
        }
        for webhook in &ids {
            let full = self.waiting(*webhook) >= DELIVERIES_WAITING_MAX as usize;
            self.last_id += 1;
            let delivery = DeliveryRecord {
                id: self.last_id,
                webhook: *webhook,
                event: event.id.clone(),
                kind: event.kind,
                at: event.at,
                state: if full { DeliveryState::Dead } else { DeliveryState::Waiting },
                tries: 0,
                due_at: event.at,
                tried_at: None,
                status_code: None,
                problem: full.then(|| TOO_MANY_WAIT.to_owned()),
            };
            self.deliveries.insert(delivery.id, delivery);
        }
        self.events.insert(event.id.clone(), event);
        ids.len() as u64
    }

    pub(super) fn purge(&mut self, until: Timestamp, most: usize) -> u64 {
        let old = self.deliveries.values().filter(|delivery| delivery.at <= until);
        let old: Vec<_> = old.map(|delivery| delivery.id).take(most).collect();
        if !old.is_empty() {
            old.iter().for_each(|id| drop(self.deliveries.remove(id)));
            return old.len() as u64;
        }
        let old = self.events.values().filter(|event| event.at <= until);
        let old: Vec<_> = old.map(|event| event.id.clone()).take(most).collect();
        old.iter().for_each(|id| drop(self.events.remove(id)));
        old.len() as u64
    }

    fn due(&self, now: Timestamp) -> Vec<DueDelivery> {
        let waits = |delivery: &&DeliveryRecord| {
            delivery.state == DeliveryState::Waiting && delivery.due_at <= now
        };
        let due = self.deliveries.values().filter(waits).filter_map(|delivery| {
            let webhook = self.webhooks.get(&delivery.webhook)?;
            Some(DueDelivery {
                delivery: delivery.clone(),
                tenant: webhook.tenant.clone(),
                url: webhook.url.clone(),
                body: self.events.get(&delivery.event)?.body.clone(),
            })
        });
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|due| (due.delivery.due_at, due.delivery.id));
        due
    }
}

impl State {
    fn insert_webhook(
        &mut self,
        webhook: WebhookRecord,
        (record, envelope): (SecretRecord, Envelope),
        audit: AuditDraft,
    ) -> Result<(), StoreError> {
        if self.outbox.webhooks.contains_key(&webhook.id) {
            return Err(StoreError::Duplicate);
        }
        if self.outbox.of(webhook.tenant.as_str()).count() >= WEBHOOKS_COUNT_MAX {
            return Err(too_many_webhooks());
        }
        self.put_secret(record, envelope, audit)?;
        self.outbox.webhooks.insert(webhook.id, webhook);
        Ok(())
    }

    fn delete_webhook(
        &mut self,
        tenant: &TenantId,
        id: WebhookId,
        audit: AuditDraft,
    ) -> Result<Option<WebhookRecord>, StoreError> {
        if self.outbox.webhooks.get(&id).is_none_or(|webhook| webhook.tenant != *tenant) {
            return Ok(None);
        }
        let owner = SecretOwner::webhook(id);
        self.secrets.retain(|(of, _), _| *of != owner);
        self.outbox.deliveries.retain(|_, delivery| {
            delivery.webhook != id || delivery.state != DeliveryState::Waiting
        });
        self.append(audit)?;
        Ok(self.outbox.webhooks.remove(&id))
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn insert_webhook(
        &self,
        webhook: WebhookRecord,
        secret: (SecretRecord, Envelope),
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        check_webhook(&webhook)?;
        check_put(&secret.0, &secret.1)?;
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| state.insert_webhook(webhook, secret, audit))
    }

    async fn webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
    ) -> Result<Option<WebhookRecord>, StoreError> {
        let state = self.state();
        let found = state.outbox.webhooks.get(&id);
        Ok(found.filter(|webhook| webhook.tenant == *tenant).cloned())
    }

    async fn webhooks(&self, tenant: &TenantId) -> Result<Vec<WebhookRecord>, StoreError> {
        Ok(self.state().outbox.of(tenant.as_str()).cloned().collect())
    }

    async fn delete_webhook(
        &self,
        tenant: &TenantId,
        id: WebhookId,
        audit: AuditEntry,
    ) -> Result<Option<WebhookRecord>, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| state.delete_webhook(tenant, id, audit))
    }

    async fn tell(&self, notice: &Notice, only: Option<WebhookId>) -> Result<u64, StoreError> {
        let event = event_row(notice)?;
        self.write(|state| Ok(state.outbox.tell(event, only)))
    }

    async fn due_deliveries(
        &self,
        now: Timestamp,
        limit: u32,
        except: &[WebhookId],
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let mut due = self.state().outbox.due(now);
        due.retain(|due| !except.contains(&due.delivery.webhook));
        due.truncate(limit.min(DELIVERIES_ROWS_MAX) as usize);
        Ok(due)
    }

    async fn next_delivery_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let state = self.state();
        let waits = |delivery: &&DeliveryRecord| delivery.state == DeliveryState::Waiting;
        let waiting = state.outbox.deliveries.values().filter(waits);
        Ok(waiting.map(|delivery| delivery.due_at).min())
    }

    async fn note_try(&self, tried: Tried) -> Result<bool, StoreError> {
        self.write(|state| {
            let found = state.outbox.deliveries.get_mut(&tried.delivery);
            let Some(delivery) = found.filter(|delivery| {
                delivery.tries == tried.tries_before && delivery.state == DeliveryState::Waiting
            }) else {
                return Ok(false);
            };
            delivery.state = state_after(&tried);
            delivery.tries += 1;
            delivery.due_at = tried.again_at.unwrap_or(delivery.due_at);
            delivery.tried_at = Some(tried.at);
            delivery.status_code = tried.status_code;
            delivery.problem = bounded(tried.problem);
            Ok(true)
        })
    }

    async fn deliveries(
        &self,
        webhook: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let state = self.state();
        let newest = state.outbox.deliveries.values().rev();
        let of = newest.filter(|delivery| {
            delivery.webhook == webhook && before.is_none_or(|before| delivery.id < before)
        });
        Ok(of.take(limit.min(DELIVERIES_ROWS_MAX) as usize).cloned().collect())
    }

    async fn replay(
        &self,
        webhook: WebhookId,
        delivery: u64,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Option<DeliveryRecord>, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| {
            let found = state.outbox.deliveries.get_mut(&delivery);
            let Some(found) = found.filter(|found| found.webhook == webhook) else {
                return Ok(None);
            };
            (found.state, found.tries, found.due_at) = (DeliveryState::Waiting, 0, now);
            let replayed = found.clone();
            state.append(audit)?;
            Ok(Some(replayed))
        })
    }
}
