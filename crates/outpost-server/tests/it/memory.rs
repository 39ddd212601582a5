//! A backend in memory: what the routes need of the engine and no more. The tests of the client use
//! it as well. Nothing in it is bounded; a test makes a handful of dispatches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use outpost_server::{AuthError, Backend};
use outpost_types::{
    Admission, AgentAvailability, AgentView, Api, ApiError, ArtifactView, ByteStream, Caller,
    CancelRequest, ContextView, Created, Day, DispatchId, DispatchRequest, DispatchStatus,
    DispatchView, ErrorCode, EventData, EventEnvelope, EventStream, FleetView, KeyId, ListQuery,
    LogQuery, LogStream, LogStreamName, NetworkRequest, Page, PhaseTimings, PutSecret, RekeyView,
    Scope, SecretName, SecretScope, SecretValue, SecretView, TenantId, Tier, Timestamp, UsageQuery,
    UsageReport, UsageSum, WorkspaceView,
};
use tokio::sync::watch;

/// Size of the events of [`Memory::flood`], bytes.
pub(crate) const FLOOD_EVENT_BYTES: usize = 64 * 1024;

struct Entry {
    tenant: TenantId,
    view: DispatchView,
    events: Vec<EventEnvelope>,
    log: Vec<u8>,
    files: BTreeMap<String, Bytes>,
    /// When not zero, the events are made on the fly and this is how many there are.
    flood: u64,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<DispatchId, Entry>,
    idempotency: HashMap<(TenantId, String), (DispatchRequest, DispatchId)>,
    keys: HashMap<String, Result<Arc<Caller>, AuthError>>,
    secrets: BTreeMap<(TenantId, SecretScope, SecretName), (SecretView, SecretValue)>,
    workspaces: BTreeMap<(TenantId, String), WorkspaceView>,
    unready: Option<String>,
}

