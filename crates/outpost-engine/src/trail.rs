//! The audit trail, for one caller.
//!
//! An administrator of a tenant sees what was done in his tenant and nothing that would tell him of others: no
//! numbers of the whole trail (also not in cursors, which are sealed), no hashes, no keys that are not his. The
//! chain as a whole is the operator's. Bounded: a page, what is looked at for it, what one check reads.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use outpost_store::{AUDIT_ROWS_MAX, AuditFilter, AuditRange, AuditRow, StoreError};
use outpost_types::limits::AUDIT_VERIFY_ROWS_MAX;
use outpost_types::{
    ApiError, AuditActor, AuditApi, AuditCheck, AuditQuery, AuditView, ByteStream, ExportAudit,
    KeyId, Page, TenantId, VerifyAudit, hex,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::access::page_limit;
use crate::api::{EngineApi, store_error};
use crate::query;
use crate::secrets::is_operator;

/// Longest action in a query, bytes.
const ACTION_BYTES_MAX: usize = 256;
/// Says which version of cursors this is, so that a later one can be told apart.
const CURSOR_PREFIX: &str = "c1_";
const NUMBER_BYTES: usize = 8;
const CURSOR_BYTES: usize = 3 * NUMBER_BYTES;

#[async_trait]
impl AuditApi for EngineApi {
    async fn list_audit(&self, query: AuditQuery) -> Result<Page<AuditView>, ApiError> {
        let operator = is_operator(self.caller());
        let tenant = match query.tenant.as_deref() {
            None if operator => None,
            None => Some(self.caller().tenant.clone()),
            Some(text) => Some(self.tenant_of(text)?),
        };
        if query.action.as_ref().is_some_and(|action| action.len() > ACTION_BYTES_MAX) {
            let message = format!("It has at most {ACTION_BYTES_MAX} bytes.");
            return Err(ApiError::field("action", message));
        }
        let filter = AuditFilter {
            tenant,
            action: query.action,
            since: query::instant("since", query.since.as_deref())?,
            until: query::instant("until", query.until.as_deref())?,
            before: query.cursor.as_deref().map(|text| self.open_cursor(text)).transpose()?,
            limit: page_limit(query.limit)?,
        };
        let page = self.engine().inner.store.audit_page(filter).await.map_err(store_error)?;
        let mut items = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            let owner = self.owner_of(row.actor).await?;
            items.push(self.audit_view(row, owner, operator));
        }
        let next_cursor = page.next.map(|seq| self.seal_cursor(seq));
        Ok(Page { items, next_cursor })
    }

    async fn verify_audit(&self, query: VerifyAudit) -> Result<AuditCheck, ApiError> {
        self.only_operator("check the audit trail")?;
        let limit = query.limit.unwrap_or(AUDIT_VERIFY_ROWS_MAX);
        if !(1..=AUDIT_VERIFY_ROWS_MAX).contains(&limit) {
            let message = format!("It must be 1 to {AUDIT_VERIFY_ROWS_MAX}.");
            return Err(ApiError::field("limit", message));
        }
        let after = query.after.unwrap_or(0);
        let noted = query.hash.as_deref().map(read_hash).transpose()?;
        let part = match self.engine().inner.store.verify_audit_part(after, limit).await {
            Ok(part) => part,
            // An entry whose hash somebody noted was there once.
            Err(StoreError::NotFound) if noted.is_some() => return Ok(missing(after)),
            Err(StoreError::NotFound) => {
                return Err(ApiError::field("after", "There is no entry with this number."));
            }
            Err(error) => return Err(store_error(error)),
        };
        if noted.is_some_and(|noted| noted != part.start.hash) {
            return Ok(missing(after));
        }
        Ok(AuditCheck {
            intact: part.broken.is_none(),
            checked: part.end.count - part.start.count,
            seq: part.end.count,
            hash: hex(&part.end.hash),
            broken_at: part.broken.map(|broken| broken.seq),
            next: (part.more && part.broken.is_none()).then_some(part.end.count),
        })
    }

    async fn export_audit(&self, query: ExportAudit) -> Result<ByteStream, ApiError> {
        self.only_operator("export the audit trail")?;
        let store = std::sync::Arc::clone(&self.engine().inner.store);
        let newest = AuditFilter { limit: 1, ..AuditFilter::default() };
        let newest = store.audit_page(newest).await.map_err(store_error)?;
        // What is written while this goes on is for the next export.
        let last = newest.rows.first().map_or(0, |row| row.seq);
        let lines = try_unfold(query.after.unwrap_or(0), move |after| {
            let store = std::sync::Arc::clone(&store);
            async move {
                if after >= last {
                    return Ok(None);
                }
                let left = u32::try_from(last - after).unwrap_or(u32::MAX);
                let range = AuditRange { after, limit: left.min(AUDIT_ROWS_MAX) };
                let rows = store.audit(range).await.map_err(store_error)?;
                let Some(end) = rows.last().map(|row| row.seq) else { return Ok(None) };
                let text: String = rows.iter().map(line).collect();
                Ok(Some((Bytes::from(text), end)))
            }
        });
        Ok(Box::pin(lines))
    }
}

