//! Dispatches, attempts, idempotency keys, event heads.

use std::collections::BTreeSet;
use std::sync::Arc;

use outpost_core::Event;
use outpost_types::{
    AttemptId, DispatchId, DispatchStatus, Failure, FailureCode, Timestamp,
    limits::{IDEMPOTENCY_KEY_BYTES_MAX, TAGS_COUNT_MAX, TASK_BYTES_MAX},
};

use super::sample::{self, NASTY, accept, accept_of, after, claim, good_run};
use crate::{AUDIT_DETAIL_BYTES_MAX, Accepted, EventHead, ListFilter, Store, StoreError};

/// Callers at once.
const CALLERS: u64 = 1_000;

pub(super) async fn accepted_is_readable(store: &dyn Store) {
    let accept = accept(1);
    let dispatch = accept.dispatch.clone();
    assert_eq!(store.get(dispatch.id).await.unwrap(), None);
    assert_eq!(store.accept(accept).await.unwrap(), Accepted::New);
    assert_eq!(store.get(dispatch.id).await.unwrap().as_ref(), Some(&dispatch));
    let own = store.get_for_tenant(&dispatch.tenant, dispatch.id).await;
    assert_eq!(own.unwrap().as_ref(), Some(&dispatch));
    let foreign = store.get_for_tenant(&sample::tenant("other"), dispatch.id).await;
    assert_eq!(foreign.unwrap(), None);
}

pub(super) async fn an_id_is_taken_once(store: &dyn Store) {
    store.accept(accept(1)).await.unwrap();
    let mut again = accept(1);
    again.dispatch.spec.task = "another".to_owned();
    again.idempotency = Some(claim("k", "b", 1_000));
    let error = store.accept(again).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate), "{error:?}");
    let kept = store.get(accept(1).dispatch.id).await.unwrap().unwrap();
    assert_eq!(kept, accept(1).dispatch);
    // The refused one left no claim behind.
    let mut other = accept(2);
    other.idempotency = Some(claim("k", "different", 1_000));
    assert_eq!(store.accept(other).await.unwrap(), Accepted::New);
}

pub(super) async fn the_same_key_answers_for_the_same_dispatch(store: &dyn Store) {
    let mut first = accept(1);
    first.idempotency = Some(claim(NASTY, "body", 1_000));
    assert_eq!(store.accept(first.clone()).await.unwrap(), Accepted::New);
    let mut again = accept(2);
    again.idempotency.clone_from(&first.idempotency);
    let replayed = store.accept(again.clone()).await.unwrap();
    assert_eq!(replayed, Accepted::Replayed(Box::new(first.dispatch.clone())));
    let mut other = accept(3);
    other.idempotency = Some(claim(NASTY, "another body", 1_000));
    assert_eq!(store.accept(other).await.unwrap(), Accepted::Conflict);
    for serial in [2, 3] {
        let id = accept(serial).dispatch.id;
        assert_eq!(store.get(id).await.unwrap(), None);
    }
    // It answers with the dispatch as it is now.
    let next = after(&first.dispatch, &Event::Placed);
    let audit = sample::audit(&next, "dispatch.placed");
    store.update(&next, 1, audit).await.unwrap();
    let replayed = store.accept(again).await.unwrap();
    assert_eq!(replayed, Accepted::Replayed(Box::new(next)));
}

pub(super) async fn a_key_is_free_again_when_it_expires(store: &dyn Store) {
    let with_claim = |serial: u64, body: &str, expires: u64| {
        let mut accept = accept(serial);
        accept.idempotency = Some(claim("key", body, expires));
        accept
    };
    store.accept(with_claim(1, "a", 100)).await.unwrap();
    let before = store.accept(with_claim(99, "b", 200)).await.unwrap();
    assert_eq!(before, Accepted::Conflict);
    let at = store.accept(with_claim(100, "b", 200)).await.unwrap();
    assert_eq!(at, Accepted::New);
    let again = store.accept(with_claim(150, "b", 300)).await.unwrap();
    assert!(matches!(again, Accepted::Replayed(first) if first.created_at.as_millis() == 100));
    // A purge takes what is expired and nothing else.
    let purge = async |now| store.purge_idempotency(Timestamp::from_millis(now)).await.unwrap();
    assert_eq!(purge(199).await, 0);
    assert_eq!(purge(200).await, 1);
    assert_eq!(purge(200).await, 0);
    let free = store.accept(with_claim(160, "c", 300)).await.unwrap();
    assert_eq!(free, Accepted::New);
}

