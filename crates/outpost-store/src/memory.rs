//! The store in memory: the same answers as the one on disk, gone with the process.
//!
//! For tests and simulations. It has no bound of its own and no index: lists walk all records.

mod fleet;
mod outbox;
mod promotions;
mod retention;
mod secrets;
mod tenants;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use outpost_core::Dispatch;
use outpost_types::{ApiKeyStatus, DispatchId, DispatchStatus, KeyId, TenantId, Timestamp};

use crate::audit::{AuditDraft, Chain};
use crate::keys::{KEYS_ROWS_MAX, change_status, check_key, replaced};
use crate::metrics::Counters;
use crate::prepare::{
    AcceptRow, JobRow, UpdateRow, accept_row, count, id_bounds, millis, parse_body, update_row,
};
use crate::sqlite::check_touches;
use crate::{
    AUDIT_ROWS_MAX, AUDIT_SCAN_ROWS_MAX, AcceptDispatch, Accepted, ApiKeyRecord, ApiKeys,
    AttemptRecord, AuditEntry, AuditFilter, AuditHead, AuditPage, AuditRange, AuditRow, Audits,
    BrokenAt, Dispatches, EventHead, EventHeads, KeyHash, KeyTouch, LIST_ROWS_MAX, LIVE_ROWS_MAX,
    ListFilter, ListPage, PURGE_ROWS_MAX, ReplaceKey, Store, StoreError, StoreMetrics,
    USAGE_ROWS_MAX, UsageRow, UsageTotal, Usages,
};

/// A store that forgets.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    jobs: BTreeMap<DispatchId, Job>,
    attempts: BTreeMap<(DispatchId, u32), AttemptRecord>,
    heads: BTreeMap<DispatchId, EventHead>,
    keys: BTreeMap<KeyId, ApiKeyRecord>,
    claims: BTreeMap<(String, String), Claim>,
    secrets: secrets::Kept,
    outbox: outbox::Kept,
    leftovers: BTreeMap<DispatchId, crate::Ended>,
    promotions: promotions::Kept,
    tenants: tenants::Kept,
    drains: outpost_core::Drains,
    usage: BTreeMap<UsageKey, UsageTotal>,
    audit: Vec<AuditRow>,
}

/// Day, newest first; tenant, agent, model.
type UsageKey = (Reverse<u64>, String, String, String);

/// The columns a list asks about, and the record as the JSON it would be on disk.
#[derive(Debug)]
struct Job {
    tenant: String,
    user: Option<String>,
    agent: String,
    repo: Option<String>,
    tags: Vec<String>,
    status: DispatchStatus,
    generation: i64,
    body: String,
}

#[derive(Debug)]
struct Claim {
    body_hash: [u8; 32],
    dispatch: DispatchId,
    expires_at: i64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let outcome = change(&mut self.state());
        self.counters.committed(1, u64::from(outcome.is_ok()));
        outcome
    }
}

impl State {
    fn accept(&mut self, id: DispatchId, row: AcceptRow) -> Result<Accepted, StoreError> {
        let AcceptRow { job, claim, .. } = row;
        if let Some(claim) = &claim
            && let Some(earlier) = self.claims.get(&(job.tenant.clone(), claim.key.clone()))
            && earlier.expires_at > row.created_at
        {
            if earlier.body_hash != claim.body_hash {
                return Ok(Accepted::Conflict);
            }
            let first = self.jobs.get(&earlier.dispatch);
            let first = first.ok_or_else(|| StoreError::corrupt("a claim of no dispatch"))?;
            return Ok(Accepted::Replayed(Box::new(parse_body(&first.body)?)));
        }
        if self.jobs.contains_key(&id) {
            return Err(StoreError::Duplicate);
        }
        if let Some(claim) = claim {
            let value =
                Claim { body_hash: claim.body_hash, dispatch: id, expires_at: claim.expires_at };
            self.claims.insert((job.tenant.clone(), claim.key), value);
        }
        self.upsert_attempt(&job);
        let job = Job {
            tenant: job.tenant,
            user: row.user,
            agent: row.agent,
            repo: row.repo,
            tags: row.tags,
            status: job.status,
            generation: job.generation,
            body: job.body,
        };
        self.jobs.insert(id, job);
        self.append(row.audit)?;
        Ok(Accepted::New)
    }

