//! The audit trail as it is looked through: pages with filters, and checks in parts.
//!
//! Bounded: rows of a page, rows looked at for one page, rows of one check.

use outpost_types::{TenantId, Timestamp};

use crate::audit::{AuditHead, AuditRow, BrokenAt, Chain};
use crate::{AUDIT_ROWS_MAX, AuditRange, Audits, StoreError};

/// Most rows that are looked at for one page.
pub const AUDIT_SCAN_ROWS_MAX: u32 = 20_000;

/// Which rows a page holds, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only of this tenant. Others' rows are not even looked at.
    pub tenant: Option<TenantId>,
    /// Only this action; with a dot at its end, those that begin with it.
    pub action: Option<String>,
    /// Only at or after this instant.
    pub since: Option<Timestamp>,
    /// Only before this instant.
    pub until: Option<Timestamp>,
    /// Only rows with a smaller `seq`.
    pub before: Option<u64>,
    /// At most so many; never more than [`AUDIT_ROWS_MAX`].
    pub limit: u32,
}

impl AuditFilter {
    /// Whether a row with these columns is wanted; its tenant and number are looked at elsewhere.
    pub(crate) fn wants(&self, at: Timestamp, action: &str) -> bool {
        let named = self.action.as_deref().is_none_or(|wanted| {
            action == wanted || (wanted.ends_with('.') && action.starts_with(wanted))
        });
        named
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// What was found.
    pub rows: Vec<AuditRow>,
    /// Where the next page goes on; `None` when there is nothing more to look at.
    pub next: Option<u64>,
}

/// What came of a check of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPart {
    /// The row before the part, as it is on record.
    pub start: AuditHead,
    /// The last row that is sound.
    pub end: AuditHead,
    /// The first that is not.
    pub broken: Option<BrokenAt>,
    /// Whether there are rows after the part.
    pub more: bool,
}

/// Checks the rows after `after`, at most `limit` of them, piece by piece, so that a long trail does not hold
/// the log back from its checkpoint. The row at `after` is taken as it is.
pub(crate) async fn verify_part(
    store: &(impl Audits + ?Sized),
    after: u64,
    limit: u32,
) -> Result<AuditPart, StoreError> {
    let mut chain = match after.checked_sub(1) {
        None => Chain::START,
        Some(before) => {
            let rows = store.audit(AuditRange { after: before, limit: 1 }).await?;
            let row = rows.first().filter(|row| row.seq == after).ok_or(StoreError::NotFound)?;
            Chain { seq: row.seq, hash: row.hash }
        }
    };
    let head = |chain: Chain| AuditHead { count: chain.seq, hash: chain.hash };
    let start = head(chain);
    let mut left = limit;
    while left > 0 {
        let limit = left.min(AUDIT_ROWS_MAX);
        let rows = store.audit(AuditRange { after: chain.seq, limit }).await?;
        for row in &rows {
            match chain.follow(row) {
                Ok(next) => chain = next,
                Err(broken) => {
                    return Ok(AuditPart {
                        start,
                        end: head(chain),
                        broken: Some(broken),
                        more: true,
                    });
                }
            }
        }
        if rows.len() < limit as usize {
            return Ok(AuditPart { start, end: head(chain), broken: None, more: false });
        }
        left -= limit;
    }
    let more = !store.audit(AuditRange { after: chain.seq, limit: 1 }).await?.is_empty();
    Ok(AuditPart { start, end: head(chain), broken: None, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_at_the_end_means_all_that_begin_so() {
        let filter =
            |action: &str| AuditFilter { action: Some(action.into()), ..Default::default() };
        let at = Timestamp::default();
        assert!(filter("key.").wants(at, "key.created"));
        assert!(!filter("key").wants(at, "key.created"));
        assert!(filter("key.created").wants(at, "key.created"));
        assert!(!filter("key.").wants(at, "keys"));
    }
}
