//! `outpost bench fair`: what a quiet tenant waits, alone and while another one floods the queue.
//!
//! The quiet tenant dispatches an agent that takes [`BRIEF_MILLIS`], waits for its end, and does so
//! again. In a flood every slot is taken when its dispatch comes, so that it waits for the first of
//! them to become free. Both halves of a round follow each other on one server, so that they meet the
//! same machine. Runs that all take the same time would end together, and it would wait for a whole one.
//!
//! Bounded: dispatches of each half, the flood's in all, and the wait for everything.

use std::cell::Cell;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use outpost_store::{ApiKey, ApiKeyRecord, ApiKeys as _, AuditEntry, SqliteOptions, SqliteStore};
use outpost_types::{DispatchView, FleetView, KeyId, Page, Scope, TenantId};

use crate::accept::now;
use crate::client::{self, Connection};
use crate::dispatches::{body, completed, create, read, until_over, within};
use crate::error::BenchError;
use crate::histogram::Histogram;
use crate::options::{FairOptions, Key, create_private};
use crate::report::{Goal, Report, Row};
use crate::server::{BRIEF_AGENT, BRIEF_MILLIS, Server};
use crate::{Bench, ROUNDS_COUNT};

/// Goal of the project: how many times as long as alone a dispatch may take in a flood.
const RATIO_MAX: f64 = 2.0;
/// Pause between two looks at how much of the flood waits, milliseconds.
const LOOK_MILLIS: u64 = 20;
/// Most dispatches of the flood in all.
const FLOOD_DISPATCHES_MAX: u64 = 1_000_000;
/// Records of one page when the flood is taken back.
const PAGE_ROWS: u32 = 100;

/// What the dispatches of one tenant took.
struct Waits {
    /// From sending the request until the end was known.
    whole: Histogram,
    /// From the acceptance until a slot was free, as the record says.
    queue: Histogram,
}

impl Waits {
    fn new() -> Self {
        Self { whole: Histogram::new(), queue: Histogram::new() }
    }
}

/// Measures.
pub(crate) fn run(mut bench: Bench<'_>, args: &FairOptions) -> Result<Report, BenchError> {
    let dir = bench.dir("server");
    let (quiet, loud) = make_keys(&dir)?;
    let server = Server::start(&bench.place, &dir, args.slots)?;
    let (mut alone, mut flooded) = (Waits::new(), Waits::new());
    let mut least = u32::MAX;
    for round in 1..=ROUNDS_COUNT {
        bench.floor.round()?;
        client::runtime()?.block_on(async {
            one_after_another(server.address, &quiet, args.dispatches, &mut alone).await?;
            let mut flood = Flood::new(server.address, &loud, args.waiting).await?;
            flood.fill().await?;
            let over = Cell::new(false);
            let measure = async {
                let result =
                    one_after_another(server.address, &quiet, args.dispatches, &mut flooded).await;
                over.set(true);
                result
            };
            let (measured, kept) = tokio::join!(measure, flood.keep(&over));
            measured.and(kept)?;
            least = least.min(flood.least);
            flood.take_back().await
        })?;
        bench.ui.note(&format!(
            "round {round} of {ROUNDS_COUNT}: p99 alone {:.0} ms, in the flood {:.0} ms",
            alone.whole.millis(0.99),
            flooded.whole.millis(0.99)
        ));
    }
    bench.rows = rows(args, &alone, &flooded, least);
    drop(server);
    Ok(bench.finish("fair"))
}

fn rows(args: &FairOptions, alone: &Waits, flooded: &Waits, least: u32) -> Vec<Row> {
    let ratio = flooded.whole.millis(0.99) / alone.whole.millis(0.99);
    let count = flooded.whole.count();
    let (least_millis, most_millis) = BRIEF_MILLIS;
    let (middle, agent) = ((least_millis + most_millis) as f64 / 2.0, most_millis as f64);
    let slots = args.slots;
    let what = format!("{count} dispatches of {least_millis}-{most_millis} ms, {slots} slots");
    vec![
        Row::new(format!("{what}: alone p50"), "ms", alone.whole.millis(0.5))
            .floor(middle, "the agent's own time"),
        Row::new("alone p99", "ms", alone.whole.millis(0.99)).floor(agent, "the agent's own time"),
        Row::new("in another tenant's flood p50", "ms", flooded.whole.millis(0.5)),
        Row::new("in another tenant's flood p99", "ms", flooded.whole.millis(0.99)),
        Row::new("p99 in the flood, times that alone", "", ratio).goal(Goal::AtMost(RATIO_MAX)),
        Row::new("wait for a slot alone p99", "ms", alone.queue.millis(0.99)),
        Row::new("wait for a slot in the flood p50", "ms", flooded.queue.millis(0.5)),
        Row::new("wait for a slot in the flood p99", "ms", flooded.queue.millis(0.99)),
        Row::new("dispatches of the flood that waited at any time, at least", "", least.into())
            .goal(Goal::AtLeast(f64::from(args.waiting.div_ceil(2)))),
    ]
}

