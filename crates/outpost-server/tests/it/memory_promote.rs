//! Promotions of the backend in memory: begun, and over when somebody waits.

use std::time::Duration;

use async_trait::async_trait;
use outpost_types::{
    ApiError, DispatchId, PromoteApi, PromoteRequest, Promoted, PromotionStatus, PromotionView,
    Timestamp,
};

use crate::memory::Session;

/// A dispatch of the tenant `local` that can always be promoted.
pub(crate) const PROMOTED: &str = "01J9Z3NDEKTSV4RRFFQ69G5FAA";

fn view(dispatch_id: DispatchId, request: &PromoteRequest) -> PromotionView {
    PromotionView {
        dispatch_id,
        status: PromotionStatus::Requested,
        generation: 1,
        repo: "https://github.com/o/r".into(),
        branch: request.branch.clone().unwrap_or_else(|| "outpost/fix-1".into()),
        target_branch: None,
        commit: None,
        behind_by: None,
        protected_paths: Vec::new(),
        title: "Fix".into(),
        draft: true,
        pull_request: None,
        notes: Vec::new(),
        failure: None,
        follow_up: None,
        created_at: Timestamp::from_millis(1),
        updated_at: Timestamp::from_millis(2),
    }
}

#[async_trait]
impl PromoteApi for Session {
    async fn promote(
        &self,
        request: PromoteRequest,
        _wait: Option<Duration>,
    ) -> Result<Promoted, ApiError> {
        let promotable = request.dispatch_id.to_string() == PROMOTED && self.is("local");
        if !promotable {
            self.exists(request.dispatch_id)?;
        }
        let replayed = request.title.as_deref() == Some("again");
        Ok(Promoted { promotion: view(request.dispatch_id, &request), replayed })
    }

    async fn promotion(
        &self,
        dispatch: DispatchId,
        wait: Option<Duration>,
    ) -> Result<PromotionView, ApiError> {
        if dispatch.to_string() != PROMOTED {
            self.exists(dispatch)?;
        }
        let mut view = view(dispatch, &PromoteRequest::of(dispatch));
        if wait.is_some() {
            view.status = PromotionStatus::Done;
        }
        Ok(view)
    }
}
