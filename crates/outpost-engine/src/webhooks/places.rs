//! Who may be delivered to now: the places of deliveries under way, and how they are shared out.
//!
//! A receiver that takes a delivery and never answers holds its place for as long as a try may last. So one webhook has
//! few places, and one that was silent the last time has a single one of a small part that all of those share.
//! However many are silent, the others have the rest. Bounded: places, and the silent ones that are known.

use std::collections::{BTreeMap, BTreeSet};

use outpost_store::DueDelivery;
use outpost_types::WebhookId;

/// Deliveries at once.
const PLACES_COUNT_MAX: usize = 128;
/// Deliveries to one webhook at once.
const PLACES_OF_WEBHOOK_COUNT_MAX: usize = 2;
/// Deliveries at once to those that were silent, all together.
const PLACES_OF_SILENT_COUNT_MAX: usize = 32;
/// Most webhooks that are known as silent; those beyond it are learned again.
const SILENT_COUNT_MAX: usize = 1_024;

/// Deliveries under way.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: BTreeMap<WebhookId, BTreeSet<u64>>,
    /// They did not answer the last time.
    silent: BTreeSet<WebhookId>,
}

impl Places {
    /// Takes a place for a delivery; `false` when there is none for it, or when it is under way.
    pub(crate) fn take(&mut self, due: &DueDelivery) -> bool {
        let webhook = due.delivery.webhook;
        if self.is_full() || !self.has_place(webhook) {
            return false;
        }
        self.taken.entry(webhook).or_default().insert(due.delivery.id)
    }

    /// A delivery was tried, and perhaps not answered.
    pub(crate) fn leave(&mut self, due: &DueDelivery, was_silent: bool) {
        let webhook = due.delivery.webhook;
        if let Some(taken) = self.taken.get_mut(&webhook) {
            taken.remove(&due.delivery.id);
            if taken.is_empty() {
                self.taken.remove(&webhook);
            }
        }
        if !was_silent {
            self.silent.remove(&webhook);
        } else if self.silent.len() < SILENT_COUNT_MAX {
            self.silent.insert(webhook);
        }
    }

    /// Whether nobody can be delivered to now.
    pub(crate) fn is_full(&self) -> bool {
        self.taken.values().map(BTreeSet::len).sum::<usize>() >= PLACES_COUNT_MAX
    }

    /// Webhooks that can have no further place now.
    pub(crate) fn without_place(&self) -> Vec<WebhookId> {
        let known: BTreeSet<_> = self.taken.keys().chain(&self.silent).copied().collect();
        known.into_iter().filter(|webhook| !self.has_place(*webhook)).collect()
    }

    fn has_place(&self, webhook: WebhookId) -> bool {
        let own = self.taken.get(&webhook).map_or(0, BTreeSet::len);
        if !self.silent.contains(&webhook) {
            return own < PLACES_OF_WEBHOOK_COUNT_MAX;
        }
        let silent = self.silent.iter().filter_map(|webhook| self.taken.get(webhook));
        own == 0 && silent.map(BTreeSet::len).sum::<usize>() < PLACES_OF_SILENT_COUNT_MAX
    }
}

#[cfg(test)]
mod tests {
    use outpost_store::DeliveryRecord;
    use outpost_types::{DeliveryState, TenantId, Timestamp, WebhookKind};

    use super::*;

    fn due(webhook: u128, id: u64) -> DueDelivery {
        let now = Timestamp::from_millis(1);
        let delivery = DeliveryRecord {
            id,
            webhook: WebhookId::from_parts(1, webhook),
            event: "e".into(),
            kind: WebhookKind::Test,
            at: now,
            state: DeliveryState::Waiting,
            tries: 0,
            due_at: now,
            tried_at: None,
            status_code: None,
            problem: None,
        };
        let (url, body) = (String::new(), String::new());
        DueDelivery { delivery, tenant: TenantId::local(), url, body }
    }

    #[test]
    fn a_webhook_has_few_places_and_a_delivery_one() {
        let mut places = Places::default();
        assert!(places.take(&due(1, 1)) && !places.take(&due(1, 1)) && places.take(&due(1, 2)));
        assert!(!places.take(&due(1, 3)) && places.take(&due(2, 4)));
        assert_eq!(places.without_place(), [WebhookId::from_parts(1, 1)]);
        places.leave(&due(1, 1), false);
        assert!(places.without_place().is_empty() && places.take(&due(1, 3)));
    }

    #[test]
    fn the_silent_share_a_part_and_the_others_have_the_rest() {
        let mut places = Places::default();
        let silent = PLACES_COUNT_MAX as u128;
        for webhook in 0..silent {
            assert!(places.take(&due(webhook, 1)));
            places.leave(&due(webhook, 1), true);
        }
        let taken = (0..silent).filter(|webhook| places.take(&due(*webhook, 2))).count();
        assert_eq!(taken, PLACES_OF_SILENT_COUNT_MAX);
        assert_eq!(places.without_place().len(), PLACES_COUNT_MAX);
        assert!(places.take(&due(silent, 1)) && places.take(&due(silent, 2)));
        // One that answers again is as good as any other.
        places.leave(&due(0, 2), false);
        assert!(places.take(&due(0, 3)) && places.take(&due(0, 4)));
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let mut places = Places::default();
        let taken = (0..999).filter(|webhook| places.take(&due(*webhook, 1))).count();
        assert_eq!(taken, PLACES_COUNT_MAX);
        assert!(places.is_full());
    }
}
