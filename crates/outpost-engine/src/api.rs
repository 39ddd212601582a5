//! The operations of [`Api`], for one caller.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outpost_core::{Dispatch, DispatchSpec, Event, Kept, QueueReason, State, changed_network};
use outpost_store::{AcceptDispatch, Accepted, IdempotencyClaim, StoreError};
use outpost_types::limits::{
    CANCEL_REASON_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_TTL_SECONDS,
    OUTPUT_TAIL_BYTES_MAX,
};
use outpost_types::{
    Api, ApiError, ArtifactView, ByteStream, Caller, CancelRequest, ContextView, Created, Day,
    DispatchId, DispatchRequest, DispatchStatus, DispatchView, ErrorCode, EventData, EventStream,
    FleetView, ListQuery, LogQuery, LogStream, NetworkRequest, Page, PutSecret, RekeyView,
    SecretName, SecretScope, SecretView, UsageQuery, UsageReport, WorkspaceView,
};
use sha2::{Digest as _, Sha256};
use tracing::{error, info};

use crate::effects::{lock, status_event};
use crate::engine::{ApplyError, Engine};
use crate::journal::{Journal, OUTPUT_FILE, tail_text};
use crate::secrets::{Secrets, is_operator};
use crate::streams::Growth;
use crate::{artifacts, audit, context, pass, previews, query, streams, usage};

/// How often a change of a network is tried when other clients come before it.
const NETWORK_TRIES_MAX: u32 = 8;
/// Name of the diff among the kept files.
const DIFF_FILE: &str = "diff.patch";

/// The engine for one caller.
#[derive(Debug, Clone)]
pub struct EngineApi {
    engine: Engine,
    caller: Arc<Caller>,
}

impl Engine {
    /// The operations as `caller` may see them: nothing of another tenant exists for it.
    #[must_use]
    pub fn api(&self, caller: Arc<Caller>) -> EngineApi {
        EngineApi { engine: self.clone(), caller }
    }
}

