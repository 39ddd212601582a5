//! What was asked for, checked: no request beyond a bound gets past this file.

use std::ops::RangeInclusive;

use outpost_types::{
    AgentId, ApiError, ContextLevel, DispatchId, DispatchRequest, ErrorCode, Network, NetworkLevel,
    NetworkRequest, NotASecretName, Priority, SecretName, Tier, WorkspaceMode,
    limits::{
        ALLOW_HOST_BYTES_MAX, ALLOW_HOSTS_COUNT_MAX, BRANCH_BYTES_MAX, BUDGET_USD_MAX,
        BUDGET_USD_MIN, CHECK_BYTES_MAX, CHECKS_COUNT_MAX, DEADLINE_SECONDS_DEFAULT,
        DEADLINE_SECONDS_MAX, DEADLINE_SECONDS_MIN, DISPATCH_SECRETS_COUNT_MAX, MODEL_ID_BYTES_MAX,
        REPO_BYTES_MAX, SETUP_COMMAND_BYTES_MAX, SETUP_COMMANDS_COUNT_MAX, TAG_BYTES_MAX,
        TAGS_COUNT_MAX, TASK_BYTES_MAX, TIMEOUT_SECONDS_DEFAULT, TIMEOUT_SECONDS_MAX,
        TIMEOUT_SECONDS_MIN, USER_ID_BYTES_MAX,
    },
};
use serde::{Deserialize, Serialize};

use crate::Dispatch;
use crate::budget::Nanodollars;

/// The user of a persistent workspace when the request names none: all keys of the tenant share it.
pub const WORKSPACE_USER_DEFAULT: &str = "default";

/// A checked request with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DispatchSpec {
    /// Agent to run.
    pub agent: AgentId,
    /// What to do.
    pub task: String,
    /// Model.
    pub model_id: String,
    /// Repository, as given.
    pub repo: Option<String>,
    /// Branch to start from.
    pub branch: Option<String>,
    /// How much project context is put before the task.
    pub context_level: ContextLevel,
    /// Whether the workspace outlives the dispatch.
    pub workspace_mode: WorkspaceMode,
    /// Which of the tenant's persistent workspaces it works in; none for an ephemeral one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceName>,
    /// Longest running time, seconds.
    pub timeout_seconds: u64,
    /// Who goes first among the dispatches of the same tenant.
    #[serde(default)]
    pub priority: Priority,
    /// Longest time from accepted to the end of the agent, seconds.
    #[serde(default = "deadline_seconds_default")]
    pub deadline_seconds: u64,
    /// Who asked.
    pub user_id: Option<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// Commands to run on the result.
    pub checks: Vec<String>,
    /// Commands that set the repository up, instead of the repository's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Size of the sandbox.
    pub tier: Tier,
    /// Most its model calls may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Nanodollars>,
    /// What the sandbox may reach beside the model gateway.
    #[serde(default)]
    pub network: NetworkLevel,
    /// Hosts of a custom network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_hosts: Vec<String>,
    /// Secrets in the agent's environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// What it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// A persistent workspace within its tenant. One dispatch at a time works in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceName {
    /// Whose it is: the dispatch's `userId`, or [`WORKSPACE_USER_DEFAULT`]. Not the key's, since keys are
    /// replaced and the work is to stay.
    pub user: String,
    /// Its repository: as given, until whoever knows the repository's one name writes that here.
    pub repo: String,
}

/// A finished dispatch whose files and agent session another one goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// Its id.
    pub dispatch_id: DispatchId,
    /// Session of its agent, where that is the same agent and gave one.
    pub session_id: Option<String>,
    /// The first of the line, after which the directory inside is named: sessions are bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<DispatchId>,
    /// What its changes are based on; none when it never got so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The branch it began from, as given or as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// What a request that leaves it out gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDefaults {
    /// The agent.
    pub agent: AgentId,
    /// Its model.
    pub model_id: String,
    /// Its size.
    pub tier: Tier,
}

