//! Requests for a dispatch and what a client sees of one.

use serde::{Deserialize, Serialize};

use crate::{DispatchId, DispatchStatus, Failure, Tier, Timestamp};

/// Body of `POST /dispatch`. Unknown fields are refused by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DispatchRequest {
    /// Agent to run: claude, codex, gemini, aider, grok, or one the operator declared.
    #[schema(min_length = 1, max_length = 32, example = "claude")]
    pub agent: String,
    /// What to do, 1 to 51,200 bytes.
    #[schema(min_length = 1, max_length = 51200, example = "Fix the failing test")]
    pub task: String,
    /// Model; the agent's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub model_id: Option<String>,
    /// Repository: `owner/name`, an https URL, or a local path where the operator allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 2048)]
    pub repo: Option<String>,
    /// Branch to start from; the repository's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub branch: Option<String>,
    /// How much project context is put before the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_level: Option<ContextLevel>,
    /// Whether the workspace outlives the dispatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_mode: Option<WorkspaceMode>,
    /// Longest running time of the agent, seconds, 30 to 86,400; 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 30, maximum = 86400)]
    pub timeout_seconds: Option<u64>,
    /// Who goes first among the dispatches of the same tenant; `normal` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Longest time from accepted to the end of the agent, waiting included, seconds, 30 to 604,800;
    /// 86,400 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 30, maximum = 604800)]
    pub deadline_seconds: Option<u64>,
    /// Who asked, in the client's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub user_id: Option<String>,
    /// Labels to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub tags: Vec<String>,
    /// Commands to run on the files the agent left, such as the tests; at most 8, one after another,
    /// each in a fresh sandbox for at most 300 seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub checks: Vec<String>,
    /// Commands to run in the repository before the agent, such as the installation of dependencies; at most
    /// 8, in a sandbox of their own without secrets. They take the place of `setup.commands` in `outpost.toml`,
    /// whose lock files and time limit still count; what they leave serves later dispatches with the same
    /// commands and lock files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub setup: Vec<String>,
    /// What the sandbox may reach beside the model gateway; `none` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkLevel>,
    /// Size of the sandbox; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Most its model calls may cost, US dollars, 0.0001 to 100,000. At 80 % an event says so; when it
    /// is spent the agent is ended, what it did is kept, and the dispatch fails with `budget_exceeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0001, maximum = 100000)]
    pub budget_usd: Option<f64>,
    /// Names of secrets of the kind `exposed` that the agent is given in its environment, where it, and
    /// whatever it runs, can read them. Keys of model providers need not be named; they never go inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub secrets: Vec<String>,
    /// Hosts the sandbox may reach through the gateway, as `name`, `*.name` or `name:port`: all of them
    /// with `network: custom`, besides the usual ones with `trusted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub allow_hosts: Vec<String>,
    /// Id of a dispatch that has ended, whose files this one goes on with; and whose agent's session, when
    /// it has the same agent and that can resume one. Otherwise the agent is told what was said before.
    /// Repository and branch are those of that dispatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 26, max_length = 26)]
    pub continue_from: Option<String>,
}

/// How much project context is put before the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContextLevel {
    /// 600 tokens.
    Minimal,
    /// 1,200 tokens.
    #[default]
    Standard,
    /// 1,800 tokens.
    Full,
}

/// Whether the workspace outlives the dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceMode {
    /// Made for the dispatch and removed after it.
    #[default]
    Ephemeral,
    /// Kept per user and repository.
    Persistent,
}

/// Who goes first among the dispatches of the same tenant.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After the others.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// What a sandbox may reach beside the model gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkLevel {
    /// Nothing.
    #[default]
    None,
    /// Package registries and code hosts.
    Trusted,
    /// A list of its own.
    Custom,
}

impl NetworkLevel {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Trusted => "trusted",
            Self::Custom => "custom",
        }
    }
}

/// Answer to `POST /dispatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The dispatch.
    pub dispatch: DispatchView,
    /// The same `Idempotency-Key` was seen before and this is the dispatch it made then.
    pub replayed: bool,
}

/// Body of `DELETE /dispatch/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelRequest {
    /// Why, for the record; at most 500 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// Body of `PATCH /dispatch/{id}`. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkRequest {
    /// What the sandbox may reach beside the model gateway from now on. `none` takes all hosts away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkLevel>,
    /// All hosts that stand in for the ones named before: with `custom` the only ones it may reach, with
    /// `trusted` those besides the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 64)]
    pub allow_hosts: Option<Vec<String>>,
}

/// What a sandbox may reach beside the model gateway, within what the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// How much is open.
    pub level: NetworkLevel,
    /// Hosts that were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_hosts: Vec<String>,
}