#[async_trait]
impl Api for EngineApi {
    async fn create_dispatch(
        &self,
        request: DispatchRequest,
        idempotency_key: Option<String>,
    ) -> Result<Created, ApiError> {
        let api = self.clone();
        let work = async move { api.accept(None, request, idempotency_key).await };
        self.engine.inner.tasks.finish("accept", work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn get_dispatch(
        &self,
        id: DispatchId,
        wait: Option<Duration>,
        after_generation: Option<u64>,
    ) -> Result<DispatchView, ApiError> {
        let mut record = self.find(id).await?;
        if let Some(wait) = wait
            && let Some(live) = self.engine.live(id).await.map_err(store_error)?
        {
            let seen = after_generation.unwrap_or(record.generation);
            let mut changes = live.record.subscribe();
            let changed = changes.wait_for(|r| r.generation > seen || r.status().is_terminal());
            // Neither the end of the time nor of the dispatch is an error: both are answered.
            let _ = tokio::time::timeout(wait, changed).await;
            record = live.snapshot();
        }
        Ok(self.full_view(&record))
    }

    async fn cancel_dispatch(
        &self,
        id: DispatchId,
        request: CancelRequest,
    ) -> Result<DispatchView, ApiError> {
        let reason = check_reason(request.reason)?;
        let api = self.clone();
        let work = async move { api.cancel(id, reason).await };
        self.engine.inner.tasks.finish(id, work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn change_network(
        &self,
        id: DispatchId,
        request: NetworkRequest,
    ) -> Result<DispatchView, ApiError> {
        let api = self.clone();
        let work = async move { api.network(id, request).await };
        self.engine.inner.tasks.finish(id, work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn list_runs(&self, query: ListQuery) -> Result<Page<DispatchView>, ApiError> {
        let filter = query::filter(&query, &self.caller.tenant)?;
        let page = self.engine.inner.store.list(&filter).await.map_err(store_error)?;
        let items = page.dispatches.iter().map(Dispatch::view).collect();
        Ok(Page { items, next_cursor: page.next.map(query::cursor_before) })
    }

    async fn events(&self, id: DispatchId, after: u64) -> Result<EventStream, ApiError> {
        let growth = self.growth_of(id).await?;
        let events = streams::events(&self.engine.kept_dir(id), after, growth)?;
        Ok(pass::while_admitted(&self.engine, &self.caller, events))
    }

    async fn logs(&self, id: DispatchId, query: LogQuery) -> Result<LogStream, ApiError> {
        let growth = self.growth_of(id).await?;
        let end = growth.extent().output_bytes;
        if query.after > end {
            let message = format!("It is beyond the end of the log, which has {end} bytes.");
            return Err(ApiError::field("after", message));
        }
        let path = self.engine.kept_dir(id).join(OUTPUT_FILE);
        let bytes = streams::growing(&path, query.after, query.follow, growth)?;
        Ok(pass::while_admitted(&self.engine, &self.caller, bytes))
    }

    async fn diff(&self, id: DispatchId) -> Result<ByteStream, ApiError> {
        self.find_kept(id, Kept::Artifacts).await?;
        let path = self.engine.kept_dir(id).join(DIFF_FILE);
        if path.exists() {
            streams::file(&path)
        } else {
            Ok(Box::pin(futures_util::stream::empty()))
        }
    }

    async fn context(&self, id: DispatchId) -> Result<ContextView, ApiError> {
        self.find_kept(id, Kept::Context).await?;
        context::read(&self.engine.kept_dir(id))
    }

    async fn artifacts(
        &self,
        id: DispatchId,
        url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        self.find_kept(id, Kept::Artifacts).await?;
        self.engine.make_files(id).await?;
        let ttl_millis = u64::try_from(url_ttl.as_millis()).unwrap_or(u64::MAX);
        let expires_at = self.engine.now().plus_millis(ttl_millis);
        artifacts::list(&self.engine.kept_dir(id), id, expires_at)
    }

    async fn artifacts_with_previews(
        &self,
        id: DispatchId,
        url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        let mut views = self.artifacts(id, url_ttl).await?;
        let has_secrets = !self.find(id).await?.spec.secrets.is_empty();
        let kept_dir = self.engine.kept_dir(id);
        let work = move || {
            previews::add(&kept_dir, &mut views, has_secrets);
            views
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| panicked())
    }

    async fn artifact(&self, id: DispatchId, name: &str) -> Result<ByteStream, ApiError> {
        let first = name.split('/').next().unwrap_or(name);
        self.find_kept(id, Kept::of(first)).await?;
        self.engine.open_artifact(id, name).await
    }

    async fn fleet(&self) -> Result<FleetView, ApiError> {
        Ok(self.fleet_view().await)
    }

    async fn put_secret(
        &self,
        name: SecretName,
        request: PutSecret,
    ) -> Result<SecretView, ApiError> {
        let api = self.clone();
        let work = async move { api.secrets().put(&api.caller, name, request).await };
        self.engine.inner.tasks.finish("secrets", work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn list_secrets(&self) -> Result<Vec<SecretView>, ApiError> {
        self.secrets().list(&self.caller).await
    }

    async fn delete_secret(
        &self,
        name: SecretName,
        scope: SecretScope,
    ) -> Result<SecretView, ApiError> {
        self.secrets().delete(&self.caller, &name, scope).await
    }

    async fn usage(&self, query: UsageQuery) -> Result<UsageReport, ApiError> {
        let today = Day::of(self.engine.now());
        let wanted = usage::wanted(&query, &self.caller, is_operator(&self.caller), today)?;
        let days = wanted.from.number()..=wanted.to.number();
        let rows = self.engine.inner.store.usage(wanted.tenant.as_ref(), days).await;
        usage::report(wanted, &rows.map_err(store_error)?)
    }

    async fn list_workspaces(&self) -> Result<Vec<WorkspaceView>, ApiError> {
        self.engine.inner.runner.workspaces(&self.caller.tenant).await
    }

    async fn get_workspace(&self, id: &str) -> Result<WorkspaceView, ApiError> {
        self.engine.inner.runner.workspace(&self.caller.tenant, id).await
    }

    async fn delete_workspace(&self, id: &str) -> Result<(), ApiError> {
        let (api, id) = (self.clone(), id.to_owned());
        let work = async move {
            let Caller { tenant, key, .. } = api.caller.as_ref();
            api.engine.inner.runner.delete_workspace(tenant, &id).await?;
            info!(%tenant, %key, id, "a persistent workspace is deleted");
            Ok(())
        };
        self.engine.inner.tasks.finish("workspaces", work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn rekey_secrets(&self) -> Result<RekeyView, ApiError> {
        let api = self.clone();
        let work = async move { api.secrets().rekey(&api.caller).await };
        self.engine.inner.tasks.finish("secrets", work).await.unwrap_or_else(|| Err(panicked()))
    }
}

impl EngineApi {
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    fn secrets(&self) -> &Secrets {
        &self.engine.inner.config.secrets
    }

    /// Accepts a dispatch, under an id that is on record already if there is one.
    pub(crate) async fn accept(
        &self,
        id: Option<DispatchId>,
        request: DispatchRequest,
        idempotency_key: Option<String>,
    ) -> Result<Created, ApiError> {
        let now = self.engine.now();
        let idempotency = idempotency_key
            .map(|key| {
                let body_hash = body_hash(&request)?;
                check_idempotency_key(&key)?;
                let expires_at = now.plus_millis(IDEMPOTENCY_TTL_SECONDS * 1000);
                Ok::<_, ApiError>(IdempotencyClaim { key, body_hash, expires_at })
            })
            .transpose()?;
        let runner = &self.engine.inner.runner;
        let defaults = runner.admit(&self.caller.tenant, &request).await?;
        let parent = self.parent_of(&request).await?;
        let mut spec = DispatchSpec::from_request(request, &defaults)?;
        if let Some(parent) = parent {
            spec = spec.continuing(&parent)?;
        }
        if let Some(workspace) = &mut spec.workspace {
            workspace.repo = runner.repo_name(&workspace.repo);
        }
        let drawn = || DispatchId::from_parts(now.as_millis(), self.engine.random_u128());
        let id = id.unwrap_or_else(drawn);
        let (tenant, key) = (self.caller.tenant.clone(), self.caller.key);
        let mut dispatch = Dispatch::accept(id, tenant, key, spec, now);
        let waiting = &self.engine.inner.waiting;
        // When all slots are taken it waits from the start: one write and one sync instead of two.
        if let Some(reason) = self.reason_to_wait(&dispatch)? {
            dispatch.state = State::Queued { reason, not_before: None };
        }
        waiting.announce_arrival(id);
        let audit = audit::of_accept(&dispatch, key);
        let accept = AcceptDispatch { dispatch: dispatch.clone(), idempotency, audit };
        let mut accepted = self.engine.inner.store.accept(accept).await;
        if accepted.is_err() && matches!(self.engine.inner.store.get(id).await, Ok(Some(_))) {
            // A store that fails may have written it all the same.
            accepted = Ok(Accepted::New);
        }
        if let Ok(Accepted::New) = accepted {
            waiting.arrive(&dispatch);
            // Also when it waits: the slot may have become free while it was written down.
            self.engine.inner.placer.notify_one();
            return Ok(Created { dispatch: dispatch.view(), replayed: false });
        }
        waiting.turn_back(id);
        match accepted {
            Ok(Accepted::Replayed(first)) => {
                Ok(Created { dispatch: self.full_view(&first), replayed: true })
            }
            Ok(Accepted::Conflict) => Err(ApiError::new(
                ErrorCode::IdempotencyConflict,
                "This Idempotency-Key was used with another body.",
            )
            .with_hint("Use a new key for a new request.")),
            Ok(Accepted::New) => unreachable!("answered above"),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The dispatch a request wants to go on from. One of another tenant is none.
    async fn parent_of(&self, request: &DispatchRequest) -> Result<Option<Dispatch>, ApiError> {
        let Some(text) = &request.continue_from else { return Ok(None) };
        let none = || ApiError::field("continueFrom", "There is no dispatch with this id.");
        let id: DispatchId = text.parse().map_err(|_| none())?;
        match self.find(id).await {
            Ok(parent) => Ok(Some(parent)),
            Err(error) if error.code == ErrorCode::NotFound => Err(none()),
            Err(error) => Err(error),
        }
    }

    async fn cancel(
        &self,
        id: DispatchId,
        reason: Option<String>,
    ) -> Result<DispatchView, ApiError> {
        let record = self.find(id).await?;
        let live = self.engine.live(id).await.map_err(store_error)?;
        let live = live.ok_or_else(|| finished(&record))?;
        let event = Event::CancelRequested { reason };
        match self.engine.apply(&live, &event, Some(self.caller.key)).await {
            Ok(record) => Ok(record.view()),
            Err(ApplyError::Store(error)) => Err(store_error(error)),
            Err(ApplyError::Rejected(_)) => {
                let record = live.snapshot();
                if record.status().is_terminal() {
                    Err(finished(&record))
                } else {
                    Ok(record.view())
                }
            }
        }
    }

    async fn network(
        &self,
        id: DispatchId,
        request: NetworkRequest,
    ) -> Result<DispatchView, ApiError> {
        let record = self.find(id).await?;
        let live = self.engine.live(id).await.map_err(store_error)?;
        let live = live.ok_or_else(|| finished(&record))?;
        for _ in 0..NETWORK_TRIES_MAX {
            let from = live.snapshot().network();
            let to = changed_network(&from, request.clone())?;
            self.engine.inner.runner.check_network(&to)?;
            let event = Event::NetworkChanged { from, to: to.clone() };
            match self.engine.apply(&live, &event, Some(self.caller.key)).await {
                Ok(record) => return Ok(record.view()),
                Err(ApplyError::Store(error)) => return Err(store_error(error)),
                Err(ApplyError::Rejected(_)) => {}
            }
            let record = live.snapshot();
            match record.status() {
                DispatchStatus::Completing => {
                    let message = "Its agent has ended: nothing of it reaches a network any more.";
                    return Err(ApiError::new(ErrorCode::AlreadyFinished, message));
                }
                status if status.is_terminal() => return Err(finished(&record)),
                _ if record.network() == to => return Ok(record.view()),
                // Another client was first: what is left out stays as that one left it.
                _ => {}
            }
        }
        let message = "Others change the network of this dispatch all the time.";
        Err(ApiError::new(ErrorCode::Unavailable, message).with_hint("Try again in a moment."))
    }

    /// The record, if it is the caller's.
    pub(crate) async fn find(&self, id: DispatchId) -> Result<Dispatch, ApiError> {
        if let Some(live) = self.engine.inner.live.get(id) {
            let record = live.snapshot();
            return Some(record)
                .filter(|record| record.tenant == self.caller.tenant)
                .ok_or_else(ApiError::not_found);
        }
        let store = &self.engine.inner.store;
        let found = store.get_for_tenant(&self.caller.tenant, id).await.map_err(store_error)?;
        found.ok_or_else(ApiError::not_found)
    }

    /// Whether the caller has kept files of this kind of this dispatch; its record may be gone by now.
    async fn find_kept(&self, id: DispatchId, kind: Kept) -> Result<(), ApiError> {
        match self.find(id).await {
            Ok(record) => self.engine.check_kept(record.completed_at, kind),
            Err(error) if error.code == ErrorCode::NotFound => {
                self.engine.check_leftover(&self.caller.tenant, id, kind).await
            }
            Err(error) => Err(error),
        }
    }

    /// How far the logs of a dispatch reach.
    async fn growth_of(&self, id: DispatchId) -> Result<Growth, ApiError> {
        self.find(id).await?;
        if let Some(live) = self.engine.live(id).await.map_err(store_error)? {
            return Growth::of_live(live).map_err(|error| streams::unreadable(&error));
        }
        // It may have ended since it was read.
        let record = self.find(id).await?;
        self.engine.check_kept(record.completed_at, Kept::Logs)?;
        let journal = self.engine.journal_of_ended(&self.engine.kept_dir(id), &record);
        journal.and_then(Growth::of_ended).map_err(|error| streams::unreadable(&error))
    }

    /// Why a new dispatch cannot have a slot at once.
    fn reason_to_wait(&self, dispatch: &Dispatch) -> Result<Option<QueueReason>, ApiError> {
        const RETRY_AFTER_SECONDS: u64 = 30;
        let config = &self.engine.inner.config;
        let queue = self.engine.inner.waiting.queue();
        if queue.waiting() < config.waiting_count_max {
            return Ok(queue.reason(dispatch, &self.engine.inner.access.limits()));
        }
        let message = format!("The queue is full: {} waiting.", config.waiting_count_max);
        Err(ApiError::new(ErrorCode::Unavailable, message)
            .with_hint("Try again when some have run, or cancel what is not needed any more.")
            .with_retry_after_seconds(RETRY_AFTER_SECONDS))
    }

    fn full_view(&self, record: &Dispatch) -> DispatchView {
        let mut view = record.view();
        if record.attempt > 0 {
            let path = self.engine.kept_dir(record.id).join(OUTPUT_FILE);
            // A log that is gone (retention) is no error of the record.
            view.output = tail_text(&path, OUTPUT_TAIL_BYTES_MAX).ok();
        }
        // Most polls are for what has a slot or is over: they need not wait for who looks at the queue.
        if !record.waits() {
            return view;
        }
        let queue = self.engine.inner.waiting.queue();
        view.queue_position = queue.position(record);
        if view.queue_reason.is_some() {
            // What is on record is why it had to wait at first; this is why it still does.
            let reason = queue.reason(record, &self.engine.inner.access.limits());
            view.queue_reason = reason.map(|reason| reason.message().to_owned());
        }
        drop(queue);
        view
    }
}

impl Engine {
    /// One kept file; the caller was checked before.
    ///
    /// # Errors
    /// `not_found` for a name that is not a kept file of the dispatch.
    pub async fn open_artifact(&self, id: DispatchId, name: &str) -> Result<ByteStream, ApiError> {
        self.make_files(id).await?;
        let path = artifacts::find(&self.kept_dir(id), name)?;
        streams::file(&path)
    }

    /// Makes the files of a dispatch that only waits: whoever asks for them finds them.
    async fn make_files(&self, id: DispatchId) -> Result<(), ApiError> {
        let Some(live) = self.live(id).await.map_err(store_error)? else { return Ok(()) };
        live.journal.materialise().map_err(|error| streams::unreadable(&error))
    }

    /// Whether dispatches can be accepted now: the store answers.
    ///
    /// # Errors
    /// One sentence without internals.
    pub async fn ready(&self) -> Result<(), String> {
        match self.inner.store.live_page(None, 1).await {
            Ok(_) => Ok(()),
            Err(error) => {
                error!(?error, "the store does not answer");
                Err("The records cannot be read or written now.".to_owned())
            }
        }
    }

    /// The logs of a dispatch that did not end.
    pub(crate) fn journal_of_live(&self, record: &Dispatch) -> std::io::Result<Journal> {
        let journal = Journal::open_late(record.id, &self.kept_dir(record.id))?;
        self.mend_status_event(&journal, record);
        Ok(journal)
    }

    /// The logs of a dispatch that ended. A crash may have kept the last event from them: the first
    /// reader appends it, and only one of several at once.
    fn journal_of_ended(&self, dir: &Path, record: &Dispatch) -> std::io::Result<Journal> {
        let journal = Journal::open(record.id, dir)?;
        if journal.last_event() == Some(status_event(record)) {
            return Ok(journal);
        }
        let _one_at_a_time = lock(&self.inner.mending);
        let journal = Journal::open(record.id, dir)?;
        self.mend_status_event(&journal, record);
        Ok(journal)
    }

    /// Appends the status event that a crash may have kept from the log.
    fn mend_status_event(&self, journal: &Journal, record: &Dispatch) {
        let wanted = status_event(record);
        if journal.is_empty() && record.status() != DispatchStatus::Pending {
            // It began as every dispatch does; that was only held in memory.
            let status = DispatchStatus::Pending;
            let first = EventData::Status { status, reason: None, failure: None };
            if let Err(error) = journal.event(record.created_at, None, first) {
                error!(%error, id = %record.id, "a status event could not be kept");
            }
        }
        // One that only waits was told so when it came.
        let at = if record.attempt == 0 && record.waits() { record.created_at } else { self.now() };
        if journal.last_event().is_none_or(|last| last != wanted)
            && let Err(error) = journal.event(at, None, wanted)
        {
            error!(%error, id = %record.id, "a status event could not be kept");
        }
    }
}

fn body_hash(request: &DispatchRequest) -> Result<[u8; 32], ApiError> {
    let json = serde_json::to_vec(request)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "The request could not be read back."))?;
    Ok(Sha256::digest(json).into())
}

fn check_idempotency_key(key: &str) -> Result<(), ApiError> {
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
    if fits && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let message =
        format!("It must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters.");
    Err(ApiError::field("Idempotency-Key", message))
}

fn check_reason(reason: Option<String>) -> Result<Option<String>, ApiError> {
    if reason.as_ref().is_some_and(|reason| reason.len() > CANCEL_REASON_BYTES_MAX) {
        let message = format!("It must have at most {CANCEL_REASON_BYTES_MAX} bytes.");
        return Err(ApiError::field("reason", message));
    }
    Ok(reason)
}

pub(crate) fn panicked() -> ApiError {
    ApiError::new(ErrorCode::Internal, "The request could not be carried out.")
        .with_hint("The server's log says why.")
}

fn finished(record: &Dispatch) -> ApiError {
    let message = format!("The dispatch is already {}.", record.status());
    ApiError::new(ErrorCode::AlreadyFinished, message)
}

/// What a client hears of a failing store; the cause stays in the server's log.
pub(crate) fn store_error(cause: StoreError) -> ApiError {
    const RETRY_AFTER_SECONDS: u64 = 1;
    error!(?cause, "the store failed");
    ApiError::new(ErrorCode::Unavailable, "The records cannot be read or written now.")
        .with_hint("Try again in a moment; nothing was changed.")
        .with_retry_after_seconds(RETRY_AFTER_SECONDS)
}
