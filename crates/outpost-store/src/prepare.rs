//! Checks and encodings both versions share, done by the caller so that the writer only binds.

use outpost_core::Dispatch;
use outpost_types::{
    DispatchId, DispatchStatus, Timestamp,
    limits::{IDEMPOTENCY_KEY_BYTES_MAX, TAGS_COUNT_MAX},
};

use sha2::{Digest, Sha256};

use crate::audit::AuditDraft;
use crate::outbox::{EventRow, rows_of_end};
use crate::records::{AttemptRecord, IdempotencyClaim, ListFilter};
use crate::usage::{UsageRow, used_by};
use crate::{AcceptDispatch, AuditEntry, StoreError};

/// Largest time a ULID can carry, milliseconds (48 bits).
const ULID_MILLIS_MAX: u64 = (1 << 48) - 1;
/// Random part of a ULID, bits.
const ULID_RANDOM_MAX: u128 = (1 << 80) - 1;
/// Largest record as JSON, bytes: a task of 51,200 bytes that needs six bytes each, and facts.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Most records need no more than this beside their task, bytes: they are written in one allocation.
const BODY_BYTES_USUAL: usize = 2 * 1024;

/// A dispatch as its row.
#[derive(Debug)]
pub(crate) struct JobRow {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) status: DispatchStatus,
    pub(crate) generation: i64,
    pub(crate) attempt: u32,
    pub(crate) started_at: Option<i64>,
    pub(crate) completed_at: Option<i64>,
    pub(crate) body: String,
    pub(crate) checksum: i64,
    pub(crate) attempt_row: Option<AttemptRecord>,
}

#[derive(Debug)]
pub(crate) struct AcceptRow {
    pub(crate) job: JobRow,
    pub(crate) created_at: i64,
    pub(crate) user: Option<String>,
    pub(crate) agent: String,
    pub(crate) repo: Option<String>,
    /// Sorted, each once.
    pub(crate) tags: Vec<String>,
    pub(crate) claim: Option<ClaimRow>,
    pub(crate) audit: AuditDraft,
}

#[derive(Debug)]
pub(crate) struct ClaimRow {
    pub(crate) key: String,
    pub(crate) body_hash: [u8; 32],
    pub(crate) expires_at: i64,
}

#[derive(Debug)]
pub(crate) struct UpdateRow {
    pub(crate) job: JobRow,
    pub(crate) expected: i64,
    /// What it adds to its day, if it is over.
    pub(crate) usage: Option<UsageRow>,
    /// What is told, if it is over.
    pub(crate) events: Vec<EventRow>,
    pub(crate) audit: AuditDraft,
}

/// Milliseconds as SQLite keeps them. Instants beyond its range (292 million years) become its end.
pub(crate) fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// What tells a damaged row from a good one: the first eight bytes of a SHA-256 over the parts, each
/// with its length in front.
pub(crate) fn checksum(parts: &[&[u8]]) -> i64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

/// A counter as SQLite keeps it.
pub(crate) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn accept_row(accept: &AcceptDispatch) -> Result<AcceptRow, StoreError> {
    let dispatch = &accept.dispatch;
    let spec = &dispatch.spec;
    if spec.tags.len() > TAGS_COUNT_MAX {
        return Err(StoreError::invalid("tags", format!("at most {TAGS_COUNT_MAX}")));
    }
    let mut tags = spec.tags.clone();
    tags.sort_unstable();
    tags.dedup();
    Ok(AcceptRow {
        job: job_row(dispatch, accept.audit.at)?,
        created_at: millis(dispatch.created_at),
        user: spec.user_id.clone(),
        agent: spec.agent.to_string(),
        repo: spec.repo.clone(),
        tags,
        claim: accept.idempotency.as_ref().map(claim_row).transpose()?,
        audit: AuditDraft::new(&accept.audit)?,
    })
}

