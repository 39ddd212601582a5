//! The list: ids out of the indexes first, and only then the records of the page.
//!
//! Each condition is a [`Stream`] of ids in an index that holds nothing else. What matches all
//! conditions is where the streams meet, so a refused dispatch costs an index entry or two and never
//! its record. Bounded: the entries looked at for one page ([`LIST_ENTRIES_MAX`]); a page that ends
//! there says where the next goes on.

mod stream;

use outpost_core::Dispatch;
use outpost_types::DispatchId;
use rusqlite::Connection;

use crate::StoreError;
use crate::prepare::id_bounds;
use crate::records::{LIST_ROWS_MAX, ListFilter, ListPage};
use crate::sqlite::rows;
use stream::{Budget, Entry, Stream};

/// Most index entries one page may cost; a search in an index counts as several. On a page that is
/// cut short this is its time: about two milliseconds when the index is in memory.
pub const LIST_ENTRIES_MAX: u32 = 6_000;

/// What the streams have in common.
#[derive(Debug, PartialEq)]
struct Met {
    entries: Vec<Entry>,
    next: Option<DispatchId>,
}

/// Reads one page.
pub(crate) fn list(db: &Connection, filter: &ListFilter) -> Result<ListPage, StoreError> {
    list_within(db, filter, LIST_ENTRIES_MAX)
}

fn list_within(
    db: &Connection,
    filter: &ListFilter,
    entries_max: u32,
) -> Result<ListPage, StoreError> {
    let wanted = filter.limit.min(LIST_ROWS_MAX);
    let (lower, upper) = id_bounds(filter);
    let newest = upper.map_or(Some(DispatchId::LAST), DispatchId::previous);
    let Some(newest) = newest.filter(|_| wanted > 0) else {
        return Ok(ListPage::default());
    };
    // All statements see the same state: an id found is a record found.
    let _snapshot = db.unchecked_transaction()?;
    let mut budget = Budget::new(entries_max);
    let mut streams = stream::of(db, filter, lower)?;
    let met = meet(&mut streams, newest, wanted, &mut budget)?;
    let read = |entry: &Entry| record(db, filter, *entry);
    let dispatches = met.entries.iter().map(read).collect::<Result<_, _>>()?;
    Ok(ListPage { dispatches, next: met.next })
}

/// The newest `wanted` entries, from `newest` on, whose ids all streams hold.
///
/// The sparsest stream proposes, the others are asked in turn whether they hold the id; the first that
/// does not says where it goes on, and the next proposal is there or below. So however common the
/// other conditions are, the work is that of the rarest one; and where two hardly ever meet, that of
/// the places where they take turns, up to the bound.
fn meet(
    streams: &mut [Stream<'_>],
    newest: DispatchId,
    wanted: u32,
    budget: &mut Budget,
) -> Result<Met, StoreError> {
    // With one stream every entry is a match, and one more tells whether there is a next page.
    let at_once = if streams.len() == 1 { wanted + 1 } else { stream::BATCH_FIRST };
    for stream in &mut *streams {
        stream.start(newest, at_once, budget)?;
    }
    streams.sort_by_key(Stream::reach);
    let mut entries = Vec::with_capacity(wanted as usize);
    let (mut at, mut turn, mut row) = (newest, 0, None);
    loop {
        let Some(entry) = streams[turn].at_or_before(at, budget)? else {
            return Ok(Met { entries, next: None });
        };
        row = entry.row.or_else(|| row.filter(|_| entry.id == at));
        if entry.id == at {
            turn += 1;
        } else {
            at = entry.id;
            turn = usize::from(turn == 0);
            if turn < streams.len() && budget.is_spent() {
                // All above `at` is decided and `at` is an entry, so every page gets past one or more.
                return Ok(Met { entries, next: at.following() });
            }
        }
        if turn < streams.len() {
            continue;
        }
        if entries.len() == wanted as usize {
            let next = entries.last().map(|entry: &Entry| entry.id);
            return Ok(Met { entries, next });
        }
        entries.push(Entry { id: at, row });
        turn = 0;
        match at.previous() {
            Some(below) => at = below,
            None => return Ok(Met { entries, next: None }),
        }
    }
}

fn record(db: &Connection, filter: &ListFilter, entry: Entry) -> Result<Dispatch, StoreError> {
    let found = match entry.row {
        Some(row) => rows::one(db, rows::BODY_BY_ROW, [row], rows::body)?,
        None => {
            let id = entry.id.to_string();
            let params = [id.as_str(), filter.tenant.as_str()];
            rows::one(db, rows::BODY_BY_TENANT, params, rows::body)?
        }
    };
    let dispatch =
        found.ok_or_else(|| StoreError::corrupt("an index names a dispatch that is gone"))?;
    if dispatch.id != entry.id || dispatch.tenant != filter.tenant {
        return Err(StoreError::corrupt("a dispatch under the name of another"));
    }
    Ok(dispatch)
}

#[cfg(test)]
mod tests;
