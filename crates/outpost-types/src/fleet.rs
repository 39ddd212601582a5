//! What can run here, and what runs now.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{ApiError, Resources, Tier, Timestamp};

/// Answer to `GET /fleet`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetView {
    /// Where workers come from.
    pub fleet: String,
    /// Dispatches with a live attempt.
    pub running: u32,
    /// Dispatches that wait for a slot.
    pub queued: u32,
    /// Most attempts at once on this host.
    pub concurrency_max: u32,
    /// Whether the model is the scripted provider instead of a real one.
    pub scripted_model: bool,
    /// Nothing is started on this host until the operator resumes it; absent usually.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<DrainView>,
    /// Every known agent.
    pub agents: Vec<AgentView>,
}

/// Since when nothing new is started, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /fleet/drain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainRequest {
    /// Only this agent; the whole host when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 32)]
    pub agent: Option<String>,
    /// Why; shown to everybody who may read the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub reason: Option<String>,
}

/// Body of `POST /fleet/resume`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeRequest {
    /// Only this agent; the whole host when absent. Agents that are drained by name stay so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 32)]
    pub agent: Option<String>,
}

/// Draining a host or one of its agents. Only for the operator.
#[async_trait]
pub trait FleetApi {
    /// Starts nothing new: what runs goes on, what is accepted waits, warm workers are let go. On disk when this
    /// returns. Once more changes the reason.
    async fn drain_fleet(&self, request: DrainRequest) -> Result<FleetView, ApiError>;

    /// The end of that; of what is not drained, nothing changes.
    async fn resume_fleet(&self, request: ResumeRequest) -> Result<FleetView, ApiError>;
}

/// One agent and whether it can run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Its name.
    pub agent: String,
    /// Model when a dispatch names none.
    pub default_model_id: String,
    /// Size when a dispatch names none.
    pub tier: Tier,
    /// What that size allows.
    pub resources: Resources,
    /// Most attempts of it at once.
    pub concurrency_max: u32,
    /// Live attempts now.
    pub running: u32,
    /// Version of the CLI that is pinned.
    pub pinned_version: String,
    /// Whether it can run, and if not why.
    pub availability: AgentAvailability,
    /// Nothing of it is started until the operator resumes it; absent usually. Dispatches are accepted, and wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<DrainView>,
    /// Its warm workers; absent where the fleet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolView>,
}

/// Warm workers of an agent: sandboxes that wait for an attempt. Numbers count since the server started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Fewest that are kept ready.
    pub min: u32,
    /// Most that are kept ready.
    pub max: u32,
    /// How many are wanted ready now.
    pub target: u32,
    /// Being made.
    pub starting: u32,
    /// Ready.
    pub idle: u32,
    /// Given to an attempt.
    pub busy: u32,
    /// Ending.
    pub stopping: u32,
    /// Attempts that got one.
    pub hits: u64,
    /// Attempts that got none, by reason: `disabled`, `other_tier`, `starting`, `exhausted`, `draining`,
    /// `unavailable`, `backing_off`, `unhealthy`.
    #[serde(default)]
    pub misses: BTreeMap<String, u64>,
    /// Part of the last hour's attempts that got none, 0 to 1; absent without attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hour_miss_rate: Option<f64>,
    /// Made.
    pub built: u64,
    /// Could not be made.
    pub builds_failed: u64,
    /// Ended before anybody used them.
    pub lost: u64,
    /// Why one could not be made or ended early, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// Whether an agent can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentAvailability {
    /// It can take a dispatch now.
    pub available: bool,
    /// Why not, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `GET /health*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok`, or `unavailable`.
    pub status: String,
    /// Version of the server.
    pub version: String,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
