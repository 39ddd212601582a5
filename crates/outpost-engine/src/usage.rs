//! Sums of what was used, told apart as a caller wants them.
//!
//! Bounded: days of a report, and the store's sums that go into one; more are an error, since half a sum is none.

use std::collections::BTreeMap;

use outpost_core::Nanodollars;
use outpost_store::{USAGE_ROWS_MAX, UsageRow, UsageTotal};
use outpost_types::limits::{USAGE_DAYS_DEFAULT, USAGE_DAYS_MAX};
use outpost_types::{
    ApiError, Caller, Day, ErrorCode, TenantId, UsageGroup, UsageLine, UsageQuery, UsageReport,
    UsageSum, fits_a_report,
};

/// A checked query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) from: Day,
    pub(crate) to: Day,
    /// `None` is all of them.
    pub(crate) tenant: Option<TenantId>,
    groups: Vec<UsageGroup>,
}

/// Checks a query. Only the `operator` may see others than its own tenant.
pub(crate) fn wanted(
    query: &UsageQuery,
    caller: &Caller,
    operator: bool,
    today: Day,
) -> Result<Wanted, ApiError> {
    let to = day("to", query.to.as_deref())?.unwrap_or(today);
    let usual = Day::from_number(to.number().saturating_sub(USAGE_DAYS_DEFAULT - 1));
    let from = day("from", query.from.as_deref())?.unwrap_or(usual);
    if !fits_a_report(from, to) {
        let message =
            format!("`from` must be no later than `to`, and within {USAGE_DAYS_MAX} days.");
        return Err(ApiError::field("from", message));
    }
    let tenant = query.tenant.as_deref().map(str::parse).transpose();
    let tenant: Option<TenantId> = tenant
        .map_err(|error: outpost_types::IdError| ApiError::field("tenant", error.to_string()))?;
    let tenant = match tenant {
        tenant if operator => tenant,
        Some(tenant) if tenant != caller.tenant => {
            let message = "What other tenants used is for the operator's key.";
            return Err(ApiError::new(ErrorCode::Forbidden, message)
                .with_hint("Leave `tenant` out for your own."));
        }
        _ => Some(caller.tenant.clone()),
    };
    let mut groups = Vec::new();
    for word in query.group_by.as_deref().unwrap_or("day").split(',') {
        let group = word.trim().parse().map_err(|()| {
            let message = "It must be some of tenant, day, agent, model, with commas between.";
            ApiError::field("groupBy", message)
        })?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(Wanted { from, to, tenant, groups })
}

fn day(field: &str, text: Option<&str>) -> Result<Option<Day>, ApiError> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: outpost_types::NotADay| ApiError::field(field, error.to_string()))
}

/// The report of what the store has.
pub(crate) fn report(wanted: Wanted, rows: &[UsageRow]) -> Result<UsageReport, ApiError> {
    if rows.len() >= USAGE_ROWS_MAX as usize {
        let message = "There is more than one answer can sum up: ask for fewer days or one tenant.";
        return Err(ApiError::field("from", message));
    }
    let by = |group| wanted.groups.contains(&group);
    let (tenant, days) = (by(UsageGroup::Tenant), by(UsageGroup::Day));
    let (agent, model) = (by(UsageGroup::Agent), by(UsageGroup::Model));
    let mut sums: BTreeMap<_, UsageTotal> = BTreeMap::new();
    for row in rows {
        let key = (
            days.then_some(std::cmp::Reverse(row.day)),
            tenant.then(|| row.tenant.to_string()),
            agent.then(|| row.agent.clone()),
            model.then(|| row.model_id.clone()),
        );
        let sum = sums.entry(key).or_default();
        *sum = sum.plus(row.total);
    }
    let total = rows.iter().fold(UsageTotal::default(), |sum, row| sum.plus(row.total));
    let line =
        |((day, tenant, agent, model_id), sum): ((Option<std::cmp::Reverse<u64>>, _, _, _), _)| {
            let day = day.map(|day| Day::from_number(day.0));
            UsageLine { tenant, day, agent, model_id, sum: shown(sum) }
        };
    Ok(UsageReport {
        from: wanted.from,
        to: wanted.to,
        rows: sums.into_iter().map(line).collect(),
        total: shown(total),
        group_by: wanted.groups,
    })
}

