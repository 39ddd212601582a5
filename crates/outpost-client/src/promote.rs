//! Promoting over HTTP: begun by one request, waited for by several where that takes long.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use outpost_types::limits::WAIT_SECONDS_MAX;
use outpost_types::{ApiError, DispatchId, PromoteApi, PromoteRequest, Promoted, PromotionView};
use reqwest::Method;

use crate::HttpApi;
use crate::http::UNARY_SECONDS_MAX;

const UNARY: Duration = Duration::from_secs(UNARY_SECONDS_MAX);
const WAIT_MAX: Duration = Duration::from_secs(WAIT_SECONDS_MAX);

#[async_trait]
impl PromoteApi for HttpApi {
    async fn promote(
        &self,
        request: PromoteRequest,
        wait: Option<Duration>,
    ) -> Result<Promoted, ApiError> {
        let begun = Instant::now();
        let wait = wait.unwrap_or_default();
        let (asked, limit) = one_wait(wait);
        let post = self.request(Method::POST, ["promote"]).query(&asked).json(&request);
        let (promotion, headers) = self.unary::<PromotionView>(post, limit).await?;
        let replayed =
            headers.get("idempotency-replayed").is_some_and(|value| value.as_bytes() == b"true");
        let left = wait.saturating_sub(begun.elapsed());
        if promotion.status.is_over() || left.is_zero() {
            return Ok(Promoted { promotion, replayed });
        }
        let promotion = self.promotion(request.dispatch_id, Some(left)).await?;
        Ok(Promoted { promotion, replayed })
    }

    async fn promotion(
        &self,
        dispatch: DispatchId,
        wait: Option<Duration>,
    ) -> Result<PromotionView, ApiError> {
        let begun = Instant::now();
        let (wait, id) = (wait.unwrap_or_default(), dispatch.to_string());
        loop {
            let left = wait.saturating_sub(begun.elapsed());
            let (asked, limit) = one_wait(left);
            let get = self.request(Method::GET, ["promote", &id]).query(&asked);
            let (view, _) = self.unary::<PromotionView>(get, limit).await?;
            if view.status.is_over() || left.is_zero() {
                return Ok(view);
            }
        }
    }
}

/// What one request may wait, as its query, and how long its answer may take.
fn one_wait(wait: Duration) -> (Vec<(&'static str, u64)>, Duration) {
    let wait = wait.min(WAIT_MAX);
    // Whole seconds on the wire; a part of one still waits.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let asked = if seconds > 0 { vec![("wait", seconds)] } else { Vec::new() };
    (asked, UNARY + Duration::from_secs(seconds))
}
