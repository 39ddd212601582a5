//! Backups of a real store under load, what comes back, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outpost_backup::{
    BackupError, BackupRequest, KeyFiles, LIST_FILE, MANIFEST_FILE, Manifest, Progress,
    RestoreRequest, backup, restore,
};
use outpost_core::{Dispatch, Event};
use outpost_store::conformance::sample;
use outpost_store::{ApiKeys as _, Audits as _, Dispatches as _, SqliteOptions, SqliteStore};
use outpost_types::{
    DispatchId, DispatchStatus, EventData, EventEnvelope, LogStreamName, Timestamp,
};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn to(&self) -> PathBuf {
        self.dir.path().join("backups/one")
    }

    fn restored(&self) -> PathBuf {
        self.dir.path().join("restored")
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open(&SqliteOptions::new(self.data(), 7)).unwrap()
    }

    fn request(&self) -> BackupRequest {
        BackupRequest {
            data_dir: self.data(),
            to: self.to(),
            keys: None,
            now: Timestamp::from_millis(5),
            version: "0.1.0".to_owned(),
        }
    }

    fn backup(&self) -> Result<Manifest, BackupError> {
        backup(&self.request(), &mut |_| {})
    }

    fn restore(&self) -> Result<Manifest, BackupError> {
        let keys = KeyFiles::default();
        let request = RestoreRequest { from: self.to(), data_dir: self.restored(), keys };
        restore(&request, &mut |_| {})
    }

    /// Nothing that was begun and not finished is left beside the targets.
    fn assert_nothing_half(&self) {
        for dir in [self.dir.path().to_owned(), self.dir.path().join("backups")] {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for entry in entries {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.starts_with(".outpost-"), "{name} was left behind");
            }
        }
    }
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn event(id: DispatchId, seq: u64, data: EventData) -> String {
    let envelope =
        EventEnvelope { seq, at: Timestamp::default(), dispatch_id: id, log_offset: None, data };
    format!("{}\n", serde_json::to_string(&envelope).unwrap())
}

fn status(status: DispatchStatus) -> EventData {
    EventData::Status { status, reason: None, failure: None }
}

/// A dispatch that completed, with files.
async fn completed(place: &Place, store: &SqliteStore, serial: u64) -> Dispatch {
    let mut record = sample::dispatch(serial, "local", sample::request());
    store.accept(sample::accept_of(record.clone())).await.unwrap();
    for event in sample::good_run(record.id) {
        let next = sample::after(&record, &event);
        let entry = sample::audit(&next, "step");
        store.update(&next, record.generation, entry).await.unwrap();
        record = next;
    }
    let kept = place.data().join(format!("dispatches/{}", record.id));
    write(&kept.join("output.log"), vec![serial as u8; 700_000]);
    write(&kept.join("artifacts/deep/ü x.txt"), "kept");
    let events = event(record.id, 1, status(DispatchStatus::Completed));
    write(&kept.join("events.jsonl"), events);
    record
}

