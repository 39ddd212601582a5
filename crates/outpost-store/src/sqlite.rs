//! The store in one SQLite file: write-ahead log, `synchronous=FULL`, one writer with group commit,
//! readers beside it.
//!
//! The directory belongs to one process at a time. A file that is damaged, newer, or somebody
//! else's is refused when opened. Deliberately absent: network file systems, several servers on one
//! file, and backup (a copy of the file without its log is not one).

mod apply;
mod backup;
mod checkpoint;
mod connect;
mod files;
mod fleet;
mod list;
mod log;
mod outbox;
mod promotions;
mod readers;
mod retention;
mod rows;
mod schema;
mod secrets;
mod tenants;
mod usage;
mod writer;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outpost_core::Dispatch;
use outpost_types::{ApiKeyStatus, DispatchId, KeyId, TenantId, Timestamp};
use rusqlite::params;

use crate::audit::{AuditDraft, Chain};
use crate::keys::{KEY_TOUCHES_MAX, KEYS_ROWS_MAX, check_key};
use crate::metrics::Counters;
use crate::prepare::{accept_row, parse_body, update_row};
use crate::{
    AUDIT_ROWS_MAX, AcceptDispatch, Accepted, ApiKeyRecord, ApiKeys, AttemptRecord, AuditEntry,
    AuditFilter, AuditHead, AuditPage, AuditRange, AuditRow, Audits, BrokenAt, Dispatches,
    EventHead, EventHeads, KeyHash, KeyTouch, LIVE_ROWS_MAX, ListFilter, ListPage, ReplaceKey,
    Store, StoreError, StoreMetrics, UsageRow, Usages,
};
use apply::{Answer, Command};
pub use backup::{CopiedStore, KeptDispatch, snapshot};
pub use checkpoint::Checkpoint;
use checkpoint::Checkpointer;
use connect::Place;
pub use files::DATABASE_FILE;
use files::DirectoryLock;
pub use list::LIST_ENTRIES_MAX;
use readers::Readers;
pub use readers::SCAN_QUEUE_MAX;
pub use schema::SCHEMA_VERSION;
use writer::Writer;
pub use writer::{ACCEPT_QUEUE_MAX, BATCH_BYTES_MAX, BATCH_MAX, WRITE_QUEUE_MAX};

/// How to open the store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Its directory; made with mode 0700 when it is not there.
    pub directory: PathBuf,
    /// Random name of this installation, kept when the file is made and ignored afterwards.
    pub install_id: u128,
    /// Largest size of the file, bytes; beyond it writes answer [`StoreError::DiskFull`].
    pub database_bytes_max: Option<u64>,
    /// Name of the SQLite file layer (VFS) to use; it must be registered. `None` is the system's.
    pub vfs: Option<String>,
    /// How often the checkpointer looks whether there is something to do, milliseconds.
    pub checkpoint_millis: u64,
}

impl SqliteOptions {
    /// A store in this directory, as large as the disk.
    pub fn new(directory: impl Into<PathBuf>, install_id: u128) -> Self {
        Self {
            directory: directory.into(),
            install_id,
            database_bytes_max: None,
            vfs: None,
            checkpoint_millis: checkpoint::LOOK_MILLIS,
        }
    }
}

/// The store in one SQLite file. Fields are dropped in order: the writer finishes what waits and, as
/// the last connection, empties the log into the file; only then the directory is free.
#[derive(Debug)]
pub struct SqliteStore {
    readers: Readers,
    checkpointer: Checkpointer,
    writer: Writer,
    counters: Arc<Counters>,
    install_id: String,
    path: PathBuf,
    _lock: DirectoryLock,
}

impl SqliteStore {
    /// Opens or makes the store. Blocks: a small file is checked page by page.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`], [`StoreError::Corrupt`], [`StoreError::SchemaNewer`],
    /// [`StoreError::Foreign`], [`StoreError::UnsafeDirectory`], [`StoreError::Io`].
    pub fn open(options: &SqliteOptions) -> Result<Self, StoreError> {
        let directory = files::prepare_directory(&options.directory)?;
        let lock = files::lock(&directory)?;
        let path = files::prepare_database(&directory)?;
        let place = Place { path, vfs: options.vfs.clone(), bytes_max: options.database_bytes_max };
        let mut connection = connect::writer(&place)?;
        if schema::version(&connection)? > 0 {
            connect::check_on_open(&connection, &place.path)?;
        }
        schema::migrate(&mut connection, options.install_id)?;
        let install_id = "SELECT value FROM meta WHERE name = 'install_id'";
        let install_id = connection.query_row(install_id, [], |row| row.get(0))?;
        let counters = Arc::new(Counters::default());
        let unsettled = settle(&connection)?;
        let readers = Readers::open(&place)?;
        let look = Duration::from_millis(options.checkpoint_millis);
        Ok(Self {
            readers,
            checkpointer: Checkpointer::start(&place, look, Arc::clone(&counters))?,
            path: place.path.clone(),
            writer: Writer::start(connection, place, unsettled, Arc::clone(&counters))?,
            counters,
            install_id,
            _lock: lock,
        })
    }

