//! Ids that match one condition, newest first, read from a covering index in small batches.

use outpost_types::DispatchId;
use rusqlite::{CachedStatement, Connection};

use crate::StoreError;
use crate::records::ListFilter;

/// Entries of the first batch of a stream that has to meet others.
pub(crate) const BATCH_FIRST: u32 = 16;
/// Fewest entries of a batch: one that was asked for, and one that tells whether the stream is read
/// in small steps, so that more pay.
const BATCH_MIN: u32 = 2;
/// Most entries of a batch of a stream that has to meet others.
const BATCH_MAX: u32 = 128;
/// A search from the root of an index costs about as much as reading so many entries in a row
/// (10,500 and 2,000 instructions with the index in memory; searches also leave more pages unread).
const SEARCH_ENTRIES: u32 = 8;

/// Where streams come from: a condition on one column, and the index that is ordered by id below it. It
/// knows the row of the record too, which saves a search by id; that of the tags does not.
const TENANT: &str = "SELECT dispatch_id, rowid FROM jobs INDEXED BY jobs_by_tenant
    WHERE tenant_id = ?1 AND dispatch_id >= ?2 AND dispatch_id <= ?3
    ORDER BY dispatch_id DESC";
const TAG: &str = "SELECT dispatch_id, NULL FROM tags
    WHERE tenant_id = ?1 AND dispatch_id >= ?2 AND dispatch_id <= ?3 AND tag = ?4
    ORDER BY dispatch_id DESC";
const USER: &str = "SELECT dispatch_id, rowid FROM jobs INDEXED BY jobs_by_user
    WHERE tenant_id = ?1 AND dispatch_id >= ?2 AND dispatch_id <= ?3 AND user_id = ?4
    ORDER BY dispatch_id DESC";
const REPO: &str = "SELECT dispatch_id, rowid FROM jobs INDEXED BY jobs_by_repo
    WHERE tenant_id = ?1 AND dispatch_id >= ?2 AND dispatch_id <= ?3 AND repo = ?4
    ORDER BY dispatch_id DESC";
const STATUS: &str = "SELECT dispatch_id, rowid FROM jobs INDEXED BY jobs_by_status
    WHERE tenant_id = ?1 AND dispatch_id >= ?2 AND dispatch_id <= ?3 AND status = ?4
    ORDER BY dispatch_id DESC";
const AGENT: &str = "SELECT dispatch_id, rowid FROM jobs INDEXED BY jobs_by_agent
    WHERE tenant_id = ?1 AND dispatch_id >= ?2 AND dispatch_id <= ?3 AND agent = ?4
    ORDER BY dispatch_id DESC";

/// All statements above, each with the index it must use.
#[cfg(test)]
pub(crate) const ALL: [(&str, &str); 6] = [
    (TENANT, "INDEX jobs_by_tenant (tenant_id=?"),
    (TAG, "PRIMARY KEY (tenant_id=? AND tag=?"),
    (USER, "INDEX jobs_by_user (tenant_id=? AND user_id=?"),
    (REPO, "INDEX jobs_by_repo (tenant_id=? AND repo=?"),
    (STATUS, "INDEX jobs_by_status (tenant_id=? AND status=?"),
    (AGENT, "INDEX jobs_by_agent (tenant_id=? AND agent=?"),
];

/// How many index entries may still be looked at.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
}

impl Budget {
    pub(crate) const fn new(entries: u32) -> Self {
        Self { left: entries }
    }

    pub(crate) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    const fn take(&mut self, entries: u32) {
        self.left = self.left.saturating_sub(entries);
    }
}

/// A dispatch in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: DispatchId,
    /// Row of its record, where the index knows it.
    pub(crate) row: Option<i64>,
}

/// The ids of one condition.
pub(crate) struct Stream<'db> {
    statement: CachedStatement<'db>,
    /// The last batch, newest first.
    batch: Vec<Entry>,
    /// Those of the batch before this position are passed.
    position: usize,
    /// Nothing is older than the batch.
    ended: bool,
    /// Entries of the next batch.
    size: u32,
    /// Calls the batch answered.
    answers: u32,
}

