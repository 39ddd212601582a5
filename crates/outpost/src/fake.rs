//! An `Api` with fixed answers for the tests of commands and rendering.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use outpost_types::{
    AgentAvailability, AgentView, Api, ApiError, ArtifactView, Attention, BudgetScope, ByteStream,
    CancelRequest, CheckResult, ContextLevel, Created, DispatchId, DispatchRequest, DispatchStatus,
    DispatchView, ErrorCode, EventData, EventEnvelope, EventStream, Failure, FailureCode,
    FleetView, Isolation, ListQuery, LogQuery, LogStream, LogStreamName, NetworkLevel, Page,
    PhaseTimings, Priority, PutSecret, RekeyView, SecretKind, SecretName, SecretScope, SecretView,
    Tier, Timestamp, ToolPhase, Usage, WorkspaceMode,
};

/// When the fake dispatches were made.
pub(crate) const CREATED_AT: Timestamp = Timestamp::from_millis(1_795_000_000_000);

/// The `index`-th fake id; all differ in their last characters.
pub(crate) fn id(index: u64) -> DispatchId {
    DispatchId::from_parts(CREATED_AT.as_millis() + index, 0x5eed_0000 + u128::from(index) * 37)
}

/// A dispatch that completed.
pub(crate) fn completed() -> DispatchView {
    DispatchView {
        dispatch_id: id(0),
        status: DispatchStatus::Completed,
        generation: 5,
        agent: "claude".into(),
        model_id: "claude-opus-4-5-20251101".into(),
        tier: Tier::Flagship,
        task: "Fix the failing test in this repository.".into(),
        repo: Some("/home/me/project".into()),
        branch: Some("main".into()),
        base_commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        context_level: ContextLevel::Standard,
        workspace_mode: WorkspaceMode::Ephemeral,
        timeout_seconds: 600,
        priority: Priority::Normal,
        deadline_at: CREATED_AT.plus_millis(86_400_000),
        user_id: None,
        tags: vec!["demo".into()],
        attempt: 1,
        queue_reason: None,
        queue_position: None,
        parked_until: None,
        exit_code: Some(0),
        failure: None,
        summary: Some("Fixed: `add` used `-`.\x1b[2J\nAll tests pass now.".into()),
        output: None,
        artifact_url: None,
        session_id: None,
        files_changed: Some(1),
        checks: vec![CheckResult {
            command: "python3 -m unittest".into(),
            passed: true,
            exit_code: Some(0),
            millis: 180,
            output: "OK".into(),
        }],
        network: NetworkLevel::None,
        allow_hosts: Vec::new(),
        secrets: Vec::new(),
        budget_usd: Some(1.0),
        usage: Some(usage()),
        timings: PhaseTimings {
            queue_millis: Some(1),
            fetch_millis: Some(30),
            checkout_millis: Some(12),
            sandbox_millis: Some(9),
            first_output_millis: Some(420),
            agent_millis: Some(2_400),
            collect_millis: Some(210),
            total_millis: Some(2_690),
        },
        isolation: Some(Isolation {
            effective: vec!["user namespace".into(), "seccomp".into()],
            missing: vec!["no disk quota".into()],
        }),
        created_at: CREATED_AT,
        started_at: Some(CREATED_AT.plus_millis(60)),
        completed_at: Some(CREATED_AT.plus_millis(2_690)),
    }
}

/// A dispatch that failed.
pub(crate) fn failed() -> DispatchView {
    DispatchView {
        dispatch_id: id(1),
        status: DispatchStatus::Failed,
        exit_code: Some(1),
        failure: Some(
            Failure::new(FailureCode::AgentAuth, "The model provider refused the key.")
                .with_hint("Set ANTHROPIC_API_KEY where the server runs, then dispatch again."),
        ),
        summary: None,
        files_changed: Some(0),
        usage: None,
        isolation: None,
        checks: vec![CheckResult {
            command: "make test".into(),
            passed: false,
            exit_code: None,
            millis: 300_000,
            output: "line one\n\x1b]0;owned\x07line two".into(),
        }],
        ..completed()
    }
}

/// A dispatch that runs.
pub(crate) fn running() -> DispatchView {
    DispatchView {
        dispatch_id: id(2),
        status: DispatchStatus::Running,
        summary: None,
        files_changed: None,
        completed_at: None,
        checks: Vec::new(),
        ..completed()
    }
}

fn usage() -> Usage {
    Usage {
        input_tokens: 3_200,
        cached_input_tokens: 9_100,
        output_tokens: 450,
        cost_usd: Some(0.0213),
        ..Usage::default()
    }
}