impl DispatchSpec {
    /// Checks a request against every bound and fills in the defaults of its agent.
    ///
    /// # Errors
    /// [`InvalidField`](outpost_types::ErrorCode::InvalidField) naming the first field at fault.
    pub fn from_request(
        request: DispatchRequest,
        defaults: &AgentDefaults,
    ) -> Result<Self, ApiError> {
        check_task(&request.task)?;
        let level = request.network.unwrap_or_default();
        let network = checked_network(Network { level, allow_hosts: request.allow_hosts })?;
        let timeout_seconds = seconds(
            "timeoutSeconds",
            request.timeout_seconds.unwrap_or(TIMEOUT_SECONDS_DEFAULT),
            TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX,
        )?;
        let deadline_seconds = seconds(
            "deadlineSeconds",
            request.deadline_seconds.unwrap_or(DEADLINE_SECONDS_DEFAULT),
            DEADLINE_SECONDS_MIN..=DEADLINE_SECONDS_MAX,
        )?;
        let model_id = match request.model_id {
            Some(model) => word("modelId", model, MODEL_ID_BYTES_MAX)?,
            None => defaults.model_id.clone(),
        };
        let repo = request.repo.map(|text| line("repo", text, REPO_BYTES_MAX)).transpose()?;
        let user_id =
            request.user_id.map(|text| line("userId", text, USER_ID_BYTES_MAX)).transpose()?;
        let workspace_mode = request.workspace_mode.unwrap_or_default();
        Ok(Self {
            workspace: workspace(workspace_mode, user_id.as_deref(), repo.as_deref())?,
            agent: defaults.agent.clone(),
            task: request.task,
            model_id,
            repo,
            branch: request
                .branch
                .map(|text| word("branch", text, BRANCH_BYTES_MAX))
                .transpose()?,
            context_level: request.context_level.unwrap_or_default(),
            workspace_mode,
            timeout_seconds,
            priority: request.priority.unwrap_or_default(),
            deadline_seconds,
            user_id,
            tags: list("tags", request.tags, TAGS_COUNT_MAX, TAG_BYTES_MAX)?,
            checks: list("checks", request.checks, CHECKS_COUNT_MAX, CHECK_BYTES_MAX)?,
            setup: list("setup", request.setup, SETUP_COMMANDS_COUNT_MAX, SETUP_COMMAND_BYTES_MAX)?,
            tier: request.tier.unwrap_or(defaults.tier),
            budget: request.budget_usd.map(budget).transpose()?,
            network: network.level,
            allow_hosts: network.allow_hosts,
            secrets: secret_names(&request.secrets)?,
            parent: None,
        })
    }
}

impl DispatchSpec {
    /// The same, going on from what `parent` left.
    ///
    /// # Errors
    /// [`NotFinished`](outpost_types::ErrorCode::NotFinished), or
    /// [`InvalidField`](outpost_types::ErrorCode::InvalidField) naming what does not go with it.
    pub fn continuing(self, parent: &Dispatch) -> Result<Self, ApiError> {
        if !parent.status().is_terminal() {
            let message = format!("The dispatch to go on from is still {}.", parent.status());
            return Err(ApiError::new(ErrorCode::NotFinished, message)
                .with_hint("Wait for its end, or cancel it: what it has done is kept."));
        }
        let (of, facts) = (&parent.spec, &parent.facts);
        if self.workspace.is_some() || of.workspace.is_some() {
            let message = "A persistent workspace goes on by itself: dispatch there once more.";
            return Err(ApiError::field("continueFrom", message));
        }
        if self.branch.is_some() {
            let message = "It is that of the dispatch to go on from: leave it out.";
            return Err(ApiError::field("branch", message));
        }
        if self.repo.is_some() && self.repo != of.repo {
            let message = "It is not that of the dispatch to go on from: leave it out.";
            return Err(ApiError::field("repo", message));
        }
        let root = of.parent.as_ref().and_then(|parent| parent.root).unwrap_or(parent.id);
        let same_agent = of.agent == self.agent;
        // What was installed for it is not among its changes.
        let setup = if self.setup.is_empty() { of.setup.clone() } else { self.setup.clone() };
        Ok(Self {
            setup,
            repo: of.repo.clone(),
            branch: of.branch.clone(),
            parent: Some(Parent {
                dispatch_id: parent.id,
                session_id: facts.session_id.clone().filter(|_| same_agent),
                root: Some(root),
                base_commit: facts.base_commit.clone(),
                branch: facts.branch.clone(),
            }),
            ..self
        })
    }
}

/// What a sandbox that may reach `now` may reach after a change, checked.
///
/// # Errors
/// [`InvalidField`](outpost_types::ErrorCode::InvalidField) naming the field at fault; `network` when the request changes nothing at all.
pub fn changed_network(now: &Network, request: NetworkRequest) -> Result<Network, ApiError> {
    if request == NetworkRequest::default() {
        let message = "Nothing is asked for: give `network`, `allowHosts` or both.";
        return Err(ApiError::field("network", message));
    }
    let level = request.network.unwrap_or(now.level);
    let allow_hosts = request.allow_hosts.unwrap_or_else(|| match level {
        NetworkLevel::None => Vec::new(),
        _ => now.allow_hosts.clone(),
    });
    checked_network(Network { level, allow_hosts })
}

