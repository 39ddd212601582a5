//! What every test of the engine starts from.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use outpost_core::{Dispatch, Limits, RetentionRules};
use outpost_engine::{Engine, EngineApi, EngineConfig, KeyFile, Secrets, World};
use outpost_gateway::hooks::HookClient;
use outpost_store::{
    AcceptDispatch, Accepted, ApiKeyRecord, ApiKeys, AttemptRecord, AuditEntry, AuditHead,
    AuditRange, AuditRow, Audits, BrokenAt, Dispatches, EventHead, EventHeads, KeyHash, KeyTouch,
    ListFilter, ListPage, MemoryStore, Store, StoreError, StoreMetrics, UsageRow, Usages,
};
use outpost_types::{
    Api as _, ApiKeyStatus, AttemptId, Caller, DispatchId, DispatchRequest, DispatchStatus,
    DispatchView, KeyId, Scope, TenantId, Timestamp,
};

use crate::puppet::Puppet;

/// Longest wait for anything, seconds: it bounds a hang.
const PATIENCE_SECONDS: u64 = 30;

/// What a write comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is made, as usual.
    None,
    /// It is not made.
    Lost,
    /// It is made, and reported as failed.
    Unheard,
}

/// A store whose next writes of dispatches come to what the test says.
#[derive(Debug, Default)]
pub(crate) struct Faulty {
    pub(crate) inner: MemoryStore,
    next: Mutex<VecDeque<Fault>>,
    stays: AtomicBool,
}

impl Faulty {
    pub(crate) fn then(&self, faults: &[Fault]) {
        self.next.lock().unwrap().extend(faults);
    }

    /// Whether records that had their time cannot be removed.
    pub(crate) fn stay(&self, stays: bool) {
        self.stays.store(stays, Ordering::SeqCst);
    }

    pub(crate) fn stays(&self) -> bool {
        self.stays.load(Ordering::SeqCst)
    }

    fn fault(&self) -> Fault {
        self.next.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }
}

pub(crate) fn broken() -> StoreError {
    StoreError::Io { source: Arc::new(std::io::Error::other("the disk says no")) }
}

#[async_trait]
impl Dispatches for Faulty {
    async fn accept(&self, accept: AcceptDispatch) -> Result<Accepted, StoreError> {
        match self.fault() {
            Fault::None => self.inner.accept(accept).await,
            Fault::Lost => Err(broken()),
            Fault::Unheard => self.inner.accept(accept).await.and(Err(broken())),
        }
    }
    async fn update(
        &self,
        next: &Dispatch,
        expected: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        match self.fault() {
            Fault::None => self.inner.update(next, expected, audit).await,
            Fault::Lost => Err(broken()),
            Fault::Unheard => self.inner.update(next, expected, audit).await.and(Err(broken())),
        }
    }
    async fn get(&self, id: DispatchId) -> Result<Option<Dispatch>, StoreError> {
        self.inner.get(id).await
    }
    async fn get_for_tenant(
        &self,
        tenant: &TenantId,
        id: DispatchId,
    ) -> Result<Option<Dispatch>, StoreError> {
        self.inner.get_for_tenant(tenant, id).await
    }
    async fn list(&self, filter: &ListFilter) -> Result<ListPage, StoreError> {
        self.inner.list(filter).await
    }
    async fn live_page(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<Dispatch>, StoreError> {
        self.inner.live_page(after, limit).await
    }
    async fn attempts(&self, id: DispatchId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.inner.attempts(id).await
    }
    async fn purge_idempotency(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.inner.purge_idempotency(now).await
    }
}

#[async_trait]
impl ApiKeys for Faulty {
    async fn insert_key(&self, key: ApiKeyRecord, audit: AuditEntry) -> Result<(), StoreError> {
        self.inner.insert_key(key, audit).await
    }
    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.inner.key_by_hash(hash).await
    }
    async fn key(&self, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.inner.key(id).await
    }
    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        self.inner.keys(tenant, before, limit).await
    }
    async fn replace_key(&self, replace: outpost_store::ReplaceKey) -> Result<(), StoreError> {
        self.inner.replace_key(replace).await
    }
    async fn set_key_status(
        &self,
        id: KeyId,
        status: ApiKeyStatus,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        self.inner.set_key_status(id, status, audit).await
    }
    async fn touch_keys(&self, touches: &[KeyTouch]) -> Result<(), StoreError> {
        self.inner.touch_keys(touches).await
    }
}

