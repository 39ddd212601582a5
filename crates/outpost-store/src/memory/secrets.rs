//! Secrets in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use outpost_types::SecretName;

use super::{MemoryStore, State};
use crate::audit::AuditDraft;
use crate::prepare::count;
use crate::secrets::{check_put, check_uses, may_follow};
use crate::{
    AuditEntry, Envelope, Reseal, SECRET_KEY_ID_BYTES, SECRET_KEY_IDS_MAX, SECRET_VERSIONS_MAX,
    SealedSecret, SecretOwner, SecretRecord, SecretUse, Secrets, StoreError,
};

type Key = (SecretOwner, SecretName);

/// All secrets.
pub(super) type Kept = BTreeMap<Key, Secret>;

/// A record and its kept versions, oldest first.
#[derive(Debug)]
pub(super) struct Secret {
    record: SecretRecord,
    versions: Vec<SealedSecret>,
}

fn key(owner: &SecretOwner, name: &SecretName) -> Key {
    (owner.clone(), name.clone())
}

impl State {
    pub(super) fn put_secret(
        &mut self,
        record: SecretRecord,
        envelope: Envelope,
        audit: AuditDraft,
    ) -> Result<(), StoreError> {
        let owned = self.secrets.keys().filter(|(owner, _)| *owner == record.owner).count();
        let place = key(&record.owner, &record.name);
        may_follow(&record, self.secrets.get(&place).map(|secret| &secret.record), owned)?;
        let sealed = SealedSecret {
            owner: record.owner.clone(),
            name: record.name.clone(),
            version: record.version,
            kind: record.kind,
            created_at: record.created_at,
            envelope,
        };
        let secret = self
            .secrets
            .entry(place)
            .or_insert_with(|| Secret { record: record.clone(), versions: Vec::new() });
        let (last_used_at, use_count) = (secret.record.last_used_at, secret.record.use_count);
        secret.record = SecretRecord { last_used_at, use_count, ..record };
        secret.versions.push(sealed);
        let newest = secret.record.version;
        secret.versions.retain(|sealed| sealed.version + SECRET_VERSIONS_MAX > newest);
        self.append(audit)
    }
}

#[async_trait]
impl Secrets for MemoryStore {
    async fn put_secret(
        &self,
        record: SecretRecord,
        envelope: Envelope,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        check_put(&record, &envelope)?;
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| state.put_secret(record, envelope, audit))
    }

    async fn secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
    ) -> Result<Option<SecretRecord>, StoreError> {
        Ok(self.state().secrets.get(&key(owner, name)).map(|secret| secret.record.clone()))
    }

    async fn secrets(&self, owner: &SecretOwner) -> Result<Vec<SecretRecord>, StoreError> {
        let state = self.state();
        let all = state.secrets.values().map(|secret| &secret.record);
        Ok(all.filter(|record| record.owner == *owner).cloned().collect())
    }

    async fn sealed_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        version: Option<u64>,
    ) -> Result<Option<(SecretRecord, SealedSecret)>, StoreError> {
        let state = self.state();
        let Some(secret) = state.secrets.get(&key(owner, name)) else { return Ok(None) };
        let version = version.unwrap_or(secret.record.version);
        let found = secret.versions.iter().find(|sealed| sealed.version == version);
        Ok(found.map(|sealed| (secret.record.clone(), sealed.clone())))
    }

    async fn delete_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        audit: AuditEntry,
    ) -> Result<Option<SecretRecord>, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| {
            let Some(secret) = state.secrets.remove(&key(owner, name)) else { return Ok(None) };
            state.append(audit)?;
            Ok(Some(secret.record))
        })
    }

    async fn note_secret_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        check_uses(&uses)?;
        let drafts = uses.iter().map(|used| AuditDraft::new(&used.audit));
        let drafts = drafts.collect::<Result<Vec<_>, _>>()?;
        self.write(|state| {
            for used in &uses {
                let secret = state.secrets.get(&key(&used.owner, &used.name));
                let secret = secret.ok_or(StoreError::NotFound)?;
                if !secret.versions.iter().any(|sealed| sealed.version == used.version) {
                    return Err(StoreError::NotFound);
                }
            }
            for (used, draft) in uses.iter().zip(drafts) {
                if let Some(secret) = state.secrets.get_mut(&key(&used.owner, &used.name)) {
                    let record = &mut secret.record;
                    record.last_used_at = record.last_used_at.max(Some(used.audit.at));
                    let sum = record.use_count.saturating_add(1);
                    record.use_count = count(sum).cast_unsigned();
                }
                state.append(draft)?;
            }
            Ok(())
        })
    }

    async fn secret_key_ids(&self) -> Result<Vec<[u8; SECRET_KEY_ID_BYTES]>, StoreError> {
        let state = self.state();
        let versions = state.secrets.values().flat_map(|secret| &secret.versions);
        let mut ids: Vec<_> = versions.map(|sealed| sealed.envelope.key_id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(SECRET_KEY_IDS_MAX as usize);
        Ok(ids)
    }

    async fn reseal_secrets(&self, reseal: Reseal, audit: AuditEntry) -> Result<u64, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| {
            let versions = state.secrets.values().flat_map(|secret| &secret.versions);
            let anew: Vec<_> = versions.map(|old| reseal.of(old)).collect::<Result<_, _>>()?;
            let places = state.secrets.values_mut().flat_map(|secret| &mut secret.versions);
            let mut written = 0;
            for (place, anew) in places.zip(anew) {
                if let Some(envelope) = anew {
                    place.envelope = envelope;
                    written += 1;
                }
            }
            state.append(audit)?;
            Ok(written)
        })
    }
}
