//! Durable accepts per second, beside the disk's own floor.
//!
//! `cargo run --release -p outpost-store --example accept_bench -- [clients] [seconds] [directory]`
//!
//! Every accept carries an idempotency key, a user, a repository, a tag and an audit entry; a client
//! starts its next one when it has the answer. The floor is what the disk does without any store:
//! 4 KiB overwritten and synced, measured before and after.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs::{File, read_dir, read_to_string};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outpost_store::conformance::sample::{self, accept_of, claim};
use outpost_store::{AcceptDispatch, Dispatches, ListFilter, SqliteOptions, SqliteStore, Store};
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: u64 = 256;
const SECONDS: u64 = 10;
const TASK_BYTES: usize = 1024;
const FLOOR_SYNCS: u32 = 4_000;
const READS: u32 = 50_000;
const LISTS: u32 = 500;

fn wanted(serial: u64) -> AcceptDispatch {
    let mut request = sample::request();
    request.task = "x".repeat(TASK_BYTES);
    request.repo = Some(format!("acme/shop-{}", serial % 100));
    request.user_id = Some(format!("user-{}", serial % 1_000));
    request.tags = vec!["nightly".to_owned()];
    let mut accept = accept_of(sample::dispatch(serial, "local", request));
    accept.audit.detail = serde_json::json!({ "agent": "claude" });
    accept.idempotency = Some(claim(&format!("key-{serial}"), "body", u64::MAX));
    accept
}

/// Syncs per second and their median, microseconds.
fn floor(directory: &Path) -> Outcome<(f64, u128)> {
    let file = File::create(directory.join("floor"))?;
    let block = [7_u8; 4096];
    let mut times = Vec::new();
    let start = Instant::now();
    for turn in 0..FLOOR_SYNCS {
        let begun = Instant::now();
        file.write_all_at(&block, u64::from(turn % 256) * 4096)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_micros());
    }
    let seconds = start.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok((f64::from(FLOOR_SYNCS) / seconds, times[times.len() / 2]))
}

/// Processor time of the writer's thread so far.
fn writer_time() -> Outcome<Duration> {
    for task in read_dir("/proc/self/task")? {
        let task = task?.path();
        if read_to_string(task.join("comm"))?.trim() == "store-writer" {
            let text = read_to_string(task.join("schedstat"))?;
            let nanos = text.split_whitespace().next().unwrap_or("0").parse()?;
            return Ok(Duration::from_nanos(nanos));
        }
    }
    Ok(Duration::ZERO)
}

async fn client(
    store: Arc<SqliteStore>,
    first: u64,
    step: u64,
    until: Instant,
) -> Outcome<Vec<u128>> {
    let mut times = Vec::new();
    let mut serial = first;
    while Instant::now() < until {
        let begun = Instant::now();
        store.accept(wanted(serial)).await?;
        times.push(begun.elapsed().as_micros());
        serial += step;
    }
    Ok(times)
}

async fn accepts(store: &Arc<SqliteStore>, clients: u64, seconds: u64) -> Outcome<()> {
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for number in 1..=clients {
        tasks.spawn(client(Arc::clone(store), number, clients, until));
    }
    let mut times = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        times.extend(outcome??);
    }
    let elapsed = begun.elapsed();
    let count = u32::try_from(times.len())?;
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 1_000];
    let metrics = store.metrics();
    println!(
        "accept  {clients} clients  {:.0}/s  p50 {} µs  p99 {} µs  p99.9 {} µs",
        f64::from(count) / elapsed.as_secs_f64(),
        at(500),
        at(990),
        at(999)
    );
    println!(
        "writer  {:.1} µs of processor a row, {:.0} % of one core; {} commits, {:.1} accepts each, at most {}",
        writer_time()?.as_secs_f64() * 1e6 / f64::from(count),
        writer_time()?.as_secs_f64() * 100.0 / elapsed.as_secs_f64(),
        metrics.commits,
        f64::from(count) / metrics.commits as f64,
        metrics.batch_size_max
    );
    Ok(())
}

async fn reads(store: &SqliteStore) -> Outcome<()> {
    let begun = Instant::now();
    for serial in 1..=READS {
        let id = sample::accept(u64::from(serial % 1_000) + 1).dispatch.id;
        store.get(id).await?;
    }
    println!("get     {:.1} µs", begun.elapsed().as_secs_f64() * 1e6 / f64::from(READS));
    let mut filter = ListFilter::of(sample::tenant("local"));
    filter.limit = 100;
    filter.user = Some("user-7".to_owned());
    let begun = Instant::now();
    for _ in 0..LISTS {
        store.list(&filter).await?;
    }
    println!(
        "list    {:.0} µs a page of up to 100",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(LISTS)
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, usual: u64| {
        arguments.get(index).map_or(Ok(usual), |text| text.parse::<u64>())
    };
    let (clients, seconds) = (number(0, CLIENTS)?, number(1, SECONDS)?);
    let parent = arguments.get(2).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let before = floor(directory.path())?;
    println!("floor   {:.0} syncs/s  p50 {} µs", before.0, before.1);
    let store = Arc::new(SqliteStore::open(&SqliteOptions::new(directory.path(), 1))?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(accepts(&store, clients, seconds))?;
    runtime.block_on(reads(&store))?;
    let store = Arc::into_inner(store).ok_or("the store is still in use")?;
    let begun = Instant::now();
    store.close();
    println!("close   {} ms", begun.elapsed().as_millis());
    let after = floor(directory.path())?;
    println!("floor   {:.0} syncs/s  p50 {} µs", after.0, after.1);
    Ok(())
}
