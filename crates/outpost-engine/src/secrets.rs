//! Secrets: sealed before they reach the store, opened only for an attempt, every use on record first.
//!
//! The keys are in a file apart from the data. While it is missing, wrong or open to others, secrets
//! are unavailable with a reason; nothing is overwritten, and the file is read again at the next
//! request. Bounded: secrets and versions by the store, tries of a use that meets a change.
//! Deliberately absent: an operation that answers a value to a client.
//!
//! A rekey has three steps, each durable before the next: the file has the new key beside the old;
//! every value is sealed with the new one, in one transaction; the file has only the new one. A crash
//! between two of them leaves a file whose keys open everything, and [`Secrets::settle`] finishes.

mod key_file;
mod seal;
mod signing;
mod source;

use std::sync::Arc;

use outpost_store::{
    AuditEntry, Reseal, SealedSecret, SecretOwner, SecretRecord, Store, StoreError,
};
use outpost_types::{
    ApiError, Caller, ErrorCode, PutSecret, RekeyView, Scope, SecretKind, SecretName, SecretScope,
    SecretView, TenantId,
};
use ring::aead::NONCE_LEN;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::api::store_error;
use crate::audit;
use crate::clock::World;
pub use key_file::{KeyFault, KeyFile};
use seal::{KEY_BYTES, KeyRing, short_name};

/// The secrets of all tenants and of the platform.
#[derive(Debug)]
pub struct Secrets {
    store: Arc<dyn Store>,
    world: Arc<dyn World>,
    file: Option<KeyFile>,
    /// The keys, once they were read and found right. Held while values are fetched and opened, so
    /// that a rekey cannot take a key away in between.
    keys: RwLock<Option<KeyRing>>,
    /// Held by whoever changes secrets, so that each finds the version it builds on.
    writing: Mutex<()>,
}

