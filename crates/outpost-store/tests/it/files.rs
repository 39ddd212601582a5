//! The file: what is kept over a restart, who may read it, and what is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use outpost_core::Event;
use outpost_store::conformance::sample::{self, NASTY, accept, after, claim};
use outpost_store::{
    Accepted, ApiKey, ApiKeyRecord, ApiKeys, AuditRange, Audits, BrokenAt, DATABASE_FILE,
    Dispatches, Envelope, EventHead, EventHeads, ListFilter, SecretOwner, SecretRecord, Secrets,
    SqliteOptions, SqliteStore, Store, StoreError,
};
use outpost_types::{KeyId, Scope, SecretKind, SecretName, Timestamp};
use rusqlite::Connection;

use crate::open;

fn refused(directory: &Path) -> StoreError {
    SqliteStore::open(&SqliteOptions::new(directory, 7)).unwrap_err()
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut first = accept(1);
    first.idempotency = Some(claim(NASTY, "body", 1_000));
    first.dispatch.spec.tags = vec!["nightly".to_owned()];
    store.accept(first.clone()).await.unwrap();
    let next = after(&first.dispatch, &Event::Placed);
    let audit = sample::audit(&next, "dispatch.placed");
    store.update(&next, 1, audit.clone()).await.unwrap();
    let key = ApiKeyRecord::new(
        KeyId::from_parts(1, 1),
        sample::tenant("local"),
        &ApiKey::generate([3; 32]),
        [Scope::Admin].into(),
        Timestamp::from_millis(1),
        None,
    );
    store.insert_key(key.clone(), audit).await.unwrap();
    let head = EventHead { dispatch: next.id, last_seq: 9, log_bytes: 99 };
    store.set_event_head(head).await.unwrap();
    let attempts = store.attempts(next.id).await.unwrap();
    let trail = store.verify_audit().await.unwrap().unwrap();
    store.close();

    let other_id = SqliteOptions::new(directory.path(), 8);
    let store = SqliteStore::open(&other_id).unwrap();
    assert_eq!(store.install_id(), format!("{:032x}", 7));
    assert_eq!(store.get(next.id).await.unwrap().as_ref(), Some(&next));
    assert_eq!(store.live().await.unwrap(), std::slice::from_ref(&next));
    assert_eq!(store.attempts(next.id).await.unwrap(), attempts);
    assert_eq!(store.event_head(next.id).await.unwrap(), Some(head));
    assert_eq!(store.key_by_hash(&key.hash).await.unwrap(), Some(key));
    assert_eq!(store.verify_audit().await.unwrap(), Ok(trail));
    let tagged =
        ListFilter { tag: Some("nightly".to_owned()), ..ListFilter::of(sample::tenant("local")) };
    assert_eq!(store.list(&tagged).await.unwrap().dispatches.len(), 1);
    let replayed = store.accept(first).await.unwrap();
    assert_eq!(replayed, Accepted::Replayed(Box::new(next)));
    // The trail goes on where it ended.
    store.accept(accept(2)).await.unwrap();
    let grown = store.verify_audit().await.unwrap().unwrap();
    assert_eq!(grown.count, trail.count + 1);
    store.check().await.unwrap();
}

#[test]
fn one_server_per_directory() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let error = refused(directory.path());
    let own = std::process::id();
    assert!(matches!(error, StoreError::AlreadyOpen { pid: Some(pid) } if pid == own), "{error}");
    assert!(error.to_string().contains(&own.to_string()));
    store.close();
    open(directory.path()).close();
}

#[tokio::test]
async fn only_the_owner_can_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("a/store");
    let store = open(&inside);
    store.accept(accept(1)).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(&inside), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&inside).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 4, "database, log, index of the log, lock");
    store.close();
    // A file that was opened up is closed again; a directory others write to is refused.
    let database = inside.join(DATABASE_FILE);
    fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).unwrap();
    open(&inside).close();
    assert_eq!(mode(&database), 0o600);
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(matches!(refused(&inside), StoreError::UnsafeDirectory { .. }));
}

#[test]
fn a_planted_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("victim");
    fs::write(&target, "precious").unwrap();
    let inside = directory.path().join("store");
    fs::create_dir(&inside).unwrap();
    symlink(&target, inside.join(DATABASE_FILE)).unwrap();
    assert!(matches!(refused(&inside), StoreError::Io { .. }));
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

