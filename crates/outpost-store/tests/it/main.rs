//! The store as its users and its machine see it.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod files;
mod kill;
mod model;
mod writer;

use outpost_store::conformance::{Fixture, suite};
use outpost_store::{MemoryStore, SqliteOptions, SqliteStore};

fn open(directory: &std::path::Path) -> SqliteStore {
    SqliteStore::open(&SqliteOptions::new(directory, 7)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    suite(async || Fixture::of(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_conforms() {
    let fresh = async || {
        let directory = tempfile::tempdir().unwrap();
        Fixture::guarded(open(directory.path()), directory)
    };
    suite(fresh).await;
}