/// Makes the keys of two tenants, quiet and loud, in the store of a server that is not started yet.
fn make_keys(dir: &Path) -> Result<(Key, Key), BenchError> {
    create_private(dir)?;
    let failed = |error| BenchError::chain("the keys of the bench cannot be written", &error);
    let store = SqliteStore::open(&SqliteOptions::new(dir, 0)).map_err(failed)?;
    let mut chance = std::fs::File::open("/dev/urandom")?;
    let mut keys = Vec::new();
    for (number, name) in (1..).zip(["quiet", "loud"]) {
        let mut random = [0; 32];
        chance.read_exact(&mut random)?;
        let key = ApiKey::generate(random);
        let tenant: TenantId =
            name.parse().map_err(|error| BenchError::chain("a tenant's name", &error))?;
        let scopes = [Scope::Dispatch, Scope::Status, Scope::List, Scope::Cancel];
        let id = KeyId::from_parts(now().as_millis(), number);
        let record = ApiKeyRecord::new(id, tenant.clone(), &key, scopes.into(), now(), None);
        let audit = AuditEntry {
            at: record.created_at,
            tenant,
            actor: None,
            action: "key.created",
            subject: id.to_string(),
            detail: serde_json::json!({ "prefix": record.prefix, "scopes": record.scopes }),
        };
        client::runtime()?.block_on(store.insert_key(record, audit)).map_err(failed)?;
        keys.push(Key::new(key.expose().to_owned()));
    }
    let loud = keys.pop().ok_or_else(|| BenchError::failed("there is no key"))?;
    let quiet = keys.pop().ok_or_else(|| BenchError::failed("there is no key"))?;
    Ok((quiet, loud))
}

/// Dispatches and waits for the end, `count` times.
async fn one_after_another(
    address: SocketAddr,
    key: &Key,
    count: u32,
    waits: &mut Waits,
) -> Result<(), BenchError> {
    let mut connection = Connection::open(address).await?;
    for _ in 0..count {
        let begin = Instant::now();
        let id = create(&mut connection, key, &body(BRIEF_AGENT)).await?;
        let view = within("a dispatch of the bench", until_over(&mut connection, key, &id)).await?;
        waits.whole.add(begin.elapsed());
        waits.queue.add(queue_wait(&view)?);
    }
    Ok(())
}

/// How long a completed dispatch waited for a slot.
fn queue_wait(view: &DispatchView) -> Result<Duration, BenchError> {
    completed(view)?;
    let millis = view.timings.queue_millis;
    let millis = millis.ok_or_else(|| BenchError::failed("a record without its time in queue"))?;
    Ok(Duration::from_millis(millis))
}

/// The other tenant: always as many dispatches waiting as wanted.
struct Flood<'a> {
    connection: Connection,
    key: &'a Key,
    wanted: u32,
    sent: u64,
    /// The least that waited at any look since it was full.
    least: u32,
}

impl<'a> Flood<'a> {
    async fn new(address: SocketAddr, key: &'a Key, wanted: u32) -> Result<Self, BenchError> {
        let connection = Connection::open(address).await?;
        Ok(Self { connection, key, wanted, sent: 0, least: u32::MAX })
    }

    async fn fleet(&mut self) -> Result<FleetView, BenchError> {
        read(&mut self.connection, "/fleet", self.key).await
    }

    /// Dispatches until all slots are taken and as many wait as wanted.
    async fn fill(&mut self) -> Result<(), BenchError> {
        let filling = async {
            loop {
                let fleet = self.fleet().await?;
                if fleet.queued >= self.wanted && fleet.running >= fleet.concurrency_max {
                    return Ok(());
                }
                self.add(missing(fleet.queued, self.wanted)).await?;
                tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            }
        };
        within("the flood", filling).await
    }

