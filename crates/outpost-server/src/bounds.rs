//! Bounds of request fields, checked before the engine sees them; it judges what the values mean.

use outpost_types::limits::{
    AGENT_ID_BYTES_MAX, ALLOW_HOST_BYTES_MAX, ALLOW_HOSTS_COUNT_MAX, BRANCH_BYTES_MAX,
    BUDGET_USD_MAX, BUDGET_USD_MIN, CANCEL_REASON_BYTES_MAX, CHECK_BYTES_MAX, CHECKS_COUNT_MAX,
    DEADLINE_SECONDS_MAX, DEADLINE_SECONDS_MIN, DISPATCH_SECRETS_COUNT_MAX,
    IDEMPOTENCY_KEY_BYTES_MAX, MODEL_ID_BYTES_MAX, REPO_BYTES_MAX, SECRET_NAME_BYTES_MAX,
    SETUP_COMMAND_BYTES_MAX, SETUP_COMMANDS_COUNT_MAX, TAG_BYTES_MAX, TAGS_COUNT_MAX,
    TASK_BYTES_MAX, TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN, USER_ID_BYTES_MAX,
};
use outpost_types::{
    AgentId, ApiError, CancelRequest, DispatchId, DispatchRequest, NetworkRequest,
};

use crate::query::out_of_bounds;

/// Name of the header that makes a create repeatable.
pub(crate) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Checks every field of a dispatch request.
pub(crate) fn dispatch(request: &DispatchRequest) -> Result<(), ApiError> {
    if request.agent.parse::<AgentId>().is_err() {
        return Err(ApiError::field(
            "agent",
            format!("`agent` must be 1 to {AGENT_ID_BYTES_MAX} letters, digits, '.', '_' or '-'."),
        )
        .with_hint("GET /fleet lists the agents."));
    }
    text("task", &request.task, TASK_BYTES_MAX)?;
    if request.task.trim().is_empty() {
        return Err(ApiError::field("task", "`task` must say something."));
    }
    let optional = [
        ("modelId", &request.model_id, MODEL_ID_BYTES_MAX),
        ("repo", &request.repo, REPO_BYTES_MAX),
        ("branch", &request.branch, BRANCH_BYTES_MAX),
        ("userId", &request.user_id, USER_ID_BYTES_MAX),
    ];
    for (name, value, bytes_max) in optional {
        if let Some(value) = value {
            text(name, value, bytes_max)?;
        }
    }
    if request.continue_from.as_ref().is_some_and(|id| id.parse::<DispatchId>().is_err()) {
        let message = "`continueFrom` must be the id of a dispatch.";
        return Err(ApiError::field("continueFrom", message));
    }
    let durations = [
        ("timeoutSeconds", request.timeout_seconds, TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX),
        ("deadlineSeconds", request.deadline_seconds, DEADLINE_SECONDS_MIN..=DEADLINE_SECONDS_MAX),
    ];
    for (name, value, bounds) in durations {
        if value.is_some_and(|value| !bounds.contains(&value)) {
            return Err(out_of_bounds(name, &bounds));
        }
    }
    let budgets = BUDGET_USD_MIN..=BUDGET_USD_MAX;
    if request.budget_usd.is_some_and(|budget| !budgets.contains(&budget)) {
        let message =
            format!("`budgetUsd` must be {BUDGET_USD_MIN} to {BUDGET_USD_MAX} US dollars.");
        return Err(ApiError::field("budgetUsd", message));
    }
    list("secrets", &request.secrets, DISPATCH_SECRETS_COUNT_MAX, SECRET_NAME_BYTES_MAX)?;
    list("allowHosts", &request.allow_hosts, ALLOW_HOSTS_COUNT_MAX, ALLOW_HOST_BYTES_MAX)?;
    list("tags", &request.tags, TAGS_COUNT_MAX, TAG_BYTES_MAX)?;
    list("checks", &request.checks, CHECKS_COUNT_MAX, CHECK_BYTES_MAX)?;
    list("setup", &request.setup, SETUP_COMMANDS_COUNT_MAX, SETUP_COMMAND_BYTES_MAX)
}

/// Checks every field of a change of a network.
pub(crate) fn network(request: &NetworkRequest) -> Result<(), ApiError> {
    let hosts = request.allow_hosts.as_deref().unwrap_or_default();
    list("allowHosts", hosts, ALLOW_HOSTS_COUNT_MAX, ALLOW_HOST_BYTES_MAX)
}

/// Checks every field of a cancel request.
pub(crate) fn cancel(request: &CancelRequest) -> Result<(), ApiError> {
    match &request.reason {
        Some(reason) if reason.len() > CANCEL_REASON_BYTES_MAX => Err(ApiError::field(
            "reason",
            format!("`reason` must be at most {CANCEL_REASON_BYTES_MAX} bytes."),
        )),
        _ => Ok(()),
    }
}

/// Reads the `Idempotency-Key` header: 1 to 255 visible ASCII characters, once.
pub(crate) fn idempotency_key(headers: &http::HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), more) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let valid = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_graphic)
        && more.is_none();
    match value.to_str() {
        Ok(text) if valid => Ok(Some(text.to_owned())),
        _ => Err(ApiError::field(
            IDEMPOTENCY_KEY,
            format!(
                "{IDEMPOTENCY_KEY} must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters, sent once."
            ),
        )),
    }
}

fn text(name: &str, value: &str, bytes_max: usize) -> Result<(), ApiError> {
    if (1..=bytes_max).contains(&value.len()) {
        return Ok(());
    }
    Err(ApiError::field(name, format!("`{name}` must be 1 to {bytes_max} bytes.")))
}

fn list(name: &str, values: &[String], count_max: usize, bytes_max: usize) -> Result<(), ApiError> {
    if values.len() > count_max {
        return Err(ApiError::field(
            name,
            format!("`{name}` must have at most {count_max} entries."),
        ));
    }
    for (at, value) in values.iter().enumerate() {
        text(&format!("{name}[{at}]"), value, bytes_max)?;
    }
    Ok(())
}