/// The backend.
pub(crate) struct Memory {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    next: AtomicU64,
    /// Events that left the streams of [`Memory::flood`], by all readers.
    pub(crate) flooded: Arc<AtomicU64>,
    /// Calls of `events`, in order of arrival: the positions asked for.
    pub(crate) asked: Mutex<Vec<u64>>,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        let memory = Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            next: AtomicU64::new(1),
            flooded: Arc::default(),
            asked: Mutex::default(),
        };
        memory.key("admin", "local", &[Scope::Admin]);
        memory.key("other", "acme", &[Scope::Admin]);
        let mut state = memory.lock();
        state.keys.insert("revoked".into(), Err(AuthError::Revoked));
        state.keys.insert("expired".into(), Err(AuthError::Expired));
        drop(state);
        Arc::new(memory)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a key.
    pub(crate) fn key(&self, key: &str, tenant: &str, scopes: &[Scope]) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let caller = Caller {
            tenant: tenant.parse().unwrap(),
            key: KeyId::from_parts(1, u128::from(number)),
            scopes: scopes.iter().copied().collect::<BTreeSet<_>>(),
        };
        self.lock().keys.insert(key.to_owned(), Ok(Arc::new(caller)));
    }

    pub(crate) fn set_unready(&self, reason: Option<&str>) {
        self.lock().unready = reason.map(str::to_owned);
    }

    /// Completes once `count` long polls, streams and logs wait for a change.
    pub(crate) async fn until_waiting(&self, count: usize) {
        let waiting = async {
            while self.changed.receiver_count() < count {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, waiting).await.unwrap();
    }

    /// Adds a dispatch of `tenant` that is running.
    pub(crate) fn add(&self, tenant: &str) -> DispatchId {
        let request = DispatchRequest {
            agent: "claude".into(),
            task: "t".into(),
            ..DispatchRequest::default()
        };
        self.insert(tenant.parse().unwrap(), &request).dispatch_id
    }

    /// Adds a persistent workspace of `tenant`.
    pub(crate) fn workspace(&self, tenant: &str, id: &str, in_use: bool) -> WorkspaceView {
        let view = WorkspaceView {
            id: id.into(),
            user_id: "ann\u{e9}".into(),
            repo: Some("https://github.com/o/r".into()),
            branch: None,
            base_commit: "c".repeat(40),
            size_bytes: 7,
            too_large: false,
            in_use,
            runs: 2,
            created_at: Timestamp::from_millis(1),
            used_at: Timestamp::from_millis(2),
        };
        let place = (tenant.parse().unwrap(), id.to_owned());
        self.lock().workspaces.insert(place, view.clone());
        view
    }

    fn insert(&self, tenant: TenantId, request: &DispatchRequest) -> DispatchView {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = DispatchId::from_parts(1_795_000_000_000 + number, u128::from(number));
        let view = view(id, request);
        let entry = Entry {
            tenant,
            view: view.clone(),
            events: Vec::new(),
            log: Vec::new(),
            files: BTreeMap::new(),
            flood: 0,
        };
        self.lock().entries.insert(id, entry);
        self.push(id, status(DispatchStatus::Running));
        view
    }

    fn change<T>(&self, id: DispatchId, change: impl FnOnce(&mut Entry) -> T) -> T {
        let result = change(self.lock().entries.get_mut(&id).unwrap());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Adds an event.
    pub(crate) fn push(&self, id: DispatchId, data: EventData) {
        self.change(id, |entry| {
            let seq = entry.events.len() as u64 + 1;
            entry.events.push(EventEnvelope {
                seq,
                at: Timestamp::from_millis(seq),
                dispatch_id: id,
                log_offset: None,
                data,
            });
        });
    }

    /// Adds a line of output as an event.
    pub(crate) fn say(&self, id: DispatchId, text: &str) {
        self.push(id, line(text));
    }

    /// Adds output.
    pub(crate) fn print(&self, id: DispatchId, bytes: &[u8]) {
        self.change(id, |entry| entry.log.extend_from_slice(bytes));
    }

    /// The value of a secret of `tenant`, as it arrived.
    pub(crate) fn secret(&self, tenant: &str, name: &str) -> Option<SecretValue> {
        let tenant: TenantId = tenant.parse().unwrap();
        let place = (tenant, SecretScope::Tenant, name.parse().unwrap());
        self.lock().secrets.get(&place).map(|(_, value)| value.clone())
    }

    /// Adds a file.
    pub(crate) fn keep(&self, id: DispatchId, name: &str, bytes: &'static [u8]) {
        self.change(id, |entry| {
            entry.files.insert(name.into(), Bytes::from_static(bytes));
        });
    }

    /// Brings it to a state.
    pub(crate) fn reach(&self, id: DispatchId, to: DispatchStatus) {
        self.push(id, status(to));
        self.change(id, |entry| {
            entry.view.status = to;
            entry.view.generation += 1;
        });
    }

    /// Makes its stream `count` large events and a terminal one, made on the fly.
    pub(crate) fn flood(&self, id: DispatchId, count: u64) {
        self.change(id, |entry| entry.flood = count);
    }
}

fn status(status: DispatchStatus) -> EventData {
    EventData::Status { status, reason: None, failure: None }
}

fn line(text: &str) -> EventData {
    EventData::Log { stream: LogStreamName::Stdout, text: text.to_owned() }
}

fn view(id: DispatchId, request: &DispatchRequest) -> DispatchView {
    DispatchView {
        dispatch_id: id,
        status: DispatchStatus::Running,
        generation: 1,
        agent: request.agent.clone(),
        model_id: request.model_id.clone().unwrap_or_else(|| "model".into()),
        tier: request.tier.unwrap_or(Tier::Fast),
        task: request.task.clone(),
        repo: request.repo.clone(),
        branch: request.branch.clone(),
        base_commit: None,
        context_level: request.context_level.unwrap_or_default(),
        workspace_mode: request.workspace_mode.unwrap_or_default(),
        timeout_seconds: request.timeout_seconds.unwrap_or(600),
        priority: request.priority.unwrap_or_default(),
        deadline_at: Timestamp::from_millis(86_400_000),
        user_id: request.user_id.clone(),
        tags: request.tags.clone(),
        attempt: 1,
        queue_reason: None,
        queue_position: None,
        parked_until: None,
        exit_code: None,
        failure: None,
        summary: None,
        output: None,
        artifact_url: Some(format!("/artifacts/{id}")),
        session_id: None,
        continued_from: None,
        files_changed: None,
        checks: Vec::new(),
        network: request.network.unwrap_or_default(),
        allow_hosts: request.allow_hosts.clone(),
        secrets: request.secrets.clone(),
        budget_usd: request.budget_usd,
        usage: None,
        timings: PhaseTimings::default(),
        isolation: None,
        created_at: Timestamp::from_millis(id.millis()),
        started_at: None,
        completed_at: None,
    }
}

#[async_trait]
impl Backend for Handle {
    fn authenticate(&self, key: &str) -> Result<Admission, AuthError> {
        let state = self.0.lock();
        let caller = state.keys.get(key).cloned().unwrap_or(Err(AuthError::Unknown))?;
        Ok(Admission { caller, requests_per_minute: None })
    }

    fn api(&self, caller: &Arc<Caller>) -> Arc<dyn Api> {
        Arc::new(Session { memory: Arc::clone(&self.0), tenant: caller.tenant.clone() })
    }

    async fn ready(&self) -> Result<(), String> {
        self.0.lock().unready.clone().map_or(Ok(()), Err)
    }

    async fn artifact_for_signed(
        &self,
        tenant: &TenantId,
        id: DispatchId,
        name: &str,
    ) -> Result<ByteStream, ApiError> {
        let session = Session { memory: Arc::clone(&self.0), tenant: tenant.clone() };
        session.artifact(id, name).await
    }
}

/// A [`Memory`] as the server takes it.
pub(crate) struct Handle(pub(crate) Arc<Memory>);

/// What one caller sees of it.
pub(crate) struct Session {
    memory: Arc<Memory>,
    tenant: TenantId,
}

impl Session {
    /// Whether the caller is of this tenant.
    pub(crate) fn is(&self, tenant: &str) -> bool {
        self.tenant.as_str() == tenant
    }

    /// `not_found` unless the dispatch is the caller's.
    pub(crate) fn exists(&self, id: DispatchId) -> Result<(), ApiError> {
        self.read(id, |_| ())
    }

    fn read<T>(&self, id: DispatchId, read: impl FnOnce(&Entry) -> T) -> Result<T, ApiError> {
        let state = self.memory.lock();
        let entry = state.entries.get(&id);
        let own = entry.filter(|entry| entry.tenant == self.tenant);
        own.map(read).ok_or_else(ApiError::not_found)
    }
}

#[async_trait]
impl Api for Session {
    async fn create_dispatch(
        &self,
        request: DispatchRequest,
        idempotency_key: Option<String>,
    ) -> Result<Created, ApiError> {
        match request.task.as_str() {
            "panic" => panic!("a test asked for it"),
            "internal" => return Err(ApiError::new(ErrorCode::Internal, "It is broken.")),
            _ => {}
        }
        let place = idempotency_key.map(|key| (self.tenant.clone(), key));
        if let Some(place) = &place {
            let state = self.memory.lock();
            if let Some((before, id)) = state.idempotency.get(place) {
                if *before != request {
                    let message = "This Idempotency-Key was used with another request.";
                    return Err(ApiError::new(ErrorCode::IdempotencyConflict, message));
                }
                let dispatch = state.entries[id].view.clone();
                return Ok(Created { dispatch, replayed: true });
            }
        }
        let dispatch = self.memory.insert(self.tenant.clone(), &request);
        if let Some(place) = place {
            let made = (request, dispatch.dispatch_id);
            self.memory.lock().idempotency.insert(place, made);
        }
        Ok(Created { dispatch, replayed: false })
    }

    async fn get_dispatch(
        &self,
        id: DispatchId,
        wait: Option<Duration>,
        after_generation: Option<u64>,
    ) -> Result<DispatchView, ApiError> {
        let mut changed = self.memory.changed.subscribe();
        let view = self.read(id, |entry| entry.view.clone())?;
        let Some(wait) = wait else { return Ok(view) };
        let base = after_generation.unwrap_or(view.generation);
        let news = async {
            loop {
                let view = self.read(id, |entry| entry.view.clone())?;
                if view.generation > base || view.status.is_terminal() {
                    return Ok(view);
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(wait, news).await {
            Ok(view) => view,
            Err(_) => self.read(id, |entry| entry.view.clone()),
        }
    }

    async fn cancel_dispatch(
        &self,
        id: DispatchId,
        request: CancelRequest,
    ) -> Result<DispatchView, ApiError> {
        if self.read(id, |entry| entry.view.status.is_terminal())? {
            return Err(ApiError::new(ErrorCode::AlreadyFinished, "It is already over."));
        }
        self.memory.reach(id, DispatchStatus::Cancelled);
        self.memory.change(id, |entry| entry.view.summary = request.reason);
        self.read(id, |entry| entry.view.clone())
    }

    async fn change_network(
        &self,
        id: DispatchId,
        request: NetworkRequest,
    ) -> Result<DispatchView, ApiError> {
        if self.read(id, |entry| entry.view.status.is_terminal())? {
            return Err(ApiError::new(ErrorCode::AlreadyFinished, "It is already over."));
        }
        self.memory.change(id, |entry| {
            entry.view.network = request.network.unwrap_or(entry.view.network);
            entry.view.allow_hosts = request.allow_hosts.unwrap_or_default();
        });
        self.read(id, |entry| entry.view.clone())
    }

    async fn list_runs(&self, query: ListQuery) -> Result<Page<DispatchView>, ApiError> {
        let limit = query.limit.unwrap_or(20) as usize;
        let state = self.memory.lock();
        let own = state.entries.values().rev().filter(|e| e.tenant == self.tenant);
        let tagged = own.filter(|e| query.tag.as_ref().is_none_or(|tag| e.view.tags.contains(tag)));
        let all: Vec<_> = tagged
            .map(|entry| entry.view.clone())
            .skip_while(|view| {
                query.cursor.as_ref().is_some_and(|cursor| view.dispatch_id.to_string() >= *cursor)
            })
            .take(limit + 1)
            .collect();
        let more = all.len() > limit;
        let items: Vec<_> = all.into_iter().take(limit).collect();
        let last = items.last().map(|view: &DispatchView| view.dispatch_id.to_string());
        Ok(Page { items, next_cursor: last.filter(|_| more) })
    }

    async fn events(&self, id: DispatchId, after: u64) -> Result<EventStream, ApiError> {
        let flood = self.read(id, |entry| entry.flood)?;
        self.memory.asked.lock().unwrap().push(after);
        if flood > 0 {
            return Ok(flooding(id, after, flood, Arc::clone(&self.memory.flooded)));
        }
        let memory = Arc::clone(&self.memory);
        let changed = memory.changed.subscribe();
        let state = (memory, changed, after as usize, false);
        Ok(stream::unfold(state, move |(memory, mut changed, at, ended)| async move {
            loop {
                if ended {
                    return None;
                }
                let (next, over) = {
                    let state = memory.lock();
                    let events = &state.entries[&id].events;
                    let over = events.last().is_some_and(|e| e.data.is_terminal());
                    (events.get(at).cloned(), over)
                };
                match next {
                    Some(event) => {
                        let ended = event.data.is_terminal();
                        return Some((Ok(event), (memory, changed, at + 1, ended)));
                    }
                    None if over => return None,
                    None => changed.changed().await.ok()?,
                }
            }
        })
        .boxed())
    }

    async fn logs(&self, id: DispatchId, query: LogQuery) -> Result<LogStream, ApiError> {
        self.read(id, |_| ())?;
        let memory = Arc::clone(&self.memory);
        let changed = memory.changed.subscribe();
        let state = (memory, changed, query.after as usize);
        Ok(stream::unfold(state, move |(memory, mut changed, at)| async move {
            loop {
                let (bytes, over) = {
                    let state = memory.lock();
                    let entry = &state.entries[&id];
                    let bytes = entry.log.get(at..).unwrap_or_default().to_vec();
                    (Bytes::from(bytes), entry.view.status.is_terminal())
                };
                if !bytes.is_empty() {
                    let next = at + bytes.len();
                    return Some((Ok(bytes), (memory, changed, next)));
                }
                if over || !query.follow {
                    return None;
                }
                changed.changed().await.ok()?;
            }
        })
        .boxed())
    }

    async fn diff(&self, id: DispatchId) -> Result<ByteStream, ApiError> {
        let file = self.read(id, |entry| entry.files.get("diff.patch").cloned())?;
        Ok(stream::iter(file.map(Ok)).boxed())
    }

    async fn context(&self, id: DispatchId) -> Result<ContextView, ApiError> {
        let document = r#"{"version":1,"level":"full","budgetTokens":1800,"tokens":1,"sections":[],
            "redactions":{},"text":"told"}"#;
        self.read(id, |_| serde_json::from_str(document).unwrap())
    }

    async fn artifacts(
        &self,
        id: DispatchId,
        _url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        self.read(id, |entry| {
            let files = entry.files.iter();
            let views = files.map(|(name, bytes)| ArtifactView {
                name: name.clone(),
                size_bytes: bytes.len() as u64,
                content_type: "text/plain".into(),
                url: String::new(),
                expires_at: Timestamp::from_millis(0),
                preview: None,
            });
            views.collect()
        })
    }

    async fn artifacts_with_previews(
        &self,
        id: DispatchId,
        url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        let mut views = self.artifacts(id, url_ttl).await?;
        for view in &mut views {
            let text = "<script>alert(1)</script>".to_owned();
            let preview =
                outpost_types::ArtifactPreview::Text { text, truncated: true, masked: false };
            view.preview = Some(preview);
        }
        Ok(views)
    }

    async fn artifact(&self, id: DispatchId, name: &str) -> Result<ByteStream, ApiError> {
        let file = self.read(id, |entry| entry.files.get(name).cloned())?;
        let file = file.ok_or_else(ApiError::not_found)?;
        Ok(stream::iter([Ok(file)]).boxed())
    }

    async fn fleet(&self) -> Result<FleetView, ApiError> {
        Ok(FleetView {
            fleet: "local".into(),
            running: 0,
            queued: 0,
            concurrency_max: 10,
            scripted_model: true,
            draining: None,
            agents: vec![AgentView {
                agent: "claude".into(),
                default_model_id: "model".into(),
                tier: Tier::Fast,
                resources: Tier::Fast.resources(),
                concurrency_max: 5,
                running: 0,
                pinned_version: "1".into(),
                availability: AgentAvailability {
                    available: false,
                    reason: Some("not installed".into()),
                },
                draining: None,
                pool: None,
            }],
        })
    }

    async fn put_secret(
        &self,
        name: SecretName,
        request: PutSecret,
    ) -> Result<SecretView, ApiError> {
        let (kind, scope) = (request.kind.unwrap_or_default(), request.scope.unwrap_or_default());
        request.value.check(kind)?;
        let place = (self.tenant.clone(), scope, name.clone());
        let mut state = self.memory.lock();
        let version = state.secrets.get(&place).map_or(1, |(view, _)| view.version + 1);
        let view = SecretView {
            provider: name.provider(),
            name,
            kind,
            scope,
            version,
            created_at: Timestamp::from_millis(1),
            updated_at: Timestamp::from_millis(version),
            last_used_at: None,
            use_count: 0,
        };
        state.secrets.insert(place, (view.clone(), request.value));
        Ok(view)
    }

    async fn list_secrets(&self) -> Result<Vec<SecretView>, ApiError> {
        let state = self.memory.lock();
        let own = state.secrets.iter().filter(|((tenant, ..), _)| *tenant == self.tenant);
        Ok(own.map(|(_, (view, _))| view.clone()).collect())
    }

    async fn delete_secret(
        &self,
        name: SecretName,
        scope: SecretScope,
    ) -> Result<SecretView, ApiError> {
        let place = (self.tenant.clone(), scope, name);
        let removed = self.memory.lock().secrets.remove(&place);
        removed.map(|(view, _)| view).ok_or_else(ApiError::not_found)
    }

    async fn usage(&self, query: UsageQuery) -> Result<UsageReport, ApiError> {
        let day = |text: Option<String>| text.map_or(Ok(Day::from_number(1)), |text| text.parse());
        let day =
            |field, text| day(text).map_err(|error| ApiError::field(field, error.to_string()));
        Ok(UsageReport {
            from: day("from", query.from)?,
            to: day("to", query.to)?,
            group_by: Vec::new(),
            rows: Vec::new(),
            total: UsageSum { dispatches: 1, ..UsageSum::default() },
        })
    }

    async fn list_workspaces(&self) -> Result<Vec<WorkspaceView>, ApiError> {
        let state = self.memory.lock();
        let own = state.workspaces.iter().filter(|((tenant, _), _)| *tenant == self.tenant);
        Ok(own.map(|(_, view)| view.clone()).collect())
    }

    async fn get_workspace(&self, id: &str) -> Result<WorkspaceView, ApiError> {
        let place = (self.tenant.clone(), id.to_owned());
        self.memory.lock().workspaces.get(&place).cloned().ok_or_else(ApiError::not_found)
    }

    async fn delete_workspace(&self, id: &str) -> Result<(), ApiError> {
        if self.get_workspace(id).await?.in_use {
            return Err(ApiError::new(ErrorCode::WorkspaceInUse, "A run is in it."));
        }
        self.memory.lock().workspaces.remove(&(self.tenant.clone(), id.to_owned()));
        Ok(())
    }

    async fn rekey_secrets(&self) -> Result<RekeyView, ApiError> {
        let versions = self.memory.lock().secrets.len() as u64;
        Ok(RekeyView { key_id: "0123456789abcdef".into(), versions, old_key_left: false })
    }
}

fn flooding(id: DispatchId, after: u64, count: u64, taken: Arc<AtomicU64>) -> EventStream {
    let text = "x".repeat(FLOOD_EVENT_BYTES);
    stream::iter(after + 1..=count + 1)
        .map(move |seq| {
            taken.fetch_add(1, Ordering::Relaxed);
            let data = if seq > count { status(DispatchStatus::Completed) } else { line(&text) };
            Ok(EventEnvelope {
                seq,
                at: Timestamp::from_millis(seq),
                dispatch_id: id,
                log_offset: None,
                data,
            })
        })
        .boxed()
}