    /// Keeps it so until it is over.
    async fn keep(&mut self, over: &Cell<bool>) -> Result<(), BenchError> {
        while !over.get() {
            let queued = self.fleet().await?.queued;
            // One of them may be the quiet tenant's.
            self.least = self.least.min(queued.saturating_sub(1));
            self.add(missing(queued, self.wanted)).await?;
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        }
        Ok(())
    }

    async fn add(&mut self, count: u32) -> Result<(), BenchError> {
        self.sent += u64::from(count);
        if self.sent > FLOOD_DISPATCHES_MAX {
            let text = format!("the flood would have more than {FLOOD_DISPATCHES_MAX} dispatches");
            return Err(BenchError::failed(text).with_hint("ask for fewer --dispatches"));
        }
        for _ in 0..count {
            create(&mut self.connection, self.key, &body(BRIEF_AGENT)).await?;
        }
        Ok(())
    }

    /// Cancels all that wait, and waits for those that run: the next half is quiet again.
    async fn take_back(mut self) -> Result<(), BenchError> {
        let taking = async {
            loop {
                let fleet = self.fleet().await?;
                if fleet.queued == 0 && fleet.running == 0 {
                    return Ok(());
                }
                let path = format!("/runs?status=QUEUED&limit={PAGE_ROWS}");
                let page: Page<DispatchView> = read(&mut self.connection, &path, self.key).await?;
                for view in page.items {
                    let path = format!("/dispatch/{}", view.dispatch_id);
                    // One that has just ended is refused; the next look at the fleet tells.
                    self.connection
                        .ask(|out| client::delete(out, &path, self.key.expose()))
                        .await?;
                }
                tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            }
        };
        within("the end of the flood", taking).await
    }
}

/// How many dispatches the flood must add.
const fn missing(queued: u32, wanted: u32) -> u32 {
    // The quiet tenant's does not count; one too many does no harm.
    (wanted + 1).saturating_sub(queued)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatches::tests::view;

    const OPTIONS: FairOptions = FairOptions { slots: 4, waiting: 300, dispatches: 40 };

    fn waits(millis: impl IntoIterator<Item = u64>) -> Waits {
        let mut waits = Waits::new();
        for millis in millis {
            waits.whole.add(Duration::from_millis(millis));
            waits.queue.add(Duration::from_millis(millis / 10));
        }
        waits
    }

    #[test]
    fn the_goal_is_about_the_slowest_of_both() {
        let met = |flooded: Waits, least| {
            let rows = rows(&OPTIONS, &waits(400..500), &flooded, least);
            rows.iter().filter_map(Row::met).collect::<Vec<_>>()
        };
        assert_eq!(met(waits(400..900), 299), [true, true]);
        // Only a few are slow, but they are the ones it is about.
        assert_eq!(met(waits((400..500).chain([1_200, 1_200])), 299), [false, true]);
        // A flood that did not last proves nothing.
        assert_eq!(met(waits(400..500), 149), [true, false]);
    }

    #[test]
    fn the_flood_is_filled_up_and_not_more() {
        assert_eq!([missing(0, 300), missing(299, 300), missing(301, 300)], [301, 2, 0]);
        assert_eq!(missing(u32::MAX, 10_000), 0);
    }

    #[test]
    fn only_a_completed_dispatch_is_measured() {
        let wait = |status, timings| queue_wait(&view(status, timings)).ok();
        let wanted = Some(Duration::from_millis(7));
        assert_eq!(wait("COMPLETED", r#"{"queueMillis":7}"#), wanted);
        assert_eq!(wait("RUNNING", r#"{"queueMillis":7}"#), None);
        assert_eq!(wait("COMPLETED", "{}"), None);
        assert_eq!(wait("FAILED", r#"{"queueMillis":7}"#), None);
    }

    #[test]
    fn the_keys_are_of_two_tenants_and_work() {
        let dir = tempfile::tempdir().unwrap();
        let (quiet, loud) = make_keys(dir.path()).unwrap();
        let store = SqliteStore::open(&SqliteOptions::new(dir.path(), 0)).unwrap();
        let tenants = [quiet, loud].map(|key| {
            let hash = ApiKey::parse(key.expose()).unwrap().hash();
            let found = client::runtime().unwrap().block_on(store.key_by_hash(&hash));
            let record = found.unwrap().unwrap();
            assert!(record.works_at(now()));
            record.tenant.to_string()
        });
        assert_eq!(tenants, ["quiet", "loud"]);
    }
}
