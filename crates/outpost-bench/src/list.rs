//! `outpost bench list`: pages of 100 with every filter, from the newest and from anywhere in the past.
//!
//! A page may be cut short where a search for matches would take too long; how many were is told beside
//! their time. What a whole search costs, page after page, is the last figure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use outpost_types::Timestamp;

use crate::client::{self, Traffic};
use crate::dataset::{DataSet, mix};
use crate::error::BenchError;
use crate::options::ListOptions;
use crate::report::{Goal, Report, Row};
use crate::server::Server;
use crate::{Bench, ROUNDS_COUNT};

/// Goals of the project: p99 of a page, up to a million records and beyond.
const PAGE_P99_MILLIS_MAX: f64 = 5.0;
const PAGE_P99_MILLIS_MAX_LARGE: f64 = 10.0;
const LARGE_RECORDS: u64 = 2_000_000;

/// Filters as they stand in an address; `{}` is a changing number.
const FILTERS: [(&str, &str); 19] = [
    ("no filter", ""),
    ("status", "&status=FAILED"),
    ("agent", "&agent=codex"),
    ("repo", "&repo=acme%2Fservice-{repo}"),
    ("user", "&user=user-{user}"),
    ("tag", "&tag=tag-{tag}"),
    ("rare tag", "&tag=rare"),
    ("status and agent", "&status=TIMEOUT&agent=grok"),
    ("user and status", "&user=user-{user}&status=FAILED"),
    ("repo and status", "&repo=acme%2Fservice-{repo}&status=TIMEOUT"),
    ("tag and status", "&tag=nightly&status=CANCELLED"),
    ("user, repo, agent", "&user=user-{user}&repo=acme%2Fservice-{repo}&agent=claude"),
    ("status and agent, both common", "&status=COMPLETED&agent=claude"),
    ("status, agent, tag", "&status=FAILED&agent=codex&tag=nightly"),
    ("rare tag and status", "&tag=rare&status=COMPLETED"),
    ("user and repo that hardly ever meet", STRANGERS),
    (
        "all five",
        "&user=user-{user}&repo=acme%2Fservice-{repo}&agent=claude&status=COMPLETED&tag=nightly",
    ),
    ("three, none running", "&status=RUNNING&agent=claude&tag=nightly"),
    ("three, unknown user", "&user=nobody&status=COMPLETED&agent=claude"),
];
/// The worst there is: both have many records, and a search for common ones finds next to none.
const STRANGERS: &str = "&user=user-0&repo=acme%2Fservice-0";
/// Most pages of one search.
const SEARCH_PAGES_MAX: u64 = 100_000;
/// Dispatches of a full page.
const PAGE_ITEMS: usize = 100;

struct Pages {
    set: DataSet,
    key: String,
    filter: &'static str,
    round: u64,
    /// Pages that are not full although there is a next one.
    cut: AtomicU64,
}

impl Pages {
    fn path(&self, connection: usize, number: u64) -> String {
        let dice = mix(self.round << 48 | (connection as u64) << 32 | number);
        let filter = self
            .filter
            .replace("{repo}", &(dice % 50).to_string())
            .replace("{user}", &(dice % 100).to_string())
            .replace("{tag}", &(dice % 30).to_string());
        if number.is_multiple_of(2) {
            return format!("/runs?limit=100{filter}");
        }
        // From anywhere but the very first days, so that there is a full page to find.
        let tenth = self.set.records / 10;
        let index = tenth + dice % (self.set.records - tenth);
        let until = Timestamp::from_millis(self.set.id(index).millis());
        format!("/runs?limit=100{filter}&until={}", until.to_string().replace(':', "%3A"))
    }
}

impl Traffic for Pages {
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>) {
        client::get(out, &self.path(connection, number), &self.key);
    }

    fn accept(&self, _: usize, _: u64, status: u16, body: &[u8]) -> bool {
        let page = Answer::read(status, body);
        if page.as_ref().is_some_and(|page| page.next.is_some() && page.items < PAGE_ITEMS) {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        page.is_some()
    }
}

/// What a page says of itself.
struct Answer<'a> {
    items: usize,
    next: Option<&'a str>,
}

impl<'a> Answer<'a> {
    /// `None` for what is no page. Looks for names instead of reading it all: the client shares the
    /// processors with the server, and no text of the data set looks like a name.
    fn read(status: u16, body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        if status != 200 || !text.starts_with("{\"items\":[") {
            return None;
        }
        let next =
            text.rsplit_once("],\"nextCursor\":\"").and_then(|(_, rest)| rest.split('"').next());
        Some(Self { items: text.matches("\"dispatchId\":").count(), next })
    }
}