async fn filled(directory: &Path) -> std::path::PathBuf {
    let store = open(directory);
    for serial in 1..=200 {
        store.accept(accept(serial)).await.unwrap();
    }
    let path = store.path().to_owned();
    store.close();
    path
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let good = fs::read(&path).unwrap();
    let middle = good.len() / 2 / 4096 * 4096;
    let mut torn = good.clone();
    torn[middle..middle + 8192].fill(0x5a);
    let mut headless = good.clone();
    headless[..100].fill(0);
    let cut = good[..middle].to_vec();
    for (what, bytes) in [("torn", torn), ("headless", headless), ("cut", cut)] {
        fs::write(&path, bytes).unwrap();
        let error = refused(directory.path());
        assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains("restore the last backup"));
    }
    fs::write(&path, good).unwrap();
    open(directory.path()).close();
}

#[tokio::test]
async fn a_log_without_its_file_is_not_thrown_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let log = path.with_extension("db-wal");
    fs::write(&log, "the only copy").unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(refused(directory.path()), StoreError::Corrupt { .. }));
    assert_eq!(fs::read(&log).unwrap(), b"the only copy");
}

#[tokio::test]
async fn a_newer_or_foreign_file_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let other = Connection::open(&path).unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    drop(other);
    let error = refused(directory.path());
    assert!(matches!(error, StoreError::SchemaNewer { found: 99, .. }), "{error:?}");

    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join(DATABASE_FILE);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    let error = refused(elsewhere.path());
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn tampering_with_the_trail_shows() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let other = Connection::open(&path).unwrap();
    for change in ["UPDATE audit SET action = 'x' WHERE seq = 7", "DELETE FROM audit"] {
        let error = other.execute_batch(change).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    other
        .execute_batch("DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_deleted")
        .unwrap();
    for (change, broken) in [
        ("UPDATE audit SET detail = detail || ' ' WHERE seq = 150", 150),
        ("UPDATE audit SET at = at + 1 WHERE seq = 120", 120),
        ("DELETE FROM audit WHERE seq = 70", 70),
        ("UPDATE audit SET seq = -seq WHERE seq = 1", 1),
    ] {
        other.execute_batch(change).unwrap();
        let store = open(directory.path());
        assert_eq!(store.verify_audit().await.unwrap(), Err(BrokenAt { seq: broken }));
        let all = store.audit(AuditRange { after: 0, limit: 9 }).await.unwrap();
        assert!(!all.is_empty(), "it is still readable");
        store.close();
    }
}

/// What is sealed is judged by who sealed it; that the rows fit each other is the store's matter.
#[tokio::test]
async fn secrets_that_disagree_with_their_versions_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (owner, name) = (SecretOwner::Platform, "A".parse().unwrap());
    let store = open(directory.path());
    for version in 1..=3 {
        let at = Timestamp::from_millis(version);
        let record = SecretRecord {
            owner: owner.clone(),
            name: SecretName::clone(&name),
            kind: SecretKind::Injected,
            version,
            created_at: Timestamp::from_millis(1),
            updated_at: at,
            last_used_at: None,
            use_count: 0,
        };
        let envelope = Envelope { key_id: [1; 8], bytes: vec![7; 40] };
        let audit = sample::audit(&accept(version).dispatch, "secret.set");
        store.put_secret(record, envelope, audit).await.unwrap();
    }
    let path = store.path().to_owned();
    store.close();
    for (change, undo) in [
        // Rolled back: the record, or the newest value.
        ("UPDATE secrets SET version = 2", "UPDATE secrets SET version = 3"),
        ("UPDATE secrets SET kind = 'exposed'", "UPDATE secrets SET kind = 'injected'"),
        (
            "UPDATE secret_versions SET version = 9 WHERE version = 3",
            "UPDATE secret_versions SET version = 3 WHERE version = 9",
        ),
    ] {
        Connection::open(&path).unwrap().execute_batch(change).unwrap();
        let store = open(directory.path());
        let error = store.sealed_secret(&owner, &name, None).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{change}: {error:?}");
        store.close();
        Connection::open(&path).unwrap().execute_batch(undo).unwrap();
    }
    let store = open(directory.path());
    assert!(store.sealed_secret(&owner, &name, None).await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = SqliteOptions::new(directory.path(), 7);
    options.database_bytes_max = Some(512 * 1024);
    let store = SqliteStore::open(&options).unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let accept = accept(kept.len() as u64 + 1);
        let dispatch = accept.dispatch.clone();
        match store.accept(accept).await {
            Ok(_) => kept.push(dispatch),
            Err(error) => break error,
        }
        assert!(kept.len() < 2_000, "the bound does not hold");
    };
    assert!(matches!(error, StoreError::DiskFull), "{error:?}");
    assert!(kept.len() > 50);
    assert!(!store.metrics().failed);
    assert_eq!(store.live().await.unwrap(), kept);
    store.close();
    let store = open(directory.path());
    assert_eq!(store.live().await.unwrap(), kept);
    store.accept(accept(kept.len() as u64 + 1)).await.unwrap();
    assert_eq!(store.verify_audit().await.unwrap().unwrap().count, kept.len() as u64 + 1);
}