/// A dispatch as a client sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DispatchView {
    /// Its id.
    #[schema(value_type = String)]
    pub dispatch_id: DispatchId,
    /// Where it stands.
    pub status: DispatchStatus,
    /// Grows with every change; pass it back to wait for the next one.
    pub generation: u64,
    /// The agent.
    pub agent: String,
    /// The model.
    pub model_id: String,
    /// The size of its sandbox.
    pub tier: Tier,
    /// What to do.
    pub task: String,
    /// The repository, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The branch, as given or as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commit the agent started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// How much project context was asked for.
    pub context_level: ContextLevel,
    /// Whether the workspace outlives the dispatch.
    pub workspace_mode: WorkspaceMode,
    /// Longest running time, seconds.
    pub timeout_seconds: u64,
    /// Who goes first among the dispatches of the same tenant.
    #[serde(default)]
    pub priority: Priority,
    /// When it is over at the latest, but for collecting results.
    #[schema(value_type = String, format = DateTime)]
    pub deadline_at: Timestamp,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Number of the current or last attempt; 0 before the first.
    pub attempt: u32,
    /// Why it waits, while QUEUED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_reason: Option<String>,
    /// Dispatches before it, while QUEUED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u32>,
    /// While RUNNING: until when the provider of its model serves nobody. That time is not counted
    /// against `timeoutSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub parked_until: Option<Timestamp>,
    /// Exit code of the agent's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Last words of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// End of the agent's output, at most 8 KiB. Only in the answer for one dispatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Where its artifacts are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_url: Option<String>,
    /// Session id of the agent's CLI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The dispatch it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub continued_from: Option<DispatchId>,
    /// Files the agent changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_changed: Option<u32>,
    /// Outcome of each of the request's `checks`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
    /// What the sandbox may reach beside the model gateway, within what the operator allows.
    #[serde(default)]
    pub network: NetworkLevel,
    /// Hosts that were named for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_hosts: Vec<String>,
    /// Names of the secrets its agent is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Most its model calls may cost, US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// Tokens and dollars, by the gateway's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How long each phase took.
    pub timings: PhaseTimings,
    /// What isolation the sandbox really had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
}

/// Tokens and money of an attempt: by the gateway's count in a record, by the CLI's own account in an
/// `agent.usage` event.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Tokens read, without those from a cache or written to one.
    pub input_tokens: u64,
    /// Tokens read from a cache.
    pub cached_input_tokens: u64,
    /// Tokens written to a cache.
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Those of them that were thinking, where the provider says so.
    #[serde(default)]
    pub thinking_tokens: u64,
    /// Searches that the provider made of its own for it, as far as its answers tell.
    #[serde(default)]
    pub searches: u64,
    /// Cost of the calls whose model has a known price, US dollars; absent when there is none. Never
    /// zero for unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Models that were called and whose price is unknown: the cost is without them. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unpriced_models: Vec<String>,
    /// Calls of a model by the gateway's count; 0 in the CLI's own account.
    #[serde(default)]
    pub calls: u64,
    /// Those of them whose tokens had to be estimated, because the provider's answer was cut off.
    #[serde(default)]
    pub estimated_calls: u64,
    /// Model by the CLI's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
}

/// How long each phase took, milliseconds; absent when it was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTimings {
    /// Accepted → placed on a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_millis: Option<u64>,
    /// Fetch of the repository into the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_millis: Option<u64>,
    /// Checkout into the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkout_millis: Option<u64>,
    /// Setup commands of the repository; absent where there are none, or their result was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_millis: Option<u64>,
    /// Sandbox made and parked, or a warm worker claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_millis: Option<u64>,
    /// Whether the sandbox was a warm worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<bool>,
    /// "Go" → first output of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_output_millis: Option<u64>,
    /// Agent's process started → ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_millis: Option<u64>,
    /// Diff, bundle and artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_millis: Option<u64>,
    /// Accepted → terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_millis: Option<u64>,
}

/// Outcome of one check: a command run on the files the agent left (those git ignores included), in a
/// fresh sandbox without any network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// The command.
    pub command: String,
    /// It ended with exit code 0 in time.
    pub passed: bool,
    /// Its exit code; absent when it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long it took, milliseconds.
    pub millis: u64,
    /// End of its output, at most 8 KiB.
    pub output: String,
}

/// What isolation a sandbox really had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// What the host enforced, such as `seccomp` or `memory limit (cgroup v1)`.
    pub effective: Vec<String>,
    /// What the host could not enforce, with the reason.
    pub missing: Vec<String>,
}