pub(super) async fn keys_of_tenants_are_apart(store: &dyn Store) {
    for (serial, owner) in [(1, "a"), (2, "b")] {
        let mut accept = accept_of(sample::dispatch(serial, owner, sample::request()));
        accept.idempotency = Some(claim("key", owner, 1_000));
        assert_eq!(store.accept(accept).await.unwrap(), Accepted::New);
    }
}

pub(super) async fn updates_compare_and_set(store: &dyn Store) {
    let first = accept(1).dispatch;
    let next = after(&first, &Event::Placed);
    let audit = || sample::audit(&next, "dispatch.placed");
    let error = store.update(&next, 1, audit()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
    store.accept(accept(1)).await.unwrap();

    let mut foreign = next.clone();
    foreign.tenant = sample::tenant("other");
    let error = store.update(&foreign, 1, audit()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
    store.update(&next, 1, audit()).await.unwrap();
    assert_eq!(store.get(first.id).await.unwrap().as_ref(), Some(&next));

    let error = store.update(&next, 1, audit()).await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 2 }), "{error:?}");
    let mut ahead = next.clone();
    ahead.generation = 9;
    let error = store.update(&ahead, 8, audit()).await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 2 }), "{error:?}");
    // A gap in the generations is refused before anything is compared.
    let error = store.update(&ahead, 2, audit()).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    assert_eq!(store.get(first.id).await.unwrap(), Some(next));
}

pub(super) async fn terminal_records_stay(store: &dyn Store) {
    let first = accept(1).dispatch;
    store.accept(accept(1)).await.unwrap();
    let mut last = after(&first, &Event::CancelRequested { reason: None });
    store.update(&last, 1, sample::audit(&last, "cancel")).await.unwrap();

    let mut revived = first.clone();
    revived.generation = 3;
    let error = store.update(&revived, 2, sample::audit(&revived, "revive")).await.unwrap_err();
    assert!(matches!(error, StoreError::Final { status: "CANCELLED" }), "{error:?}");
    let mut turned = last.clone();
    turned.generation = 3;
    turned.state = outpost_core::State::Completed;
    let error = store.update(&turned, 2, sample::audit(&turned, "turn")).await.unwrap_err();
    assert!(matches!(error, StoreError::Final { status: "CANCELLED" }), "{error:?}");

    // Facts may still be added to it.
    last.generation = 3;
    last.facts.summary = Some(NASTY.to_owned());
    store.update(&last, 2, sample::audit(&last, "note")).await.unwrap();
    assert_eq!(store.get(first.id).await.unwrap(), Some(last));
}