/// Accepts dispatches until it is told to stop; says the last serial that was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(store: &Arc<SqliteStore>) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ending, noted, store) =
            (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(store));
        let task = tokio::spawn(async move {
            let mut serial = 1_000;
            while !ending.load(Ordering::SeqCst) {
                serial += 1;
                store.accept(sample::accept(serial)).await.unwrap();
                noted.store(serial, Ordering::SeqCst);
            }
        });
        Self { stop, acknowledged, task }
    }

    async fn until(&self, serial: u64) -> u64 {
        loop {
            let now = self.acknowledged.load(Ordering::SeqCst);
            if now >= serial {
                return now;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_everything_that_was_accepted_before() {
    let place = Place::new();
    let store = Arc::new(place.store());
    let over = completed(&place, &store, 1).await;
    let load = Load::start(&store);
    let before = load.until(1_050).await;
    let request = place.request();
    let mut seen = Progress::default();
    let manifest = tokio::task::spawn_blocking(move || {
        let manifest = backup(&request, &mut |progress| {
            assert!(progress.bytes >= seen.bytes && progress.files >= seen.files);
            seen = progress;
        });
        (manifest.unwrap(), seen)
    });
    let (manifest, seen) = manifest.await.unwrap();
    load.until(before + 50).await;
    load.stop.store(true, Ordering::SeqCst);
    load.task.await.unwrap();
    assert_eq!((seen.files, seen.bytes), (manifest.files, manifest.bytes));
    drop(store);

    assert_eq!(place.restore().unwrap(), manifest);
    let restored = SqliteStore::open(&SqliteOptions::new(place.restored(), 9)).unwrap();
    for serial in 1_001..=before {
        let id = DispatchId::from_parts(serial, 0);
        assert!(restored.get(id).await.unwrap().is_some(), "{serial} of {before} is missing");
    }
    assert_eq!(restored.get(over.id).await.unwrap(), Some(over.clone()));
    assert!(restored.verify_audit().await.unwrap().is_ok());
    restored.check().await.unwrap();
    let kept = place.restored().join(format!("dispatches/{}", over.id));
    assert_eq!(fs::read(kept.join("output.log")).unwrap(), vec![1; 700_000]);
    assert_eq!(fs::read(kept.join("artifacts/deep/ü x.txt")).unwrap(), b"kept");
    place.assert_nothing_half();
}

#[tokio::test]
async fn a_live_dispatch_is_cut_before_its_end() {
    let place = Place::new();
    let store = place.store();
    let waits = sample::dispatch(2, "local", sample::request());
    store.accept(sample::accept_of(waits.clone())).await.unwrap();
    let placed = sample::after(&waits, &Event::Placed);
    store.update(&placed, 1, sample::audit(&placed, "step")).await.unwrap();
    let name = format!("dispatches/{}", placed.id);
    let told = EventData::Log { stream: LogStreamName::Stdout, text: "x".into() };
    let begin = event(placed.id, 1, status(DispatchStatus::Running)) + &event(placed.id, 2, told);
    let end = event(placed.id, 3, status(DispatchStatus::Completed));
    write(&place.data().join(&name).join("events.jsonl"), begin.clone() + &end + "{\"torn");
    // Nobody's: accepted after the records were copied, or left by something else.
    write(&place.data().join("dispatches/other/x"), "x");
    place.backup().unwrap();
    place.restore().unwrap();
    let restored = place.restored();
    assert_eq!(fs::read_to_string(restored.join(&name).join("events.jsonl")).unwrap(), begin);
    assert!(!restored.join("dispatches/other").exists());
    // The next server must not start it a second time.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let noted = fs::read_to_string(restored.join("boot-id")).unwrap();
    assert!(!noted.is_empty() && noted != boot);
}

#[tokio::test]
async fn keys_are_in_it_only_when_asked_for() {
    let place = Place::new();
    drop(place.store());
    let (admin, secrets) =
        (place.data().join("admin.key"), place.dir.path().join("conf/secrets.key"));
    write(&admin, "otp_canary");
    write(&secrets, "canary of secrets");
    write(&place.data().join("config.toml"), "[retention]\n");
    place.backup().unwrap();
    assert!(!all_text(&place.to()).contains("canary"));
    fs::remove_dir_all(place.to()).unwrap();

    let keys = KeyFiles { admin: Some(admin), secrets: Some(secrets) };
    let with_keys = BackupRequest { keys: Some(keys), ..place.request() };
    assert!(backup(&with_keys, &mut |_| {}).unwrap().includes_keys);
    let restore_to = |secrets: Option<PathBuf>| {
        let keys = KeyFiles { admin: None, secrets };
        let request = RestoreRequest { from: place.to(), data_dir: place.restored(), keys };
        restore(&request, &mut |_| {})
    };
    assert!(matches!(restore_to(None), Err(BackupError::NoPlaceForKey)));
    let elsewhere = place.dir.path().join("new/secrets.key");
    write(&elsewhere, "another one");
    assert!(matches!(restore_to(Some(elsewhere.clone())), Err(BackupError::OtherKey(_))));
    assert!(!place.restored().exists());
    fs::remove_file(&elsewhere).unwrap();
    restore_to(Some(elsewhere.clone())).unwrap();
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "canary of secrets");
    assert_eq!(fs::read_to_string(place.restored().join("admin.key")).unwrap(), "otp_canary");
    assert!(place.restored().join("config.toml").exists());
    place.assert_nothing_half();
}

fn all_text(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &all_text(&path);
        } else {
            text += &String::from_utf8_lossy(&fs::read(path).unwrap());
        }
    }
    text
}

