//! Who is let in: API keys by their hash and tenants by their id, in memory, so that no request asks the store who
//! is calling.
//!
//! This server is the only one that writes to its directory, so what is here is what is on disk. Uses of keys are
//! counted here and written down every [`TOUCH_MILLIS`]: a crash loses at most those of that time. Bounded: tenants
//! and the keys of each that work, see [`outpost_types::limits`].

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use outpost_core::Limits;
use outpost_store::{
    ApiKey, ApiKeyRecord, KEY_TOUCHES_MAX, KEYS_ROWS_MAX, KeyHash, KeyTouch, TENANTS_ROWS_MAX,
    TenantRecord,
};
use outpost_types::{
    Admission, ApiKeyStatus, Caller, KeyId, Scope, TenantId, TenantQuotas, TenantStatus, Timestamp,
};
use tracing::warn;

use crate::engine::{Engine, OpenError};

/// Time between two writes of how often keys were used, milliseconds.
const TOUCH_MILLIS: u64 = 10_000;

/// All keys and tenants.
#[derive(Debug)]
pub(crate) struct Access {
    known: RwLock<Known>,
    /// The operator's numbers with those of each tenant.
    limits: RwLock<Arc<Limits>>,
    /// Held while a key or a tenant is changed, so that bounds hold and nobody overtakes.
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Seals cursors of this server's life.
    pub(crate) cursor_secret: [u8; 32],
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<KeyHash, KnownKey>,
    hashes: HashMap<KeyId, KeyHash>,
    tenants: BTreeMap<TenantId, TenantRecord>,
}

/// A key in memory.
#[derive(Debug)]
struct KnownKey {
    caller: Arc<Caller>,
    status: ApiKeyStatus,
    expires_at: Option<Timestamp>,
    /// Uses that are not written down.
    uses: AtomicU64,
    /// The last of them, milliseconds since the Unix epoch.
    used_at: AtomicU64,
}

/// Why a key does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// There is no such key.
    Unknown,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
    /// Its tenant is suspended.
    Suspended,
}