impl Secrets {
    /// Secrets in `store` whose keys are in `file`; `None` when there is no place for one. Reads
    /// nothing yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, file: Option<KeyFile>, world: Arc<dyn World>) -> Self {
        Self { store, world, file, keys: RwLock::default(), writing: Mutex::default() }
    }

    /// Says in the log whether secrets can be had, and finishes what a rekey began. For the start of
    /// a server; nothing that goes wrong here keeps it from starting.
    pub async fn settle(&self) {
        let _one_at_a_time = self.writing.lock().await;
        let mut keys = self.keys.write().await;
        let ring = match self.load(&mut keys).await {
            Ok(ring) => ring,
            Err(Trouble::Key(KeyFault::Absent { .. })) => return,
            Err(trouble) => return trouble.log("secrets are unavailable"),
        };
        if ring.has_old() {
            info!("the key file has an old key; encrypting what still needs it anew");
            if let Err(trouble) =
                self.finish_rekey(&mut keys, &ring, audit::of_rekey(None, self.world.now())).await
            {
                trouble.log("the old key stays in its file");
            }
        }
    }

    /// Stores a value as the next version.
    pub(crate) async fn put(
        &self,
        caller: &Caller,
        name: SecretName,
        request: PutSecret,
    ) -> Result<SecretView, ApiError> {
        let owner = owner_for(caller, request.scope.unwrap_or_default())?;
        let _one_at_a_time = self.writing.lock().await;
        let found = self.store.secret(&owner, &name).await.map_err(store_error)?;
        let before = found.as_ref();
        let kind = request.kind.or_else(|| before.map(|it| it.kind)).unwrap_or_default();
        check_kind(&name, kind)?;
        request.value.check(kind)?;
        let now = self.world.now();
        let record = SecretRecord {
            version: before.map_or(0, |it| it.version) + 1,
            created_at: before.map_or(now, |it| it.created_at),
            updated_at: now,
            last_used_at: before.and_then(|it| it.last_used_at),
            use_count: before.map_or(0, |it| it.use_count),
            owner,
            name,
            kind,
        };
        let ring = self.ring_or_new().await.map_err(|trouble| trouble.answer(caller))?;
        let envelope = ring.seal(&record, &request.value, self.nonce());
        drop(request);
        let entry = audit::of_secret("secret.set", &record, &caller.tenant, Some(caller.key), now);
        match self.store.put_secret(record.clone(), envelope, entry).await {
            Ok(()) => Ok(view(record)),
            Err(StoreError::Invalid { field, message }) => Err(ApiError::field(field, message)),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The caller's, and for the operator the platform's.
    pub(crate) async fn list(&self, caller: &Caller) -> Result<Vec<SecretView>, ApiError> {
        let own = SecretOwner::Tenant(caller.tenant.clone());
        let mut records = self.store.secrets(&own).await.map_err(store_error)?;
        if is_operator(caller) {
            let platform = self.store.secrets(&SecretOwner::Platform).await;
            records.extend(platform.map_err(store_error)?);
        }
        Ok(records.into_iter().map(view).collect())
    }

    /// Removes one. Needs no key, so that secrets whose key is lost can be removed.
    pub(crate) async fn delete(
        &self,
        caller: &Caller,
        name: &SecretName,
        scope: SecretScope,
    ) -> Result<SecretView, ApiError> {
        let owner = owner_for(caller, scope)?;
        let _one_at_a_time = self.writing.lock().await;
        let found = self.store.secret(&owner, name).await.map_err(store_error)?;
        let found = found.ok_or_else(ApiError::not_found)?;
        let (tenant, now) = (&caller.tenant, self.world.now());
        let entry = audit::of_secret("secret.deleted", &found, tenant, Some(caller.key), now);
        let removed = self.store.delete_secret(&owner, name, entry).await.map_err(store_error)?;
        removed.map(view).ok_or_else(ApiError::not_found)
    }

    /// Makes a new key and seals everything with it.
    pub(crate) async fn rekey(&self, caller: &Caller) -> Result<RekeyView, ApiError> {
        owner_for(caller, SecretScope::Platform)?;
        let _one_at_a_time = self.writing.lock().await;
        let mut keys = self.keys.write().await;
        let entry = audit::of_rekey(Some(caller), self.world.now());
        let done = async {
            let ring = match self.load(&mut keys).await {
                Err(Trouble::Key(KeyFault::Absent { .. })) => self.make(&mut keys)?,
                loaded => loaded?,
            };
            // One that was begun before is finished instead: its new key sealed nothing else yet.
            let both = if ring.has_old() { ring } else { self.begin_rekey(&mut keys, &ring)? };
            self.finish_rekey(&mut keys, &both, entry).await
        };
        done.await.map_err(|trouble| trouble.answer(caller))
    }

    /// First step: the file has a new key, which seals from now on, beside the old.
    fn begin_rekey(&self, keys: &mut Option<KeyRing>, ring: &KeyRing) -> Result<KeyRing, Trouble> {
        let file = self.file()?;
        if !file.is_managed() {
            return Err(KeyFault::ReadOnly { path: file.path().to_owned() }.into());
        }
        if file.load()?.id() != ring.id() {
            return Err(KeyFault::Replaced { path: file.path().to_owned() }.into());
        }
        let both = ring.with_new(self.new_key());
        file.replace(&both)?;
        *keys = Some(both.clone());
        Ok(both)
    }

    /// Second and third step: everything is sealed with the first key, and it stays alone.
    async fn finish_rekey(
        &self,
        keys: &mut Option<KeyRing>,
        both: &KeyRing,
        entry: AuditEntry,
    ) -> Result<RekeyView, Trouble> {
        let versions = self.reseal(both, entry).await?;
        let alone = both.newest();
        let file = self.file()?;
        if file.is_managed() {
            file.replace(&alone)?;
            *keys = Some(alone);
        }
        let key_id = short_name(both.id());
        info!(key_id, versions, "all secrets are encrypted with the newest key");
        Ok(RekeyView { key_id, versions, old_key_left: !file.is_managed() })
    }

    /// Seals every value with the first key that is not sealed with it.
    async fn reseal(&self, ring: &KeyRing, entry: AuditEntry) -> Result<u64, Trouble> {
        let ids = self.store.secret_key_ids().await.map_err(Trouble::Store)?;
        if ids.iter().all(|id| *id == ring.id()) {
            return Ok(0);
        }
        let (ring, world) = (ring.clone(), Arc::clone(&self.world));
        let reseal = move |sealed: &SealedSecret| {
            if sealed.envelope.key_id == ring.id() {
                return Ok(None);
            }
            let place = seal::place_of(sealed);
            let value = ring.open(sealed).map_err(|fault| {
                let (owner, version) = (sealed.owner.as_str(), sealed.version);
                format!("version {version} of {} of {owner}: {fault}", sealed.name)
            })?;
            Ok(Some(ring.seal(&place, &value, nonce(&*world))))
        };
        self.store.reseal_secrets(Reseal(Arc::new(reseal)), entry).await.map_err(
            |error| match error {
                StoreError::Invalid { message, .. } => Trouble::Damaged(message),
                error => Trouble::Store(error),
            },
        )
    }

    /// The keys, read now if they were not yet.
    async fn ring(&self) -> Result<RwLockReadGuard<'_, Option<KeyRing>>, Trouble> {
        let keys = self.keys.read().await;
        if keys.is_some() {
            return Ok(keys);
        }
        drop(keys);
        let mut keys = self.keys.write().await;
        self.load(&mut keys).await?;
        Ok(RwLockWriteGuard::downgrade(keys))
    }

    /// The keys, made now if nothing needs earlier ones.
    async fn ring_or_new(&self) -> Result<KeyRing, Trouble> {
        let mut keys = self.keys.write().await;
        match self.load(&mut keys).await {
            Err(Trouble::Key(KeyFault::Absent { .. })) => self.make(&mut keys),
            loaded => loaded,
        }
    }

    async fn load(&self, keys: &mut Option<KeyRing>) -> Result<KeyRing, Trouble> {
        if let Some(ring) = keys {
            return Ok(ring.clone());
        }
        let file = self.file()?;
        let ids = self.store.secret_key_ids().await.map_err(Trouble::Store)?;
        let ring = match file.load() {
            Err(KeyFault::Absent { path }) if !ids.is_empty() => {
                return Err(KeyFault::Gone { path }.into());
            }
            loaded => loaded?,
        };
        if !ids.is_empty() && !ids.iter().any(|id| ring.knows(*id)) {
            return Err(KeyFault::WrongKey { path: file.path().to_owned() }.into());
        }
        *keys = Some(ring.clone());
        Ok(ring)
    }

    fn make(&self, keys: &mut Option<KeyRing>) -> Result<KeyRing, Trouble> {
        let file = self.file()?;
        let ring = file.create(&KeyRing::of(self.new_key()))?;
        info!(path = %file.path().display(), "a key for secrets was made; keep this file");
        *keys = Some(ring.clone());
        Ok(ring)
    }

    fn file(&self) -> Result<&KeyFile, KeyFault> {
        self.file.as_ref().ok_or(KeyFault::NoPlace)
    }

    fn new_key(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        self.world.fill(&mut *bytes);
        bytes
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        nonce(&*self.world)
    }
}

