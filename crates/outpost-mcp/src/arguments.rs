//! Arguments of the tools. Their comments are what a model reads.

use outpost_types::{
    ApiError, ContextLevel, DispatchId, DispatchRequest, ErrorCode, NetworkLevel, Tier,
    WorkspaceMode,
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fault::Fault;

/// Names of arguments that an error lists.
const NAMES_COUNT_MAX: usize = 32;

/// Arguments of `dispatch`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Dispatch {
    /// What the agent is to do, as a complete brief: it sees the repository and this text, and nothing of
    /// this conversation. Say what to change, where, and how to tell that it is done. At most 51,200 bytes.
    #[schemars(length(min = 1, max = 51200))]
    pub(crate) task: String,
    /// Agent to run, as `fleet_status` names it, such as claude, codex, gemini, aider or grok. The first
    /// available one when absent.
    #[schemars(length(max = 32))]
    pub(crate) agent: Option<String>,
    /// Repository to work on: `owner/name`, an https URL, or an absolute path where the server allows it.
    /// When absent, the repository this MCP server was started in, if it was started in one; otherwise the
    /// agent starts with an empty directory. Only committed files are seen.
    #[schemars(length(max = 2048))]
    pub(crate) repo: Option<String>,
    /// Branch to start from; the repository's current or default one when absent.
    #[schemars(length(max = 255))]
    pub(crate) branch: Option<String>,
    /// Model of the agent; its default when absent.
    #[schemars(length(max = 128))]
    pub(crate) model_id: Option<String>,
    /// Size of the sandbox; the agent's own when absent.
    #[schemars(with = "Option<String>", extend("enum" = ["fast", "balanced", "flagship"]))]
    pub(crate) tier: Option<Tier>,
    /// How much project context is put before the task; `standard` when absent.
    #[schemars(with = "Option<String>", extend("enum" = ["minimal", "standard", "full"]))]
    pub(crate) context_level: Option<ContextLevel>,
    /// `ephemeral` (the default) throws the workspace away afterwards, `persistent` keeps one per user and
    /// repository for the next run.
    #[schemars(with = "Option<String>", extend("enum" = ["ephemeral", "persistent"]))]
    pub(crate) workspace_mode: Option<WorkspaceMode>,
    /// Longest running time of the agent, seconds; 600 when absent.
    #[schemars(range(min = 30, max = 86400))]
    pub(crate) timeout_seconds: Option<u64>,
    /// Most the run's model calls may cost, US dollars.
    #[schemars(range(min = 0.0001, max = 100_000.0))]
    pub(crate) budget_usd: Option<f64>,
    /// Commands to run on the result, such as the project's tests; their outcome is part of the run. At
    /// most 8. Name one whenever the project has tests.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub(crate) checks: Vec<String>,
    /// Commands that set the repository up before the agent starts, such as the installation of its
    /// dependencies, instead of those in its `outpost.toml`. At most 8.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub(crate) setup: Vec<String>,
    /// What the sandbox may reach beside the model: `none` (the default), `trusted` for package registries
    /// and code hosts, `custom` for exactly `allowHosts`.
    #[schemars(with = "Option<String>", extend("enum" = ["none", "trusted", "custom"]))]
    pub(crate) network: Option<NetworkLevel>,
    /// Hosts the sandbox may reach, as `name`, `*.name` or `name:port`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(crate) allow_hosts: Vec<String>,
    /// Names (never values) of stored secrets that the agent gets as environment variables.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub(crate) secrets: Vec<String>,
    /// Labels to find the run by.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(crate) tags: Vec<String>,
    /// Id of a finished run whose files, and where possible whose agent's session, this one goes on with:
    /// for a follow-up or a correction.
    #[schemars(length(max = 26))]
    pub(crate) continue_from: Option<String>,
    /// A name you make up for this task. A call that is repeated with the same one, for example after a
    /// lost answer, returns the run of the first call instead of starting and paying for a second.
    #[schemars(length(min = 1, max = 255))]
    pub(crate) idempotency_key: Option<String>,
    /// Seconds to wait for the run's end before answering; 0, the default, answers at once.
    #[schemars(range(min = 0, max = 3600))]
    pub(crate) wait_seconds: Option<u64>,
}

impl Dispatch {
    /// The request that the arguments make, for this agent and repository.
    pub(crate) fn into_request(self, agent: String, repo: Option<String>) -> DispatchRequest {
        DispatchRequest {
            agent,
            task: self.task,
            model_id: self.model_id,
            repo,
            branch: self.branch,
            context_level: self.context_level,
            workspace_mode: self.workspace_mode,
            timeout_seconds: self.timeout_seconds,
            tags: self.tags,
            checks: self.checks,
            setup: self.setup,
            network: self.network,
            tier: self.tier,
            budget_usd: self.budget_usd,
            secrets: self.secrets,
            allow_hosts: self.allow_hosts,
            continue_from: self.continue_from,
            ..DispatchRequest::default()
        }
    }
}

/// Arguments of `get_run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GetRun {
    /// Id of the run, as `dispatch` or `list_runs` answered it.
    pub(crate) dispatch_id: String,
}

/// Arguments of `wait_run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WaitRun {
    /// Id of the run.
    pub(crate) dispatch_id: String,
    /// Longest wait, seconds; 45 when absent. The answer comes as soon as the run has ended.
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) wait_seconds: Option<u64>,
}