    /// Random name of this installation, 32 hexadecimal digits; made with the file.
    #[must_use]
    pub fn install_id(&self) -> &str {
        &self.install_id
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks every page, index entry and foreign key. Takes minutes on a large file; others go on.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first finding.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.readers.scan(connect::check_fully).await
    }

    /// Moves the log into the file now instead of when the checkpointer thinks best.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when readers hold the log for too long, [`StoreError::DiskFull`],
    /// [`StoreError::Io`]; the log is as good as before.
    pub async fn checkpoint(&self, kind: Checkpoint) -> Result<(), StoreError> {
        self.checkpointer.run(kind).await
    }

    /// Finishes what waits and closes the file; dropping it does the same. Blocks.
    pub fn close(self) {
        drop(self);
    }

    async fn write(&self, command: Command) -> Result<(), StoreError> {
        self.writer.submit(command).await.map(|_| ())
    }
}

/// Starts with an empty log, on which the check of a log relies. A full or failing disk must not
/// keep a server from reading: then the writer does it before its first write.
fn settle(connection: &rusqlite::Connection) -> Result<Option<StoreError>, StoreError> {
    match connect::empty_log(connection) {
        Ok(()) => Ok(None),
        Err(error @ (StoreError::DiskFull | StoreError::Io { .. } | StoreError::Busy)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the log of the store could not be emptied; writes wait until it can"
            );
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Dispatches for SqliteStore {
    async fn accept(&self, accept: AcceptDispatch) -> Result<Accepted, StoreError> {
        let row = accept_row(&accept)?;
        match self.writer.submit(Command::Accept(Box::new(row))).await? {
            Answer::Replayed(body) => Ok(Accepted::Replayed(Box::new(parse_body(&body)?))),
            Answer::Conflict => Ok(Accepted::Conflict),
            _ => Ok(Accepted::New),
        }
    }

    async fn update(
        &self,
        next: &Dispatch,
        expected_generation: u64,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        let row = update_row(next, expected_generation, &audit)?;
        self.write(Command::Update(Box::new(row))).await
    }

    async fn get(&self, id: DispatchId) -> Result<Option<Dispatch>, StoreError> {
        let id = id.to_string();
        let found = self.readers.point(|db| rows::one(db, rows::BODY_BY_ID, [&id], rows::body))?;
        expect_right(found, |dispatch| dispatch.id.to_string() == id)
    }

    async fn get_for_tenant(
        &self,
        tenant: &TenantId,
        id: DispatchId,
    ) -> Result<Option<Dispatch>, StoreError> {
        let key = id.to_string();
        let found = self.readers.point(|db| {
            let params = [key.as_str(), tenant.as_str()];
            rows::one(db, rows::BODY_BY_TENANT, params, rows::body)
        })?;
        expect_right(found, |dispatch| dispatch.id == id && dispatch.tenant == *tenant)
    }

    async fn list(&self, filter: &ListFilter) -> Result<ListPage, StoreError> {
        let filter = filter.clone();
        self.readers.scan(move |db| list::list(db, &filter)).await
    }

    async fn live_page(
        &self,
        after: Option<DispatchId>,
        limit: u32,
    ) -> Result<Vec<Dispatch>, StoreError> {
        let after = after.map_or_else(String::new, |id| id.to_string());
        let limit = limit.min(LIVE_ROWS_MAX);
        let read = move |db: &rusqlite::Connection| {
            rows::many(db, rows::LIVE, params![after, limit], rows::body)
        };
        self.readers.scan(read).await
    }

    async fn attempts(&self, id: DispatchId) -> Result<Vec<AttemptRecord>, StoreError> {
        let id = id.to_string();
        self.readers.point(|db| rows::many(db, rows::ATTEMPTS, [&id], rows::attempt))
    }

    async fn purge_idempotency(&self, now: Timestamp) -> Result<u64, StoreError> {
        match self.writer.submit(Command::PurgeIdempotency(now)).await? {
            Answer::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }
}

#[async_trait]
impl ApiKeys for SqliteStore {
    async fn insert_key(&self, key: ApiKeyRecord, audit: AuditEntry) -> Result<(), StoreError> {
        check_key(&key)?;
        let audit = AuditDraft::new(&audit)?;
        self.write(Command::InsertKey(Box::new((key, audit)))).await
    }

    async fn replace_key(&self, replace: ReplaceKey) -> Result<(), StoreError> {
        check_key(&replace.next)?;
        let audit = AuditDraft::new(&replace.audit)?;
        self.write(Command::ReplaceKey(Box::new((replace, audit)))).await
    }

    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.readers.point(|db| rows::one(db, rows::KEY_BY_HASH, [&hash.0], rows::key))
    }

    async fn key(&self, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
        let id = id.to_string();
        self.readers.point(|db| rows::one(db, rows::KEY_BY_ID, [&id], rows::key))
    }

    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let before = before.map_or_else(|| rows::ID_MAX.to_owned(), |id| id.to_string());
        let limit = limit.min(KEYS_ROWS_MAX);
        let tenant = tenant.cloned();
        let read = move |db: &rusqlite::Connection| match tenant {
            Some(tenant) => {
                let params = params![before, limit, tenant.as_str()];
                rows::many(db, rows::KEYS_BY_TENANT, params, rows::key)
            }
            None => rows::many(db, rows::KEYS, params![before, limit], rows::key),
        };
        self.readers.scan(read).await
    }

    async fn set_key_status(
        &self,
        id: KeyId,
        status: ApiKeyStatus,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let command = Command::KeyStatus {
            id: id.to_string(),
            status,
            audit: Box::new(AuditDraft::new(&audit)?),
        };
        let answer = self.writer.submit(command).await?;
        Ok(matches!(answer, Answer::Changed(true)))
    }

    async fn touch_keys(&self, touches: &[KeyTouch]) -> Result<(), StoreError> {
        check_touches(touches)?;
        self.write(Command::TouchKeys(touches.to_vec())).await
    }
}

/// The record found by a column must say the same itself.
fn expect_right(
    found: Option<Dispatch>,
    right: impl FnOnce(&Dispatch) -> bool,
) -> Result<Option<Dispatch>, StoreError> {
    match found {
        Some(dispatch) if !right(&dispatch) => {
            Err(StoreError::corrupt("a dispatch under the name of another"))
        }
        found => Ok(found),
    }
}

pub(crate) fn check_touches(touches: &[KeyTouch]) -> Result<(), StoreError> {
    if touches.len() > KEY_TOUCHES_MAX {
        let message = format!("at most {KEY_TOUCHES_MAX} keys at once");
        return Err(StoreError::invalid("touches", message));
    }
    Ok(())
}

#[async_trait]
impl EventHeads for SqliteStore {
    async fn set_event_head(&self, head: EventHead) -> Result<(), StoreError> {
        self.write(Command::EventHead(head)).await
    }

    async fn event_head(&self, id: DispatchId) -> Result<Option<EventHead>, StoreError> {
        let id = id.to_string();
        self.readers.point(|db| rows::one(db, rows::EVENT_HEAD, [&id], rows::event_head))
    }
}

#[async_trait]
impl Audits for SqliteStore {
    async fn audit(&self, range: AuditRange) -> Result<Vec<AuditRow>, StoreError> {
        let limit = range.limit.min(AUDIT_ROWS_MAX);
        let range = AuditRange { limit, ..range };
        self.readers.scan(move |db| rows::audit_rows(db, range)).await
    }

    async fn audit_page(&self, filter: AuditFilter) -> Result<AuditPage, StoreError> {
        let limit = filter.limit.min(AUDIT_ROWS_MAX);
        let filter = AuditFilter { limit, ..filter };
        self.readers.scan(move |db| rows::audit_page(db, &filter)).await
    }

    async fn verify_audit(&self) -> Result<Result<AuditHead, BrokenAt>, StoreError> {
        let mut chain = Chain::START;
        loop {
            let range = AuditRange { after: chain.seq, limit: AUDIT_ROWS_MAX };
            // Piece by piece, so that a long trail does not hold the log back from its checkpoint.
            let rows = self.audit(range).await?;
            for row in &rows {
                match chain.follow(row) {
                    Ok(next) => chain = next,
                    Err(broken) => return Ok(Err(broken)),
                }
            }
            if rows.is_empty() {
                return Ok(Ok(AuditHead { count: chain.seq, hash: chain.hash }));
            }
        }
    }
}

#[async_trait]
impl Usages for SqliteStore {
    async fn usage(
        &self,
        tenant: Option<&TenantId>,
        days: RangeInclusive<u64>,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let tenant = tenant.cloned();
        self.readers.scan(move |db| usage::of(db, tenant.as_ref(), &days)).await
    }
}

impl Store for SqliteStore {
    fn metrics(&self) -> StoreMetrics {
        self.counters.snapshot()
    }
}