/// One event at `seq` hundred milliseconds.
pub(crate) fn event(seq: u64, data: EventData) -> EventEnvelope {
    EventEnvelope {
        seq,
        at: CREATED_AT.plus_millis(seq * 100),
        dispatch_id: id(0),
        log_offset: None,
        data,
    }
}

fn status(status: DispatchStatus) -> EventData {
    EventData::Status { status, reason: None, failure: None }
}

fn tool(call: &str, phase: ToolPhase, summary: Option<&str>, is_error: Option<bool>) -> EventData {
    EventData::Tool {
        name: "Bash".into(),
        call_id: Some(call.into()),
        phase,
        summary: summary.map(Into::into),
        is_error,
        raw: None,
    }
}

/// A run with an event of every kind.
pub(crate) fn events() -> Vec<EventEnvelope> {
    let data = vec![
        status(DispatchStatus::Pending),
        status(DispatchStatus::Provisioning),
        EventData::Phase {
            name: "checkout".into(),
            millis: 12,
            detail: Some("3 files".into()),
        },
        EventData::Attention(Attention {
            code: "submodules_skipped".into(),
            message: "Submodules are not fetched: vendor/lib".into(),
        }),
        status(DispatchStatus::Running),
        EventData::Thought {
            text: "The test is right.\nThe code is wrong.".into(),
            raw: None,
        },
        EventData::Message {
            text: "I will run the tests first to see what fails, then fix \x1b[31mthe\x1b[0m code.\nThen again.".into(),
            raw: None,
        },
        tool("1", ToolPhase::Start, Some("python3 -m unittest\x1b]0;x\x07"), None),
        tool("1", ToolPhase::End, Some("FAILED (failures=1)"), Some(true)),
        tool("2", ToolPhase::Start, Some(&format!("cat /workspace/{}/repo/calc.py", id(0))), None),
        tool("3", ToolPhase::Start, Some("ls"), None),
        tool("2", ToolPhase::End, None, Some(false)),
        tool("3", ToolPhase::End, None, Some(false)),
        EventData::Log {
            stream: LogStreamName::Stderr,
            text: "warning: \u{202e}something".into(),
        },
        EventData::PolicyDenied {
            target: "example.com:443".into(),
            reason: "not on the list".into(),
            suggestion: None,
        },
        EventData::BudgetThreshold {
            scope: BudgetScope::Dispatch,
            spent_usd: 0.8,
            budget_usd: 1.0,
        },
        EventData::Usage {
            usage: usage(),
            raw: None,
        },
        EventData::ArtifactCreated {
            name: "diff.patch".into(),
            size_bytes: 2_048,
        },
        status(DispatchStatus::Completing),
        status(DispatchStatus::Completed),
    ];
    data.into_iter().zip(1..).map(|(data, seq)| event(seq, data)).collect()
}

/// What the fake was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// A dispatch was made.
    Create(Box<DispatchRequest>, Option<String>),
    /// A dispatch was cancelled.
    Cancel(DispatchId, Option<String>),
    /// A secret was set.
    PutSecret(SecretName, PutSecret),
    /// A secret was removed.
    DeleteSecret(SecretName, SecretScope),
}

/// The fake.
#[derive(Debug)]
pub(crate) struct FakeApi {
    /// What there is, newest first.
    pub(crate) views: Mutex<Vec<DispatchView>>,
    /// The event stream of every dispatch.
    pub(crate) events: Vec<EventEnvelope>,
    /// The event stream never ends, as that of a dispatch that goes on.
    pub(crate) endless: bool,
    /// What was asked for.
    pub(crate) calls: Mutex<Vec<Call>>,
    /// Most entries of an answer to a list, whatever was asked for: the search goes on after it.
    pub(crate) list_items_max: Option<usize>,
    /// Patch of every dispatch.
    pub(crate) patch: Vec<u8>,
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
    pub(crate) fn calls(&self) -> Vec<Call> {
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
        let agent = |name: &str, reason: Option<&str>| AgentView {
            agent: name.into(),
            default_model_id: format!("{name}-model"),
            tier: Tier::Balanced,
            resources: Tier::Balanced.resources(),
            concurrency_max: 5,
            running: 0,
            pinned_version: "1.2.3".into(),
            availability: AgentAvailability {
                available: reason.is_none(),
                reason: reason.map(Into::into),
            },
        };
        Ok(FleetView {
            fleet: "local".into(),
            running: 1,
            queued: 0,
            concurrency_max: 10,
            scripted_model: true,
            agents: vec![
                agent(
                    "claude",
                    Some("claude 2.1.330 is not installed: run `outpost agents install claude`"),
                ),
                agent("codex", None),
            ],
        })
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

    async fn rekey_secrets(&self) -> Result<RekeyView, ApiError> {
        Ok(RekeyView { key_id: "0123456789abcdef".into(), versions: 4, old_key_left: false })
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
