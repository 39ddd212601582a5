//! Carrying out a call of a tool.

use outpost_terminal::sanitize;
use outpost_types::limits::{IDEMPOTENCY_KEY_BYTES_MAX, OUTPUT_LOG_BYTES_MAX};
use outpost_types::{ApiError, CancelRequest, ErrorCode, ListQuery, LogQuery, PromoteRequest};
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use rmcp::service::RequestContext;
use serde::Serialize;

use crate::arguments::{self, bounded};
use crate::fault::Fault;
use crate::grant::Grant;
use crate::patch::{self, FilePart};
use crate::read;
use crate::results::{ChangedFile, Diff, Fleet, Logs, Promotion, Run, Runs};
use crate::tail;
use crate::tools::Tool;
use crate::wait;

/// Usual and longest wait of `wait_run`, seconds. Clients give a call up after 60 that show no progress.
const WAIT_SECONDS_DEFAULT: u64 = 45;
/// See [`WAIT_SECONDS_DEFAULT`].
const WAIT_SECONDS_MAX: u64 = 3_600;
/// How long `promote` waits for its end, seconds.
const PROMOTE_SECONDS: u64 = 45;
/// Usual and longest list of runs.
const LIST_COUNT_DEFAULT: u32 = 10;
/// See [`LIST_COUNT_DEFAULT`].
const LIST_COUNT_MAX: u32 = 50;
/// Usual, smallest and largest part of an output, bytes.
const LOGS_BYTES_DEFAULT: u64 = 8_192;
/// See [`LOGS_BYTES_DEFAULT`]; of diffs too.
const TEXT_BYTES_MIN: u64 = 256;
/// See [`LOGS_BYTES_DEFAULT`].
const LOGS_BYTES_MAX: u64 = 65_536;
/// Usual and largest part of a diff, bytes.
const DIFF_BYTES_DEFAULT: u64 = 24_576;
/// See [`DIFF_BYTES_DEFAULT`].
const DIFF_BYTES_MAX: u64 = 131_072;
/// What is read of a diff to find its files, bytes.
const DIFF_READ_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Changed files that an answer lists.
const FILES_COUNT_MAX: usize = 200;

/// What a tool answers: the document, and the same for those who read text.
struct Answer<T> {
    document: T,
    text: String,
}

/// Carries out a call.
pub(crate) async fn call(
    tool: Tool,
    grant: &Grant,
    arguments: Option<JsonObject>,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResult, Fault> {
    grant.require(tool.scope())?;
    match tool {
        Tool::Dispatch => dispatch(grant, arguments, context).await.map(answer),
        Tool::WaitRun => wait_run(grant, arguments, context).await.map(answer),
        Tool::GetRun => get_run(grant, arguments).await.map(answer),
        Tool::ListRuns => list_runs(grant, arguments).await.map(answer),
        Tool::GetLogs => get_logs(grant, arguments).await.map(answer),
        Tool::GetDiff => get_diff(grant, arguments).await.map(answer),
        Tool::CancelRun => cancel_run(grant, arguments).await.map(answer),
        Tool::Promote => promote(grant, arguments, context).await.map(answer),
        Tool::FleetStatus => fleet_status(grant, arguments).await.map(answer),
    }
}

fn answer<T: Serialize>(answer: Answer<T>) -> CallToolResult {
    match serde_json::to_value(&answer.document) {
        Ok(document) => {
            let mut result = CallToolResult::structured(document);
            result.content = vec![ContentBlock::text(answer.text)];
            result
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            let error = ApiError::new(ErrorCode::Internal, "The answer cannot be written.");
            Fault::Api(error).into_result()
        }
    }
}

fn of_run(run: Run) -> Answer<Run> {
    Answer { text: run.text(), document: run }
}

async fn dispatch(
    grant: &Grant,
    arguments: Option<JsonObject>,
    context: &RequestContext<RoleServer>,
) -> Result<Answer<Run>, Fault> {
    let mut arguments: arguments::Dispatch = arguments::read(arguments)?;
    let seconds = bounded("waitSeconds", arguments.wait_seconds, 0, 0..=WAIT_SECONDS_MAX)?;
    let key = arguments.idempotency_key.take();
    if let Some(key) = &key {
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
            let message = format!(
                "`idempotencyKey` must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters without spaces."
            );
            return Err(ApiError::field("idempotencyKey", message).into());
        }
    }
    let agent = match arguments.agent.take() {
        Some(agent) => agent,
        None => first_available(grant).await?,
    };
    // A run that goes on from another one has the repository of that.
    let own = || grant.repo.clone().filter(|_| arguments.continue_from.is_none());
    let repo = arguments.repo.take().or_else(own);
    let request = arguments.into_request(agent, repo);
    grant.check_dispatch(&request)?;
    let created = grant.api.create_dispatch(request, key).await.map_err(advise)?;
    let view = match seconds {
        0 => created.dispatch,
        _ => wait::for_run(grant, created.dispatch.dispatch_id, seconds, context).await?,
    };
    let mut run = Run::of(&view);
    run.replayed = created.replayed.then_some(true);
    Ok(of_run(run))
}

