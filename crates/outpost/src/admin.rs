//! The admin key: made known to the engine once, and taken back when its file holds another one.
//!
//! The data directory remembers the hash of the key that was admitted last; the hash of 256 random
//! bits is no secret. So exactly that key is revoked when an operator replaces the file, and no key
//! that was made in another way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use outpost_engine::{Engine, KeyRefusal};
use outpost_store::{ApiKey, ApiKeys, AuditEntry, KeyHash};
use outpost_types::{ApiKeyStatus, Caller, Scope, TenantId};

use crate::clock::now;
use outpost_config::Secret;
use outpost_config::datadir;

/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// The admin key on its way into the engine.
pub(crate) struct AdminKey {
    key: ApiKey,
    file: PathBuf,
    marker: PathBuf,
}

impl AdminKey {
    /// The key that was read from `file`; what is remembered of it is in `data_dir`.
    pub(crate) fn new(key: &Secret, file: &Path, data_dir: &Path) -> anyhow::Result<Self> {
        let (key, marker) = (ApiKey::parse(key.expose())?, data_dir.join("admin.key.sha256"));
        Ok(Self { key, file: file.to_owned(), marker })
    }

    /// Takes back the key that this one replaces, if it does. Before the engine reads its keys.
    pub(crate) async fn retire_replaced(&self, store: &impl ApiKeys) -> anyhow::Result<()> {
        let Some(before) = self.remembered() else { return Ok(()) };
        if before == self.key.hash() {
            return Ok(());
        }
        let record = store.key_by_hash(&before).await?;
        let Some(record) = record.filter(|record| record.status == ApiKeyStatus::Active) else {
            return Ok(());
        };
        let audit = AuditEntry {
            at: now(),
            tenant: record.tenant.clone(),
            actor: None,
            action: "key.revoked",
            subject: record.id.to_string(),
            detail: serde_json::json!({ "reason": "the admin key was replaced" }),
        };
        store.set_key_status(record.id, ApiKeyStatus::Revoked, audit).await?;
        tracing::info!(
            prefix = record.prefix,
            "the admin key was replaced; the old one is revoked"
        );
        Ok(())
    }

    /// Makes the key known to the engine, once, and remembers it.
    pub(crate) async fn admit(&self, engine: &Engine) -> anyhow::Result<Arc<Caller>> {
        if engine.caller_of(self.key.expose()) == Err(KeyRefusal::Unknown) {
            engine.insert_key(&self.key, TenantId::local(), Scope::ALL).await?;
        }
        let caller = engine.caller_of(self.key.expose()).map_err(|refusal| {
            let file = self.file.display();
            anyhow::anyhow!(
                "the admin key in {file} does not work any more ({refusal:?}); remove that file and \
                 start again for a new one"
            )
        })?;
        let hash = self.key.hash();
        if self.remembered() != Some(hash) {
            datadir::write_private(&self.marker, &outpost_types::hex(&hash.0))
                .with_context(|| format!("{} cannot be written", self.marker.display()))?;
        }
        Ok(caller)
    }

    fn remembered(&self) -> Option<KeyHash> {
        let text = datadir::read_small(&self.marker).ok()?;
        let digits = text.trim();
        if digits.len() != 2 * HASH_BYTES || !digits.is_ascii() {
            return None;
        }
        let mut hash = [0; HASH_BYTES];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(KeyHash(hash))
    }
}
