//! Waiting for a run or a promotion, while telling the client how far it is.

use std::time::{Duration, Instant};

use outpost_terminal::sanitize;
use outpost_types::{ApiError, DispatchId, DispatchView, PromotionView};
use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;

use crate::fault::Fault;
use crate::grant::Grant;
use crate::read::shortened;

/// Longest silence while waiting, seconds. Clients give a call up after 60 without a word.
const WORD_SECONDS: u64 = 10;
/// Longest part of an agent's output in a progress notification, bytes.
const WORD_BYTES_MAX: usize = 200;

/// Tells the client of a call how far it is, if it asked for that.
struct Progress<'a> {
    context: &'a RequestContext<RoleServer>,
    started: Instant,
    told: u32,
}

impl<'a> Progress<'a> {
    fn new(context: &'a RequestContext<RoleServer>) -> Self {
        Self { context, started: Instant::now(), told: 0 }
    }

    async fn tell(&mut self, what: String) {
        let Some(token) = self.context.meta.get_progress_token() else { return };
        // Nobody knows how long an agent takes, so this counts words, and the message says the rest.
        self.told += 1;
        let message = format!("{what} ({} s)", self.started.elapsed().as_secs());
        let word =
            ProgressNotificationParam::new(token, f64::from(self.told)).with_message(message);
        if self.context.peer.notify_progress(word).await.is_err() {
            tracing::debug!("a client that asked for progress is gone");
        }
    }
}

/// The run once it has ended, or as it is when the time is over.
pub(crate) async fn for_run(
    grant: &Grant,
    id: DispatchId,
    seconds: u64,
    context: &RequestContext<RoleServer>,
) -> Result<DispatchView, Fault> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut progress = Progress::new(context);
    let mut view = grant.api.get_dispatch(id, None, None).await?;
    while !view.status.is_terminal() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        progress.tell(word(&view)).await;
        let slice = left.min(Duration::from_secs(WORD_SECONDS));
        let next = grant.api.get_dispatch(id, Some(slice), Some(view.generation));
        view = unless_cancelled(context, next).await?;
    }
    Ok(view)
}

/// The promotion once it is over, or as it is when the time is over.
pub(crate) async fn for_promotion(
    grant: &Grant,
    mut view: PromotionView,
    seconds: u64,
    context: &RequestContext<RoleServer>,
) -> Result<PromotionView, Fault> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut progress = Progress::new(context);
    while !view.status.is_over() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        progress.tell(view.status.as_str().to_owned()).await;
        let slice = left.min(Duration::from_secs(WORD_SECONDS));
        let next = grant.api.promotion(view.dispatch_id, Some(slice));
        view = unless_cancelled(context, next).await?;
    }
    Ok(view)
}

async fn unless_cancelled<T>(
    context: &RequestContext<RoleServer>,
    next: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, Fault> {
    tokio::select! {
        () = context.ct.cancelled() => Err(Fault::Cancelled),
        next = next => Ok(next?),
    }
}

/// Where a run stands, and the last line its agent printed.
fn word(view: &DispatchView) -> String {
    let output = view.output.as_deref().unwrap_or_default();
    match output.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => {
            format!("{}: {}", view.status, shortened(&sanitize::line(line), WORD_BYTES_MAX))
        }
        None => view.status.to_string(),
    }
}