fn nonce(world: &dyn World) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    world.fill(&mut nonce);
    nonce
}

/// Why something about secrets was not done.
#[derive(Debug)]
enum Trouble {
    Key(KeyFault),
    /// A value that does not open, named without it.
    Damaged(String),
    Store(StoreError),
}

impl From<KeyFault> for Trouble {
    fn from(fault: KeyFault) -> Self {
        Self::Key(fault)
    }
}

impl Trouble {
    /// What a caller hears. Only the operator learns of files and of other tenants' secrets.
    fn answer(self, caller: &Caller) -> ApiError {
        self.log("secrets are unavailable");
        let for_operator = |detail: String, hint: &str| {
            if is_operator(caller) {
                let message = format!("Secrets are unavailable: {detail}.");
                ApiError::new(ErrorCode::SecretsUnavailable, message).with_hint(hint)
            } else {
                ApiError::new(ErrorCode::SecretsUnavailable, "Secrets are unavailable here now.")
                    .with_hint("Ask the operator; the server's log says why.")
            }
        };
        match self {
            Self::Store(error) => store_error(error),
            Self::Key(fault) => for_operator(
                fault.to_string(),
                "Nothing was changed. The file is read again at the next request.",
            ),
            Self::Damaged(what) => for_operator(
                what,
                "Nothing was changed. Remove that secret and set it anew, then try again.",
            ),
        }
    }

    fn log(&self, what: &str) {
        match self {
            Self::Key(fault) => warn!(reason = %fault, "{what}"),
            Self::Damaged(reason) => warn!(reason, "{what}"),
            Self::Store(error) => warn!(?error, "{what}"),
        }
    }
}

/// Whether the caller is who runs the install: an admin of the tenant that every install has.
pub(crate) fn is_operator(caller: &Caller) -> bool {
    caller.may(Scope::Admin) && caller.tenant == TenantId::local()
}

fn owner_for(caller: &Caller, scope: SecretScope) -> Result<SecretOwner, ApiError> {
    match scope {
        SecretScope::Tenant => Ok(SecretOwner::Tenant(caller.tenant.clone())),
        SecretScope::Platform if is_operator(caller) => Ok(SecretOwner::Platform),
        SecretScope::Platform => {
            let message = "Secrets of the platform need the operator's key.";
            Err(ApiError::new(ErrorCode::Forbidden, message)
                .with_hint("Leave `scope` out for a secret of your own."))
        }
    }
}

/// A provider's key never enters a sandbox, whatever anybody asks for.
fn check_kind(name: &SecretName, kind: SecretKind) -> Result<(), ApiError> {
    if kind == SecretKind::Exposed && name.provider().is_some() {
        let message = format!("{name} is a model provider's key, which agents never see.");
        return Err(ApiError::field("kind", message)
            .with_hint("Leave `kind` out: the gateway uses it for them."));
    }
    if kind == SecretKind::Exposed && name.names_a_proxy() {
        let message = format!("{name} is set in every sandbox: it leads to the gateway's proxy.");
        return Err(ApiError::field("kind", message).with_hint("Store it under another name."));
    }
    Ok(())
}

fn view(record: SecretRecord) -> SecretView {
    SecretView {
        provider: record.name.provider().filter(|_| record.kind == SecretKind::Injected),
        scope: record.owner.scope(),
        name: record.name,
        kind: record.kind,
        version: record.version,
        created_at: record.created_at,
        updated_at: record.updated_at,
        last_used_at: record.last_used_at,
        use_count: record.use_count,
    }
}

#[cfg(test)]
mod tests;
