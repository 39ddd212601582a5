//! An `Api` with fixed answers, for the tests of those who only call one.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod access;
mod promote;
#[path = "../../crates/outpost-terminal/src/samples.rs"]
#[expect(dead_code, reason = "the tests of other crates use the rest")]
mod samples;
mod webhooks;

pub use webhooks::webhook;

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use outpost_types::{
    Api, ApiError, ArtifactView, ByteStream, CancelRequest, ContextView, Created, DispatchId,
    DispatchRequest, DispatchStatus, DispatchView, ErrorCode, EventEnvelope, EventStream,
    FleetView, ListQuery, LogQuery, LogStream, NetworkRequest, Page, PromoteRequest, PutSecret,
    RekeyView, SecretKind, SecretName, SecretScope, SecretView, UsageQuery, UsageReport,
    WorkspaceView,
};

use samples::*;

/// What the fake was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// A dispatch was made.
    Create(Box<DispatchRequest>, Option<String>),
    /// A dispatch was cancelled.
    Cancel(DispatchId, Option<String>),
    /// What a dispatch may reach was changed.
    Network(DispatchId, NetworkRequest),
    /// What was used was asked for.
    Usage(UsageQuery),
    /// A secret was set.
    PutSecret(SecretName, PutSecret),
    /// A secret was removed.
    DeleteSecret(SecretName, SecretScope),
    /// A persistent workspace was deleted.
    DeleteWorkspace(String),
    /// A dispatch was promoted.
    Promote(PromoteRequest),
}

/// The fake.
#[derive(Debug)]
pub struct FakeApi {
    /// What there is, newest first.
    pub views: Mutex<Vec<DispatchView>>,
    /// The event stream of every dispatch.
    pub events: Vec<EventEnvelope>,
    /// The event stream never ends, as that of a dispatch that goes on.
    pub endless: bool,
    /// What was asked for.
    pub calls: Mutex<Vec<Call>>,
    /// Most entries of an answer to a list, whatever was asked for: the search goes on after it.
    pub list_items_max: Option<usize>,
    /// Patch of every dispatch.
    pub patch: Vec<u8>,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self {
            views: Mutex::new(vec![running(), failed(), completed()]),
            events: events(),
            endless: false,
            calls: Mutex::new(Vec::new()),
            list_items_max: None,
            patch: b"diff --git a/calc.py b/calc.py\n-    return a - b\n+    return a + b\n"
                .to_vec(),
        }
    }
}

impl FakeApi {
    fn find(&self, id: DispatchId) -> Result<DispatchView, ApiError> {
        let views = self.views.lock().unwrap();
        let found = views.iter().find(|view| view.dispatch_id == id);
        found.cloned().ok_or_else(ApiError::not_found)
    }

    /// What was asked for so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

fn once(bytes: &[u8]) -> ByteStream {
    let bytes = Bytes::copy_from_slice(bytes);
    Box::pin(stream::iter([Ok(bytes)]))
}

#[async_trait]
impl Api for FakeApi {
    async fn create_dispatch(
        &self,
        request: DispatchRequest,
        idempotency_key: Option<String>,
    ) -> Result<Created, ApiError> {
        if request.agent == "missing" {
            return Err(ApiError::new(ErrorCode::AgentUnavailable, "no such agent"));
        }
        let call = Call::Create(Box::new(request), idempotency_key);
        self.calls.lock().unwrap().push(call);
        Ok(Created { dispatch: completed(), replayed: false })
    }

    async fn get_dispatch(
        &self,
        id: DispatchId,
        _wait: Option<Duration>,
        _after_generation: Option<u64>,
    ) -> Result<DispatchView, ApiError> {
        self.find(id)
    }

    async fn cancel_dispatch(
        &self,
        id: DispatchId,
        request: CancelRequest,
    ) -> Result<DispatchView, ApiError> {
        let mut view = self.find(id)?;
        if view.status.is_terminal() {
            return Err(ApiError::new(ErrorCode::AlreadyFinished, "It has already ended."));
        }
        self.calls.lock().unwrap().push(Call::Cancel(id, request.reason));
        view.status = DispatchStatus::Cancelled;
        let mut views = self.views.lock().unwrap();
        for stored in views.iter_mut().filter(|stored| stored.dispatch_id == id) {
            *stored = view.clone();
        }
        Ok(view)
    }

    async fn change_network(
        &self,
        id: DispatchId,
        request: NetworkRequest,
    ) -> Result<DispatchView, ApiError> {
        let mut view = self.find(id)?;
        if view.status.is_terminal() {
            return Err(ApiError::new(ErrorCode::AlreadyFinished, "It has already ended."));
        }
        self.calls.lock().unwrap().push(Call::Network(id, request.clone()));
        view.network = request.network.unwrap_or(view.network);
        view.allow_hosts = request.allow_hosts.unwrap_or(view.allow_hosts);
        let mut views = self.views.lock().unwrap();
        for stored in views.iter_mut().filter(|stored| stored.dispatch_id == id) {
            *stored = view.clone();
        }
        Ok(view)
    }

    async fn list_runs(&self, query: ListQuery) -> Result<Page<DispatchView>, ApiError> {
        let limit = query.limit.map_or(20, |limit| limit as usize);
        let limit = self.list_items_max.map_or(limit, |most| most.min(limit));
        let from = query.cursor.and_then(|text| text.parse().ok()).unwrap_or(0);
        let views = self.views.lock().unwrap();
        let items: Vec<_> = views.iter().skip(from).take(limit).cloned().collect();
        let next = from + items.len();
        let next_cursor = (next < views.len()).then(|| next.to_string());
        Ok(Page { items, next_cursor })
    }