async fn first_available(grant: &Grant) -> Result<String, Fault> {
    let fleet = grant.api.fleet().await?;
    let found = fleet.agents.into_iter().find(|agent| agent.availability.available);
    found.map(|agent| agent.agent).ok_or_else(|| {
        ApiError::new(ErrorCode::AgentUnavailable, "No agent is available.")
            .with_hint("Call fleet_status: it says why, and what the user can do.")
            .into()
    })
}

/// Hints of the HTTP interface name its routes; a model has tools.
fn advise(mut error: ApiError) -> ApiError {
    let for_http = error.hint.as_deref().is_none_or(|hint| hint.contains("GET /"));
    if for_http
        && (error.code == ErrorCode::AgentUnavailable || error.field.as_deref() == Some("agent"))
    {
        error.hint = Some("Call fleet_status: it names the agents, and why one cannot run.".into());
    }
    error
}

/// Unknown ids are mostly made up or cut.
fn advise_id(mut error: ApiError) -> ApiError {
    if error.code == ErrorCode::NotFound {
        error.message = "There is no run with this dispatchId.".to_owned();
        error.hint = Some("Use the whole id; list_runs shows the runs there are.".to_owned());
    }
    error
}

/// What the HTTP interface calls `after` is `fromByte` here.
fn advise_from(mut error: ApiError) -> ApiError {
    if error.field.as_deref() == Some("after") {
        error.field = Some("fromByte".to_owned());
    }
    advise_id(error)
}

fn with_id_advice(fault: Fault) -> Fault {
    match fault {
        Fault::Api(error) => Fault::Api(advise_id(error)),
        other => other,
    }
}

async fn wait_run(
    grant: &Grant,
    arguments: Option<JsonObject>,
    context: &RequestContext<RoleServer>,
) -> Result<Answer<Run>, Fault> {
    let arguments: arguments::WaitRun = arguments::read(arguments)?;
    let id = arguments::run(&arguments.dispatch_id)?;
    let bounds = 1..=WAIT_SECONDS_MAX;
    let seconds = bounded("waitSeconds", arguments.wait_seconds, WAIT_SECONDS_DEFAULT, bounds)?;
    let view = wait::for_run(grant, id, seconds, context).await.map_err(with_id_advice)?;
    Ok(of_run(Run::of(&view)))
}

async fn get_run(grant: &Grant, arguments: Option<JsonObject>) -> Result<Answer<Run>, Fault> {
    let arguments: arguments::GetRun = arguments::read(arguments)?;
    let id = arguments::run(&arguments.dispatch_id)?;
    let view = grant.api.get_dispatch(id, None, None).await.map_err(advise_id)?;
    Ok(of_run(Run::of(&view)))
}

async fn list_runs(grant: &Grant, arguments: Option<JsonObject>) -> Result<Answer<Runs>, Fault> {
    let arguments: arguments::ListRuns = arguments::read(arguments)?;
    let limit = arguments.limit.map(u64::from);
    let bounds = 1..=u64::from(LIST_COUNT_MAX);
    let limit = bounded("limit", limit, u64::from(LIST_COUNT_DEFAULT), bounds)?;
    let query = ListQuery {
        status: arguments.status,
        agent: arguments.agent,
        repo: arguments.repo,
        user: None,
        tag: arguments.tag,
        since: arguments.since,
        until: arguments.until,
        limit: u32::try_from(limit).ok(),
        cursor: arguments.cursor,
    };
    let runs = Runs::of(grant.api.list_runs(query).await?);
    Ok(Answer { text: runs.text(), document: runs })
}