pub(super) async fn attempts_follow_their_dispatch(store: &dyn Store) {
    let mut dispatch = accept(1).dispatch;
    let id = dispatch.id;
    store.accept(accept(1)).await.unwrap();
    assert_eq!(store.attempts(id).await.unwrap(), []);
    let failed = Event::ProvisionFailed {
        attempt: AttemptId { dispatch: id, number: 1 },
        failure: Failure::new(FailureCode::Provisioning, "no"),
        retry: true,
    };
    let cancel = Event::CancelRequested { reason: None };
    let mut states = Vec::new();
    for event in [Event::Placed, failed, cancel] {
        let expected = dispatch.generation;
        dispatch = after(&dispatch, &event);
        let audit = sample::audit(&dispatch, "step");
        store.update(&dispatch, expected, audit).await.unwrap();
        let attempts = store.attempts(id).await.unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!((attempts[0].number, attempts[0].epoch), (1, 1));
        assert_eq!(attempts[0].created_at, Timestamp::from_millis(3));
        states.push((attempts[0].state, attempts[0].ended_at.map(Timestamp::as_millis)));
    }
    // Cancelling the queued dispatch does not rewrite the attempt that had failed.
    let failed = (DispatchStatus::Failed, Some(4));
    assert_eq!(states, [(DispatchStatus::Provisioning, None), failed, failed]);

    let mut good = accept(2).dispatch;
    store.accept(accept(2)).await.unwrap();
    for event in good_run(good.id) {
        let expected = good.generation;
        good = after(&good, &event);
        store.update(&good, expected, sample::audit(&good, "step")).await.unwrap();
    }
    let attempts = store.attempts(good.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].state, DispatchStatus::Completed);
    assert_eq!(attempts[0].started_at, good.started_at);
    assert!(attempts[0].ended_at.is_some() && good.started_at.is_some());
}

pub(super) async fn bounds_are_refused_by_name(store: &dyn Store) {
    let mut cases = Vec::new();
    for key in [String::new(), "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1)] {
        let mut bad = accept(1);
        bad.idempotency = Some(claim(&key, "b", 9));
        cases.push(("idempotencyKey", bad));
    }
    let mut bad = accept(1);
    bad.dispatch.spec.tags = vec!["t".to_owned(); TAGS_COUNT_MAX + 1];
    cases.push(("tags", bad));
    let mut bad = accept(1);
    bad.audit.detail = "x".repeat(AUDIT_DETAIL_BYTES_MAX).into();
    cases.push(("audit.detail", bad));
    let mut bad = accept(1);
    bad.dispatch.completed_at = Some(Timestamp::from_millis(1));
    cases.push(("completedAt", bad));
    let mut bad = accept(1);
    bad.dispatch.generation = 0;
    cases.push(("generation", bad));
    for (name, bad) in cases {
        let error = store.accept(bad).await.unwrap_err();
        assert!(matches!(&error, StoreError::Invalid { field, .. } if *field == name), "{error:?}");
    }
    assert_eq!(store.get(accept(1).dispatch.id).await.unwrap(), None);
}

pub(super) async fn every_text_comes_back(store: &dyn Store) {
    let line = "\u{1f680} ü 漢字 \"q\" 'single' \\ \u{202e} ; DROP TABLE jobs; --";
    let mut dispatch = sample::dispatch(1, "a.b_c-9", sample::request());
    let spec = &mut dispatch.spec;
    spec.task = NASTY.replace('\0', "").repeat(TASK_BYTES_MAX / NASTY.len());
    spec.repo = Some(line.to_owned());
    spec.user_id = Some(NASTY.to_owned());
    spec.tags = vec![line.to_owned(), NASTY.to_owned(), line.to_owned(), "e\u{301}".to_owned()];
    spec.checks = vec!["cargo test && echo \"ü\"\n".to_owned()];
    spec.setup = vec!["npm ci && echo \"ü\"\n".to_owned()];
    store.accept(accept_of(dispatch.clone())).await.unwrap();
    assert_eq!(store.get(dispatch.id).await.unwrap().as_ref(), Some(&dispatch));
    let all = ListFilter::of(dispatch.tenant.clone());
    let found = [
        ListFilter { repo: Some(line.to_owned()), ..all.clone() },
        ListFilter { user: Some(NASTY.to_owned()), ..all.clone() },
        ListFilter { tag: Some(line.to_owned()), ..all.clone() },
        ListFilter { tag: Some(NASTY.to_owned()), ..all.clone() },
    ];
    for filter in found {
        let listed = store.list(&filter).await.unwrap();
        assert_eq!(listed.dispatches, std::slice::from_ref(&dispatch), "{filter:?}");
    }
    // The same letter in another form is another tag.
    let composed = ListFilter { tag: Some("é".to_owned()), ..all };
    assert_eq!(store.list(&composed).await.unwrap().dispatches, []);
}

