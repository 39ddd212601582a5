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
use tokio::sync::watch;
use tracing::warn;

use crate::engine::{Engine, OpenError};

/// Time between two writes of how often keys were used, milliseconds.
const TOUCH_MILLIS: u64 = 10_000;
/// How long a key that ended stays in memory, so that its holder hears why it does not work, milliseconds. After
/// that it is one that is not known.
const ENDED_MILLIS_MAX: u64 = 24 * 60 * 60 * 1000;

/// All keys and tenants.
#[derive(Debug)]
pub(crate) struct Access {
    known: RwLock<Known>,
    /// The operator's numbers with those of each tenant.
    limits: RwLock<Arc<Limits>>,
    /// Says that a key or a tenant is another than before.
    changed: watch::Sender<()>,
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
    /// When it was taken back, or this server learnt that it was.
    revoked_at: Option<Timestamp>,
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

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It works, until then.
    Works { until: Option<Timestamp> },
    /// It does not.
    Refused(KeyRefusal),
}

impl KnownKey {
    /// When it stopped to work, of its own.
    fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.revoked_at.or_else(|| self.expires_at.filter(|end| *end <= now))
    }

    fn works_at(&self, now: Timestamp) -> bool {
        self.status == ApiKeyStatus::Active && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Known {
    fn standing(&self, key: &KnownKey, now: Timestamp) -> Standing {
        match key.status {
            ApiKeyStatus::Revoked => return Standing::Refused(KeyRefusal::Revoked),
            ApiKeyStatus::Active if key.works_at(now) => {}
            ApiKeyStatus::Active | ApiKeyStatus::Expired => {
                return Standing::Refused(KeyRefusal::Expired);
            }
        }
        let tenant = self.tenants.get(&key.caller.tenant);
        if tenant.is_some_and(|tenant| tenant.status == TenantStatus::Suspended) {
            return Standing::Refused(KeyRefusal::Suspended);
        }
        Standing::Works { until: key.expires_at }
    }
}

impl Access {
    pub(crate) fn new(limits: Limits, cursor_secret: [u8; 32]) -> Self {
        Self {
            known: RwLock::default(),
            limits: RwLock::new(Arc::new(limits)),
            changed: watch::Sender::new(()),
            writing: tokio::sync::Mutex::default(),
            cursor_secret,
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let done = change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        done
    }

    /// Says that a key or a tenant may be another than before.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How a key stands; `None` when there is no such key in memory.
    pub(crate) fn standing(&self, id: KeyId, now: Timestamp) -> Option<Standing> {
        let known = self.known();
        let key = known.hashes.get(&id).and_then(|hash| known.keys.get(hash))?;
        Some(known.standing(key, now))
    }

    /// Lets go of keys that ended long ago and have no use to be written down; says how many.
    pub(crate) fn let_go_of_ended(&self, now: Timestamp) -> usize {
        let long_ago = |key: &KnownKey| {
            let ended = key.ended_at(now);
            ended.is_some_and(|ended| now.millis_since(ended) >= ENDED_MILLIS_MAX)
                && key.uses.load(Ordering::Relaxed) == 0
        };
        if !self.known().keys.values().any(long_ago) {
            return 0;
        }
        self.change(|known| {
            let before = known.keys.len();
            known.keys.retain(|_, key| !long_ago(key));
            let Known { keys, hashes, .. } = known;
            hashes.retain(|_, hash| keys.contains_key(hash));
            before - known.keys.len()
        })
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
        if let Standing::Refused(reason) = known.standing(key, now) {
            return Err(reason);
        }
        let tenant = known.tenants.get(&key.caller.tenant);
        if counted {
            key.uses.fetch_add(1, Ordering::Relaxed);
            key.used_at.fetch_max(now.as_millis(), Ordering::Relaxed);
        }
        let quotas = tenant.map(|tenant| tenant.quotas).unwrap_or_default();
        Ok((Arc::clone(&key.caller), quotas))
    }

    /// Takes a key in that is on disk, and its tenant if nothing is known of it.
    pub(crate) fn know_key(&self, record: ApiKeyRecord, now: Timestamp) {
        let ApiKeyRecord { id, tenant, hash, scopes, status, expires_at, created_at, .. } = record;
        let caller = Caller { tenant: tenant.clone(), key: id, scopes };
        let (uses, used_at) = (AtomicU64::new(0), AtomicU64::new(0));
        let revoked_at = (status == ApiKeyStatus::Revoked).then_some(now);
        let caller = Arc::new(caller);
        let key = KnownKey { caller, status, expires_at, revoked_at, uses, used_at };
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
    pub(crate) fn end_key(&self, id: KeyId, until: Option<Timestamp>, now: Timestamp) {
        self.change(|known| {
            let key = known.hashes.get(&id).and_then(|hash| known.keys.get_mut(hash));
            let Some(key) = key else { return };
            match until {
                None => {
                    key.status = ApiKeyStatus::Revoked;
                    key.revoked_at.get_or_insert(now);
                }
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

    /// Who has the key with this id, if it works.
    pub(crate) fn working(&self, id: KeyId, now: Timestamp) -> Option<Arc<Caller>> {
        let known = self.known();
        let key = known.hashes.get(&id).and_then(|hash| known.keys.get(hash))?;
        let tenant = known.tenants.get(&key.caller.tenant);
        let is_suspended = tenant.is_some_and(|tenant| tenant.status == TenantStatus::Suspended);
        (key.works_at(now) && !is_suspended).then(|| Arc::clone(&key.caller))
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
        self.inner.access.know_key(record, now);
        Ok(())
    }

    /// Reads all keys and tenants.
    pub(crate) async fn load_access(&self) -> Result<(), OpenError> {
        let mut before = None;
        loop {
            let page = self.inner.store.keys(None, before, KEYS_ROWS_MAX).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            page.into_iter().for_each(|record| self.inner.access.know_key(record, self.now()));
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

/// Writes uses down, and lets go of keys that ended, again and again; ends when its task is aborted.
pub(crate) async fn run(engine: Engine) {
    loop {
        tokio::time::sleep(Duration::from_millis(TOUCH_MILLIS)).await;
        engine.write_key_uses().await;
        engine.inner.access.let_go_of_ended(engine.now());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn access() -> Access {
        let limits = Limits {
            host_attempts_max: 1,
            tenant_attempts_max: None,
            tenant_attempts_max_of: BTreeMap::new(),
            agent_attempts_max_default: 1,
            agent_attempts_max: BTreeMap::new(),
        };
        Access::new(limits, [0; 32])
    }

    #[test]
    fn keys_that_ended_leave_memory_once_their_uses_are_written_down() {
        let (access, start) = (access(), Timestamp::from_millis(1_000));
        let end = start.plus_millis(5_000);
        let keys = [1, 2, 3].map(|byte| ApiKey::generate([byte; 32]));
        for (number, (key, until)) in keys.iter().zip([None, Some(end), None]).enumerate() {
            let id = KeyId::from_parts(1, number as u128);
            let scopes = [Scope::List].into();
            let record = ApiKeyRecord::new(id, TenantId::local(), key, scopes, start, until);
            access.know_key(record, start);
        }
        let refused = |key: &ApiKey, at| access.look_up(key.expose(), at, true).err();
        assert_eq!(refused(&keys[1], start), None);
        access.end_key(KeyId::from_parts(1, 2), None, end);
        let late = end.plus_millis(ENDED_MILLIS_MAX - 1);
        assert_eq!(access.let_go_of_ended(late), 0);
        assert_eq!(refused(&keys[1], late), Some(KeyRefusal::Expired));
        assert_eq!(refused(&keys[2], late), Some(KeyRefusal::Revoked));
        let later = late.plus_millis(1);
        assert_eq!(access.let_go_of_ended(later), 1, "one has a use that is not written down");
        assert_eq!(access.take_touches().len(), 1);
        assert_eq!(access.let_go_of_ended(later), 1);
        assert_eq!(refused(&keys[1], later), Some(KeyRefusal::Unknown));
        assert_eq!(refused(&keys[0], later), None);
        assert_eq!(access.owner(KeyId::from_parts(1, 1)), None);
    }
}
