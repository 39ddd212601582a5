//! Wire types as a server would send them, hostile texts included, and how a text is held against the one
//! that was recorded. For the tests here and those of the binary, which includes this file.

use outpost_types::{
    AgentAvailability, AgentView, Attention, BudgetScope, CheckResult, ContextLevel, Day,
    DispatchId, DispatchStatus, DispatchView, EventData, EventEnvelope, Failure, FailureCode,
    FleetView, Isolation, LogStreamName, Network, NetworkLevel, PhaseTimings, PoolView, Priority,
    Tier, Timestamp, ToolPhase, Usage, UsageGroup, UsageLine, UsageReport, UsageSum, WorkspaceMode,
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
        continued_from: None,
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
            setup_millis: None,
            sandbox_millis: Some(9),
            warm: Some(true),
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
            suggestion: Some("example.com".into()),
        },
        EventData::Network {
            from: Network::default(),
            to: Network {
                level: NetworkLevel::Trusted,
                allow_hosts: vec!["example.com\x1b[2J".into()],
            },
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

/// A fleet that has one of its two agents.
pub(crate) fn fleet() -> FleetView {
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
        draining: None,
        pool: reason.is_none().then(|| PoolView {
            min: 1,
            max: 3,
            target: 2,
            starting: 1,
            idle: 1,
            hits: 17,
            misses: [("exhausted".to_owned(), 3)].into(),
            ..PoolView::default()
        }),
    };
    FleetView {
        fleet: "local".into(),
        running: 1,
        queued: 0,
        concurrency_max: 10,
        scripted_model: true,
        draining: None,
        agents: vec![
            agent(
                "claude",
                Some("claude 2.1.330 is not installed: run `outpost agents install claude`"),
            ),
            agent("codex", None),
        ],
    }
}

/// Sums of two days, one of them with a call without a price.
pub(crate) fn usage_report() -> UsageReport {
    let sum = UsageSum {
        dispatches: 3,
        agent_millis: 754_000,
        searches: 3,
        input_tokens: 120_000,
        cached_input_tokens: 900_000,
        cache_write_tokens: 4_000,
        output_tokens: 21_500,
        cost_usd: Some(1.87),
        calls: 41,
        ..UsageSum::default()
    };
    let line = |day, agent: &str, sum| UsageLine {
        tenant: None,
        day: Some(Day::from_number(day)),
        agent: Some(agent.to_owned()),
        model_id: None,
        sum,
    };
    let other = UsageSum { cost_usd: None, calls: 2, unpriced_calls: 2, ..sum };
    UsageReport {
        from: Day::from_number(20_753),
        to: Day::from_number(20_782),
        group_by: vec![UsageGroup::Agent, UsageGroup::Day],
        rows: vec![line(20_782, "claude\x1b[2J", sum), line(20_781, "mine", other)],
        total: UsageSum { dispatches: 6, calls: 43, unpriced_calls: 2, ..sum },
    }
}

/// Compares with a file beside the tests. `OUTPOST_BLESS=1` rewrites it after a wanted change.
pub(crate) fn assert_golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("OUTPOST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "differs from {}; if the change is wanted, run the tests once with OUTPOST_BLESS=1",
        path.display()
    );
}
