//! Webhooks, the outbox and deliveries.

use outpost_core::{Event, Notice, test_notice};
use outpost_types::limits::WEBHOOKS_COUNT_MAX;
use outpost_types::{DeliveryState, SecretKind, TenantId, Timestamp, WebhookId, WebhookKind};

use super::retention::completed;
use super::sample::{self, accept_of, after, request, tenant};
use crate::{
    AuditEntry, AuditRange, DueDelivery, Envelope, Purge, SecretOwner, SecretRecord, Store,
    StoreError, Tried, WebhookRecord,
};

const LATE: Timestamp = Timestamp::from_millis(1_000_000_000_000);

fn entry(action: &'static str) -> AuditEntry {
    sample::audit(&sample::dispatch(1, "a", request()), action)
}

fn id(serial: u64) -> WebhookId {
    WebhookId::from_parts(serial, 0)
}

fn webhook(serial: u64, owner: &str, events: &[WebhookKind]) -> WebhookRecord {
    WebhookRecord {
        id: id(serial),
        tenant: tenant(owner),
        url: format!("https://example.com/{serial}?q={}", "ü".repeat(9)),
        events: events.to_vec(),
        created_at: Timestamp::from_millis(serial),
    }
}

fn secret(of: WebhookId) -> (SecretRecord, Envelope) {
    let record = SecretRecord {
        owner: SecretOwner::webhook(of),
        name: "SIGNING_SECRET".parse().unwrap(),
        kind: SecretKind::Injected,
        version: 1,
        created_at: Timestamp::from_millis(1),
        updated_at: Timestamp::from_millis(1),
        last_used_at: None,
        use_count: 0,
    };
    (record, Envelope { key_id: [7; 8], bytes: vec![1, 2, 3] })
}

async fn add(store: &dyn Store, webhook: &WebhookRecord) -> Result<(), StoreError> {
    store.insert_webhook(webhook.clone(), secret(webhook.id), entry("webhook.created")).await
}

async fn due(store: &dyn Store) -> Vec<DueDelivery> {
    store.due_deliveries(LATE, 100, &[]).await.unwrap()
}

fn test(of: WebhookId, owner: &TenantId, number: u64) -> Notice {
    test_notice(of, owner, number, Timestamp::from_millis(5))
}