async fn get_logs(grant: &Grant, arguments: Option<JsonObject>) -> Result<Answer<Logs>, Fault> {
    let arguments: arguments::GetLogs = arguments::read(arguments)?;
    let id = arguments::run(&arguments.dispatch_id)?;
    let bounds = TEXT_BYTES_MIN..=LOGS_BYTES_MAX;
    let bytes_max = bounded("maxBytes", arguments.max_bytes, LOGS_BYTES_DEFAULT, bounds)?;
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let from = bounded("fromByte", arguments.from_byte, 0, 0..=OUTPUT_LOG_BYTES_MAX)?;
    // Before the output, so that what a finished run printed is not taken for unfinished.
    let view = grant.api.get_dispatch(id, None, None).await.map_err(advise_id)?;
    let piece = match arguments.from_byte {
        Some(_) => {
            let query = LogQuery { after: from, follow: false };
            let stream = grant.api.logs(id, query).await.map_err(advise_from)?;
            read::head(stream, from, bytes_max).await?
        }
        None => tail::of_log(grant.api.as_ref(), id, bytes_max).await.map_err(advise_id)?,
    };
    let logs = Logs {
        dispatch_id: id.to_string(),
        status: view.status.to_string(),
        text: piece.text(),
        from_byte: piece.from,
        next_byte: piece.end(),
        more: piece.more,
    };
    let mut text = match piece.bytes.is_empty() {
        true => format!("No output from byte {} on.", piece.from),
        false => format!("Output, bytes {} to {}:\n{}", piece.from, piece.end(), logs.text),
    };
    if arguments.from_byte.is_none() && piece.from > 0 {
        text.push_str(&format!("\n(What is before: get_logs with fromByte below {}.)", piece.from));
    }
    if logs.more || !view.status.is_terminal() {
        text.push_str(&format!("\n(What follows: get_logs with fromByte {}.)", logs.next_byte));
    }
    Ok(Answer { document: logs, text })
}

async fn get_diff(grant: &Grant, arguments: Option<JsonObject>) -> Result<Answer<Diff>, Fault> {
    let arguments: arguments::GetDiff = arguments::read(arguments)?;
    let id = arguments::run(&arguments.dispatch_id)?;
    let bounds = TEXT_BYTES_MIN..=DIFF_BYTES_MAX;
    let bytes_max = bounded("maxBytes", arguments.max_bytes, DIFF_BYTES_DEFAULT, bounds)?;
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let stream = grant.api.diff(id).await.map_err(advise_id)?;
    let whole = read::head(stream, 0, DIFF_READ_BYTES_MAX).await?;
    if whole.bytes.is_empty() {
        let view = grant.api.get_dispatch(id, None, None).await.map_err(advise_id)?;
        let text = match view.status.is_terminal() {
            true => "The run changed nothing.",
            false => "There is no diff yet: the run has not ended. Call wait_run first.",
        };
        return Ok(Answer { document: no_diff(id.to_string()), text: text.to_owned() });
    }
    let files = patch::files(&whole.bytes);
    let selected = match &arguments.file {
        None => whole.bytes.as_slice(),
        Some(file) => &whole.bytes[find(&files, file)?.bytes.clone()],
    };
    let from = usize::try_from(arguments.from_byte.unwrap_or(0)).unwrap_or(usize::MAX);
    let rest = selected.get(from..).ok_or_else(|| {
        let message = format!("`fromByte` is beyond the end, which is at {}.", selected.len());
        Fault::Api(ApiError::field("fromByte", message))
    })?;
    let part = &rest[..part_length(rest, bytes_max)];
    let end = from + part.len();
    let diff = Diff {
        dispatch_id: id.to_string(),
        files: files.iter().take(FILES_COUNT_MAX).map(changed).collect(),
        files_omitted: files.len().saturating_sub(FILES_COUNT_MAX) as u64,
        text: sanitize::with_tabs(&String::from_utf8_lossy(part)),
        from_byte: from as u64,
        next_byte: end as u64,
        more: end < selected.len() || (whole.more && arguments.file.is_none()),
    };
    let text = diff_text(&diff, selected.len(), arguments.file.as_deref());
    Ok(Answer { document: diff, text })
}

