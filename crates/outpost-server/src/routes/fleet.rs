//! Draining the host or an agent, and the end of that.

use axum::extract::{Extension, Request};
use axum::response::Response;
use http::StatusCode;
use outpost_types::limits::{AGENT_ID_BYTES_MAX, DRAIN_REASON_BYTES_MAX};
use outpost_types::{AgentId, ApiError, DrainRequest, FleetView, ResumeRequest};

use crate::body;
use crate::guard::Session;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::{ANSWER_BYTES_USUAL, json};

/// Longest body about draining, bytes.
const DRAIN_BODY_BYTES_MAX: usize = 4 * 1024;

/// Start nothing new
///
/// Of one agent, or on the whole host. What runs goes on; what is accepted waits; warm workers are let go. It
/// lasts, also across restarts, until it is resumed. Only the operator can.
#[utoipa::path(
    post, path = "/fleet/drain", operation_id = "drainFleet", tag = "fleet",
    request_body(content((DrainRequest = "application/json")), description = "May be absent: the whole host"),
    responses((status = 200, description = "Drained and durable; the fleet", body = FleetView)),
)]
pub(crate) async fn drain(
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: Option<DrainRequest> =
        body::read_json(&parts.headers, body, DRAIN_BODY_BYTES_MAX).await?;
    let wanted = wanted.unwrap_or_default();
    check_agent(wanted.agent.as_deref())?;
    check_reason(wanted.reason.as_deref())?;
    let view = session.api.drain_fleet(wanted).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

/// Start again
///
/// The end of draining: of one agent, or of the whole host. Agents that were drained by name stay so until they
/// are resumed by name. Only the operator can.
#[utoipa::path(
    post, path = "/fleet/resume", operation_id = "resumeFleet", tag = "fleet",
    request_body(content((ResumeRequest = "application/json")), description = "May be absent: the whole host"),
    responses((status = 200, description = "Resumed and durable; the fleet", body = FleetView)),
)]
pub(crate) async fn resume(
    Extension(session): Extension<Session>,
    request: Request,
) -> Result<Response, Refusal> {
    Query::parse(request.uri().query())?.finish()?;
    let (parts, body) = request.into_parts();
    let wanted: Option<ResumeRequest> =
        body::read_json(&parts.headers, body, DRAIN_BODY_BYTES_MAX).await?;
    let wanted = wanted.unwrap_or_default();
    check_agent(wanted.agent.as_deref())?;
    let view = session.api.resume_fleet(wanted).await?;
    Ok(json(StatusCode::OK, &view, ANSWER_BYTES_USUAL))
}

fn check_agent(agent: Option<&str>) -> Result<(), ApiError> {
    if agent.is_none_or(|agent| agent.parse::<AgentId>().is_ok()) {
        return Ok(());
    }
    let message =
        format!("`agent` must be 1 to {AGENT_ID_BYTES_MAX} letters, digits, '.', '_' or '-'.");
    Err(ApiError::field("agent", message).with_hint("GET /fleet lists the agents."))
}

fn check_reason(reason: Option<&str>) -> Result<(), ApiError> {
    if reason.is_none_or(|reason| (1..=DRAIN_REASON_BYTES_MAX).contains(&reason.len())) {
        return Ok(());
    }
    let message = format!("`reason` must be 1 to {DRAIN_REASON_BYTES_MAX} bytes.");
    Err(ApiError::field("reason", message))
}