#[async_trait]
impl EventHeads for Faulty {
    async fn set_event_head(&self, head: EventHead) -> Result<(), StoreError> {
        self.inner.set_event_head(head).await
    }
    async fn event_head(&self, id: DispatchId) -> Result<Option<EventHead>, StoreError> {
        self.inner.event_head(id).await
    }
}

#[async_trait]
impl Audits for Faulty {
    async fn audit(&self, range: AuditRange) -> Result<Vec<AuditRow>, StoreError> {
        self.inner.audit(range).await
    }
    async fn audit_page(
        &self,
        filter: outpost_store::AuditFilter,
    ) -> Result<outpost_store::AuditPage, StoreError> {
        self.inner.audit_page(filter).await
    }
    async fn verify_audit(&self) -> Result<Result<AuditHead, BrokenAt>, StoreError> {
        self.inner.verify_audit().await
    }
}

#[async_trait]
impl Usages for Faulty {
    async fn usage(
        &self,
        tenant: Option<&TenantId>,
        days: RangeInclusive<u64>,
    ) -> Result<Vec<UsageRow>, StoreError> {
        self.inner.usage(tenant, days).await
    }
}

#[async_trait]
impl outpost_store::Promotions for Faulty {
    async fn put_promotion(
        &self,
        next: &outpost_core::Promotion,
        expected: u64,
        audit: AuditEntry,
        told: &[outpost_core::Notice],
    ) -> Result<(), StoreError> {
        self.inner.put_promotion(next, expected, audit, told).await
    }
    async fn promotion(
        &self,
        dispatch: DispatchId,
    ) -> Result<Option<outpost_core::Promotion>, StoreError> {
        self.inner.promotion(dispatch).await
    }
    async fn open_promotions(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<outpost_core::Promotion>, StoreError> {
        self.inner.open_promotions(after, limit).await
    }
}

#[async_trait]
impl outpost_store::Tenants for Faulty {
    async fn put_tenant(
        &self,
        next: outpost_store::TenantRecord,
        expected: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        self.inner.put_tenant(next, expected, audit).await
    }
    async fn tenant(
        &self,
        id: &TenantId,
    ) -> Result<Option<outpost_store::TenantRecord>, StoreError> {
        self.inner.tenant(id).await
    }
    async fn tenants(
        &self,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<outpost_store::TenantRecord>, StoreError> {
        self.inner.tenants(after, limit).await
    }
}

#[async_trait]
impl outpost_store::Fleets for Faulty {
    async fn put_drains(
        &self,
        drains: outpost_core::Drains,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        self.inner.put_drains(drains, audit).await
    }
    async fn drains(&self) -> Result<outpost_core::Drains, StoreError> {
        self.inner.drains().await
    }
}

impl Store for Faulty {
    fn metrics(&self) -> StoreMetrics {
        self.inner.metrics()
    }
}

/// A clock that stands still, and numbers that count up.
#[derive(Debug)]
pub(crate) struct Still {
    millis: AtomicU64,
    numbers: AtomicU64,
}

impl Still {
    pub(crate) fn set(&self, at: Timestamp) {
        self.millis.store(at.as_millis(), Ordering::SeqCst);
    }
}

impl World for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn fill(&self, bytes: &mut [u8]) {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        bytes[..8].copy_from_slice(&number.to_le_bytes());
    }
}

/// An engine and everything it is made of.
pub(crate) struct Scene {
    pub(crate) store: Arc<Faulty>,
    pub(crate) puppet: Arc<Puppet>,
    pub(crate) clock: Arc<Still>,
    pub(crate) engine: Engine,
    pub(crate) api: EngineApi,
    dir: tempfile::TempDir,
    slots: u32,
    waiting_count_max: usize,
}

impl Scene {
    pub(crate) async fn new(slots: u32) -> Self {
        Self::with_waiting(slots, 1_000).await
    }

