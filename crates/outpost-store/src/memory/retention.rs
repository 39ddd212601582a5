//! Retention in memory.

use async_trait::async_trait;
use outpost_types::DispatchId;

use super::{MemoryStore, State};
use crate::audit::AuditDraft;
use crate::prepare::{count, millis, parse_body};
use crate::retention::{ENDED_ROWS_MAX, Ended, EndedRange, Purge, Retention, check_count};
use crate::{AuditEntry, PURGE_ROWS_MAX, StoreError};

/// The page of those that are over.
fn page(mut all: Vec<Ended>, range: EndedRange) -> Vec<Ended> {
    let place = |ended: &Ended| (ended.ended_at, ended.id);
    all.retain(|ended| {
        range.after.is_none_or(|after| place(ended) > after) && ended.ended_at <= range.until
    });
    all.sort_unstable_by_key(place);
    all.truncate(range.limit.min(ENDED_ROWS_MAX) as usize);
    all
}

impl State {
    fn ended(&self) -> Result<Vec<Ended>, StoreError> {
        let mut all = Vec::new();
        for job in self.jobs.values().filter(|job| job.status.is_terminal()) {
            let record = parse_body(&job.body)?;
            if let Some(ended_at) = record.completed_at {
                all.push(Ended { id: record.id, tenant: record.tenant, ended_at });
            }
        }
        Ok(all)
    }

    fn forget(&mut self, ended: Vec<(DispatchId, AuditDraft)>) -> Result<u64, StoreError> {
        let known = self.ended()?;
        let mut gone = 0;
        for (id, draft) in ended {
            let Some(left) = known.iter().find(|known| known.id == id) else { continue };
            if self.jobs.remove(&id).is_none() {
                continue;
            }
            self.attempts.retain(|(dispatch, _), _| *dispatch != id);
            self.heads.remove(&id);
            self.leftovers.insert(id, left.clone());
            self.append(draft)?;
            gone += 1;
        }
        Ok(gone)
    }

    fn purge(&mut self, what: Purge) -> u64 {
        let most = PURGE_ROWS_MAX as usize;
        match what {
            Purge::ExpiredKeys(until) => {
                let expired = |at: Option<outpost_types::Timestamp>| {
                    at.is_some_and(|at| millis(at) <= millis(until))
                };
                let ids = self.keys.values().filter(|key| expired(key.expires_at));
                let ids: Vec<_> = ids.map(|key| key.id).take(most).collect();
                let gone = ids.iter().filter(|id| self.keys.remove(id).is_some());
                gone.count() as u64
            }
            Purge::UsageBefore(day) => {
                let rows = self.usage.keys().filter(|row| count(row.0.0) < count(day));
                let rows: Vec<_> = rows.take(most).cloned().collect();
                let gone = rows.iter().filter(|row| self.usage.remove(row).is_some());
                gone.count() as u64
            }
            Purge::Deliveries(until) => self.outbox.purge(until, most),
        }
    }
}

#[async_trait]
impl Retention for MemoryStore {
    async fn ended(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError> {
        Ok(page(self.state().ended()?, range))
    }

    async fn forget(&self, ended: Vec<(DispatchId, AuditEntry)>) -> Result<u64, StoreError> {
        check_count(ended.len())?;
        let draft = |(id, audit): (DispatchId, AuditEntry)| Ok((id, AuditDraft::new(&audit)?));
        let ended = ended.into_iter().map(draft).collect::<Result<Vec<_>, StoreError>>()?;
        self.write(|state| state.forget(ended))
    }

    async fn leftovers(&self, range: EndedRange) -> Result<Vec<Ended>, StoreError> {
        Ok(page(self.state().leftovers.values().cloned().collect(), range))
    }

    async fn leftover(&self, id: DispatchId) -> Result<Option<Ended>, StoreError> {
        Ok(self.state().leftovers.get(&id).cloned())
    }

    async fn drop_leftovers(&self, ids: &[DispatchId]) -> Result<u64, StoreError> {
        check_count(ids.len())?;
        self.write(|state| {
            let gone = ids.iter().filter(|id| state.leftovers.remove(id).is_some());
            Ok(gone.count() as u64)
        })
    }

    async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        self.write(|state| Ok(state.purge(what)))
    }
}
