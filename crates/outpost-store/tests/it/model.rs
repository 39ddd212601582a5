//! Random calls: the store on disk, restarted in between, answers like the one in memory.

use outpost_core::Event;
use outpost_store::conformance::sample::{self, NASTY, accept_of, claim};
use outpost_store::{
    ApiKey, ApiKeyRecord, AuditRange, EventHead, KeyTouch, ListFilter, MemoryStore, Store,
    StoreError,
};
use outpost_types::{
    ApiKeyStatus, AttemptId, DispatchId, DispatchStatus, Failure, FailureCode, KeyId, Timestamp,
};
use proptest::prelude::*;

use crate::open;

const OWNERS: [&str; 2] = ["local", "other"];
const TEXTS: [&str; 3] = ["plain", NASTY, "ü"];
const SERIALS: u64 = 8;
/// Random histories, unless `OUTPOST_STORE_MODEL_CASES` says otherwise; each opens a file and syncs
/// every write.
const CASES: u32 = 48;
const CALLS_MAX: usize = 60;

#[derive(Debug, Clone)]
enum Call {
    Accept { serial: u64, owner: usize, text: usize, key: Option<u8>, body: bool, ttl: u64 },
    Step { serial: u64, event: u8, attempt: u32, behind: u64 },
    Purge(u64),
    Head { serial: u64, last_seq: u64 },
    InsertKey { serial: u64, secret: u8 },
    KeyStatus { serial: u64, status: u8 },
    Touch { serial: u64, at: u64 },
    List { owner: usize, set: u32, text: usize, status: usize, before: u64, limit: u32 },
    Read { serial: u64, owner: usize },
    Restart,
}

fn call() -> impl Strategy<Value = Call> {
    let serial = || 1..SERIALS;
    prop_oneof![
        5 => (serial(), 0..2_usize, 0..3_usize, prop::option::of(0..3_u8), any::<bool>(), 0..6_u64)
            .prop_map(|(serial, owner, text, key, body, ttl)| {
                Call::Accept { serial, owner, text, key, body, ttl }
            }),
        8 => (serial(), 0..7_u8, 1..3_u32, prop_oneof![9 => Just(0), 1 => 1..3_u64])
            .prop_map(|(serial, event, attempt, behind)| {
                Call::Step { serial, event, attempt, behind }
            }),
        1 => (0..12_u64).prop_map(Call::Purge),
        1 => (serial(), 0..5_u64).prop_map(|(serial, last_seq)| Call::Head { serial, last_seq }),
        1 => (serial(), 0..4_u8).prop_map(|(serial, secret)| Call::InsertKey { serial, secret }),
        1 => (serial(), 0..3_u8).prop_map(|(serial, status)| Call::KeyStatus { serial, status }),
        1 => (serial(), 0..9_u64).prop_map(|(serial, at)| Call::Touch { serial, at }),
        3 => (0..2_usize, 0..32_u32, 0..3_usize, 0..9_usize, 0..12_u64, 0..5_u32)
            .prop_map(|(owner, set, text, status, before, limit)| {
                Call::List { owner, set, text, status, before, limit }
            }),
        2 => (serial(), 0..2_usize).prop_map(|(serial, owner)| Call::Read { serial, owner }),
        1 => Just(Call::Restart),
    ]
}

fn event(kind: u8, attempt: AttemptId) -> Event {
    let [placed, started, exited, collected] = sample::good_run(attempt.dispatch);
    match kind {
        0 => placed,
        1 => started,
        2 => exited,
        3 => collected,
        4 => Event::CancelRequested { reason: Some(NASTY.to_owned()) },
        5 => Event::WorkerLost { attempt },
        _ => Event::ProvisionFailed {
            attempt,
            failure: Failure::new(FailureCode::Provisioning, NASTY),
            retry: true,
        },
    }
}

/// An answer as text, so that two stores can be compared.
fn said<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("refused: {error}"),
    }
}

fn filter(
    owner: usize,
    set: u32,
    text: usize,
    status: usize,
    before: u64,
    limit: u32,
) -> ListFilter {
    let text = |bit: u32| (set & bit != 0).then(|| TEXTS[text].to_owned());
    ListFilter {
        user: text(1),
        repo: text(2),
        tag: text(4),
        status: (set & 8 != 0).then(|| DispatchStatus::ALL[status]),
        agent: (set & 16 != 0).then(|| "claude".parse().unwrap()),
        before: (before > 0).then(|| DispatchId::from_parts(before, 0)),
        since: (before > 9).then(|| Timestamp::from_millis(3)),
        limit,
        ..ListFilter::of(sample::tenant(OWNERS[owner]))
    }
}

