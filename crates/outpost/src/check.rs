//! The limits of the API, checked before anything is sent, so that an error names the flag.

use outpost_types::limits::{
    AGENT_ID_BYTES_MAX, BRANCH_BYTES_MAX, CHECK_BYTES_MAX, CHECKS_COUNT_MAX,
    IDEMPOTENCY_KEY_BYTES_MAX, MODEL_ID_BYTES_MAX, REPO_BYTES_MAX, TAG_BYTES_MAX, TAGS_COUNT_MAX,
    TASK_BYTES_MAX, USER_ID_BYTES_MAX,
};
use outpost_types::{AgentId, DispatchRequest, NetworkLevel};

use crate::error::CliError;

/// Checks a request and its idempotency key.
pub(crate) fn request(
    request: &DispatchRequest,
    idempotency_key: Option<&str>,
) -> Result<(), CliError> {
    request.agent.parse::<AgentId>().map_err(|_| {
        CliError::usage(format!(
            "--agent {:?} is no name of an agent: expected 1 to {AGENT_ID_BYTES_MAX} letters, digits, '.', '_' or '-'",
            request.agent
        ))
        .with_hint("`outpost agents ls` shows them; quote the task if it has several words")
    })?;
    task(&request.task)?;
    text("--model", request.model_id.as_deref(), MODEL_ID_BYTES_MAX)?;
    text("--repo", request.repo.as_deref(), REPO_BYTES_MAX)?;
    text("--branch", request.branch.as_deref(), BRANCH_BYTES_MAX)?;
    text("--user", request.user_id.as_deref(), USER_ID_BYTES_MAX)?;
    list("--tag", &request.tags, TAGS_COUNT_MAX, TAG_BYTES_MAX)?;
    list("--check", &request.checks, CHECKS_COUNT_MAX, CHECK_BYTES_MAX)?;
    if matches!(request.network, Some(NetworkLevel::Trusted | NetworkLevel::Custom)) {
        return Err(CliError::usage("--network: only `none` exists so far")
            .with_hint("leave --network out; the model is reached through the gateway"));
    }
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

fn task(task: &str) -> Result<(), CliError> {
    if task.trim().is_empty() {
        return Err(CliError::usage("the task is empty")
            .with_hint("say what to do: outpost dispatch \"fix the failing test\""));
    }
    if task.len() > TASK_BYTES_MAX {
        return Err(CliError::usage(format!(
            "the task has {} bytes; at most {TASK_BYTES_MAX} are allowed",
            task.len()
        ))
        .with_hint("put long material into a file of the repository and name it in the task"));
    }
    if task.contains('\0') {
        return Err(CliError::usage("the task contains a NUL character"));
    }
    Ok(())
}

fn text(flag: &str, value: Option<&str>, bytes_max: usize) -> Result<(), CliError> {
    let Some(value) = value else {
        return Ok(());
    };
    if value.is_empty() {
        return Err(CliError::usage(format!("{flag} is empty")));
    }
    if value.len() > bytes_max {
        return Err(CliError::usage(format!(
            "{flag} has {} bytes; at most {bytes_max} are allowed",
            value.len()
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(CliError::usage(format!("{flag} contains a control character")));
    }
    Ok(())
}

fn list(flag: &str, values: &[String], count_max: usize, bytes_max: usize) -> Result<(), CliError> {
    if values.len() > count_max {
        return Err(CliError::usage(format!(
            "{flag} is given {} times; at most {count_max} are allowed",
            values.len()
        )));
    }
    values.iter().try_for_each(|value| text(flag, Some(value), bytes_max))
}

#[cfg(test)]
mod tests {
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
            ("task", DispatchRequest { task: " \n".into(), ..valid() }),
            ("task", DispatchRequest { task: "x".repeat(51_201), ..valid() }),
            ("--model", DispatchRequest { model_id: long(129), ..valid() }),
            ("--repo", DispatchRequest { repo: long(2_049), ..valid() }),
            ("--branch", DispatchRequest { branch: Some("a\nb".into()), ..valid() }),
            ("--user", DispatchRequest { user_id: Some(String::new()), ..valid() }),
            ("--tag", DispatchRequest { tags: vec!["t".into(); 17], ..valid() }),
            ("--tag", DispatchRequest { tags: vec!["t".repeat(65)], ..valid() }),
            ("--check", DispatchRequest { checks: vec!["c".into(); 9], ..valid() }),
            ("--check", DispatchRequest { checks: vec!["a\nb".into()], ..valid() }),
            ("--network", DispatchRequest { network: Some(NetworkLevel::Trusted), ..valid() }),
        ];
        for (flag, bad) in cases {
            let error = request(&bad, None).unwrap_err();
            assert!(error.to_string().contains(flag), "{flag}: {error}");
        }
        let exact = DispatchRequest { task: "x".repeat(51_200), ..valid() };
        request(&exact, None).unwrap();
        assert!(request(&valid(), Some("a b")).is_err());
        request(&valid(), Some("nightly-42")).unwrap();
    }
}