    pub(crate) async fn with_waiting(slots: u32, waiting_count_max: usize) -> Self {
        let (store, puppet) = (Arc::new(Faulty::default()), Puppet::new());
        let clock =
            Arc::new(Still { millis: AtomicU64::new(1_000_000), numbers: AtomicU64::new(1) });
        let dir = tempfile::tempdir().unwrap();
        let parts = (&store, &puppet, &clock);
        let engine = open(dir.path(), slots, waiting_count_max, parts).await;
        let api = engine.api(Arc::new(caller()));
        Self { store, puppet, clock, engine, api, dir, slots, waiting_count_max }
    }

    /// Another engine on the same records, with a runner that knows nothing.
    pub(crate) async fn next(self) -> Self {
        self.engine.leave().await;
        let puppet = Puppet::new();
        let parts = (&self.store, &puppet, &self.clock);
        let engine = open(self.dir.path(), self.slots, self.waiting_count_max, parts).await;
        let api = engine.api(Arc::new(caller()));
        Self { puppet, engine, api, ..self }
    }

    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) async fn dispatch(&self) -> DispatchView {
        self.api.create_dispatch(request(), None).await.unwrap().dispatch
    }

    /// Waits until the dispatch is there.
    pub(crate) async fn until(&self, id: DispatchId, status: DispatchStatus) -> DispatchView {
        let waiting = async {
            let mut generation = 0;
            loop {
                let wait = Some(Duration::from_secs(1));
                let view = self.api.get_dispatch(id, wait, Some(generation)).await.unwrap();
                if view.status == status {
                    return view;
                }
                generation = view.generation;
            }
        };
        let patience = Duration::from_secs(PATIENCE_SECONDS);
        tokio::time::timeout(patience, waiting).await.unwrap()
    }
}

async fn open(
    dir: &std::path::Path,
    slots: u32,
    waiting_count_max: usize,
    (store, puppet, clock): (&Arc<Faulty>, &Arc<Puppet>, &Arc<Still>),
) -> Engine {
    let limits = Limits {
        host_attempts_max: slots,
        tenant_attempts_max: None,
        tenant_attempts_max_of: BTreeMap::new(),
        agent_attempts_max_default: 99,
        agent_attempts_max: BTreeMap::new(),
    };
    let (store, puppet, clock) = (Arc::clone(store), Arc::clone(puppet), Arc::clone(clock));
    // Apart from each other, as they must be.
    let data_dir = dir.join("data");
    let key_file = KeyFile::new(dir.join("keys/secrets.key"), &data_dir);
    let world = Arc::clone(&clock) as _;
    let secrets = Secrets::new(Arc::clone(&store) as _, Some(key_file), world);
    let config = EngineConfig {
        data_dir,
        limits,
        waiting_count_max,
        secrets: Arc::new(secrets),
        retention: RetentionRules::default(),
        hooks: HookClient::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap(),
    };
    Engine::open(config, store, puppet, clock).await.unwrap()
}

fn caller() -> Caller {
    let scopes = [Scope::Admin].into();
    Caller { tenant: TenantId::local(), key: KeyId::from_parts(1, 1), scopes }
}

pub(crate) fn request() -> DispatchRequest {
    DispatchRequest { agent: "claude".into(), task: "do it".into(), ..DispatchRequest::default() }
}

pub(crate) const fn first(dispatch: DispatchId) -> AttemptId {
    AttemptId { dispatch, number: 1 }
}
