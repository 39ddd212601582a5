//! Sums of what was used: written as dispatches end, read by tenant and day.

use std::ops::RangeInclusive;

use outpost_core::{Nanodollars, Tokens};
use outpost_types::TenantId;
use rusqlite::{Connection, Row, params};

use crate::StoreError;
use crate::prepare::count;
use crate::sqlite::apply::Refusal;
use crate::sqlite::rows;
use crate::usage::{USAGE_ROWS_MAX, UsageRow, UsageTotal};

macro_rules! with_columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " tenant_id, day, agent, model_id, dispatches, agent_millis, input_tokens, cached_tokens,
              cache_write_tokens, output_tokens, thinking_tokens, cost, assumed, calls,
              calls_unpriced, calls_estimated, searches ",
            $after
        )
    };
}

const ONE: &str = with_columns!(
    "SELECT",
    "FROM usage WHERE tenant_id = ?1 AND day = ?2 AND agent = ?3 AND model_id = ?4"
);
const PUT: &str = with_columns!(
    "INSERT OR REPLACE INTO usage (",
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
);
const OF_TENANT: &str = with_columns!(
    "SELECT",
    "FROM usage WHERE day BETWEEN ?1 AND ?2 AND tenant_id = ?4
     ORDER BY day DESC, tenant_id, agent, model_id LIMIT ?3"
);
const OF_ALL: &str = with_columns!(
    "SELECT",
    "FROM usage WHERE day BETWEEN ?1 AND ?2
     ORDER BY day DESC, tenant_id, agent, model_id LIMIT ?3"
);

/// Adds what a dispatch used to its day. The sum is made here, so that it saturates.
pub(crate) fn add(db: &Connection, row: &UsageRow) -> Result<(), Refusal> {
    let key = params![row.tenant.as_str(), count(row.day), row.agent, row.model_id];
    let before = rows::one(db, ONE, key, read).map_err(Refusal::Clean)?;
    let total = before.map_or(row.total, |before| before.total.plus(row.total));
    db.prepare_cached(PUT)?.execute(params![
        row.tenant.as_str(),
        count(row.day),
        row.agent,
        row.model_id,
        count(total.dispatches),
        count(total.agent_millis),
        count(total.tokens.input),
        count(total.tokens.cached),
        count(total.tokens.cache_write),
        count(total.tokens.output),
        count(total.tokens.thinking),
        count(total.cost.0),
        count(total.assumed.0),
        count(total.calls),
        count(total.calls_unpriced),
        count(total.calls_estimated),
        count(total.searches),
    ])?;
    Ok(())
}

/// Sums of one tenant, or of all, newest day first.
pub(crate) fn of(
    db: &Connection,
    tenant: Option<&TenantId>,
    days: &RangeInclusive<u64>,
) -> Result<Vec<UsageRow>, StoreError> {
    let (from, to) = (count(*days.start()), count(*days.end()));
    match tenant {
        Some(tenant) => {
            let params = params![from, to, USAGE_ROWS_MAX, tenant.as_str()];
            rows::many(db, OF_TENANT, params, read)
        }
        None => rows::many(db, OF_ALL, params![from, to, USAGE_ROWS_MAX], read),
    }
}

fn read(row: &Row<'_>) -> Result<UsageRow, StoreError> {
    let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let tenant: String = row.get(0)?;
    Ok(UsageRow {
        tenant: tenant.parse()?,
        day: number(1)?,
        agent: row.get(2)?,
        model_id: row.get(3)?,
        total: UsageTotal {
            dispatches: number(4)?,
            agent_millis: number(5)?,
            tokens: Tokens {
                input: number(6)?,
                cached: number(7)?,
                cache_write: number(8)?,
                output: number(9)?,
                thinking: number(10)?,
            },
            searches: number(16)?,
            cost: Nanodollars(number(11)?),
            assumed: Nanodollars(number(12)?),
            calls: number(13)?,
            calls_unpriced: number(14)?,
            calls_estimated: number(15)?,
        },
    })
}
