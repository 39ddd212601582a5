//! Secrets of the failing store: they never fail.

use async_trait::async_trait;
use outpost_store::{
    AuditEntry, Envelope, Reseal, SECRET_KEY_ID_BYTES, SealedSecret, SecretOwner, SecretRecord,
    SecretUse, Secrets, StoreError,
};
use outpost_types::SecretName;

use crate::world::Faulty;

#[async_trait]
impl Secrets for Faulty {
    async fn put_secret(
        &self,
        record: SecretRecord,
        envelope: Envelope,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        self.inner.put_secret(record, envelope, audit).await
    }
    async fn secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
    ) -> Result<Option<SecretRecord>, StoreError> {
        self.inner.secret(owner, name).await
    }
    async fn secrets(&self, owner: &SecretOwner) -> Result<Vec<SecretRecord>, StoreError> {
        self.inner.secrets(owner).await
    }
    async fn sealed_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        version: Option<u64>,
    ) -> Result<Option<(SecretRecord, SealedSecret)>, StoreError> {
        self.inner.sealed_secret(owner, name, version).await
    }
    async fn delete_secret(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        audit: AuditEntry,
    ) -> Result<Option<SecretRecord>, StoreError> {
        self.inner.delete_secret(owner, name, audit).await
    }
    async fn note_secret_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        self.inner.note_secret_uses(uses).await
    }
    async fn secret_key_ids(&self) -> Result<Vec<[u8; SECRET_KEY_ID_BYTES]>, StoreError> {
        self.inner.secret_key_ids().await
    }
    async fn reseal_secrets(&self, reseal: Reseal, audit: AuditEntry) -> Result<u64, StoreError> {
        self.inner.reseal_secrets(reseal, audit).await
    }
}