fn no_diff(dispatch_id: String) -> Diff {
    let text = String::new();
    let files = Vec::new();
    Diff { dispatch_id, files, files_omitted: 0, text, from_byte: 0, next_byte: 0, more: false }
}

/// Length of a part that ends with a line, or else with a character.
fn part_length(rest: &[u8], bytes_max: usize) -> usize {
    if rest.len() <= bytes_max {
        return rest.len();
    }
    let part = &rest[..bytes_max];
    let line = part.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    line.unwrap_or_else(|| read::whole_characters(part))
}

fn find<'a>(files: &'a [FilePart], wanted: &str) -> Result<&'a FilePart, Fault> {
    files.iter().find(|file| file.path == wanted).ok_or_else(|| {
        let message = format!("The run did not change a file {}.", sanitize::line(wanted));
        let names = files.iter().take(FILES_COUNT_MAX).map(|file| file.path.as_str());
        let names = sanitize::line(&names.collect::<Vec<_>>().join(", "));
        Fault::Api(ApiError::field("file", message).with_hint(format!("It changed: {names}")))
    })
}

fn changed(file: &FilePart) -> ChangedFile {
    ChangedFile { path: sanitize::line(&file.path), added: file.added, removed: file.removed }
}

fn diff_text(diff: &Diff, length: usize, file: Option<&str>) -> String {
    let files = diff.files.len() as u64 + diff.files_omitted;
    let mut lines = vec![format!("{files} changed files:")];
    lines.extend(
        diff.files.iter().map(|file| format!("  {} +{} -{}", file.path, file.added, file.removed)),
    );
    if diff.files_omitted > 0 {
        lines.push(format!("  and {} more", diff.files_omitted));
    }
    let of = file.map_or_else(|| "the diff".to_owned(), |file| format!("the changes of {file}"));
    lines.push(format!("Bytes {} to {} of {length} of {of}:", diff.from_byte, diff.next_byte));
    lines.push(diff.text.clone());
    if diff.more {
        lines.push(format!("(What follows: get_diff with fromByte {}.)", diff.next_byte));
    }
    lines.join("\n")
}

async fn cancel_run(grant: &Grant, arguments: Option<JsonObject>) -> Result<Answer<Run>, Fault> {
    let arguments: arguments::CancelRun = arguments::read(arguments)?;
    let id = arguments::run(&arguments.dispatch_id)?;
    let request = CancelRequest { reason: arguments.reason };
    grant.check_cancel(&request)?;
    let view = grant.api.cancel_dispatch(id, request).await.map_err(advise_id)?;
    let mut run = Run::of(&view);
    if !run.finished {
        run.next = "It is being ended; wait_run tells when it has.".to_owned();
    }
    Ok(of_run(run))
}

async fn promote(
    grant: &Grant,
    arguments: Option<JsonObject>,
    context: &RequestContext<RoleServer>,
) -> Result<Answer<Promotion>, Fault> {
    let arguments: arguments::Promote = arguments::read(arguments)?;
    let request = PromoteRequest {
        branch: arguments.branch,
        title: arguments.title,
        body: arguments.body,
        draft: arguments.draft,
        allow_protected: arguments.allow_protected,
        allow_secrets: arguments.allow_secrets,
        ..PromoteRequest::of(arguments::run(&arguments.dispatch_id)?)
    };
    grant.check_promote(&request)?;
    let promoted = grant.api.promote(request, None).await.map_err(advise_id)?;
    let view = wait::for_promotion(grant, promoted.promotion, PROMOTE_SECONDS, context).await?;
    let promotion = Promotion::of(view);
    Ok(Answer { text: promotion.text(), document: promotion })
}

async fn fleet_status(
    grant: &Grant,
    arguments: Option<JsonObject>,
) -> Result<Answer<Fleet>, Fault> {
    arguments::read::<arguments::Nothing>(arguments)?;
    let fleet = Fleet::of(grant.api.fleet().await?);
    Ok(Answer { text: fleet.text(), document: fleet })
}
