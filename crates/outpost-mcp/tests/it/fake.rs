//! Operations that are made up: one dispatch whose state a test changes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use outpost_types::{
    Api, ApiError, ArtifactView, ByteStream, CancelRequest, ContextView, Created, DispatchId,
    DispatchRequest, DispatchStatus, DispatchView, ErrorCode, EventStream, FleetView, ListQuery,
    LogQuery, LogStream, NetworkRequest, Page, PromoteApi, PromoteRequest, Promoted,
    PromotionStatus, PromotionView, PutSecret, RekeyView, SecretName, SecretScope, SecretView,
    Timestamp, UsageQuery, UsageReport, WorkspaceView,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The one dispatch there is.
pub(crate) fn id() -> DispatchId {
    DispatchId::from_parts(1_795_000_000_000, 7)
}

/// What the fake was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Create(Box<DispatchRequest>, Option<String>),
    List(ListQuery),
    Cancel(Option<String>),
    Promote(PromoteRequest),
}

pub(crate) struct Fake {
    pub(crate) view: watch::Sender<DispatchView>,
    pub(crate) log: Vec<u8>,
    pub(crate) diff: Vec<u8>,
    /// Bytes of the log that were read.
    pub(crate) log_read: Arc<AtomicUsize>,
    calls: Mutex<Vec<Call>>,
}

