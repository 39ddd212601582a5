//! `outpost bench list`: pages of 100 with every filter, from the newest and from anywhere in the past.

use std::sync::Arc;

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
const FILTERS: [(&str, &str); 12] = [
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
];

struct Pages {
    set: DataSet,
    key: String,
    filter: &'static str,
    round: u64,
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
        status == 200 && body.starts_with(b"{\"items\":[")
    }
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
        let mut load = client::Load::none();
        for round in 0..ROUNDS_COUNT as u64 {
            let key = server.key.expose().to_owned();
            let traffic: Arc<dyn Traffic> = Arc::new(Pages { set, key, filter, round });
            let each = u64::from(args.pages).div_ceil(ROUNDS_COUNT as u64);
            load.merge(&client::each(server.address, clients, each, &traffic)?.checked(name)?);
        }
        let p99 = load.latency.millis(0.99);
        bench.ui.note(&format!("{name}: p50 {:.2}, p99 {p99:.2} ms", load.latency.millis(0.5)));
        bench.rows.push(
            Row::new(format!("page of 100, {name}, p99"), "ms", p99)
                .goal(Goal::AtMost(goal))
                .floor(load.latency.millis(0.5), "its median"),
        );
    }
    drop(server);
    Ok(bench.finish("list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_every_filter() {
        let set = DataSet { records: 1_000, first_millis: 1_700_000_000_000 };
        for (_, filter) in FILTERS {
            let pages = Pages { set, key: "k".into(), filter, round: 1 };
            for number in 0..100 {
                let path = pages.path(3, number);
                assert!(!path.contains(['{', '}', ' ', ':']), "{path}");
                assert_eq!(path.contains("&until="), number % 2 == 1);
            }
        }
    }
}