pub(super) async fn webhooks_are_kept_with_their_secrets(store: &dyn Store) {
    let (first, second) =
        (webhook(1, "a", &WebhookKind::ALL), webhook(2, "a", &[WebhookKind::CostRecorded]));
    let foreign = webhook(3, "b", &WebhookKind::ALL);
    for webhook in [&second, &first, &foreign] {
        add(store, webhook).await.unwrap();
    }
    assert!(matches!(add(store, &first).await, Err(StoreError::Duplicate)));
    let a = tenant("a");
    assert_eq!(store.webhooks(&a).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(store.webhook(&a, first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.webhook(&a, foreign.id).await.unwrap(), None);
    let (record, envelope) = secret(first.id);
    let sealed = store.sealed_secret(&record.owner, &record.name, None).await.unwrap().unwrap();
    assert_eq!((sealed.0, sealed.1.envelope), (record.clone(), envelope));
    assert_eq!(store.secrets(&SecretOwner::Tenant(a.clone())).await.unwrap(), []);

    let gone = entry("webhook.deleted");
    assert_eq!(store.delete_webhook(&a, foreign.id, gone.clone()).await.unwrap(), None);
    let removed = store.delete_webhook(&a, first.id, gone.clone()).await.unwrap();
    assert_eq!(removed, Some(first.clone()));
    assert_eq!(store.delete_webhook(&a, first.id, gone).await.unwrap(), None);
    assert_eq!(store.secret(&record.owner, &record.name).await.unwrap(), None);
    assert_eq!(store.webhooks(&a).await.unwrap(), [second]);
    let rows = store.audit(AuditRange { after: 0, limit: 99 }).await.unwrap();
    assert_eq!(rows.len(), 4, "three were made and one was removed");
}

pub(super) async fn webhooks_are_bounded(store: &dyn Store) {
    let most = WEBHOOKS_COUNT_MAX as u64;
    for serial in 1..=most {
        add(store, &webhook(serial, "a", &WebhookKind::ALL)).await.unwrap();
    }
    let refused = add(store, &webhook(most + 1, "a", &WebhookKind::ALL)).await;
    assert!(matches!(refused, Err(StoreError::Invalid { field: "url", .. })), "{refused:?}");
    let (record, _) = secret(id(most + 1));
    assert_eq!(store.secret(&record.owner, &record.name).await.unwrap(), None);
    add(store, &webhook(most + 2, "b", &WebhookKind::ALL)).await.unwrap();
    for (wrong, at) in [
        (WebhookRecord { url: String::new(), ..webhook(90, "c", &WebhookKind::ALL) }, "url"),
        (WebhookRecord { url: "x".repeat(2_049), ..webhook(90, "c", &WebhookKind::ALL) }, "url"),
        (webhook(90, "c", &[]), "events"),
        (webhook(90, "c", &[WebhookKind::CostRecorded; 2]), "events"),
    ] {
        let refused = add(store, &wrong).await;
        assert!(matches!(refused, Err(StoreError::Invalid { field, .. }) if field == at));
    }
}

pub(super) async fn what_ends_is_told_once_to_those_who_want_it(store: &dyn Store) {
    add(store, &webhook(1, "a", &WebhookKind::ALL)).await.unwrap();
    add(store, &webhook(2, "a", &[WebhookKind::CostRecorded])).await.unwrap();
    add(store, &webhook(3, "b", &WebhookKind::ALL)).await.unwrap();
    let record = completed(store, 7, "a").await;
    completed(store, 8, "nobody").await;
    // Never started: it cost nothing, and still it ended.
    let waits = sample::dispatch(9, "a", request());
    store.accept(accept_of(waits.clone())).await.unwrap();
    let gone = after(&waits, &Event::CancelRequested { reason: None });
    store.update(&gone, 1, sample::audit(&gone, "cancel")).await.unwrap();
    // Noted on after its end.
    let mut noted = record.clone();
    noted.generation += 1;
    store.update(&noted, record.generation, sample::audit(&noted, "note")).await.unwrap();

    let told = due(store).await;
    let mut told: Vec<_> = told
        .iter()
        .map(|due| {
            let body: serde_json::Value = serde_json::from_str(&due.body).unwrap();
            assert_eq!(body["type"], due.delivery.kind.as_str());
            assert_eq!(due.tenant, tenant("a"));
            let of = body["data"]["dispatchId"].as_str().unwrap().to_owned();
            (due.delivery.webhook, due.delivery.kind, of)
        })
        .collect();
    told.sort();
    let (of, cancelled) = (record.id.to_string(), gone.id.to_string());
    let mut expected = [
        (id(1), WebhookKind::CostRecorded, of.clone()),
        (id(1), WebhookKind::DispatchEnded, of.clone()),
        (id(1), WebhookKind::DispatchEnded, cancelled),
        (id(2), WebhookKind::CostRecorded, of),
    ];
    expected.sort();
    assert_eq!(told, expected);
    let cost = due(store).await;
    let cost = cost.iter().find(|due| due.delivery.kind == WebhookKind::CostRecorded).unwrap();
    let body: serde_json::Value = serde_json::from_str(&cost.body).unwrap();
    assert_eq!(body["data"]["costUsd"], 0.25);
    assert_eq!(cost.delivery.event, format!("cost-{}", record.id));
}

pub(super) async fn tries_are_counted_until_it_is_given_up(store: &dyn Store) {
    let a = tenant("a");
    add(store, &webhook(1, "a", &WebhookKind::ALL)).await.unwrap();
    assert_eq!(store.next_delivery_at().await.unwrap(), None);
    assert_eq!(store.tell(&test(id(1), &a, 1), Some(id(1))).await.unwrap(), 1);
    assert_eq!(store.tell(&test(id(1), &a, 1), Some(id(1))).await.unwrap(), 0);
    // Nobody asks for tests, and nobody else's webhook is told.
    assert_eq!(store.tell(&test(id(1), &a, 2), None).await.unwrap(), 0);
    assert_eq!(store.tell(&test(id(1), &tenant("b"), 3), Some(id(1))).await.unwrap(), 0);
    let first = due(store).await.remove(0).delivery;
    let except = |ids: &'static [u64]| ids.iter().map(|serial| id(*serial)).collect::<Vec<_>>();
    assert_eq!(store.due_deliveries(LATE, 9, &except(&[2, 1])).await.unwrap(), []);
    assert_eq!(store.due_deliveries(LATE, 9, &except(&[2])).await.unwrap().len(), 1);
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(first.due_at));
    let at = Timestamp::from_millis;
    let failed = Tried {
        delivery: first.id,
        tries_before: 0,
        at: at(10),
        status_code: Some(500),
        problem: Some("ü".repeat(600)),
        again_at: Some(at(20)),
    };
    assert!(store.note_try(failed.clone()).await.unwrap());
    // The same answer again is of an earlier try.
    assert!(!store.note_try(failed.clone()).await.unwrap());
    assert_eq!(store.due_deliveries(at(19), 9, &[]).await.unwrap(), []);
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(at(20)));
    let again = store.due_deliveries(at(20), 9, &[]).await.unwrap().remove(0).delivery;
    assert_eq!((again.tries, again.status_code, again.tried_at), (1, Some(500), Some(at(10))));
    assert!(again.problem.unwrap().len() <= crate::PROBLEM_BYTES_MAX);
    let last = Tried { tries_before: 1, again_at: None, ..failed.clone() };
    assert!(store.note_try(last).await.unwrap());
    assert_eq!(due(store).await, []);
    let list = store.deliveries(id(1), None, 9).await.unwrap();
    assert_eq!((list.len(), list[0].state, list[0].tries), (1, DeliveryState::Dead, 2));

    let replay = async |webhook, delivery| {
        store.replay(webhook, delivery, at(30), entry("webhook.replayed")).await.unwrap()
    };
    assert_eq!(replay(id(2), first.id).await, None);
    assert_eq!(replay(id(1), first.id + 1).await, None);
    let replayed = replay(id(1), first.id).await.unwrap();
    assert_eq!((replayed.state, replayed.tries), (DeliveryState::Waiting, 0));
    let good =
        Tried { at: at(31), status_code: Some(204), problem: None, again_at: None, ..failed };
    assert!(store.note_try(good).await.unwrap());
    let list = store.deliveries(id(1), None, 9).await.unwrap();
    assert_eq!((list[0].state, list[0].status_code), (DeliveryState::Delivered, Some(204)));
    assert_eq!(list[0].problem, None);
}