/// Follows a filter to the end: how many pages, how many dispatches, how long, milliseconds.
fn search(server: &Server, filter: &str) -> Result<(u64, usize, f64), BenchError> {
    let key = server.key.expose();
    let (mut items, mut cursor) = (0, String::new());
    let begin = Instant::now();
    for pages in 1..=SEARCH_PAGES_MAX {
        let path = format!("/runs?limit={PAGE_ITEMS}{filter}{cursor}");
        let (status, body) = client::ask(server.address, &path, key)?;
        let page = Answer::read(status, &body)
            .ok_or_else(|| BenchError::failed(format!("{path}: no page but status {status}")))?;
        items += page.items;
        let Some(next) = page.next else {
            return Ok((pages, items, begin.elapsed().as_secs_f64() * 1e3));
        };
        cursor = format!("&cursor={next}");
    }
    Err(BenchError::failed(format!("a search had no end after {SEARCH_PAGES_MAX} pages")))
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &ListOptions) -> Result<Report, BenchError> {
    let (set, dir) = bench.data(&args.data)?;
    let server = Server::start(&bench.place, &dir, 1)?;
    let clients = args.clients as usize;
    let goal =
        if set.records > LARGE_RECORDS { PAGE_P99_MILLIS_MAX_LARGE } else { PAGE_P99_MILLIS_MAX };
    for (name, filter) in FILTERS {
        bench.floor.round()?;
        let (mut load, mut cut) = (client::Load::none(), 0);
        for round in 0..ROUNDS_COUNT as u64 {
            let key = server.key.expose().to_owned();
            let pages = Arc::new(Pages { set, key, filter, round, cut: AtomicU64::new(0) });
            let traffic: Arc<dyn Traffic> = Arc::<Pages>::clone(&pages);
            let each = u64::from(args.pages).div_ceil(ROUNDS_COUNT as u64);
            load.merge(&client::each(server.address, clients, each, &traffic)?.checked(name)?);
            cut += pages.cut.load(Ordering::Relaxed);
        }
        let p99 = load.latency.millis(0.99);
        let half = load.latency.millis(0.5);
        let share = cut as f64 * 100.0 / load.latency.count().max(1) as f64;
        bench.ui.note(&format!("{name}: p50 {half:.2}, p99 {p99:.2} ms; {share:.0} % cut short"));
        bench.rows.push(
            Row::new(format!("page of 100, {name}, p99"), "ms", p99)
                .goal(Goal::AtMost(goal))
                .floor(half, "its median"),
        );
        if cut > 0 {
            bench.rows.push(Row::new(format!("page of 100, {name}, cut short"), "%", share));
        }
    }
    let (pages, found, millis) = search(&server, STRANGERS)?;
    let what = format!("user and repo that hardly ever meet, all {found} on {pages} pages");
    bench.ui.note(&format!("{what}: {millis:.0} ms"));
    bench.rows.push(Row::new(what, "ms", millis));
    drop(server);
    Ok(bench.finish("list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_every_filter() {
        let set = DataSet::new(1_000, 1_700_000_000_000);
        for (_, filter) in FILTERS {
            let cut = AtomicU64::new(0);
            let pages = Pages { set, key: "k".into(), filter, round: 1, cut };
            for number in 0..100 {
                let path = pages.path(3, number);
                assert!(!path.contains(['{', '}', ' ', ':']), "{path}");
                assert_eq!(path.contains("&until="), number % 2 == 1);
            }
        }
    }

    #[test]
    fn pages_cut_short_are_counted() {
        let set = DataSet::new(1_000, 1_700_000_000_000);
        let cut = AtomicU64::new(0);
        let pages = Pages { set, key: "k".into(), filter: "", round: 1, cut };
        let item = r#"{"dispatchId":"01"}"#;
        let full = vec![item; PAGE_ITEMS].join(",");
        let next = r#","nextCursor":"c1_01""#;
        for (body, cut) in [
            (format!(r#"{{"items":[{full}]{next}}}"#), 0),
            (format!(r#"{{"items":[{item}]}}"#), 0),
            (format!(r#"{{"items":[{item}]{next}}}"#), 1),
            (format!(r#"{{"items":[]{next}}}"#), 2),
        ] {
            assert!(pages.accept(0, 0, 200, body.as_bytes()), "{body}");
            assert_eq!(pages.cut.load(Ordering::Relaxed), cut, "{body}");
            assert!(!pages.accept(0, 0, 500, body.as_bytes()));
        }
        let page = Answer::read(200, br#"{"items":[],"nextCursor":"c1_01"}"#).unwrap();
        assert_eq!((page.items, page.next), (0, Some("c1_01")));
    }
}