fn checked_network(network: Network) -> Result<Network, ApiError> {
    let Network { level, allow_hosts } = network;
    if level == NetworkLevel::None && !allow_hosts.is_empty() {
        let message = "It goes with `network: custom` or `trusted` only.";
        return Err(ApiError::field("allowHosts", message));
    }
    let allow_hosts = list("allowHosts", allow_hosts, ALLOW_HOSTS_COUNT_MAX, ALLOW_HOST_BYTES_MAX)?;
    Ok(Network { level, allow_hosts })
}

/// The secrets a request names, checked.
///
/// # Errors
/// [`InvalidField`](outpost_types::ErrorCode::InvalidField) naming `secrets`: there are too many, or one is no name, or one that would lead
/// the agent past the gateway's proxy.
pub fn secret_names(texts: &[String]) -> Result<Vec<SecretName>, ApiError> {
    if texts.len() > DISPATCH_SECRETS_COUNT_MAX {
        return Err(too_many("secrets", DISPATCH_SECRETS_COUNT_MAX));
    }
    let parse = |text: &String| {
        let name: SecretName = text
            .parse()
            .map_err(|error: NotASecretName| ApiError::field("secrets", error.to_string()))?;
        if name.names_a_proxy() {
            let message = format!("{name} is set in every sandbox: store it under another name.");
            return Err(ApiError::field("secrets", message));
        }
        Ok(name)
    };
    texts.iter().map(parse).collect()
}

fn too_many(field: &str, count_max: usize) -> ApiError {
    ApiError::field(field, format!("At most {count_max} entries are allowed."))
}

const fn deadline_seconds_default() -> u64 {
    DEADLINE_SECONDS_DEFAULT
}

fn seconds(field: &str, value: u64, bounds: RangeInclusive<u64>) -> Result<u64, ApiError> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let message = format!("It must be {} to {} seconds.", bounds.start(), bounds.end());
    Err(ApiError::field(field, message))
}

fn budget(usd: f64) -> Result<Nanodollars, ApiError> {
    // What is no number is in no range.
    let within = (BUDGET_USD_MIN..=BUDGET_USD_MAX).contains(&usd);
    within.then(|| Nanodollars::from_usd(usd).ok()).flatten().ok_or_else(|| {
        let message = format!("It must be {BUDGET_USD_MIN} to {BUDGET_USD_MAX} US dollars.");
        ApiError::field("budgetUsd", message)
    })
}

fn workspace(
    mode: WorkspaceMode,
    user: Option<&str>,
    repo: Option<&str>,
) -> Result<Option<WorkspaceName>, ApiError> {
    if mode == WorkspaceMode::Ephemeral {
        return Ok(None);
    }
    let Some(repo) = repo else {
        let message = "A persistent workspace is one of a repository: name it.";
        return Err(ApiError::field("repo", message));
    };
    let user = user.unwrap_or(WORKSPACE_USER_DEFAULT).to_owned();
    Ok(Some(WorkspaceName { user, repo: repo.to_owned() }))
}

fn check_task(task: &str) -> Result<(), ApiError> {
    if task.trim().is_empty() {
        return Err(ApiError::field("task", "Say what to do: it must not be empty."));
    }
    if task.len() > TASK_BYTES_MAX {
        let message = format!("It has {} bytes; at most {TASK_BYTES_MAX} are read.", task.len());
        return Err(ApiError::field("task", message).with_hint(
            "Put long material into a file of the repository and name it in the task.",
        ));
    }
    if task.contains('\0') {
        return Err(ApiError::field("task", "It must not contain NUL characters."));
    }
    Ok(())
}

/// One line of text without control characters, 1 to `bytes_max` bytes.
fn line(field: &str, text: String, bytes_max: usize) -> Result<String, ApiError> {
    if text.trim().is_empty() || text.len() > bytes_max {
        return Err(ApiError::field(field, format!("It must have 1 to {bytes_max} bytes.")));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::field(field, "It must not contain control characters."));
    }
    Ok(text)
}

/// A [`line`] without blanks that no program can mistake for an option.
fn word(field: &str, text: String, bytes_max: usize) -> Result<String, ApiError> {
    let text = line(field, text, bytes_max)?;
    if text.starts_with('-') || text.chars().any(char::is_whitespace) {
        return Err(ApiError::field(field, "It must not start with '-' or contain blanks."));
    }
    Ok(text)
}