/// Arguments of `list_runs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListRuns {
    /// Only runs in this state.
    #[schemars(extend("enum" = ["PENDING", "QUEUED", "PROVISIONING", "RUNNING", "COMPLETING", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]))]
    pub(crate) status: Option<String>,
    /// Only of this agent.
    pub(crate) agent: Option<String>,
    /// Only of this repository, written as it was given to `dispatch`.
    pub(crate) repo: Option<String>,
    /// Only with this tag.
    pub(crate) tag: Option<String>,
    /// Only created at or after this instant, RFC 3339.
    pub(crate) since: Option<String>,
    /// Only created before this instant, RFC 3339.
    pub(crate) until: Option<String>,
    /// Most runs of the answer; 10 when absent.
    #[schemars(range(min = 1, max = 50))]
    pub(crate) limit: Option<u32>,
    /// `nextCursor` of the answer before.
    pub(crate) cursor: Option<String>,
}

/// Arguments of `get_logs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GetLogs {
    /// Id of the run.
    pub(crate) dispatch_id: String,
    /// Byte to start at, such as `nextByte` of the answer before. When absent, the end of the output.
    pub(crate) from_byte: Option<u64>,
    /// Most bytes of output in the answer; 8,192 when absent.
    #[schemars(range(min = 256, max = 65536))]
    pub(crate) max_bytes: Option<u64>,
}

/// Arguments of `get_diff`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GetDiff {
    /// Id of the run.
    pub(crate) dispatch_id: String,
    /// Only the changes of this file, as `files` of an answer names it.
    pub(crate) file: Option<String>,
    /// Byte of the diff to start at, such as `nextByte` of the answer before.
    pub(crate) from_byte: Option<u64>,
    /// Most bytes of diff in the answer; 24,576 when absent.
    #[schemars(range(min = 256, max = 131_072))]
    pub(crate) max_bytes: Option<u64>,
}

/// Arguments of `cancel_run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CancelRun {
    /// Id of the run.
    pub(crate) dispatch_id: String,
    /// Why, for the record.
    #[schemars(length(max = 500))]
    pub(crate) reason: Option<String>,
}

/// Arguments of `promote`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Promote {
    /// Id of the finished run.
    pub(crate) dispatch_id: String,
    /// Branch to push; a name made of the task when absent.
    #[schemars(length(min = 1, max = 240))]
    pub(crate) branch: Option<String>,
    /// Title of the pull request, one line; the beginning of the task when absent.
    #[schemars(length(min = 1, max = 255))]
    pub(crate) title: Option<String>,
    /// Text before what the pull request says of the run by itself.
    #[schemars(length(min = 1, max = 16384))]
    pub(crate) body: Option<String>,
    /// Whether the pull request is a draft; true when absent.
    pub(crate) draft: Option<bool>,
    /// Whether the changes may touch files that run in CI or instruct agents. Set it only after the user
    /// has seen which ones and agreed.
    pub(crate) allow_protected: Option<bool>,
    /// Whether they may be pushed although they add what looks like a secret. Set it only after the user has
    /// seen where and said that it is none.
    pub(crate) allow_secrets: Option<bool>,
}

/// Arguments of a tool that takes none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// Reads the arguments of a call; a fault says what the tool takes.
pub(crate) fn read<T: DeserializeOwned + JsonSchema>(
    arguments: Option<JsonObject>,
) -> Result<T, Fault> {
    let value = Value::Object(without_nulls(arguments.unwrap_or_default()));
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = format!("The arguments do not fit: {}.", error.inner());
        let mut fault = ApiError::new(ErrorCode::InvalidField, message);
        fault.field = Some(path).filter(|path| path != ".");
        Fault::Api(fault.with_hint(format!("This tool takes {}.", names::<T>())))
    })
}

/// Models write null for what they leave out.
fn without_nulls(arguments: JsonObject) -> JsonObject {
    arguments.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

fn names<T: JsonSchema>() -> String {
    let schema = crate::schema::of::<T>();
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object);
    let names: Vec<String> = properties
        .map(|properties| properties.keys())
        .into_iter()
        .flatten()
        .take(NAMES_COUNT_MAX)
        .map(|name| match required.contains(&name.as_str()) {
            true => format!("`{name}` (required)"),
            false => format!("`{name}`"),
        })
        .collect();
    match names.is_empty() {
        true => "no arguments".to_owned(),
        false => names.join(", "),
    }
}

/// The id of a run.
pub(crate) fn run(text: &str) -> Result<DispatchId, Fault> {
    text.trim().parse().map_err(|_| {
        let message = "`dispatchId` is no id of a run: those have 26 letters and digits.";
        Fault::Api(ApiError::field("dispatchId", message).with_hint(
            "Pass the `dispatchId` that `dispatch` answered; `list_runs` shows the runs there are.",
        ))
    })
}

/// A number within its bounds, or the usual one.
pub(crate) fn bounded(
    name: &str,
    value: Option<u64>,
    usual: u64,
    bounds: std::ops::RangeInclusive<u64>,
) -> Result<u64, Fault> {
    let value = value.unwrap_or(usual);
    if bounds.contains(&value) {
        return Ok(value);
    }
    let message = format!("`{name}` must be {} to {}.", bounds.start(), bounds.end());
    Err(Fault::Api(ApiError::field(name, message)))
}