/// The streams a filter asks for, at least one.
pub(crate) fn of<'db>(
    db: &'db Connection,
    filter: &ListFilter,
    lower: Option<DispatchId>,
) -> Result<Vec<Stream<'db>>, StoreError> {
    let status = filter.status.map(|status| status.as_str());
    let conditions = [
        (TAG, filter.tag.as_deref()),
        (USER, filter.user.as_deref()),
        (REPO, filter.repo.as_deref()),
        (STATUS, status),
        (AGENT, filter.agent.as_ref().map(|agent| agent.as_str())),
    ];
    let lower = lower.map_or_else(String::new, |id| id.to_string());
    let stream = |sql: &str, value: Option<&str>| -> Result<Stream<'db>, StoreError> {
        let mut statement = db.prepare_cached(sql)?;
        statement.raw_bind_parameter(1, filter.tenant.as_str())?;
        statement.raw_bind_parameter(2, &lower)?;
        if let Some(value) = value {
            statement.raw_bind_parameter(4, value)?;
        }
        Ok(Stream { statement, batch: Vec::new(), position: 0, ended: false, size: 0, answers: 0 })
    };
    let set = conditions.into_iter().filter(|(_, value)| value.is_some());
    let mut streams = set.map(|(sql, value)| stream(sql, value)).collect::<Result<Vec<_>, _>>()?;
    if streams.is_empty() {
        streams.push(stream(TENANT, None)?);
    }
    Ok(streams)
}

impl Stream<'_> {
    /// Reads the first batch.
    pub(crate) fn start(
        &mut self,
        newest: DispatchId,
        size: u32,
        budget: &mut Budget,
    ) -> Result<(), StoreError> {
        self.size = size;
        self.fill(newest, budget)
    }

    /// How far the batch reaches into the past: the further, the sparser the stream. `None`, first of
    /// all, when there is nothing older.
    pub(crate) fn reach(&self) -> Option<DispatchId> {
        self.batch.last().map(|entry| entry.id).filter(|_| !self.ended)
    }

    /// The newest entry that is `at` or older. Each call's `at` is that of the call before or older.
    pub(crate) fn at_or_before(
        &mut self,
        at: DispatchId,
        budget: &mut Budget,
    ) -> Result<Option<Entry>, StoreError> {
        let ahead = &self.batch[self.position..];
        self.position += ahead.partition_point(|entry| entry.id > at);
        if self.position == self.batch.len() && !self.ended {
            // A batch pays while it answers more calls than searches for the same price would.
            let pays = self.answers * (SEARCH_ENTRIES - 1) >= self.size;
            let size = if pays { self.size * 2 } else { self.size / 2 };
            self.size = size.clamp(BATCH_MIN, BATCH_MAX);
            self.fill(at, budget)?;
        } else {
            self.answers += 1;
        }
        Ok(self.batch.get(self.position).copied())
    }

    fn fill(&mut self, at: DispatchId, budget: &mut Budget) -> Result<(), StoreError> {
        self.statement.raw_bind_parameter(3, at.to_string())?;
        self.batch.clear();
        (self.position, self.answers) = (0, 0);
        let (mut limit, mut count) = (at, 0);
        // No LIMIT: SQLite plans a statement anew whenever the value of one changes.
        let mut found = self.statement.raw_query();
        while count < self.size
            && let Some(row) = found.next()?
        {
            let text = row.get_ref(0)?.as_str().map_err(|_| wrong_order())?;
            let id: DispatchId = text.parse()?;
            // A damaged index must not send the search in circles.
            if id > limit || self.batch.last().is_some_and(|last| last.id == id) {
                return Err(wrong_order());
            }
            limit = id;
            count += 1;
            self.batch.push(Entry { id, row: row.get(1)? });
        }
        self.ended = count < self.size;
        budget.take(SEARCH_ENTRIES + count);
        Ok(())
    }
}

fn wrong_order() -> StoreError {
    StoreError::corrupt("an index of dispatches is not in order")
}
