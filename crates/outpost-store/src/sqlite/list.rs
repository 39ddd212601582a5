//! The list: one statement per set of filters, each driven by an index that is already in order.

use rusqlite::{Connection, ToSql};

use outpost_core::Dispatch;

use crate::prepare::id_bounds;
use crate::records::{LIST_ROWS_MAX, ListFilter};
use crate::sqlite::rows::{self, ID_MAX};
use crate::{ListFilter as Filter, StoreError};

type Binding<'a> = (&'static str, &'a dyn ToSql);

/// Reads one page.
pub(crate) fn list(db: &Connection, filter: &ListFilter) -> Result<Vec<Dispatch>, StoreError> {
    let (lower, upper) = id_bounds(filter);
    let lower = lower.map_or_else(String::new, |id| id.to_string());
    let upper = upper.map_or_else(|| ID_MAX.to_owned(), |id| id.to_string());
    let limit = filter.limit.min(LIST_ROWS_MAX);
    let status = filter.status.map(|status| status.as_str());
    let agent = filter.agent.as_ref().map(|agent| agent.as_str());
    let tenant = filter.tenant.as_str();

    let mut bindings: Vec<Binding<'_>> =
        vec![(":tenant", &tenant), (":lower", &lower), (":upper", &upper), (":limit", &limit)];
    let mut optional: [(&'static str, Option<&dyn ToSql>); 5] = [
        (":tag", filter.tag.as_ref().map(|text| text as &dyn ToSql)),
        (":user", filter.user.as_ref().map(|text| text as &dyn ToSql)),
        (":repo", filter.repo.as_ref().map(|text| text as &dyn ToSql)),
        (":status", status.as_ref().map(|text| text as &dyn ToSql)),
        (":agent", agent.as_ref().map(|text| text as &dyn ToSql)),
    ];
    for (name, value) in &mut optional {
        bindings.extend(value.take().map(|value| (*name, value)));
    }
    let found = rows::many(db, &statement(filter), bindings.as_slice(), rows::body)?;
    if found.iter().any(|dispatch| dispatch.tenant != filter.tenant) {
        return Err(StoreError::corrupt("a dispatch under the name of another tenant"));
    }
    Ok(found)
}

/// The statement for the filters that are set; there are 32.
///
/// The index is named, because without statistics the planner may choose one that needs a sort.
/// With several filters the one that usually matches fewest rows drives, the rest are checked.
pub(crate) fn statement(filter: &Filter) -> String {
    let columns = [
        ("user_id = :user", filter.user.is_some(), "jobs_by_user"),
        ("repo = :repo", filter.repo.is_some(), "jobs_by_repo"),
        ("status = :status", filter.status.is_some(), "jobs_by_status"),
        ("agent = :agent", filter.agent.is_some(), "jobs_by_agent"),
    ];
    let set: Vec<_> = columns.into_iter().filter(|(_, set, _)| *set).collect();
    let mut sql = if filter.tag.is_some() {
        "SELECT j.body, j.checksum FROM tags t CROSS JOIN jobs j ON j.dispatch_id = t.dispatch_id
         WHERE t.tenant_id = :tenant AND t.tag = :tag
           AND t.dispatch_id >= :lower AND t.dispatch_id < :upper"
            .to_owned()
    } else {
        let index = set.first().map_or("jobs_by_tenant", |(_, _, index)| index);
        format!(
            "SELECT j.body, j.checksum FROM jobs j INDEXED BY {index}
             WHERE j.tenant_id = :tenant AND j.dispatch_id >= :lower AND j.dispatch_id < :upper"
        )
    };
    for (condition, _, _) in &set {
        sql.push_str(" AND j.");
        sql.push_str(condition);
    }
    let ordered = if filter.tag.is_some() { "t" } else { "j" };
    sql.push_str(&format!(" ORDER BY {ordered}.dispatch_id DESC LIMIT :limit"));
    sql
}

#[cfg(test)]
mod tests {
    use outpost_types::{DispatchStatus, TenantId};

    use super::*;
    use crate::sqlite::schema;

    fn database() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db, 1).unwrap();
        db
    }

    fn plan(db: &Connection, sql: &str) -> Vec<String> {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.raw_query().mapped(|row| row.get(3));
        steps.collect::<Result<_, _>>().unwrap()
    }

    fn assert_lean(db: &Connection, sql: &str) {
        let plan = plan(db, sql);
        assert!(!plan.is_empty());
        for step in &plan {
            let bad = step.starts_with("SCAN") || step.contains("TEMP B-TREE");
            assert!(!bad, "{sql}\n{plan:#?}");
        }
    }

    fn filter(set: u32) -> ListFilter {
        let text = |bit: u32| (set & bit != 0).then(|| "x".to_owned());
        ListFilter {
            user: text(1),
            repo: text(2),
            tag: text(4),
            status: (set & 8 != 0).then_some(DispatchStatus::Failed),
            agent: (set & 16 != 0).then(|| "claude".parse().unwrap()),
            ..ListFilter::of(TenantId::local())
        }
    }

    #[test]
    fn no_set_of_filters_scans_or_sorts() {
        let db = database();
        for set in 0..32 {
            assert_lean(&db, &statement(&filter(set)));
            list(&db, &filter(set)).unwrap();
        }
    }

    #[test]
    fn no_other_read_scans_or_sorts() {
        let db = database();
        for sql in [
            rows::BODY_BY_ID,
            rows::BODY_BY_TENANT,
            rows::LIVE,
            rows::ATTEMPTS,
            rows::EVENT_HEAD,
            rows::AUDIT,
            rows::KEY_BY_HASH,
            rows::KEY_BY_ID,
            rows::KEYS,
            rows::KEYS_BY_TENANT,
        ] {
            assert_lean(&db, sql);
        }
        let last = plan(&db, rows::AUDIT_LAST);
        assert!(!last.iter().any(|step| step.contains("TEMP B-TREE")));
    }

    #[test]
    fn the_index_keeps_the_order_of_each_filter() {
        let db = database();
        let cases = [(0, "jobs_by_tenant"), (1, "jobs_by_user"), (2, "jobs_by_repo")];
        for (set, index) in cases.into_iter().chain([(8, "jobs_by_status"), (16, "jobs_by_agent")])
        {
            let plan = plan(&db, &statement(&filter(set))).join("\n");
            assert!(plan.contains(&format!("USING INDEX {index} (")), "{plan}");
            assert!(plan.contains("dispatch_id>? AND dispatch_id<?"), "{plan}");
        }
    }
}