impl KnownKey {
    fn works_at(&self, now: Timestamp) -> bool {
        self.status == ApiKeyStatus::Active && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Access {
    pub(crate) fn new(limits: Limits, cursor_secret: [u8; 32]) -> Self {
        Self {
            known: RwLock::default(),
            limits: RwLock::new(Arc::new(limits)),
            writing: tokio::sync::Mutex::default(),
            cursor_secret,
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who may have a slot: the operator's numbers with those of each tenant.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who a key belongs to, and what its tenant's quota says.
    fn look_up(
        &self,
        key: &str,
        now: Timestamp,
        counted: bool,
    ) -> Result<(Arc<Caller>, TenantQuotas), KeyRefusal> {
        // The map is keyed by the SHA-256 of 256 random bits: how long a look-up takes tells nothing
        // about a key that one does not already have.
        let hash = ApiKey::parse(key).map_err(|_| KeyRefusal::Unknown)?.hash();
        let known = self.known();
        let key = known.keys.get(&hash).ok_or(KeyRefusal::Unknown)?;
        match key.status {
            ApiKeyStatus::Revoked => return Err(KeyRefusal::Revoked),
            ApiKeyStatus::Active if key.works_at(now) => {}
            ApiKeyStatus::Active | ApiKeyStatus::Expired => return Err(KeyRefusal::Expired),
        }
        let tenant = known.tenants.get(&key.caller.tenant);
        if tenant.is_some_and(|tenant| tenant.status == TenantStatus::Suspended) {
            return Err(KeyRefusal::Suspended);
        }
        if counted {
            key.uses.fetch_add(1, Ordering::Relaxed);
            key.used_at.fetch_max(now.as_millis(), Ordering::Relaxed);
        }
        let quotas = tenant.map(|tenant| tenant.quotas).unwrap_or_default();
        Ok((Arc::clone(&key.caller), quotas))
    }

    /// Takes a key in that is on disk, and its tenant if nothing is known of it.
    pub(crate) fn know_key(&self, record: ApiKeyRecord) {
        let ApiKeyRecord { id, tenant, hash, scopes, status, expires_at, created_at, .. } = record;
        let caller = Caller { tenant: tenant.clone(), key: id, scopes };
        let (uses, used_at) = (AtomicU64::new(0), AtomicU64::new(0));
        let key = KnownKey { caller: Arc::new(caller), status, expires_at, uses, used_at };
        self.change(|known| {
            known.hashes.insert(id, hash);
            known.keys.insert(hash, key);
            let unnamed = TenantRecord {
                name: tenant.to_string(),
                id: tenant.clone(),
                status: TenantStatus::Active,
                quotas: TenantQuotas::default(),
                generation: 0,
                created_at,
            };
            let tenant = known.tenants.entry(tenant).or_insert(unnamed);
            if tenant.generation == 0 {
                tenant.created_at = tenant.created_at.min(created_at);
            }
        });
    }

    /// Takes note of how a key ended, or will.
    pub(crate) fn end_key(&self, id: KeyId, until: Option<Timestamp>) {
        self.change(|known| {
            let key = known.hashes.get(&id).and_then(|hash| known.keys.get_mut(hash));
            let Some(key) = key else { return };
            match until {
                None => key.status = ApiKeyStatus::Revoked,
                Some(until) => {
                    key.expires_at = Some(key.expires_at.map_or(until, |end| end.min(until)));
                }
            }
        });
    }

    /// Takes a tenant in that is on disk; its quota is in force from now on.
    pub(crate) fn know_tenant(&self, record: TenantRecord) {
        let most = match record.status {
            TenantStatus::Suspended => Some(0),
            TenantStatus::Active => record.quotas.concurrent_dispatches,
        };
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        let of = &mut Arc::make_mut(&mut limits).tenant_attempts_max_of;
        match most {
            Some(most) => drop(of.insert(record.id.clone(), most)),
            None => drop(of.remove(&record.id)),
        }
        drop(limits);
        self.change(|known| known.tenants.insert(record.id.clone(), record));
    }

    /// A tenant; generation 0 when it has keys and no record.
    pub(crate) fn tenant(&self, id: &TenantId) -> Option<TenantRecord> {
        self.known().tenants.get(id).cloned()
    }

    /// Tenants by id, greater than `after`.
    pub(crate) fn tenants(&self, after: Option<&TenantId>, count_max: usize) -> Vec<TenantRecord> {
        use std::ops::Bound::{Excluded, Unbounded};
        let known = self.known();
        let from = after.map_or(Unbounded, Excluded);
        let found = known.tenants.range::<TenantId, _>((from, Unbounded));
        found.take(count_max).map(|(_, tenant)| tenant.clone()).collect()
    }

    pub(crate) fn tenants_count(&self) -> usize {
        self.known().tenants.len()
    }

    /// How many keys of a tenant work.
    pub(crate) fn working_keys(&self, tenant: &TenantId, now: Timestamp) -> usize {
        let known = self.known();
        let keys = known.keys.values().filter(|key| key.caller.tenant == *tenant);
        keys.filter(|key| key.works_at(now)).count()
    }

    /// Whose key this is, as far as is known.
    pub(crate) fn owner(&self, id: KeyId) -> Option<TenantId> {
        let known = self.known();
        let key = known.hashes.get(&id).and_then(|hash| known.keys.get(hash))?;
        Some(key.caller.tenant.clone())
    }

    /// Uses of a key that are not written down, and the last of them.
    pub(crate) fn unwritten(&self, id: KeyId) -> (u64, Option<Timestamp>) {
        let known = self.known();
        let key = known.hashes.get(&id).and_then(|hash| known.keys.get(hash));
        key.map_or((0, None), |key| {
            let at = key.used_at.load(Ordering::Relaxed);
            (key.uses.load(Ordering::Relaxed), (at > 0).then(|| Timestamp::from_millis(at)))
        })
    }

    /// Takes out the uses that are to be written down.
    fn take_touches(&self) -> Vec<KeyTouch> {
        let known = self.known();
        let used = known.keys.values().filter(|key| key.uses.load(Ordering::Relaxed) > 0);
        used.map(|key| KeyTouch {
            id: key.caller.key,
            last_used: Timestamp::from_millis(key.used_at.load(Ordering::Relaxed)),
            count: key.uses.swap(0, Ordering::Relaxed),
        })
        .collect()
    }

    /// Puts back what could not be written down.
    fn put_back(&self, touches: &[KeyTouch]) {
        let known = self.known();
        for touch in touches {
            let key = known.hashes.get(&touch.id).and_then(|hash| known.keys.get(hash));
            if let Some(key) = key {
                key.uses.fetch_add(touch.count, Ordering::Relaxed);
            }
        }
    }
}

impl Engine {
    /// Who a key belongs to, and how much it may ask for. Counts as a use of the key. Does no IO.
    ///
    /// # Errors
    /// [`KeyRefusal`] when it does not work.
    pub fn authenticate(&self, key: &str) -> Result<Admission, KeyRefusal> {
        let (caller, quotas) = self.inner.access.look_up(key, self.now(), true)?;
        Ok(Admission { caller, requests_per_minute: quotas.requests_per_minute })
    }

    /// The same without counting: for the key that this process itself holds.
    ///
    /// # Errors
    /// [`KeyRefusal`] when it does not work.
    pub fn caller_of(&self, key: &str) -> Result<Arc<Caller>, KeyRefusal> {
        self.inner.access.look_up(key, self.now(), false).map(|(caller, _)| caller)
    }

    /// Records a key that was made elsewhere. Only its hash is kept.
    ///
    /// # Errors
    /// [`OpenError::Store`] when it could not be recorded; then it does not work.
    pub async fn insert_key(
        &self,
        key: &ApiKey,
        tenant: TenantId,
        scopes: impl IntoIterator<Item = Scope> + Send,
    ) -> Result<(), OpenError> {
        let now = self.now();
        let id = KeyId::from_parts(now.as_millis(), self.random_u128());
        let record = ApiKeyRecord::new(id, tenant, key, scopes.into_iter().collect(), now, None);
        self.inner.store.insert_key(record.clone(), crate::audit::of_new_key(&record)).await?;
        self.inner.access.know_key(record);
        Ok(())
    }

    /// Reads all keys and tenants.
    pub(crate) async fn load_access(&self) -> Result<(), OpenError> {
        let mut before = None;
        loop {
            let page = self.inner.store.keys(None, before, KEYS_ROWS_MAX).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            page.into_iter().for_each(|record| self.inner.access.know_key(record));
        }
        let mut after = None;
        loop {
            let page = self.inner.store.tenants(after.as_ref(), TENANTS_ROWS_MAX).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            page.into_iter().for_each(|record| self.inner.access.know_tenant(record));
        }
    }

    /// Writes down how often keys were used since it was last done. What cannot be written is kept for the next
    /// time.
    pub async fn write_key_uses(&self) {
        let touches = self.inner.access.take_touches();
        for part in touches.chunks(KEY_TOUCHES_MAX) {
            if let Err(error) = self.inner.store.touch_keys(part).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "uses of keys cannot be written down; trying again later"
                );
                self.inner.access.put_back(part);
            }
        }
    }
}

/// Writes uses down again and again; ends when its task is aborted.
pub(crate) async fn run(engine: Engine) {
    loop {
        tokio::time::sleep(Duration::from_millis(TOUCH_MILLIS)).await;
        engine.write_key_uses().await;
    }
}
