//! Made-up records, also for the tests and benchmarks of other crates.

use outpost_core::{
    AgentDefaults, AgentVerdict, Dispatch, DispatchSpec, Event, ExitFacts, PreparedFacts,
    ResultFacts, step,
};
use outpost_types::{
    AttemptId, DispatchId, DispatchRequest, KeyId, TenantId, Tier, Timestamp, Usage,
};
use sha2::{Digest, Sha256};

use crate::{AcceptDispatch, AuditEntry, IdempotencyClaim};

/// Text with everything that breaks careless code and that a request may have.
pub const NASTY: &str = "line 1\nline 2\r\n\t\"quotes\" 'single' \\ \u{1f680} ü 漢字 \u{202e}rtl ; DROP TABLE jobs; -- %s {} e\u{301}";

/// A tenant of this name.
///
/// # Panics
/// When it is no name.
#[must_use]
pub fn tenant(name: &str) -> TenantId {
    name.parse().expect("a name")
}

/// A request that only says what to do.
#[must_use]
pub fn request() -> DispatchRequest {
    DispatchRequest {
        agent: "claude".to_owned(),
        task: "Fix the failing test".to_owned(),
        ..DispatchRequest::default()
    }
}

/// A new dispatch of `tenant`, made at millisecond `serial`.
///
/// # Panics
/// When the request is beyond a bound.
#[must_use]
pub fn dispatch(serial: u64, owner: &str, request: DispatchRequest) -> Dispatch {
    let defaults = AgentDefaults {
        agent: request.agent.parse().expect("the name of an agent"),
        model_id: "model-1".to_owned(),
        tier: Tier::Fast,
    };
    let spec = DispatchSpec::from_request(request, &defaults).expect("a request within bounds");
    let id = DispatchId::from_parts(serial, 0);
    let key = KeyId::from_parts(1, 1);
    Dispatch::accept(id, tenant(owner), key, spec, Timestamp::from_millis(serial))
}

/// An audit entry about `dispatch`.
#[must_use]
pub fn audit(dispatch: &Dispatch, action: &'static str) -> AuditEntry {
    AuditEntry {
        at: dispatch.created_at.plus_millis(dispatch.generation),
        tenant: dispatch.tenant.clone(),
        actor: Some(dispatch.created_by),
        action,
        subject: dispatch.id.to_string(),
        detail: serde_json::json!({ "generation": dispatch.generation, "text": format!("{NASTY}\u{0} NUL") }),
    }
}

/// The wish to store `dispatch`.
#[must_use]
pub fn accept_of(dispatch: Dispatch) -> AcceptDispatch {
    AcceptDispatch { audit: audit(&dispatch, "dispatch.accepted"), dispatch, idempotency: None }
}

/// The wish to store the plainest dispatch, made at millisecond `serial`.
#[must_use]
pub fn accept(serial: u64) -> AcceptDispatch {
    accept_of(dispatch(serial, "local", request()))
}

/// A claim on `key` with this body, free again at millisecond `expires`.
#[must_use]
pub fn claim(key: &str, body: &str, expires: u64) -> IdempotencyClaim {
    IdempotencyClaim {
        key: key.to_owned(),
        body_hash: Sha256::digest(body.as_bytes()).into(),
        expires_at: Timestamp::from_millis(expires),
    }
}

/// The events that lead a new dispatch to COMPLETED in one attempt.
#[must_use]
pub fn good_run(id: DispatchId) -> [Event; 4] {
    let attempt = AttemptId { dispatch: id, number: 1 };
    [
        Event::Placed,
        Event::AgentStarted { attempt, prepared: Box::new(PreparedFacts::default()) },
        Event::AgentExited {
            attempt,
            exit: ExitFacts { code: Some(0), first_output_millis: Some(1) },
        },
        Event::Collected {
            attempt,
            results: Box::new(ResultFacts {
                verdict: AgentVerdict::Completed,
                summary: Some(format!("{NASTY}\u{0} NUL")),
                session_id: Some("session".to_owned()),
                usage: Some(Usage {
                    input_tokens: u64::MAX,
                    cached_input_tokens: 0,
                    output_tokens: 7,
                    cost_usd: Some(0.25),
                    model_id: None,
                    ..Usage::default()
                }),
                spend: None,
                files_changed: Some(3),
                checks: Vec::new(),
                collect_millis: 4,
            }),
        },
    ]
}

/// The record after `event`, one second later.
///
/// # Panics
/// When the event has no meaning now.
#[must_use]
pub fn after(dispatch: &Dispatch, event: &Event) -> Dispatch {
    let now = dispatch.created_at.plus_millis(1_000 * dispatch.generation);
    step(dispatch, event, now).expect("a lawful event").next
}