#[tokio::test]
async fn damage_is_found_and_nothing_is_restored() {
    let place = Place::new();
    let store = place.store();
    let over = completed(&place, &store, 1).await;
    drop(store);
    place.backup().unwrap();
    let log = format!("dispatches/{}/output.log", over.id);
    for name in [log.as_str(), "outpost.db", LIST_FILE] {
        let path = place.to().join(name);
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        let longer = [good.as_slice(), b"x"].concat();
        for bad in [flipped, good[..good.len() - 1].to_vec(), longer] {
            fs::write(&path, bad).unwrap();
            let refused = place.restore();
            assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{name}: {refused:?}");
            assert!(!place.restored().exists());
        }
        fs::remove_file(&path).unwrap();
        place.restore().unwrap_err();
        fs::write(&path, good).unwrap();
    }
    place.assert_nothing_half();
    place.restore().unwrap();
}

#[tokio::test]
async fn newer_versions_and_used_targets_are_refused() {
    let place = Place::new();
    assert!(matches!(place.backup(), Err(BackupError::NoRecords(_))));
    drop(place.store());
    place.backup().unwrap();
    assert!(matches!(place.backup(), Err(BackupError::Exists(_))));
    let path = place.to().join(MANIFEST_FILE);
    let good = fs::read_to_string(&path).unwrap();
    let newer = |field: &str, value: u64| {
        let mut manifest: serde_json::Value = serde_json::from_str(&good).unwrap();
        manifest[field] = value.into();
        fs::write(&path, manifest.to_string()).unwrap();
        assert!(matches!(place.restore(), Err(BackupError::Newer { .. })), "{field}");
    };
    newer("format", 2);
    newer("schema", 9_999);
    fs::write(&path, &good).unwrap();
    write(&place.restored().join("x"), "x");
    assert!(matches!(place.restore(), Err(BackupError::NotEmpty(_))));
    fs::remove_file(place.restored().join("x")).unwrap();
    // Empty is as good as not there.
    place.restore().unwrap();
    assert!(matches!(place.restore(), Err(BackupError::NotEmpty(_))));
    let restored = SqliteStore::open(&SqliteOptions::new(place.restored(), 9)).unwrap();
    assert!(restored.keys(None, None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn no_name_of_the_list_leads_out_of_the_directory() {
    let place = Place::new();
    drop(place.store());
    place.backup().unwrap();
    let (list, outside) = (place.to().join(LIST_FILE), place.dir.path().join("outside"));
    write(&outside, "x");
    let good = fs::read_to_string(&list).unwrap();
    let line = |path: &str| {
        serde_json::json!({"path": path, "bytes": 1, "sha256": "00"}).to_string() + "\n"
    };
    std::os::unix::fs::symlink(&outside, place.to().join("config.toml")).unwrap();
    for name in ["../outside", "/etc/passwd", "dispatches/../../outside", "config.toml", "agents/x"]
    {
        fs::write(&list, good.clone() + &line(name)).unwrap();
        let refused = place.restore();
        assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{name}: {refused:?}");
        assert!(!place.restored().exists());
    }
}