pub(super) async fn event_heads_never_move_back(store: &dyn Store) {
    let dispatch = accept(1).dispatch.id;
    let head = |last_seq, log_bytes| EventHead { dispatch, last_seq, log_bytes };
    let error = store.set_event_head(head(1, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
    store.accept(accept(1)).await.unwrap();
    assert_eq!(store.event_head(dispatch).await.unwrap(), None);
    for (new, kept) in [((5, 100), (5, 100)), ((3, 200), (5, 200)), ((6, 150), (6, 200))] {
        store.set_event_head(head(new.0, new.1)).await.unwrap();
        let found = store.event_head(dispatch).await.unwrap();
        assert_eq!(found, Some(head(kept.0, kept.1)));
    }
}

/// Runs `call` for each serial at once.
async fn at_once<T, F>(store: &Arc<dyn Store>, call: impl Fn(Arc<dyn Store>, u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for serial in 1..=CALLERS {
        tasks.spawn(call(Arc::clone(store), serial));
    }
    tasks.join_all().await
}

pub(super) async fn many_at_once_are_all_kept(store: &Arc<dyn Store>) {
    let accepted = at_once(store, |store, serial| async move {
        store.accept(accept(serial)).await.map(|_| serial)
    })
    .await;
    let accepted: BTreeSet<u64> = accepted.into_iter().map(Result::unwrap).collect();
    assert_eq!(accepted.len() as u64, CALLERS);
    let live = store.live().await.unwrap();
    let ids: Vec<DispatchId> = accepted.iter().map(|serial| accept(*serial).dispatch.id).collect();
    assert_eq!(live.iter().map(|dispatch| dispatch.id).collect::<Vec<_>>(), ids);
    assert_eq!(store.verify_audit().await.unwrap().unwrap().count, CALLERS);
    let metrics = store.metrics();
    assert_eq!((metrics.commands, metrics.queue_depth, metrics.failed), (CALLERS, 0, false));
    assert!(metrics.commits <= CALLERS && metrics.rows >= CALLERS);
}

pub(super) async fn one_of_many_updates_wins(store: &Arc<dyn Store>) {
    store.accept(accept(1)).await.unwrap();
    let outcomes = at_once(store, |store, serial| async move {
        let mut next = after(&accept(1).dispatch, &Event::Placed);
        next.facts.summary = Some(serial.to_string());
        let audit = sample::audit(&next, "dispatch.placed");
        let outcome = store.update(&next, 1, audit).await;
        (serial, outcome)
    })
    .await;
    let mut winners = Vec::new();
    for (serial, outcome) in outcomes {
        match outcome {
            Ok(()) => winners.push(serial.to_string()),
            Err(error) => assert!(matches!(error, StoreError::Stale { found: 2 }), "{error:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let kept = store.get(accept(1).dispatch.id).await.unwrap().unwrap();
    assert_eq!(kept.facts.summary.as_ref(), winners.first());
    assert_eq!(store.verify_audit().await.unwrap().unwrap().count, 2);
}

pub(super) async fn one_of_many_claims_wins(store: &Arc<dyn Store>) {
    let outcomes = at_once(store, |store, serial| async move {
        let mut accept = accept(serial);
        accept.idempotency = Some(claim("key", "body", 1_000_000));
        match store.accept(accept).await.unwrap() {
            Accepted::New => (true, DispatchId::from_parts(serial, 0)),
            Accepted::Replayed(first) => (false, first.id),
            Accepted::Conflict => panic!("the same body is no conflict"),
        }
    })
    .await;
    let ids: BTreeSet<DispatchId> = outcomes.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(outcomes.iter().filter(|(new, _)| *new).count(), 1);
    assert_eq!(store.live().await.unwrap().len(), 1);
}
