//! Sums of what was used, one a line.

use outpost_types::{UsageGroup, UsageLine, UsageReport, UsageSum, minutes};

use crate::format::dollars;
use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// The table, with the sum of all in its last line.
#[must_use]
pub fn usage(surface: Surface, report: &UsageReport) -> String {
    // In the order of the rows, whatever the order they were asked for in.
    let order = [UsageGroup::Day, UsageGroup::Tenant, UsageGroup::Agent, UsageGroup::Model];
    let groups: Vec<_> = order.into_iter().filter(|it| report.group_by.contains(it)).collect();
    let mut columns: Vec<Column> = groups.iter().map(|group| column(*group)).collect();
    columns.extend(
        ["RUNS", "MINUTES", "CALLS", "INPUT", "CACHED", "OUTPUT", "SEARCHES", "COST"]
            .map(|title| Column::new(title).right()),
    );
    let mut rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|line| {
            groups.iter().map(|group| cell(line, *group)).chain(figures(&line.sum)).collect()
        })
        .collect();
    if report.rows.len() > 1 {
        let names = (0..groups.len()).map(|at| if at == 0 { "all" } else { "" }.to_owned());
        rows.push(names.chain(figures(&report.total)).collect());
    }
    table(surface, &columns, &rows)
}

const fn column(group: UsageGroup) -> Column {
    match group {
        UsageGroup::Day => Column::new("DAY"),
        UsageGroup::Tenant => Column::new("TENANT"),
        UsageGroup::Agent => Column::new("AGENT"),
        UsageGroup::Model => Column::new("MODEL").flexible(),
    }
}

fn cell(line: &UsageLine, group: UsageGroup) -> String {
    let text = match group {
        UsageGroup::Day => return line.day.map(|day| day.to_string()).unwrap_or_default(),
        UsageGroup::Tenant => &line.tenant,
        UsageGroup::Agent => &line.agent,
        UsageGroup::Model => &line.model_id,
    };
    text.as_deref().map(sanitize::line).unwrap_or_default()
}

fn figures(sum: &UsageSum) -> [String; 8] {
    let cost = sum.cost_usd.map(dollars).unwrap_or_default();
    // What has no price is not in the cost, and must not look as if it were.
    let cost = if sum.unpriced_calls > 0 { format!("{cost}+?") } else { cost };
    [
        sum.dispatches.to_string(),
        format!("{:.2}", minutes(sum.agent_millis)),
        sum.calls.to_string(),
        sum.input_tokens.saturating_add(sum.cache_write_tokens).to_string(),
        sum.cached_input_tokens.to_string(),
        sum.output_tokens.to_string(),
        sum.searches.to_string(),
        cost,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, assert_golden};

    #[test]
    fn a_table_with_its_sum() {
        let surface = Surface { columns: Some(90), tty: true, ..Surface::PLAIN };
        assert_golden("usage.txt", &usage(surface, &samples::usage_report()));
    }
}