impl EngineApi {
    /// Whose key this is: those that ended long ago are only on disk.
    async fn owner_of(&self, actor: Option<KeyId>) -> Result<Option<TenantId>, ApiError> {
        let Some(key) = actor else { return Ok(None) };
        if let Some(owner) = self.engine().inner.access.owner(key) {
            return Ok(Some(owner));
        }
        let found = self.engine().inner.store.key(key).await.map_err(store_error)?;
        Ok(found.map(|key| key.tenant))
    }

    fn audit_view(&self, row: AuditRow, owner: Option<TenantId>, operator: bool) -> AuditView {
        let theirs = owner.as_ref() == Some(&row.tenant);
        let actor = match &owner {
            _ if row.actor.is_none() => AuditActor::System,
            Some(owner) if !theirs && *owner == TenantId::local() => AuditActor::Operator,
            _ => AuditActor::Key,
        };
        AuditView {
            seq: operator.then_some(row.seq),
            at: row.at,
            tenant_id: row.tenant,
            actor,
            key_id: row.actor.filter(|_| operator || theirs),
            action: row.action,
            subject: row.subject,
            detail: serde_json::from_str(&row.detail).unwrap_or_default(),
            hash: operator.then(|| hex(&row.hash)),
        }
    }

    /// A number as a text that says nothing, for this tenant and as long as this server runs.
    fn seal_cursor(&self, seq: u64) -> String {
        let mut nonce = [0; NUMBER_BYTES];
        self.engine().inner.world.fill(&mut nonce);
        let hidden = xor(seq.to_be_bytes(), self.keyed(b"hide", &nonce, 0));
        let tag = self.keyed(b"sign", &nonce, seq);
        format!("{CURSOR_PREFIX}{}{}{}", hex(&nonce), hex(&hidden), hex(&tag))
    }

    fn open_cursor(&self, text: &str) -> Result<u64, ApiError> {
        let read = || {
            let bytes = unhex::<CURSOR_BYTES>(text.strip_prefix(CURSOR_PREFIX)?)?;
            let part = |index: usize| -> Option<[u8; NUMBER_BYTES]> {
                bytes[index * NUMBER_BYTES..(index + 1) * NUMBER_BYTES].try_into().ok()
            };
            let (nonce, hidden, tag) = (part(0)?, part(1)?, part(2)?);
            let seq = u64::from_be_bytes(xor(hidden, self.keyed(b"hide", &nonce, 0)));
            (self.keyed(b"sign", &nonce, seq) == tag).then_some(seq)
        };
        read().ok_or_else(|| {
            ApiError::field("cursor", "It is not a cursor that this list gave out.")
                .with_hint("Begin again without one: cursors end with the server that gave them.")
        })
    }

    fn keyed(&self, use_: &[u8; 4], nonce: &[u8; NUMBER_BYTES], seq: u64) -> [u8; NUMBER_BYTES] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.engine().inner.access.cursor_secret)
            .chain_update(use_)
            .chain_update(nonce)
            .chain_update(seq.to_be_bytes())
            .chain_update(self.caller().tenant.as_str())
            .finalize()
            .into();
        let mut first = [0; NUMBER_BYTES];
        first.copy_from_slice(&digest[..NUMBER_BYTES]);
        first
    }
}

/// The answer about an entry that is not what was noted of it.
fn missing(seq: u64) -> AuditCheck {
    AuditCheck {
        intact: false,
        checked: 0,
        seq,
        hash: hex(&[0; 32]),
        broken_at: Some(seq),
        next: None,
    }
}

/// One row as a line of the export: the detail byte for byte, as it was hashed.
fn line(row: &AuditRow) -> String {
    let head = json!({
        "seq": row.seq, "at": row.at, "tenantId": row.tenant, "keyId": row.actor,
        "action": row.action, "subject": row.subject, "prevHash": hex(&row.prev_hash),
        "hash": hex(&row.hash),
    });
    let mut text = head.to_string();
    text.pop();
    text.push_str(",\"detail\":");
    text.push_str(&row.detail);
    text.push_str("}\n");
    text
}

fn xor(a: [u8; NUMBER_BYTES], b: [u8; NUMBER_BYTES]) -> [u8; NUMBER_BYTES] {
    std::array::from_fn(|index| a[index] ^ b[index])
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

fn read_hash(text: &str) -> Result<[u8; 32], ApiError> {
    unhex(text).ok_or_else(|| ApiError::field("hash", "It must be 64 hexadecimal digits."))
}
