//! Resources: log, diff and artifacts of runs, for clients that attach them to a conversation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outpost_terminal::sanitize;
use outpost_types::{ApiError, DispatchId, DispatchView, ErrorCode, ListQuery, Scope};
use percent_encoding::percent_decode_str;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};

use crate::fault::Fault;
use crate::grant::Grant;
use crate::{read, tail};

/// Largest resource, bytes; of logs the end, of diffs the beginning.
const RESOURCE_BYTES_MAX: usize = 256 * 1024;
/// Runs whose resources are listed.
const LISTED_RUNS_COUNT: u32 = 20;
/// Longest address that is looked at, bytes.
const URI_BYTES_MAX: usize = 2_048;
const RUNS: &str = "outpost://runs/";

/// What an address means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Log(DispatchId),
    Diff(DispatchId),
    Artifact(DispatchId, String),
}

impl Target {
    fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(RUNS).filter(|_| uri.len() <= URI_BYTES_MAX)?;
        let (id, what) = rest.split_once('/')?;
        let id = id.parse().ok()?;
        match what.split_once('/') {
            None if what == "log" => Some(Self::Log(id)),
            None if what == "diff" => Some(Self::Diff(id)),
            Some(("artifacts", name)) if !name.is_empty() => {
                let name = percent_decode_str(name).decode_utf8().ok()?;
                Some(Self::Artifact(id, name.into_owned()))
            }
            _ => None,
        }
    }
}

/// The kinds of addresses there are.
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("outpost://runs/{id}/log", "run-log")
            .with_title("Output of a run's agent")
            .with_description("What the agent printed, without terminal codes; its last 256 KiB.")
            .with_mime_type("text/plain"),
        ResourceTemplate::new("outpost://runs/{id}/diff", "run-diff")
            .with_title("Changes of a run")
            .with_description("A git diff; its first 256 KiB.")
            .with_mime_type("text/x-diff"),
        ResourceTemplate::new("outpost://runs/{id}/artifacts/{+name}", "run-artifact")
            .with_title("A file kept of a run")
            .with_description("Files that the agent left in its artifacts folder, up to 256 KiB."),
    ]
}

/// Resources of the newest runs. None for a key that may not list runs.
pub(crate) async fn list(grant: &Grant) -> Result<Vec<Resource>, Fault> {
    if !grant.may(Scope::List) {
        return Ok(Vec::new());
    }
    let query = ListQuery { limit: Some(LISTED_RUNS_COUNT), ..ListQuery::default() };
    let page = grant.api.list_runs(query).await?;
    Ok(page.items.iter().flat_map(of_run).collect())
}

fn of_run(view: &DispatchView) -> Vec<Resource> {
    let id = view.dispatch_id;
    let task = sanitize::line(&read::shortened(&view.task, 100));
    let about = format!("{} of {}: {task}", view.status, view.agent);
    let log = Resource::new(format!("{RUNS}{id}/log"), format!("{id}-log"))
        .with_title("Output of a run's agent")
        .with_description(about.clone())
        .with_mime_type("text/plain");
    let mut resources = vec![log];
    if view.files_changed.unwrap_or(0) > 0 {
        resources.push(
            Resource::new(format!("{RUNS}{id}/diff"), format!("{id}-diff"))
                .with_title("Changes of a run")
                .with_description(about)
                .with_mime_type("text/x-diff"),
        );
    }
    resources
}

/// One resource.
pub(crate) async fn read(grant: &Grant, uri: &str) -> Result<ResourceContents, Fault> {
    grant.require(Scope::Status)?;
    let target = Target::parse(uri).ok_or_else(|| unknown(uri))?;
    let found = match target {
        Target::Log(id) => log(grant, id, uri).await,
        Target::Diff(id) => diff(grant, id, uri).await,
        Target::Artifact(id, name) => artifact(grant, id, &name, uri).await,
    };
    found.map_err(|error| match error.code {
        ErrorCode::NotFound => unknown(uri).into(),
        _ => error.into(),
    })
}

fn unknown(uri: &str) -> ApiError {
    let shown = sanitize::line(&read::shortened(uri, 200));
    ApiError::new(ErrorCode::NotFound, format!("There is no resource {shown}."))
        .with_hint("Addresses are outpost://runs/{id}/log, /diff and /artifacts/{name}.")
}

async fn log(grant: &Grant, id: DispatchId, uri: &str) -> Result<ResourceContents, ApiError> {
    let piece = tail::of_log(grant.api.as_ref(), id, RESOURCE_BYTES_MAX).await?;
    let before = match piece.from {
        0 => String::new(),
        from => format!("({from} bytes before this; the tool get_logs reads them)\n"),
    };
    Ok(ResourceContents::text(format!("{before}{}", piece.text()), uri))
}

async fn diff(grant: &Grant, id: DispatchId, uri: &str) -> Result<ResourceContents, ApiError> {
    let piece = read::head(grant.api.diff(id).await?, 0, RESOURCE_BYTES_MAX).await?;
    let after = match piece.more {
        false => String::new(),
        true => format!("\n(cut at byte {}; the tool get_diff reads the rest)\n", piece.end()),
    };
    let text = format!("{}{after}", piece.text());
    Ok(ResourceContents::text(text, uri).with_mime_type("text/x-diff"))
}

async fn artifact(
    grant: &Grant,
    id: DispatchId,
    name: &str,
    uri: &str,
) -> Result<ResourceContents, ApiError> {
    let piece = read::head(grant.api.artifact(id, name).await?, 0, RESOURCE_BYTES_MAX).await?;
    if piece.more {
        let message = format!("The artifact is larger than {RESOURCE_BYTES_MAX} bytes.");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message)
            .with_hint("The user can fetch it over HTTP: GET /artifacts/{id} lists its address."));
    }
    Ok(match String::from_utf8(piece.bytes) {
        Ok(text) => ResourceContents::text(sanitize::with_tabs(&text), uri),
        Err(error) => ResourceContents::blob(STANDARD.encode(error.as_bytes()), uri)
            .with_mime_type("application/octet-stream"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_mean_what_they_say_and_nothing_else() {
        let id = DispatchId::from_parts(1, 2);
        let parse = |rest: &str| Target::parse(&format!("{RUNS}{id}/{rest}"));
        assert_eq!(parse("log"), Some(Target::Log(id)));
        assert_eq!(parse("diff"), Some(Target::Diff(id)));
        let name = |name: &str| Some(Target::Artifact(id, name.to_owned()));
        assert_eq!(parse("artifacts/a/b%20c.txt"), name("a/b c.txt"));
        for wrong in ["", "logs", "log/", "artifacts", "artifacts/", "artifacts/%FF"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for wrong in ["", "outpost://runs/x/log", "file:///etc/passwd", "outpost://runs/"] {
            assert_eq!(Target::parse(wrong), None, "{wrong}");
        }
        assert_eq!(parse(&format!("artifacts/{}", "x".repeat(URI_BYTES_MAX))), None);
    }
}