pub(super) async fn deliveries_are_paged_and_go(store: &dyn Store) {
    let a = tenant("a");
    add(store, &webhook(1, "a", &WebhookKind::ALL)).await.unwrap();
    for number in 1..=5 {
        store.tell(&test(id(1), &a, number), Some(id(1))).await.unwrap();
    }
    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = store.deliveries(id(1), before, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        paged.extend(page.iter().map(|delivery| delivery.id));
    }
    assert_eq!(paged.len(), 5);
    assert!(paged.windows(2).all(|pair| pair[0] > pair[1]));
    let early = Purge::Deliveries(Timestamp::from_millis(4));
    assert_eq!(store.purge(early).await.unwrap(), 0);
    let late = Purge::Deliveries(Timestamp::from_millis(5));
    let mut gone = 0;
    loop {
        match store.purge(late).await.unwrap() {
            0 => break,
            rows => gone += rows,
        }
    }
    assert_eq!(gone, 10, "deliveries and events");
    // One that is removed has nothing waiting any more.
    store.tell(&test(id(1), &a, 6), Some(id(1))).await.unwrap();
    store.delete_webhook(&a, id(1), entry("webhook.deleted")).await.unwrap();
    assert_eq!(due(store).await, []);
    assert_eq!(store.next_delivery_at().await.unwrap(), None);
}
