//! The audit trail: append-only rows, each carrying the hash of the one before.
//!
//! A row is written in the transaction of the change it tells of, so there is none without the
//! other. The chain shows edits, removals and reordering inside it. It cannot show that its newest
//! rows were cut off: keep an [`AuditHead`] outside the store and compare.

use outpost_types::{KeyId, TenantId, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::StoreError;

/// Longest detail of an entry as JSON, bytes.
pub const AUDIT_DETAIL_BYTES_MAX: usize = 16 * 1024;
/// Longest action and longest subject, bytes.
const AUDIT_NAME_BYTES_MAX: usize = 256;
/// Most rows of one answer.
pub const AUDIT_ROWS_MAX: u32 = 1_000;
/// First bytes of everything hashed here; changes with the layout.
const DOMAIN: &[u8] = b"outpost-audit-1\n";

/// What happened, to be written with the change itself.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// In whose realm.
    pub tenant: TenantId,
    /// The key that asked for it; `None` when Outpost did it by itself.
    pub actor: Option<KeyId>,
    /// Stable name of what was done, such as `dispatch.accepted`.
    pub action: &'static str,
    /// Id of what it was done to.
    pub subject: String,
    /// More about it; never a secret. At most [`AUDIT_DETAIL_BYTES_MAX`] bytes of JSON.
    pub detail: serde_json::Value,
}

/// One row of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRow {
    /// 1 for the first; no gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// In whose realm.
    pub tenant: TenantId,
    /// The key that asked for it; `None` when Outpost did it by itself.
    pub actor: Option<KeyId>,
    /// Stable name of what was done.
    pub action: String,
    /// Id of what it was done to.
    pub subject: String,
    /// JSON text, byte for byte as it was hashed.
    pub detail: String,
    /// Hash of the row before; zeros for the first.
    pub prev_hash: [u8; 32],
    /// SHA-256 over `prev_hash` and every field of this row.
    pub hash: [u8; 32],
}

/// Which rows to read, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditRange {
    /// Rows with a greater `seq`.
    pub after: u64,
    /// At most so many; never more than [`AUDIT_ROWS_MAX`].
    pub limit: u32,
}

/// End of an unbroken trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// How many rows there are; also the `seq` of the last.
    pub count: u64,
    /// Hash of the last; zeros when there is none.
    pub hash: [u8; 32],
}

/// The trail was tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit trail is broken at row {seq}; compare it with a backup")]
pub struct BrokenAt {
    /// The first row that is missing or not as it was written.
    pub seq: u64,
}

/// An entry checked and encoded by its caller, so that the writer only hashes and inserts.
#[derive(Debug)]
pub(crate) struct AuditDraft {
    pub(crate) at: i64,
    pub(crate) tenant: String,
    pub(crate) actor: Option<String>,
    pub(crate) action: &'static str,
    pub(crate) subject: String,
    pub(crate) detail: String,
    encoded: Vec<u8>,
}

/// Where the chain stands; the writer owns the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
}

impl AuditDraft {
    pub(crate) fn new(entry: &AuditEntry) -> Result<Self, StoreError> {
        let detail = entry.detail.to_string();
        if detail.len() > AUDIT_DETAIL_BYTES_MAX {
            let message = format!("at most {AUDIT_DETAIL_BYTES_MAX} bytes of JSON are kept");
            return Err(StoreError::invalid("audit.detail", message));
        }
        if entry.action.len() > AUDIT_NAME_BYTES_MAX || entry.subject.len() > AUDIT_NAME_BYTES_MAX {
            let message = format!("at most {AUDIT_NAME_BYTES_MAX} bytes each");
            return Err(StoreError::invalid("audit.action, audit.subject", message));
        }
        let at = crate::prepare::millis(entry.at);
        let actor = entry.actor.map(|key| key.to_string());
        let tenant = entry.tenant.to_string();
        let encoded = encode(at, &tenant, actor.as_deref(), entry.action, &entry.subject, &detail);
        Ok(Self {
            at,
            tenant,
            actor,
            action: entry.action,
            subject: entry.subject.clone(),
            detail,
            encoded,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len()
    }
}

impl Chain {
    pub(crate) const START: Self = Self { seq: 0, hash: [0; 32] };

    /// The chain with one more row.
    pub(crate) fn next(self, draft: &AuditDraft) -> Self {
        let seq = self.seq + 1;
        Self { seq, hash: digest(&self.hash, seq, &draft.encoded) }
    }

    /// The chain after `row`, if `row` is what must come next.
    pub(crate) fn follow(self, row: &AuditRow) -> Result<Self, BrokenAt> {
        let seq = self.seq + 1;
        let actor = row.actor.map(|key| key.to_string());
        let encoded = encode(
            crate::prepare::millis(row.at),
            row.tenant.as_str(),
            actor.as_deref(),
            &row.action,
            &row.subject,
            &row.detail,
        );
        let hash = digest(&self.hash, seq, &encoded);
        if row.seq == seq && row.prev_hash == self.hash && row.hash == hash {
            Ok(Self { seq, hash })
        } else {
            Err(BrokenAt { seq })
        }
    }
}

fn digest(prev: &[u8; 32], seq: u64, encoded: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(DOMAIN);
    hasher.update(prev);
    hasher.update(seq.to_be_bytes());
    hasher.update(encoded);
    hasher.finalize().into()
}

/// Every field with its length in front, so that no two rows have the same bytes.
fn encode(
    at: i64,
    tenant: &str,
    actor: Option<&str>,
    action: &str,
    subject: &str,
    detail: &str,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96 + subject.len() + detail.len());
    bytes.extend_from_slice(&at.to_be_bytes());
    bytes.push(u8::from(actor.is_some()));
    for field in [tenant, actor.unwrap_or_default(), action, subject, detail] {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(subject: &str, action: &'static str) -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(7),
            tenant: TenantId::local(),
            actor: None,
            action,
            subject: subject.to_owned(),
            detail: serde_json::Value::Null,
        }
    }

    #[test]
    fn moving_a_byte_between_fields_changes_the_hash() {
        let one = AuditDraft::new(&entry("bc", "a")).unwrap();
        let two = AuditDraft::new(&entry("c", "ab")).unwrap();
        assert_ne!(Chain::START.next(&one).hash, Chain::START.next(&two).hash);
    }

    #[test]
    fn an_oversized_detail_is_refused() {
        let mut entry = entry("s", "a");
        entry.detail = "x".repeat(AUDIT_DETAIL_BYTES_MAX).into();
        let error = AuditDraft::new(&entry).unwrap_err();
        assert!(matches!(error, StoreError::Invalid { field, .. } if field == "audit.detail"));
    }
}
