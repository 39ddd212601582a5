//! Dispatches of a bench, one by one: made, waited for, judged.
//!
//! Bounded: every wait. Absent: loads, which are [`crate::client`]'s.

use std::time::Duration;

use outpost_types::{DispatchStatus, DispatchView};
use serde::de::DeserializeOwned;

use crate::accept::id_in;
use crate::client::{self, Connection};
use crate::error::BenchError;
use crate::options::Key;

/// Longest wait of [`within`], seconds.
const PATIENCE_SECONDS: u64 = 120;
/// Longest single long poll, seconds.
const POLL_SECONDS: u64 = 30;

/// What is sent to dispatch `agent`.
pub(crate) fn body(agent: &str) -> String {
    format!("{{\"agent\":\"{agent}\",\"task\":\"wait\",\"timeoutSeconds\":86400}}")
}

/// Makes a dispatch; its id.
pub(crate) async fn create(
    connection: &mut Connection,
    key: &Key,
    body: &str,
) -> Result<String, BenchError> {
    let (status, answer) = connection.ask(|out| client::post(out, body, key.expose())).await?;
    let id = id_in(answer).filter(|_| status == 201).map(str::to_owned);
    id.ok_or_else(|| BenchError::failed(format!("a dispatch was answered with {status}")))
}

/// Waits for the end of a dispatch by long polls, whatever it is.
pub(crate) async fn until_over(
    connection: &mut Connection,
    key: &Key,
    id: &str,
) -> Result<DispatchView, BenchError> {
    let mut generation = 0;
    loop {
        let path = format!("/dispatch/{id}?wait={POLL_SECONDS}&generation={generation}");
        let view: DispatchView = read(connection, &path, key).await?;
        if view.status.is_terminal() {
            return Ok(view);
        }
        generation = view.generation;
    }
}

/// Any other end than the usual one is an error: it would be no figure.
pub(crate) fn completed(view: &DispatchView) -> Result<(), BenchError> {
    if view.status == DispatchStatus::Completed {
        return Ok(());
    }
    let why = view.failure.as_ref().map_or("no reason", |failure| failure.message.as_str());
    let text = format!("a dispatch of the bench ended as {}: {why}", view.status);
    Err(BenchError::failed(text)
        .with_hint("`outpost doctor` checks whether sandboxes work on this machine"))
}

/// Reads one address.
pub(crate) async fn read<T: DeserializeOwned>(
    connection: &mut Connection,
    path: &str,
    key: &Key,
) -> Result<T, BenchError> {
    let (status, body) = connection.ask(|out| client::get(out, path, key.expose())).await?;
    serde_json::from_slice(body)
        .map_err(|error| BenchError::chain(&format!("{path} was answered with {status}"), &error))
}

/// Does `work`, unless it takes longer than 120 seconds.
pub(crate) async fn within<T>(
    what: &str,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    let limit = Duration::from_secs(PATIENCE_SECONDS);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(BenchError::failed(format!("{what} took longer than {PATIENCE_SECONDS} s")))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record as a server answers it.
    pub(crate) fn view(status: &str, timings: &str) -> DispatchView {
        let text = format!(
            r#"{{"dispatchId":"01J9Z3NDEKTSV4RRFFQ69G5FAV","status":"{status}","generation":3,
            "agent":"brief","modelId":"none","tier":"fast","task":"wait","timeoutSeconds":60,
            "contextLevel":"standard","workspaceMode":"ephemeral","attempt":1,"timings":{timings},
            "deadlineAt":"2025-01-01T00:00:00Z","createdAt":"2025-01-01T00:00:00Z",
            "startedAt":"2025-01-01T00:00:00.009Z"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_a_completed_dispatch_is_right() {
        assert!(completed(&view("COMPLETED", "{}")).is_ok());
        for status in ["RUNNING", "FAILED", "TIMEOUT", "CANCELLED"] {
            let error = completed(&view(status, "{}")).unwrap_err();
            assert!(error.message.contains(status), "{error}");
        }
    }
}