fn list(
    field: &str,
    texts: Vec<String>,
    count_max: usize,
    bytes_max: usize,
) -> Result<Vec<String>, ApiError> {
    if texts.len() > count_max {
        return Err(too_many(field, count_max));
    }
    let entry = |(index, text)| line(&format!("{field}[{index}]"), text, bytes_max);
    texts.into_iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use outpost_types::ErrorCode;

    use super::*;

    fn defaults() -> AgentDefaults {
        AgentDefaults {
            agent: "claude".parse().unwrap(),
            model_id: "m".into(),
            tier: Tier::Flagship,
        }
    }

    fn request() -> DispatchRequest {
        DispatchRequest { agent: "claude".into(), task: "do it".into(), ..Default::default() }
    }

    type Edit = fn(&mut DispatchRequest);

    #[test]
    fn every_bound_names_its_field() {
        let cases: [(&str, Edit); 26] = [
            ("deadlineSeconds", |r| r.deadline_seconds = Some(29)),
            ("deadlineSeconds", |r| r.deadline_seconds = Some(604_801)),
            ("task", |r| r.task = " \n".into()),
            ("task", |r| r.task = "x".repeat(TASK_BYTES_MAX + 1)),
            ("task", |r| r.task = "a\0b".into()),
            ("modelId", |r| r.model_id = Some("-x".into())),
            ("modelId", |r| r.model_id = Some("m".repeat(MODEL_ID_BYTES_MAX + 1))),
            ("repo", |r| r.repo = Some("a\nb".into())),
            ("branch", |r| r.branch = Some("--upload-pack=x".into())),
            ("branch", |r| r.branch = Some(String::new())),
            ("timeoutSeconds", |r| r.timeout_seconds = Some(29)),
            ("timeoutSeconds", |r| r.timeout_seconds = Some(86_401)),
            ("userId", |r| r.user_id = Some("u".repeat(USER_ID_BYTES_MAX + 1))),
            ("tags", |r| r.tags = vec!["t".into(); TAGS_COUNT_MAX + 1]),
            ("tags[1]", |r| r.tags = vec!["t".into(), String::new()]),
            ("secrets", |r| r.secrets = vec!["HTTP_PROXY".into()]),
            ("budgetUsd", |r| r.budget_usd = Some(0.0)),
            ("budgetUsd", |r| r.budget_usd = Some(f64::NAN)),
            ("budgetUsd", |r| r.budget_usd = Some(100_000.1)),
            ("allowHosts", |r| r.allow_hosts = vec!["example.com".into()]),
            ("allowHosts[0]", |r| {
                r.network = Some(NetworkLevel::Custom);
                r.allow_hosts = vec![String::new()];
            }),
            ("allowHosts", |r| {
                r.network = Some(NetworkLevel::Custom);
                r.allow_hosts = vec!["h".into(); ALLOW_HOSTS_COUNT_MAX + 1];
            }),
            ("setup", |r| r.setup = vec!["make".into(); SETUP_COMMANDS_COUNT_MAX + 1]),
            ("setup[0]", |r| r.setup = vec!["c".repeat(SETUP_COMMAND_BYTES_MAX + 1)]),
            ("setup[1]", |r| r.setup = vec!["make".into(), " ".into()]),
            ("checks[0]", |r| r.checks = vec!["c".repeat(CHECK_BYTES_MAX + 1)]),
        ];
        for (field, edit) in cases {
            let mut request = request();
            edit(&mut request);
            let error = DispatchSpec::from_request(request, &defaults()).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidField, "{field}");
            assert_eq!(error.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn defaults_fill_in_and_the_longest_task_passes() {
        let mut request = request();
        request.task = "ü".repeat(TASK_BYTES_MAX / 2);
        let spec = DispatchSpec::from_request(request, &defaults()).unwrap();
        assert_eq!(spec.timeout_seconds, TIMEOUT_SECONDS_DEFAULT);
        assert_eq!((spec.tier, spec.model_id.as_str()), (Tier::Flagship, "m"));
    }

    #[test]
    fn a_persistent_workspace_is_of_a_user_and_a_repository() {
        let of = |edit: Edit| {
            let mut request = request();
            edit(&mut request);
            DispatchSpec::from_request(request, &defaults()).map(|spec| spec.workspace)
        };
        let persistent: Edit = |r| r.workspace_mode = Some(WorkspaceMode::Persistent);
        assert_eq!(of(persistent).unwrap_err().field.as_deref(), Some("repo"));
        assert_eq!(of(|r| r.repo = Some("o/r".into())), Ok(None));
        let shared: Edit = |r| {
            r.workspace_mode = Some(WorkspaceMode::Persistent);
            r.repo = Some("o/r".into());
        };
        let name = |user: &str| WorkspaceName { user: user.into(), repo: "o/r".into() };
        assert_eq!(of(shared), Ok(Some(name(WORKSPACE_USER_DEFAULT))));
        let own: Edit = |r| {
            r.workspace_mode = Some(WorkspaceMode::Persistent);
            r.repo = Some("o/r".into());
            r.user_id = Some("ann".into());
        };
        assert_eq!(of(own), Ok(Some(name("ann"))));
    }
}
