//! Secrets as they are kept: names, kinds, versions and sealed bytes. The store never sees a value
//! and no key: who seals is the engine's matter, and what is sealed in is in [`SealedSecret`].
//!
//! Bounded: secrets of an owner, kept versions of a secret, bytes of an envelope, uses written down
//! at once.

use std::fmt;
use std::sync::Arc;

use outpost_types::limits::{SECRET_BYTES_MAX, SECRETS_COUNT_MAX};
use outpost_types::{SecretKind, SecretName, SecretScope, TenantId, Timestamp, WebhookId};

use crate::{AuditEntry, StoreError};

/// Versions of a secret that are kept, the current one included: attempts that run were given an
/// earlier one.
pub const SECRET_VERSIONS_MAX: u64 = 4;
/// Longest sealed value, bytes: the longest value and what sealing adds.
pub const SECRET_ENVELOPE_BYTES_MAX: usize = SECRET_BYTES_MAX + 64;
/// Most uses written down at once.
pub const SECRET_USES_MAX: usize = 64;
/// Bytes of the short name of a key.
pub const SECRET_KEY_ID_BYTES: usize = 8;
/// Most names of keys in one answer.
pub const SECRET_KEY_IDS_MAX: u32 = 64;
/// How the owner of the platform's secrets is written; no tenant can have this name.
const PLATFORM: &str = "*";
/// What the name of a webhook follows when it owns a secret; no tenant can have such a name.
const WEBHOOK: &str = "webhook/";

/// Whose a secret is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretOwner {
    /// The install's: it serves every tenant that has none of that name.
    Platform,
    /// One tenant's.
    Tenant(TenantId),
    /// A webhook's, which signs its deliveries and serves nothing else; see [`SecretOwner::webhook`].
    Webhook(String),
}

impl SecretOwner {
    /// A webhook as owner of its secret.
    #[must_use]
    pub fn webhook(id: WebhookId) -> Self {
        Self::Webhook(format!("{WEBHOOK}{id}"))
    }

    /// As it is written down: the tenant's name, or `*`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Platform => PLATFORM,
            Self::Tenant(tenant) => tenant.as_str(),
            Self::Webhook(name) => name,
        }
    }

    /// Whom its secrets serve.
    #[must_use]
    pub const fn scope(&self) -> SecretScope {
        match self {
            Self::Platform => SecretScope::Platform,
            Self::Tenant(_) | Self::Webhook(_) => SecretScope::Tenant,
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        if text == PLATFORM {
            return Ok(Self::Platform);
        }
        match text.strip_prefix(WEBHOOK) {
            Some(id) => Ok(Self::webhook(id.parse()?)),
            None => Ok(Self::Tenant(text.parse()?)),
        }
    }
}

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRecord {
    /// Whose.
    pub owner: SecretOwner,
    /// Its name; one of a kind with its owner.
    pub name: SecretName,
    /// What its current value may be used for.
    pub kind: SecretKind,
    /// Its current version; 1 for the first.
    pub version: u64,
    /// When its first value came.
    pub created_at: Timestamp,
    /// When its current value came.
    pub updated_at: Timestamp,
    /// When it was last given out.
    pub last_used_at: Option<Timestamp>,
    /// How often it was given out.
    pub use_count: u64,
}

/// One sealed value, with everything that whoever seals binds it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Whose.
    pub owner: SecretOwner,
    /// Of which secret.
    pub name: SecretName,
    /// Which version.
    pub version: u64,
    /// What this value may be used for.
    pub kind: SecretKind,
    /// When the secret's first value came, so that a secret that was removed and made again is
    /// another one.
    pub created_at: Timestamp,
    /// The sealed bytes.
    pub envelope: Envelope,
}

/// Sealed bytes and the short name of the key they were sealed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Names the key.
    pub key_id: [u8; SECRET_KEY_ID_BYTES],
    /// At most [`SECRET_ENVELOPE_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// A value given out.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretUse {
    /// Whose.
    pub owner: SecretOwner,
    /// Of which secret.
    pub name: SecretName,
    /// Which version.
    pub version: u64,
    /// When and for whom.
    pub audit: AuditEntry,
}

/// Seals one value anew: `None` when it may stay as it is, a text without a value when it cannot be
/// opened. Asked twice for each value; it must answer the same whether to seal.
pub type ResealFn = dyn Fn(&SealedSecret) -> Result<Option<Envelope>, String> + Send + Sync;

/// How every value is sealed anew. Clones share it.
#[derive(Clone)]
pub struct Reseal(pub Arc<ResealFn>);

impl fmt::Debug for Reseal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reseal(..)")
    }
}

impl Reseal {
    pub(crate) fn of(&self, sealed: &SealedSecret) -> Result<Option<Envelope>, StoreError> {
        let anew = (self.0)(sealed).map_err(|what| StoreError::invalid("secrets", what))?;
        anew.as_ref().map_or(Ok(()), check_envelope)?;
        Ok(anew)
    }
}

/// Refuses what no version of the store could keep.
pub(crate) fn check_put(record: &SecretRecord, envelope: &Envelope) -> Result<(), StoreError> {
    if record.version == 0 || i64::try_from(record.version).is_err() {
        return Err(StoreError::invalid("version", "must be 1 to 2^63 - 1"));
    }
    check_envelope(envelope)
}

fn check_envelope(envelope: &Envelope) -> Result<(), StoreError> {
    if (1..=SECRET_ENVELOPE_BYTES_MAX).contains(&envelope.bytes.len()) {
        return Ok(());
    }
    let message = format!("must have 1 to {SECRET_ENVELOPE_BYTES_MAX} bytes");
    Err(StoreError::invalid("envelope", message))
}

pub(crate) fn check_uses(uses: &[SecretUse]) -> Result<(), StoreError> {
    if uses.len() > SECRET_USES_MAX {
        let message = format!("at most {SECRET_USES_MAX} at once");
        return Err(StoreError::invalid("uses", message));
    }
    Ok(())
}

/// Whether a value may follow: the version there is (0 for none), and how many secrets the owner has.
pub(crate) fn may_follow(
    record: &SecretRecord,
    found: Option<&SecretRecord>,
    owned: usize,
) -> Result<(), StoreError> {
    let before = found.map_or(0, |found| found.version);
    if before + 1 != record.version || found.is_some_and(|it| it.created_at != record.created_at) {
        return Err(StoreError::Stale { found: before });
    }
    if found.is_none() && owned >= SECRETS_COUNT_MAX {
        let message = format!("there are {SECRETS_COUNT_MAX} secrets already; remove one first");
        return Err(StoreError::invalid("name", message));
    }
    Ok(())
}

pub(crate) fn kind_of(name: &str) -> Result<SecretKind, StoreError> {
    let found = SecretKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    found.ok_or_else(|| StoreError::corrupt("the kind of a secret"))
}