    async fn events(&self, id: DispatchId, after: u64) -> Result<EventStream, ApiError> {
        self.find(id)?;
        let events: Vec<_> =
            self.events.iter().filter(|event| event.seq > after).cloned().map(Ok).collect();
        if self.endless {
            use futures_util::StreamExt as _;
            return Ok(Box::pin(stream::iter(events).chain(stream::pending())));
        }
        Ok(Box::pin(stream::iter(events)))
    }

    async fn logs(&self, id: DispatchId, _query: LogQuery) -> Result<LogStream, ApiError> {
        self.find(id)?;
        Ok(once(b"raw \x1b[31moutput\x1b[0m\n"))
    }

    async fn diff(&self, id: DispatchId) -> Result<ByteStream, ApiError> {
        self.find(id)?;
        Ok(once(&self.patch))
    }

    async fn context(&self, id: DispatchId) -> Result<ContextView, ApiError> {
        self.find(id)?;
        let document = r##"{"version":1,"level":"standard","budgetTokens":1200,"tokens":20,"redactions":{},
            "sections":[{"kind":"identity","path":"README.md","bytes":20,"tokensBefore":5,"tokensAfter":5,
            "trimmed":"none","redactions":{}}],"text":"# Project context\n\n# Task\n\n"}"##;
        Ok(serde_json::from_str(document).unwrap())
    }

    async fn artifacts(
        &self,
        id: DispatchId,
        _url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        self.find(id)?;
        Ok(Vec::new())
    }

    async fn artifact(&self, id: DispatchId, _name: &str) -> Result<ByteStream, ApiError> {
        self.find(id)?;
        Err(ApiError::not_found())
    }

    async fn fleet(&self) -> Result<FleetView, ApiError> {
        Ok(fleet())
    }

    async fn put_secret(
        &self,
        name: SecretName,
        request: PutSecret,
    ) -> Result<SecretView, ApiError> {
        let view = secret(name.as_str(), request.kind.unwrap_or_default());
        let scope = request.scope.unwrap_or_default();
        self.calls.lock().unwrap().push(Call::PutSecret(name, request));
        Ok(SecretView { scope, ..view })
    }

    async fn list_secrets(&self) -> Result<Vec<SecretView>, ApiError> {
        let used = SecretView {
            version: 3,
            last_used_at: Some(CREATED_AT),
            use_count: 12,
            ..secret("ANTHROPIC_API_KEY", SecretKind::Injected)
        };
        let platform = SecretView {
            scope: SecretScope::Platform,
            ..secret("OPENAI_API_KEY", SecretKind::Injected)
        };
        Ok(vec![used, secret("DATABASE_URL", SecretKind::Exposed), platform])
    }

    async fn delete_secret(
        &self,
        name: SecretName,
        scope: SecretScope,
    ) -> Result<SecretView, ApiError> {
        if name.as_str() == "MISSING" {
            return Err(ApiError::not_found());
        }
        let view = secret(name.as_str(), SecretKind::Injected);
        self.calls.lock().unwrap().push(Call::DeleteSecret(name, scope));
        Ok(SecretView { scope, ..view })
    }

    async fn usage(&self, query: UsageQuery) -> Result<UsageReport, ApiError> {
        self.calls.lock().unwrap().push(Call::Usage(query));
        Ok(usage_report())
    }

    async fn list_workspaces(&self) -> Result<Vec<WorkspaceView>, ApiError> {
        Ok(vec![workspace("ann", true), workspace("default", false)])
    }

    async fn get_workspace(&self, id: &str) -> Result<WorkspaceView, ApiError> {
        let mut all = self.list_workspaces().await?.into_iter();
        all.find(|view| view.id == id).ok_or_else(ApiError::not_found)
    }

    async fn delete_workspace(&self, id: &str) -> Result<(), ApiError> {
        if self.get_workspace(id).await?.in_use {
            return Err(ApiError::new(ErrorCode::WorkspaceInUse, "A run is in the workspace."));
        }
        self.calls.lock().unwrap().push(Call::DeleteWorkspace(id.to_owned()));
        Ok(())
    }

    async fn rekey_secrets(&self) -> Result<RekeyView, ApiError> {
        Ok(RekeyView { key_id: "0123456789abcdef".into(), versions: 4, old_key_left: false })
    }
}

fn workspace(user: &str, in_use: bool) -> WorkspaceView {
    WorkspaceView {
        id: if in_use { "a" } else { "b" }.repeat(32),
        user_id: user.into(),
        repo: Some("https://github.com/o/r".into()),
        branch: Some("main".into()),
        base_commit: "c".repeat(40),
        size_bytes: 2_048,
        too_large: false,
        in_use,
        runs: 3,
        created_at: CREATED_AT,
        used_at: CREATED_AT,
    }
}

fn secret(name: &str, kind: SecretKind) -> SecretView {
    let name: SecretName = name.parse().unwrap();
    SecretView {
        kind,
        scope: SecretScope::Tenant,
        version: 1,
        created_at: CREATED_AT,
        updated_at: CREATED_AT,
        last_used_at: None,
        use_count: 0,
        provider: name.provider(),
        name,
    }
}