    fn update(&mut self, id: DispatchId, row: UpdateRow) -> Result<(), StoreError> {
        let next = row.job;
        let job = self.jobs.get_mut(&id);
        let job = job.filter(|job| job.tenant == next.tenant).ok_or(StoreError::NotFound)?;
        if job.generation != row.expected {
            let found = job.generation.cast_unsigned();
            return Err(StoreError::Stale { found });
        }
        if job.status.is_terminal() && job.status != next.status {
            let status = job.status.as_str();
            return Err(StoreError::Final { status });
        }
        // A record that is over may still be noted on; it counts, and is told of, when it ends.
        let ends = next.status.is_terminal() && !job.status.is_terminal();
        let usage = row.usage.filter(|_| ends);
        job.status = next.status;
        job.generation = next.generation;
        job.body.clone_from(&next.body);
        self.upsert_attempt(&next);
        if let Some(row) = usage {
            let key = (Reverse(row.day), row.tenant.to_string(), row.agent, row.model_id);
            let sum = self.usage.entry(key).or_default();
            *sum = sum.plus(row.total);
        }
        for event in row.events.into_iter().filter(|_| ends) {
            self.outbox.tell(event, None);
        }
        self.append(row.audit)
    }

    fn upsert_attempt(&mut self, job: &JobRow) {
        let Some(new) = job.attempt_row else {
            return;
        };
        let known = self.attempts.entry((new.dispatch, new.number)).or_insert(new);
        if known.ended_at.is_none() {
            let created_at = known.created_at;
            *known = AttemptRecord { created_at, ..new };
        }
    }

    fn new_key(&mut self, key: ApiKeyRecord) -> Result<(), StoreError> {
        let taken = |known: &ApiKeyRecord| known.id == key.id || known.hash == key.hash;
        if self.keys.values().any(taken) {
            return Err(StoreError::Duplicate);
        }
        self.keys.insert(key.id, key);
        Ok(())
    }

    fn append(&mut self, draft: AuditDraft) -> Result<(), StoreError> {
        let chain =
            self.audit.last().map_or(Chain::START, |row| Chain { seq: row.seq, hash: row.hash });
        let next = chain.next(&draft);
        self.audit.push(AuditRow {
            seq: next.seq,
            at: Timestamp::from_millis(draft.at.cast_unsigned()),
            tenant: draft.tenant.parse()?,
            actor: draft.actor.map(|id| id.parse()).transpose()?,
            action: draft.action.to_owned(),
            subject: draft.subject,
            detail: draft.detail,
            prev_hash: chain.hash,
            hash: next.hash,
        });
        Ok(())
    }
}

#[async_trait]
impl Dispatches for MemoryStore {
    async fn accept(&self, accept: AcceptDispatch) -> Result<Accepted, StoreError> {
        let row = accept_row(&accept)?;
        self.write(|state| state.accept(accept.dispatch.id, row))
    }

    async fn update(
        &self,
        next: &Dispatch,
        expected_generation: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        let row = update_row(next, expected_generation, &audit)?;
        self.write(|state| state.update(next.id, row))
    }

    async fn get(&self, id: DispatchId) -> Result<Option<Dispatch>, StoreError> {
        let state = self.state();
        let job = state.jobs.get(&id);
        job.map(|job| parse_body(&job.body)).transpose()
    }

    async fn get_for_tenant(
        &self,
        tenant: &TenantId,
        id: DispatchId,
    ) -> Result<Option<Dispatch>, StoreError> {
        let found = self.get(id).await?;
        Ok(found.filter(|dispatch| dispatch.tenant == *tenant))
    }