fn view(status: DispatchStatus) -> DispatchView {
    let document: Value = json!({
        "dispatchId": id().to_string(), "status": status, "generation": 3, "agent": "codex",
        "modelId": "m", "tier": "fast", "task": "Fix it", "contextLevel": "standard",
        "workspaceMode": "ephemeral", "timeoutSeconds": 600, "deadlineAt": "2026-11-26T00:00:00Z",
        "attempt": 1, "timings": {}, "createdAt": "2026-11-25T00:00:00Z",
    });
    serde_json::from_value(document).unwrap()
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Self::holding(b"", b"")
    }

    pub(crate) fn holding(log: &[u8], diff: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            view: watch::channel(view(DispatchStatus::Running)).0,
            log: log.to_vec(),
            diff: diff.to_vec(),
            log_read: Arc::default(),
            calls: Mutex::default(),
        })
    }

    /// The dispatch reaches this state.
    pub(crate) fn reach(&self, status: DispatchStatus, change: impl FnOnce(&mut DispatchView)) {
        self.view.send_modify(|view| {
            view.status = status;
            view.generation += 1;
            change(view);
        });
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// What it was asked to do, once.
    pub(crate) fn only_call(&self) -> Call {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    fn called(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn find(&self, wanted: DispatchId) -> Result<DispatchView, ApiError> {
        if wanted == id() { Ok(self.view.borrow().clone()) } else { Err(ApiError::not_found()) }
    }
}

/// In small pieces, as files are read.
fn pieces(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(100).map(Bytes::copy_from_slice).map(Ok).collect();
    Box::pin(stream::iter(pieces))
}

fn unused<T>() -> Result<T, ApiError> {
    Err(ApiError::new(ErrorCode::NotSupported, "No tool asks for this."))
}

fn promotion(status: PromotionStatus) -> PromotionView {
    PromotionView {
        dispatch_id: id(),
        status,
        generation: 1,
        repo: "https://code.example/a/b".into(),
        branch: "outpost/fix-it".into(),
        target_branch: None,
        commit: None,
        behind_by: None,
        protected_paths: vec![".github/workflows/ci.yml".into()],
        title: "Fix it".into(),
        draft: true,
        pull_request: None,
        notes: Vec::new(),
        failure: None,
        follow_up: None,
        created_at: Timestamp::from_millis(1),
        updated_at: Timestamp::from_millis(1),
    }
}

#[async_trait]
impl PromoteApi for Fake {
    async fn promote(
        &self,
        request: PromoteRequest,
        _wait: Option<Duration>,
    ) -> Result<Promoted, ApiError> {
        self.find(request.dispatch_id)?;
        self.called(Call::Promote(request));
        Ok(Promoted { promotion: promotion(PromotionStatus::Requested), replayed: false })
    }

    async fn promotion(
        &self,
        _dispatch: DispatchId,
        _wait: Option<Duration>,
    ) -> Result<PromotionView, ApiError> {
        Ok(promotion(PromotionStatus::Done))
    }
}

#[async_trait]
impl outpost_types::WebhookApi for Fake {
    async fn create_webhook(
        &self,
        _: outpost_types::CreateWebhook,
    ) -> Result<outpost_types::CreatedWebhook, ApiError> {
        Err(ApiError::not_found())
    }

    async fn list_webhooks(&self) -> Result<Vec<outpost_types::WebhookView>, ApiError> {
        Ok(Vec::new())
    }

    async fn delete_webhook(
        &self,
        _: outpost_types::WebhookId,
    ) -> Result<outpost_types::WebhookView, ApiError> {
        Err(ApiError::not_found())
    }

    async fn test_webhook(
        &self,
        _: outpost_types::WebhookId,
    ) -> Result<outpost_types::DeliveryView, ApiError> {
        Err(ApiError::not_found())
    }

    async fn deliveries(
        &self,
        _: outpost_types::WebhookId,
        _: Option<u64>,
        _: u32,
    ) -> Result<Page<outpost_types::DeliveryView>, ApiError> {
        Err(ApiError::not_found())
    }

    async fn replay_delivery(
        &self,
        _: outpost_types::WebhookId,
        _: u64,
    ) -> Result<outpost_types::DeliveryView, ApiError> {
        Err(ApiError::not_found())
    }
}

#[async_trait]
impl Api for Fake {
    async fn create_dispatch(
        &self,
        request: DispatchRequest,
        idempotency_key: Option<String>,
    ) -> Result<Created, ApiError> {
        if request.agent == "missing" {
            return Err(ApiError::new(ErrorCode::AgentUnavailable, "It is not installed.")
                .with_hint("GET /fleet lists the agents that can."));
        }
        self.called(Call::Create(Box::new(request), idempotency_key));
        Ok(Created { dispatch: self.view.borrow().clone(), replayed: false })
    }

    async fn get_dispatch(
        &self,
        id: DispatchId,
        wait: Option<Duration>,
        after_generation: Option<u64>,
    ) -> Result<DispatchView, ApiError> {
        let now = self.find(id)?;
        let (Some(wait), Some(after)) = (wait, after_generation) else { return Ok(now) };
        let mut changes = self.view.subscribe();
        let changed = changes.wait_for(|view| view.generation > after);
        // A wait that is over answers what there is.
        let _ = tokio::time::timeout(wait, changed).await;
        self.find(id)
    }

    async fn cancel_dispatch(
        &self,
        id: DispatchId,
        request: CancelRequest,
    ) -> Result<DispatchView, ApiError> {
        if self.find(id)?.status.is_terminal() {
            return Err(ApiError::new(ErrorCode::AlreadyFinished, "It has already ended."));
        }
        self.called(Call::Cancel(request.reason));
        self.find(id)
    }

    async fn list_runs(&self, query: ListQuery) -> Result<Page<DispatchView>, ApiError> {
        self.called(Call::List(query));
        let items = vec![self.view.borrow().clone()];
        Ok(Page { items, next_cursor: Some("next".into()) })
    }

    async fn logs(&self, id: DispatchId, query: LogQuery) -> Result<LogStream, ApiError> {
        self.find(id)?;
        let after = usize::try_from(query.after).unwrap();
        let Some(log) = self.log.get(after..) else {
            return Err(ApiError::field("after", "It is beyond the end of the log."));
        };
        let read = Arc::clone(&self.log_read);
        let count = move |piece: &Result<Bytes, ApiError>| {
            read.fetch_add(piece.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
        };
        Ok(Box::pin(pieces(log).inspect(count)))
    }

    async fn diff(&self, id: DispatchId) -> Result<ByteStream, ApiError> {
        self.find(id)?;
        Ok(pieces(&self.diff))
    }

    async fn context(&self, _: DispatchId) -> Result<ContextView, ApiError> {
        Err(ApiError::not_found())
    }

    async fn artifact(&self, id: DispatchId, name: &str) -> Result<ByteStream, ApiError> {
        self.find(id)?;
        match name {
            "a/b.txt" => Ok(pieces(b"kept")),
            "image.png" => Ok(pieces(b"\x89PNG\xff")),
            "large" => Ok(pieces(&vec![b'x'; 300 * 1024])),
            _ => Err(ApiError::not_found()),
        }
    }

    async fn fleet(&self) -> Result<FleetView, ApiError> {
        let agent = |name: &str, available: bool| {
            json!({
                "agent": name, "defaultModelId": "m", "tier": "fast", "concurrencyMax": 5,
                "resources": {"cpuMillis": 500, "memoryBytes": 1, "diskBytes": 1}, "running": 0,
                "pinnedVersion": "1", "availability": {"available": available, "reason": "No key."},
            })
        };
        let fleet = json!({
            "fleet": "local", "running": 1, "queued": 0, "concurrencyMax": 10, "scriptedModel": false,
            "agents": [agent("claude", false), agent("codex", true)],
        });
        Ok(serde_json::from_value(fleet).unwrap())
    }

    async fn change_network(
        &self,
        _id: DispatchId,
        _request: NetworkRequest,
    ) -> Result<DispatchView, ApiError> {
        unused()
    }

    async fn events(&self, _id: DispatchId, _after: u64) -> Result<EventStream, ApiError> {
        unused()
    }

    async fn artifacts(
        &self,
        _id: DispatchId,
        _url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        unused()
    }

    async fn put_secret(
        &self,
        _name: SecretName,
        _request: PutSecret,
    ) -> Result<SecretView, ApiError> {
        unused()
    }

    async fn list_secrets(&self) -> Result<Vec<SecretView>, ApiError> {
        unused()
    }

    async fn delete_secret(
        &self,
        _name: SecretName,
        _scope: SecretScope,
    ) -> Result<SecretView, ApiError> {
        unused()
    }

    async fn usage(&self, _query: UsageQuery) -> Result<UsageReport, ApiError> {
        unused()
    }

    async fn list_workspaces(&self) -> Result<Vec<WorkspaceView>, ApiError> {
        unused()
    }

    async fn get_workspace(&self, _id: &str) -> Result<WorkspaceView, ApiError> {
        unused()
    }

    async fn delete_workspace(&self, _id: &str) -> Result<(), ApiError> {
        unused()
    }

    async fn rekey_secrets(&self) -> Result<RekeyView, ApiError> {
        unused()
    }
}
