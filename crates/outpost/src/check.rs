//! The server's own check of a request, made before anything is sent, so that an error names the flag.

use outpost_core::{AgentDefaults, DispatchSpec};
use outpost_types::limits::{AGENT_ID_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use outpost_types::{AgentId, DispatchRequest, Tier};

use crate::error::CliError;

/// Checks a request and its idempotency key.
pub(crate) fn request(
    request: &DispatchRequest,
    idempotency_key: Option<&str>,
) -> Result<(), CliError> {
    let agent: AgentId = request.agent.parse().map_err(|_| {
        CliError::usage(format!(
            "--agent {:?} is no name of an agent: expected 1 to {AGENT_ID_BYTES_MAX} letters, digits, '.', '_' or '-'",
            request.agent
        ))
        .with_hint("`outpost agents ls` shows them; quote the task if it has several words")
    })?;
    let defaults = AgentDefaults { agent, model_id: String::new(), tier: Tier::Fast };
    // The repository of a persistent workspace may not be known yet; the server asks for it.
    let known = DispatchRequest { workspace_mode: None, ..request.clone() };
    DispatchSpec::from_request(known, &defaults).map_err(|error| {
        let flag = flag(error.field.as_deref().unwrap_or_default());
        let hint =
            error.hint.unwrap_or_else(|| "`outpost dispatch --help` says what it takes".into());
        CliError::usage(format!("{flag}: {}", error.message)).with_hint(hint)
    })?;
    if let Some(key) = idempotency_key {
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !visible {
            return Err(CliError::usage(format!(
                "--idempotency-key: expected 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
            )));
        }
    }
    Ok(())
}

/// The flag for a field of a request; lists name their entry as `tags[1]`.
fn flag(field: &str) -> &str {
    match field.split('[').next().unwrap_or_default() {
        "task" => "the task",
        "modelId" => "--model",
        "repo" => "--repo",
        "branch" => "--branch",
        "timeoutSeconds" => "--timeout",
        "deadlineSeconds" => "--deadline",
        "userId" => "--user",
        "tags" => "--tag",
        "checks" => "--check",
        "setup" => "--setup",
        "budgetUsd" => "--budget",
        "secrets" => "--secret",
        "network" => "--network",
        "allowHosts" => "--allow-host",
        "continueFrom" => "--continue-from",
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use outpost_types::{NetworkLevel, WorkspaceMode};

    use super::*;

    fn valid() -> DispatchRequest {
        DispatchRequest {
            agent: "claude".into(),
            task: "do it".into(),
            ..DispatchRequest::default()
        }
    }

    #[test]
    fn every_bound_names_its_flag() {
        let long = |bytes: usize| Some("x".repeat(bytes));
        let cases: Vec<(&str, DispatchRequest)> = vec![
            ("--agent", DispatchRequest { agent: "a b".into(), ..valid() }),
            ("the task", DispatchRequest { task: " \n".into(), ..valid() }),
            ("the task", DispatchRequest { task: "x".repeat(51_201), ..valid() }),
            ("--model", DispatchRequest { model_id: long(129), ..valid() }),
            ("--repo", DispatchRequest { repo: long(2_049), ..valid() }),
            ("--branch", DispatchRequest { branch: Some("a\nb".into()), ..valid() }),
            ("--user", DispatchRequest { user_id: Some(String::new()), ..valid() }),
            ("--tag", DispatchRequest { tags: vec!["t".into(); 17], ..valid() }),
            ("--check", DispatchRequest { checks: vec!["a\nb".into()], ..valid() }),
            ("--setup", DispatchRequest { setup: vec![" ".into()], ..valid() }),
            ("--budget", DispatchRequest { budget_usd: Some(0.0), ..valid() }),
            ("--secret", DispatchRequest { secrets: vec!["a b".into()], ..valid() }),
            ("--allow-host", DispatchRequest { allow_hosts: vec!["h".into()], ..valid() }),
        ];
        for (flag, bad) in cases {
            let error = request(&bad, None).unwrap_err();
            assert!(error.to_string().contains(flag), "{flag}: {error}");
        }
        let network = Some(NetworkLevel::Custom);
        let allow_hosts = vec!["example.com".into()];
        request(&DispatchRequest { network, allow_hosts, ..valid() }, None).unwrap();
        let workspace_mode = Some(WorkspaceMode::Persistent);
        request(&DispatchRequest { workspace_mode, ..valid() }, None).unwrap();
        assert!(request(&valid(), Some("a b")).is_err());
        request(&valid(), Some("nightly-42")).unwrap();
    }
}