    async fn list(&self, filter: &ListFilter) -> Result<ListPage, StoreError> {
        let (lower, upper) = id_bounds(filter);
        let matches = |id: DispatchId, job: &Job| {
            job.tenant == filter.tenant.as_str()
                && lower.is_none_or(|lower| id >= lower)
                && upper.is_none_or(|upper| id < upper)
                && filter.status.is_none_or(|status| status == job.status)
                && filter.agent.as_ref().is_none_or(|agent| agent.as_str() == job.agent)
                && (filter.repo.is_none() || filter.repo == job.repo)
                && (filter.user.is_none() || filter.user == job.user)
                && filter.tag.as_ref().is_none_or(|tag| job.tags.contains(tag))
        };
        let limit = filter.limit.min(LIST_ROWS_MAX) as usize;
        let state = self.state();
        let mut found = state.jobs.iter().rev().filter(|(id, job)| matches(**id, job));
        let page: Vec<_> = found.by_ref().take(limit).collect();
        let last = page.last().map(|(id, _)| **id);
        let next = last.filter(|_| found.next().is_some());
        let dispatches = page.into_iter().map(|(_, job)| parse_body(&job.body));
        Ok(ListPage { dispatches: dispatches.collect::<Result<_, _>>()?, next })
    }

    async fn live_page(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<Dispatch>, StoreError> {
        let state = self.state();
        let jobs = state.jobs.iter();
        jobs.filter(|(id, job)| after.is_none_or(|after| **id > after) && !job.status.is_terminal())
            .take(limit.min(LIVE_ROWS_MAX) as usize)
            .map(|(_, job)| parse_body(&job.body))
            .collect()
    }

    async fn attempts(&self, id: DispatchId) -> Result<Vec<AttemptRecord>, StoreError> {
        let state = self.state();
        let attempts = state.attempts.range((id, 0)..=(id, u32::MAX));
        Ok(attempts.map(|(_, attempt)| *attempt).collect())
    }

    async fn purge_idempotency(&self, now: Timestamp) -> Result<u64, StoreError> {
        let now = millis(now);
        self.write(|state| {
            let mut expired: Vec<_> = state
                .claims
                .iter()
                .filter(|(_, claim)| claim.expires_at <= now)
                .map(|(key, claim)| (claim.expires_at, key.clone()))
                .collect();
            expired.sort_unstable();
            expired.truncate(PURGE_ROWS_MAX as usize);
            for (_, key) in &expired {
                state.claims.remove(key);
            }
            Ok(expired.len() as u64)
        })
    }
}

#[async_trait]
impl ApiKeys for MemoryStore {
    async fn insert_key(&self, key: ApiKeyRecord, audit: AuditEntry) -> Result<(), StoreError> {
        check_key(&key)?;
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| {
            state.new_key(key)?;
            state.append(audit)
        })
    }

    async fn replace_key(&self, replace: ReplaceKey) -> Result<(), StoreError> {
        check_key(&replace.next)?;
        let audit = AuditDraft::new(&replace.audit)?;
        self.write(|state| {
            let old = state.keys.get(&replace.old).ok_or(StoreError::NotFound)?;
            let old = replaced(old, &replace)?;
            state.new_key(replace.next)?;
            state.keys.insert(old.id, old);
            state.append(audit)
        })
    }

    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<ApiKeyRecord>, StoreError> {
        let state = self.state();
        Ok(state.keys.values().find(|key| key.hash == *hash).cloned())
    }

