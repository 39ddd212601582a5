//! Random writes of a server, and the picture of a store by which two are compared.
//!
//! An [`Author`] knows the records it made, so most of its writes are lawful. A [`Picture`] is a hash
//! over everything a store answers with, so a store on disk equals one in memory exactly when their
//! pictures do.

use std::fmt::Write as _;

use anyhow::Context;
use outpost_core::Dispatch;
use outpost_store::conformance::sample::{self, NASTY};
use outpost_store::{
    AUDIT_ROWS_MAX, AcceptDispatch, ApiKey, ApiKeyRecord, AuditEntry, AuditRange, EventHead,
    KEYS_ROWS_MAX, KeyTouch, LIST_ROWS_MAX, ListFilter, Store, StoreError,
};
use outpost_types::{ApiKeyStatus, DispatchId, KeyId, Timestamp};
use sha2::{Digest, Sha256};

use crate::random::Random;

const OWNERS: [&str; 2] = ["local", "other"];
const TAG: &str = "nightly";
/// Longest task, bytes: most bodies fit a page, some need several.
const TASK_BYTES_MAX: u64 = 9_000;

/// One write.
#[derive(Debug, Clone)]
pub enum Write {
    /// A new dispatch.
    Accept(Box<AcceptDispatch>),
    /// The next state of one.
    Update(Box<Dispatch>, AuditEntry),
    /// How far its events are.
    Head(EventHead),
    /// A new key.
    InsertKey(Box<ApiKeyRecord>, AuditEntry),
    /// A key stops working.
    RevokeKey(KeyId, AuditEntry),
    /// Keys were used.
    Touch(Vec<KeyTouch>),
    /// Idempotency keys expired.
    Purge(Timestamp),
}

impl Write {
    /// Asks `store` for it.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn issue(&self, store: &dyn Store) -> Result<(), StoreError> {
        match self.clone() {
            Self::Accept(accept) => store.accept(*accept).await.map(|_| ()),
            Self::Update(next, audit) => store.update(&next, next.generation - 1, audit).await,
            Self::Head(head) => store.set_event_head(head).await,
            Self::InsertKey(key, audit) => store.insert_key(*key, audit).await,
            Self::RevokeKey(id, audit) => {
                store.set_key_status(id, ApiKeyStatus::Revoked, audit).await.map(|_| ())
            }
            Self::Touch(touches) => store.touch_keys(&touches).await,
            Self::Purge(now) => store.purge_idempotency(now).await.map(|_| ()),
        }
    }

    /// The accept with a key that never expires, if it is one.
    #[must_use]
    pub fn claimed(&self) -> Option<&AcceptDispatch> {
        match self {
            Self::Accept(accept) => accept
                .idempotency
                .as_ref()
                .filter(|claim| claim.expires_at.as_millis() == u64::MAX)
                .map(|_| accept.as_ref()),
            _ => None,
        }
    }
}

/// Makes writes up.
#[derive(Debug)]
pub struct Author {
    random: Random,
    serial: u64,
    dispatches: Vec<Dispatch>,
    keys: Vec<KeyId>,
}

impl Author {
    /// An author of an empty store.
    #[must_use]
    pub const fn new(random: Random) -> Self {
        Self { random, serial: 0, dispatches: Vec::new(), keys: Vec::new() }
    }

    /// Looks up what became of its records after a crash or a failed write.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn reread(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut known = Vec::new();
        for dispatch in &self.dispatches {
            known.extend(store.get(dispatch.id).await?);
        }
        self.dispatches = known;
        let mut keys = Vec::new();
        for id in &self.keys {
            keys.extend(store.key(*id).await?.map(|key| key.id));
        }
        self.keys = keys;
        Ok(())
    }

    /// The next write.
    pub fn next_write(&mut self) -> Write {
        match self.random.below(20) {
            0..=8 => self.accept(),
            9..=14 => self.update(),
            15 => self.head(),
            16 => self.insert_key(),
            17 => self.revoke(),
            18 => self.touch(),
            _ => Write::Purge(Timestamp::from_millis(self.serial / 2)),
        }
    }

    /// A new dispatch with a key that never expires.
    pub fn accept_claimed(&mut self) -> Write {
        self.serial += 1;
        let serial = self.serial;
        let mut request = sample::request();
        let bytes = usize::try_from(self.random.below(TASK_BYTES_MAX)).unwrap_or(0);
        request.task = format!("{NASTY}{}", "x".repeat(bytes));
        request.repo = self.random.once_in(2).then(|| format!("acme/shop-{}", serial % 3));
        request.user_id = self.random.once_in(2).then(|| "it's \"ü\" 漢字".to_owned());
        request.tags = if self.random.once_in(2) { vec![TAG.to_owned()] } else { Vec::new() };
        let owner = OWNERS[self.random.index(OWNERS.len())];
        let dispatch = sample::dispatch(serial, owner, request);
        let mut accept = sample::accept_of(dispatch.clone());
        accept.idempotency = Some(sample::claim(&format!("key-{serial}"), "body", u64::MAX));
        self.dispatches.push(dispatch);
        Write::Accept(Box::new(accept))
    }

    fn accept(&mut self) -> Write {
        let mut write = self.accept_claimed();
        if let Write::Accept(accept) = &mut write {
            let key = format!("key-{}", self.serial);
            accept.idempotency = match self.random.below(3) {
                0 => None,
                1 => Some(sample::claim(&key, "body", self.serial + 9)),
                _ => accept.idempotency.take(),
            };
        }
        write
    }

    fn update(&mut self) -> Write {
        let live: Vec<usize> = (0..self.dispatches.len())
            .filter(|index| !self.dispatches[*index].status().is_terminal())
            .collect();
        let Some(index) = live.get(self.random.index(live.len())) else {
            return self.accept();
        };
        let dispatch = &mut self.dispatches[*index];
        let run = sample::good_run(dispatch.id);
        let generation = usize::try_from(dispatch.generation).unwrap_or(usize::MAX);
        let Some(event) = run.get(generation - 1) else {
            return self.accept();
        };
        let next = sample::after(dispatch, event);
        *dispatch = next.clone();
        let audit = sample::audit(&next, "dispatch.step");
        Write::Update(Box::new(next), audit)
    }

    fn head(&mut self) -> Write {
        let count = self.dispatches.len();
        if count == 0 {
            return self.accept();
        }
        let dispatch = self.dispatches[self.random.index(count)].id;
        let last_seq = self.random.below(1_000);
        Write::Head(EventHead { dispatch, last_seq, log_bytes: last_seq * 80 })
    }

    fn key_audit(&self, id: KeyId) -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(self.serial),
            tenant: sample::tenant(OWNERS[0]),
            actor: None,
            action: "key.changed",
            subject: id.to_string(),
            detail: NASTY.into(),
        }
    }

    fn insert_key(&mut self) -> Write {
        self.serial += 1;
        let id = KeyId::from_parts(self.serial, 1);
        let mut secret = [0; 32];
        for part in secret.chunks_mut(8) {
            part.copy_from_slice(&self.random.next().to_le_bytes());
        }
        let now = Timestamp::from_millis(self.serial);
        let key = ApiKey::generate(secret);
        let tenant = sample::tenant(OWNERS[0]);
        let record = ApiKeyRecord::new(id, tenant, &key, Default::default(), now, None);
        self.keys.push(id);
        Write::InsertKey(Box::new(record), self.key_audit(id))
    }

    fn revoke(&mut self) -> Write {
        let Some(id) = self.keys.get(self.random.index(self.keys.len())).copied() else {
            return self.insert_key();
        };
        Write::RevokeKey(id, self.key_audit(id))
    }

    fn touch(&mut self) -> Write {
        let last_used = Timestamp::from_millis(self.serial);
        let touch = |id: &KeyId| KeyTouch { id: *id, last_used, count: 3 };
        Write::Touch(self.keys.iter().map(touch).collect())
    }
}