fn shown(total: UsageTotal) -> UsageSum {
    let UsageTotal { tokens, cost, calls, calls_unpriced, .. } = total;
    UsageSum {
        dispatches: total.dispatches,
        agent_millis: total.agent_millis,
        agent_minutes: outpost_types::minutes(total.agent_millis),
        input_tokens: tokens.input,
        cached_input_tokens: tokens.cached,
        cache_write_tokens: tokens.cache_write,
        output_tokens: tokens.output,
        thinking_tokens: tokens.thinking,
        searches: total.searches,
        cost_usd: (calls > calls_unpriced).then(|| Nanodollars::to_usd(cost)),
        calls,
        unpriced_calls: calls_unpriced,
        estimated_calls: total.calls_estimated,
    }
}

#[cfg(test)]
mod tests {
    use outpost_core::Tokens;
    use outpost_types::{KeyId, Scope};

    use super::*;

    const TODAY: Day = Day::from_number(100);

    fn caller(tenant: &str) -> Caller {
        let (tenant, key) = (tenant.parse().unwrap(), KeyId::from_parts(1, 1));
        Caller { tenant, key, scopes: [Scope::Admin].into() }
    }

    fn query(from: Option<&str>, to: Option<&str>, group_by: Option<&str>) -> UsageQuery {
        let own = |text: Option<&str>| text.map(str::to_owned);
        UsageQuery { from: own(from), to: own(to), group_by: own(group_by), tenant: None }
    }

    fn row(tenant: &str, day: u64, agent: &str, cost: u64) -> UsageRow {
        let tokens = Tokens { input: 10, output: 2, ..Tokens::default() };
        let total = UsageTotal {
            dispatches: 1,
            agent_millis: 45_000,
            tokens,
            searches: 3,
            cost: Nanodollars(cost),
            calls: 1,
            ..UsageTotal::default()
        };
        let (tenant, agent) = (tenant.parse().unwrap(), agent.to_owned());
        UsageRow { tenant, day, agent, model_id: "m".to_owned(), total }
    }

    #[test]
    fn what_is_wrong_is_named_and_what_is_absent_is_usual() {
        let asked = |query: &UsageQuery| wanted(query, &caller("acme"), false, TODAY);
        let usual = asked(&query(None, None, None)).unwrap();
        assert_eq!((usual.from.number(), usual.to), (71, TODAY));
        assert_eq!(usual.tenant, Some("acme".parse().unwrap()));
        for (wrong, field) in [
            (query(Some("yesterday"), None, None), "from"),
            (query(None, Some("2026-02-30"), None), "to"),
            (query(Some("2026-01-02"), Some("2026-01-01"), None), "from"),
            (query(Some("2025-01-01"), Some("2026-01-02"), None), "from"),
            (query(None, None, Some("day,user")), "groupBy"),
            (UsageQuery { tenant: Some("no tenant".into()), ..query(None, None, None) }, "tenant"),
        ] {
            assert_eq!(asked(&wrong).unwrap_err().field.as_deref(), Some(field), "{wrong:?}");
        }
        let others = UsageQuery { tenant: Some("local".into()), ..query(None, None, None) };
        assert_eq!(asked(&others).unwrap_err().code, ErrorCode::Forbidden);
        let all = wanted(&query(None, None, None), &caller("local"), true, TODAY).unwrap();
        assert_eq!(all.tenant, None);
    }

    #[test]
    fn sums_are_told_apart_as_asked() {
        let rows = [row("a", 3, "codex", 5), row("b", 3, "codex", 7), row("a", 2, "claude", 9)];
        let report = |groups| {
            let wanted = wanted(&query(None, None, Some(groups)), &caller("local"), true, TODAY);
            report(wanted.unwrap(), &rows).unwrap()
        };
        let by_day = report("day");
        let days: Vec<_> = by_day.rows.iter().map(|row| row.day.unwrap().number()).collect();
        assert_eq!(days, [3, 2], "the newest first");
        assert_eq!((by_day.rows[0].sum.dispatches, by_day.rows[0].sum.input_tokens), (2, 20));
        assert_eq!(by_day.rows[0].sum.cost_usd, Some(12e-9));
        assert_eq!((by_day.rows[0].sum.agent_minutes, by_day.rows[0].sum.searches), (1.5, 6));
        assert!(by_day.rows[0].tenant.is_none() && by_day.rows[0].agent.is_none());
        let all = report("tenant, agent,day,model");
        assert_eq!(all.rows.len(), 3);
        assert_eq!(all.rows[1].tenant.as_deref(), Some("b"));
        assert_eq!(all.total.dispatches, 3);
    }

    #[test]
    fn half_a_sum_is_none() {
        let rows = vec![row("a", 3, "codex", 5); USAGE_ROWS_MAX as usize];
        let wanted = wanted(&query(None, None, None), &caller("local"), true, TODAY).unwrap();
        assert_eq!(report(wanted, &rows).unwrap_err().field.as_deref(), Some("from"));
    }
}
