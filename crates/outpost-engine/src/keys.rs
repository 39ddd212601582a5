//! API keys: looked up by hash in memory, so that no request asks the store who is calling.

use std::sync::{Arc, PoisonError};

use outpost_store::{ApiKey, ApiKeyRecord, KEYS_ROWS_MAX};
use outpost_types::{ApiKeyStatus, Caller, KeyId, Scope, TenantId, Timestamp};

use crate::engine::{Engine, OpenError};

/// A key in memory.
#[derive(Debug, Clone)]
pub(crate) struct KnownKey {
    caller: Arc<Caller>,
    status: ApiKeyStatus,
    expires_at: Option<Timestamp>,
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
}

impl Engine {
    /// Who a key belongs to. Does no IO.
    ///
    /// # Errors
    /// [`KeyRefusal`] when it does not work.
    pub fn authenticate(&self, key: &str) -> Result<Arc<Caller>, KeyRefusal> {
        // The map is keyed by the SHA-256 of 256 random bits: how long a look-up takes tells nothing
        // about a key that one does not already have.
        let hash = ApiKey::parse(key).map_err(|_| KeyRefusal::Unknown)?.hash();
        let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(&hash).ok_or(KeyRefusal::Unknown)?;
        match known.status {
            ApiKeyStatus::Revoked => Err(KeyRefusal::Revoked),
            ApiKeyStatus::Expired => Err(KeyRefusal::Expired),
            ApiKeyStatus::Active => match known.expires_at {
                Some(at) if at <= self.now() => Err(KeyRefusal::Expired),
                _ => Ok(Arc::clone(&known.caller)),
            },
        }
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
        let record = ApiKeyRecord {
            id: KeyId::from_parts(now.as_millis(), self.random_u128()),
            tenant,
            hash: key.hash(),
            prefix: key.prefix().to_owned(),
            name: String::new(),
            scopes: scopes.into_iter().collect(),
            status: ApiKeyStatus::Active,
            created_at: now,
            expires_at: None,
            last_used_at: None,
            usage_count: 0,
        };
        self.inner.store.insert_key(record.clone(), crate::audit::of_new_key(&record)).await?;
        self.know(record);
        Ok(())
    }

    pub(crate) async fn load_keys(&self) -> Result<(), OpenError> {
        let mut before = None;
        loop {
            let page = self.inner.store.keys(None, before, KEYS_ROWS_MAX).await?;
            before = page.last().map(|record| record.id);
            if page.is_empty() {
                return Ok(());
            }
            page.into_iter().for_each(|record| self.know(record));
        }
    }

    fn know(&self, record: ApiKeyRecord) {
        let caller = Caller { tenant: record.tenant, key: record.id, scopes: record.scopes };
        let known = KnownKey {
            caller: Arc::new(caller),
            status: record.status,
            expires_at: record.expires_at,
        };
        let mut keys = self.inner.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(record.hash, known);
    }
}
