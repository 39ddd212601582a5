//! What is drained, in memory.

use async_trait::async_trait;
use outpost_core::Drains;

use super::MemoryStore;
use crate::audit::AuditDraft;
use crate::fleet::text_of;
use crate::{AuditEntry, Fleets, StoreError};

#[async_trait]
impl Fleets for MemoryStore {
    async fn put_drains(&self, drains: Drains, audit: AuditEntry) -> Result<(), StoreError> {
        text_of(&drains)?;
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| {
            state.drains = drains;
            state.append(audit)
        })
    }

    async fn drains(&self) -> Result<Drains, StoreError> {
        Ok(self.state().drains.clone())
    }
}
