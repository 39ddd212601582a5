use outpost_types::{DispatchStatus, TenantId};

use super::*;
use crate::conformance::lists::expected;
use crate::conformance::sample;
use crate::prepare::accept_row;
use crate::sqlite::apply::Command;
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

/// A set of filters by its bits; their values are texts a filled database has.
fn filter(set: u32, value: u64, limit: u32) -> ListFilter {
    let text = |bit: u32| (set & bit != 0).then(|| format!("v{value}"));
    ListFilter {
        user: text(1),
        repo: text(2),
        tag: text(4),
        status: (set & 8 != 0).then_some(DispatchStatus::Pending),
        agent: (set & 16 != 0).then(|| "claude".parse().unwrap()),
        limit,
        ..ListFilter::of(TenantId::local())
    }
}

#[test]
fn every_stream_reads_its_index_and_nothing_else() {
    let db = database();
    for (sql, index) in stream::ALL {
        assert_lean(&db, sql);
        let plan = plan(&db, sql).join("\n");
        let covering = plan.contains("COVERING INDEX") || plan.contains("PRIMARY KEY");
        assert!(covering && plan.contains(index), "{plan}");
        assert!(plan.contains("dispatch_id>? AND dispatch_id<?"), "{plan}");
    }
    for set in 0..32 {
        assert_eq!(list(&db, &filter(set, 1, 20)).unwrap(), ListPage::default());
    }
}

#[test]
fn no_other_read_scans_or_sorts() {
    let db = database();
    for sql in [
        rows::BODY_BY_ID,
        rows::BODY_BY_TENANT,
        rows::BODY_BY_ROW,
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

/// Dispatches of a made-up past. Users and repositories share the values of their first half of the
/// numbers only now and then, so that streams meet often, rarely and never.
fn filled(count: u64) -> (Connection, Vec<Dispatch>) {
    let db = database();
    db.execute_batch("BEGIN").unwrap();
    let mut chain = rows::chain(&db).unwrap();
    let mut all = Vec::new();
    for serial in 1..=count {
        let dice = serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let mut request = sample::request();
        if dice.is_multiple_of(3) {
            request.agent = "codex".to_owned();
        }
        let owner = if dice.is_multiple_of(5) { "other" } else { "local" };
        let mut dispatch = sample::dispatch(serial, owner, request);
        // Value 0 is everywhere, 1 takes turns, 2 meets once in a while, 3 is rare.
        let values = |turn: u64| match (serial % 50, dice % 40) {
            (7, _) => 3,
            (_, 1..4) => 2,
            _ if serial % 2 == turn => 1,
            _ => 0,
        };
        dispatch.spec.user_id = Some(format!("v{}", values(0)));
        dispatch.spec.repo = Some(format!("v{}", values(1)));
        dispatch.spec.tags = vec!["v0".to_owned(), format!("v{}", dice % 7 + 1)];
        let row = accept_row(&sample::accept_of(dispatch.clone())).unwrap();
        Command::Accept(Box::new(row)).apply(&db, &mut chain).unwrap();
        all.push(dispatch);
    }
    db.execute_batch("COMMIT").unwrap();
    (db, all)
}

/// All pages with this bound, and how many they were.
fn all_pages(db: &Connection, filter: &ListFilter, entries_max: u32) -> (Vec<DispatchId>, usize) {
    let (mut filter, mut found, mut pages) = (filter.clone(), Vec::new(), 0);
    loop {
        let page = list_within(db, &filter, entries_max).unwrap();
        pages += 1;
        found.extend(page.dispatches.iter().map(|dispatch| dispatch.id));
        let Some(next) = page.next else {
            return (found, pages);
        };
        assert!(filter.before.is_none_or(|before| next < before), "{filter:?}");
        filter.before = Some(next);
    }
}

#[test]
fn pages_cut_short_add_up_to_the_whole_answer() {
    let (db, all) = filled(300);
    let mut cut = 0;
    for set in 0..32 {
        for value in 0..5 {
            for (entries_max, limit) in [(0, 100), (80, 3), (400, 20), (LIST_ENTRIES_MAX, 100)] {
                if entries_max == 0 && value > 1 {
                    continue;
                }
                let filter = filter(set, value, limit);
                let (found, pages) = all_pages(&db, &filter, entries_max);
                let wanted = expected(&all, &filter);
                assert_eq!(found, wanted, "{filter:?}");
                let full = wanted.len().div_ceil(limit as usize).max(1);
                cut += pages - full;
                if set.count_ones() < 2 {
                    assert_eq!(pages, full, "no search is needed: {filter:?}");
                }
            }
        }
    }
    assert!(cut > 1_000, "the bound hardly ever held: {cut}");
}

#[test]
fn the_work_of_a_page_is_bounded() {
    // Two conditions that take turns and never meet: the worst there is.
    let (db, _) = filled(4_000);
    let worst = filter(3, 1, 100);
    for entries_max in [100, 1_000] {
        let mut budget = Budget::new(entries_max);
        let mut streams = stream::of(&db, &worst, None).unwrap();
        let met = meet(&mut streams, DispatchId::LAST, 100, &mut budget).unwrap();
        assert_eq!(met.entries, []);
        let next = met.next.unwrap();
        let passed = 4_000 - next.millis();
        assert!(passed > u64::from(entries_max) / 20, "{passed} passed for {entries_max}");
        assert!(passed < u64::from(entries_max) + 300, "{passed} passed for {entries_max}");
    }
}

#[test]
fn the_rarest_condition_leads() {
    let (db, all) = filled(4_000);
    for set in [1 | 16, 2 | 4 | 8, 1 | 2 | 8 | 16] {
        let rare = filter(set, 3, 100);
        let count = expected(&all, &filter(set & 3, 3, 100)).len();
        assert!((1..100).contains(&count), "{count}");
        let entries_max = 4_000;
        let mut budget = Budget::new(entries_max);
        let mut streams = stream::of(&db, &rare, None).unwrap();
        let met = meet(&mut streams, DispatchId::LAST, 100, &mut budget).unwrap();
        assert_eq!(met.next, None);
        let ids: Vec<_> = met.entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, expected(&all, &rare));
        assert!(!budget.is_spent(), "{set}");
    }
}

#[test]
fn a_damaged_index_is_said() {
    let (db, all) = filled(50);
    // An entry of an index without its dispatch.
    let local = expected(&all, &filter(0, 0, 100));
    let tag = "INSERT INTO tags VALUES ('local', 'ghost', ?1)";
    db.execute(tag, [DispatchId::from_parts(9_999, 9).to_string()]).unwrap();
    let ghost = ListFilter { tag: Some("ghost".to_owned()), ..ListFilter::of(TenantId::local()) };
    let error = list(&db, &ghost).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    // A record under the name of another.
    let swap = "UPDATE jobs SET (body, checksum) = (SELECT body, checksum FROM jobs
        WHERE dispatch_id = ?1) WHERE dispatch_id = ?2";
    db.execute(swap, [local[0].to_string(), local[1].to_string()]).unwrap();
    let error = list(&db, &filter(0, 0, 100)).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}