async fn accept(store: &dyn Store, call: &Call) -> String {
    let Call::Accept { serial, owner, text, key, body, ttl } = call else {
        return String::new();
    };
    let mut dispatch = sample::dispatch(*serial, OWNERS[*owner], sample::request());
    let spec = &mut dispatch.spec;
    spec.user_id = Some(TEXTS[*text].to_owned());
    spec.repo = (*text > 0).then(|| TEXTS[*text].to_owned());
    spec.tags = TEXTS[..*text].iter().map(|tag| (*tag).to_owned()).collect();
    let mut accept = accept_of(dispatch);
    let body = if *body { "one" } else { "two" };
    accept.idempotency = key.map(|key| claim(&format!("{NASTY}{key}"), body, serial + ttl));
    said(store.accept(accept).await)
}

async fn step(store: &dyn Store, serial: u64, kind: u8, number: u32, behind: u64) -> String {
    let id = DispatchId::from_parts(serial, 0);
    let Some(mut dispatch) = store.get(id).await.unwrap() else {
        return "no dispatch".to_owned();
    };
    // Somebody who read it a while ago.
    dispatch.generation = dispatch.generation.saturating_sub(behind).max(1);
    let event = event(kind, AttemptId { dispatch: id, number });
    let now = Timestamp::from_millis(1_000 * dispatch.generation);
    match outpost_core::step(&dispatch, &event, now) {
        Ok(transition) => {
            let audit = sample::audit(&transition.next, "step");
            said(store.update(&transition.next, dispatch.generation, audit).await)
        }
        Err(rejection) => rejection.to_string(),
    }
}

async fn keys(store: &dyn Store, call: &Call) -> String {
    let entry = || sample::audit(&sample::accept(1).dispatch, "key");
    match *call {
        Call::InsertKey { serial, secret } => {
            let key = ApiKeyRecord::new(
                KeyId::from_parts(serial, 0),
                sample::tenant(OWNERS[usize::from(secret % 2)]),
                &ApiKey::generate([secret; 32]),
                [].into(),
                Timestamp::from_millis(serial),
                None,
            );
            let found = said(store.key_by_hash(&key.hash).await);
            found + &said(store.insert_key(key, entry()).await)
        }
        Call::KeyStatus { serial, status } => {
            use ApiKeyStatus::{Active, Expired, Revoked};
            let status = [Active, Expired, Revoked][usize::from(status)];
            said(store.set_key_status(KeyId::from_parts(serial, 0), status, entry()).await)
        }
        Call::Touch { serial, at } => {
            let id = KeyId::from_parts(serial, 0);
            let touch = KeyTouch { id, last_used: Timestamp::from_millis(at), count: at };
            said(store.touch_keys(&[touch]).await) + &said(store.key(id).await)
        }
        _ => String::new(),
    }
}

async fn answer(store: &dyn Store, call: &Call) -> String {
    match *call {
        Call::Accept { .. } => accept(store, call).await,
        Call::Step { serial, event, attempt, behind } => {
            step(store, serial, event, attempt, behind).await
        }
        Call::Purge(now) => said(store.purge_idempotency(Timestamp::from_millis(now)).await),
        Call::Head { serial, last_seq } => {
            let dispatch = DispatchId::from_parts(serial, 0);
            let head = EventHead { dispatch, last_seq, log_bytes: 9 - last_seq };
            let set = said(store.set_event_head(head).await);
            set + &said(store.event_head(dispatch).await)
        }
        Call::InsertKey { .. } | Call::KeyStatus { .. } | Call::Touch { .. } => {
            keys(store, call).await
        }
        Call::List { owner, set, text, status, before, limit } => {
            said(store.list(&filter(owner, set, text, status, before, limit)).await)
        }
        Call::Read { serial, owner } => {
            let id = DispatchId::from_parts(serial, 0);
            let owner = sample::tenant(OWNERS[owner]);
            let mut all = said(store.get_for_tenant(&owner, id).await);
            all += &said(store.attempts(id).await);
            all + &said(store.keys(Some(&owner), None, 9).await)
        }
        Call::Restart => String::new(),
    }
}

/// Everything a store knows.
async fn everything(store: &dyn Store) -> String {
    let mut all = said(store.live().await);
    all += &said(store.audit(AuditRange { after: 0, limit: u32::MAX }).await);
    all += &said(store.verify_audit().await);
    all + &said(store.keys(None, None, 99).await)
}

async fn compare(calls: Vec<Call>) {
    let directory = tempfile::tempdir().unwrap();
    let memory = MemoryStore::new();
    let mut disk = open(directory.path());
    for call in &calls {
        if matches!(call, Call::Restart) {
            disk.close();
            disk = open(directory.path());
            continue;
        }
        let expected = answer(&memory, call).await;
        let found = answer(&disk, call).await;
        assert_eq!(found, expected, "{call:?}");
    }
    assert_eq!(everything(&disk).await, everything(&memory).await);
    disk.check().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("OUTPOST_STORE_MODEL_CASES").map_or(CASES, |text| text.parse().unwrap()), failure_persistence: None, ..Default::default() })]

    #[test]
    fn disk_answers_like_memory(calls in prop::collection::vec(call(), 1..CALLS_MAX)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(calls));
    }
}