/// Everything a store answers with, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture([u8; 32]);

impl Picture {
    /// Reads the whole store.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn of(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self(Sha256::digest(text_of(store).await?.as_bytes()).into()))
    }
}

/// Everything a store answers with, for a person.
///
/// # Errors
/// What the store answers.
pub async fn text_of(store: &dyn Store) -> Result<String, StoreError> {
    let mut text = String::new();
    for owner in OWNERS {
        for tag in [None, Some(TAG.to_owned())] {
            let mut filter = ListFilter { tag, ..ListFilter::of(sample::tenant(owner)) };
            filter.limit = LIST_ROWS_MAX;
            add_list(store, filter, &mut text).await?;
        }
    }
    add(&mut text, &store.live().await?.iter().map(|dispatch| dispatch.id).collect::<Vec<_>>());
    add(&mut text, &store.keys(None, None, KEYS_ROWS_MAX).await?);
    let mut after = 0;
    loop {
        let rows = store.audit(AuditRange { after, limit: AUDIT_ROWS_MAX }).await?;
        let Some(last) = rows.last() else {
            return Ok(text);
        };
        after = last.seq;
        add(&mut text, &rows);
    }
}

async fn add_list(
    store: &dyn Store,
    mut filter: ListFilter,
    text: &mut String,
) -> Result<(), StoreError> {
    loop {
        let page = store.list(&filter).await?;
        for dispatch in &page.dispatches {
            if filter.tag.is_some() {
                add(text, &dispatch.id);
                continue;
            }
            add(text, dispatch);
            add(text, &store.attempts(dispatch.id).await?);
            add(text, &store.event_head(dispatch.id).await?);
            // The same record by its other index.
            let again = store.get(dispatch.id).await?;
            if again.as_ref() != Some(dispatch) {
                text.push_str("two answers\n");
            }
        }
        if page.next.is_none() {
            return Ok(());
        }
        filter.before = page.next;
    }
}

fn add(text: &mut String, value: &impl std::fmt::Debug) {
    // Writing to a text cannot fail.
    let _written = writeln!(text, "{value:?}");
}

/// The first line in which two texts differ, for a report.
#[must_use]
pub fn first_difference(one: &str, two: &str) -> String {
    let (mut ones, mut twos) = (one.lines(), two.lines());
    loop {
        match (ones.next(), twos.next()) {
            (None, None) => return "none".to_owned(),
            (one, two) if one != two => return format!("{one:?}\n  instead of\n{two:?}"),
            _ => {}
        }
    }
}

/// Checks the promise of an idempotency key: `accept` made a dispatch, and asking again finds it.
///
/// # Errors
/// When it does not.
pub async fn check_replay(store: &dyn Store, accept: &AcceptDispatch) -> anyhow::Result<()> {
    use outpost_store::Accepted;
    let id: DispatchId = accept.dispatch.id;
    let found = store.accept(accept.clone()).await.context("replaying an accept")?;
    let Accepted::Replayed(dispatch) = found else {
        anyhow::bail!("the idempotency key of {id} answered {found:?}");
    };
    anyhow::ensure!(dispatch.id == id, "the idempotency key of {id} found {}", dispatch.id);
    let mut other = accept.clone();
    if let Some(claim) = other.idempotency.as_mut() {
        claim.body_hash[0] ^= 1;
    }
    let found = store.accept(other).await.context("reusing an idempotency key")?;
    anyhow::ensure!(found == Accepted::Conflict, "another body under the key of {id}: {found:?}");
    Ok(())
}