pub(crate) fn update_row(
    next: &Dispatch,
    expected: u64,
    audit: &AuditEntry,
) -> Result<UpdateRow, StoreError> {
    if expected.checked_add(1) != Some(next.generation) {
        let message = format!("must be one more than the {expected} it replaces");
        return Err(StoreError::invalid("generation", message));
    }
    Ok(UpdateRow {
        job: job_row(next, audit.at)?,
        expected: count(expected),
        usage: used_by(next),
        events: rows_of_end(next)?,
        audit: AuditDraft::new(audit)?,
    })
}

fn claim_row(claim: &IdempotencyClaim) -> Result<ClaimRow, StoreError> {
    if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&claim.key.len()) {
        let message = format!("must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        return Err(StoreError::invalid("idempotencyKey", message));
    }
    Ok(ClaimRow {
        key: claim.key.clone(),
        body_hash: claim.body_hash,
        expires_at: millis(claim.expires_at),
    })
}

fn job_row(dispatch: &Dispatch, now: Timestamp) -> Result<JobRow, StoreError> {
    let status = dispatch.status();
    if dispatch.completed_at.is_some() != status.is_terminal() {
        let message = "must be there exactly when the state is terminal";
        return Err(StoreError::invalid("completedAt", message));
    }
    let generation = i64::try_from(dispatch.generation)
        .ok()
        .filter(|generation| *generation > 0)
        .ok_or_else(|| StoreError::invalid("generation", "must be 1 to 2^63 - 1"))?;
    let mut body = Vec::with_capacity(dispatch.spec.task.len() + BODY_BYTES_USUAL);
    serde_json::to_writer(&mut body, dispatch)
        .map_err(|error| StoreError::invalid("dispatch", error.to_string()))?;
    let body = String::from_utf8(body)
        .map_err(|error| StoreError::invalid("dispatch", error.to_string()))?;
    if body.len() > BODY_BYTES_MAX {
        let message = format!("at most {BODY_BYTES_MAX} bytes as JSON are kept");
        return Err(StoreError::invalid("dispatch", message));
    }
    Ok(JobRow {
        id: dispatch.id.to_string(),
        tenant: dispatch.tenant.to_string(),
        status,
        generation,
        attempt: dispatch.attempt,
        started_at: dispatch.started_at.map(millis),
        completed_at: dispatch.completed_at.map(millis),
        checksum: checksum(&[body.as_bytes()]),
        body,
        attempt_row: attempt_row(dispatch, now),
    })
}

/// What the record of a dispatch says about its current attempt.
fn attempt_row(dispatch: &Dispatch, now: Timestamp) -> Option<AttemptRecord> {
    let attempt = dispatch.attempt_id()?;
    let live = dispatch.holds_slot();
    let status = dispatch.status();
    let state = if live || status.is_terminal() {
        status
    } else {
        // Back in the queue: this attempt is over, the next has not begun.
        DispatchStatus::Failed
    };
    Some(AttemptRecord {
        dispatch: attempt.dispatch,
        number: attempt.number,
        epoch: attempt.number,
        state,
        created_at: now,
        started_at: dispatch.started_at,
        updated_at: now,
        ended_at: (!live).then_some(now),
    })
}

pub(crate) fn parse_body(body: &str) -> Result<Dispatch, StoreError> {
    serde_json::from_str(body)
        .map_err(|error| StoreError::corrupt(format!("the record of a dispatch: {error}")))
}

/// `(at or above, below)`: the ids a filter can mean, because ids carry their time.
pub(crate) fn id_bounds(filter: &ListFilter) -> (Option<DispatchId>, Option<DispatchId>) {
    let lower = filter.since.map(|since| {
        let millis = since.as_millis();
        if millis > ULID_MILLIS_MAX {
            DispatchId::from_parts(ULID_MILLIS_MAX, ULID_RANDOM_MAX)
        } else {
            DispatchId::from_parts(millis, 0)
        }
    });
    let until = filter
        .until
        .map(Timestamp::as_millis)
        .filter(|millis| *millis <= ULID_MILLIS_MAX)
        .map(|millis| DispatchId::from_parts(millis, 0));
    let upper = match (until, filter.before) {
        (Some(until), Some(before)) => Some(until.min(before)),
        (until, before) => until.or(before),
    };
    (lower, upper)
}