    async fn key(&self, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
        Ok(self.state().keys.get(&id).cloned())
    }

    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let state = self.state();
        let keys = state.keys.values().rev();
        let matches = |key: &&ApiKeyRecord| {
            tenant.is_none_or(|tenant| key.tenant == *tenant)
                && before.is_none_or(|before| key.id < before)
        };
        let limit = limit.min(KEYS_ROWS_MAX) as usize;
        Ok(keys.filter(matches).take(limit).cloned().collect())
    }

    async fn set_key_status(
        &self,
        id: KeyId,
        status: ApiKeyStatus,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let audit = AuditDraft::new(&audit)?;
        self.write(|state| {
            let key = state.keys.get_mut(&id).ok_or(StoreError::NotFound)?;
            if !change_status(key.status, status)? {
                return Ok(false);
            }
            key.status = status;
            state.append(audit)?;
            Ok(true)
        })
    }

    async fn touch_keys(&self, touches: &[KeyTouch]) -> Result<(), StoreError> {
        check_touches(touches)?;
        self.write(|state| {
            for touch in touches {
                if let Some(key) = state.keys.get_mut(&touch.id) {
                    key.last_used_at = key.last_used_at.max(Some(touch.last_used));
                    let sum = key.usage_count.saturating_add(touch.count);
                    key.usage_count = count(sum).cast_unsigned();
                }
            }
            Ok(())
        })
    }
}

#[async_trait]
impl EventHeads for MemoryStore {
    async fn set_event_head(&self, head: EventHead) -> Result<(), StoreError> {
        self.write(|state| {
            if !state.jobs.contains_key(&head.dispatch) {
                return Err(StoreError::NotFound);
            }
            let known = state.heads.entry(head.dispatch).or_insert(head);
            known.last_seq = known.last_seq.max(head.last_seq);
            known.log_bytes = known.log_bytes.max(head.log_bytes);
            Ok(())
        })
    }

    async fn event_head(&self, id: DispatchId) -> Result<Option<EventHead>, StoreError> {
        Ok(self.state().heads.get(&id).copied())
    }
}

#[async_trait]
impl Audits for MemoryStore {
    async fn audit(&self, range: AuditRange) -> Result<Vec<AuditRow>, StoreError> {
        let state = self.state();
        let after = usize::try_from(range.after).unwrap_or(usize::MAX);
        let limit = range.limit.min(AUDIT_ROWS_MAX) as usize;
        Ok(state.audit.iter().skip(after).take(limit).cloned().collect())
    }

    async fn audit_page(&self, filter: AuditFilter) -> Result<AuditPage, StoreError> {
        let limit = filter.limit.min(AUDIT_ROWS_MAX) as usize;
        let state = self.state();
        let mut page = AuditPage { rows: Vec::new(), next: None };
        let rows = state.audit.iter().rev().filter(|row| {
            filter.before.is_none_or(|before| row.seq < before)
                && filter.tenant.as_ref().is_none_or(|tenant| *tenant == row.tenant)
        });
        let mut last = None;
        for (looked_at, row) in rows.enumerate() {
            if page.rows.len() == limit || looked_at == AUDIT_SCAN_ROWS_MAX as usize {
                page.next = last;
                break;
            }
            last = Some(row.seq);
            if filter.wants(row.at, &row.action) {
                page.rows.push(row.clone());
            }
        }
        Ok(page)
    }

    async fn verify_audit(&self) -> Result<Result<AuditHead, BrokenAt>, StoreError> {
        let state = self.state();
        let chain = state.audit.iter().try_fold(Chain::START, |chain, row| chain.follow(row));
        Ok(chain.map(|chain| AuditHead { count: chain.seq, hash: chain.hash }))
    }
}

#[async_trait]
impl Usages for MemoryStore {
    async fn usage(
        &self,
        tenant: Option<&TenantId>,
        days: RangeInclusive<u64>,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let state = self.state();
        let rows = state.usage.iter().filter(|((day, owner, _, _), _)| {
            days.contains(&day.0) && tenant.is_none_or(|tenant| tenant.as_str() == owner)
        });
        rows.take(USAGE_ROWS_MAX as usize)
            .map(|((day, owner, agent, model_id), total)| {
                Ok(UsageRow {
                    tenant: owner.parse()?,
                    day: day.0,
                    agent: agent.clone(),
                    model_id: model_id.clone(),
                    total: *total,
                })
            })
            .collect()
    }
}

impl Store for MemoryStore {
    fn metrics(&self) -> StoreMetrics {
        self.counters.snapshot()
    }
}
