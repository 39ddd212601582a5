//! Promotions of the fake `Api`.

use std::time::Duration;

use async_trait::async_trait;
use outpost_types::{
    ApiError, DispatchId, ErrorCode, PromoteApi, PromoteRequest, Promoted, PromotionFailure,
    PromotionStatus, PromotionView, PullRequestView, Timestamp,
};

use crate::{Call, FakeApi};

/// A promotion that is over.
pub(crate) fn promotion(dispatch_id: DispatchId) -> PromotionView {
    PromotionView {
        dispatch_id,
        status: PromotionStatus::Done,
        generation: 7,
        repo: "https://github.com/acme/calc".into(),
        branch: "outpost/fix-the-test-1a2b3c4d".into(),
        target_branch: Some("main".into()),
        commit: Some("c".repeat(40)),
        behind_by: Some(2),
        protected_paths: Vec::new(),
        title: "Fix the test".into(),
        draft: true,
        pull_request: Some(PullRequestView {
            number: 7,
            url: "https://github.com/acme/calc/pull/7".into(),
        }),
        notes: Vec::new(),
        failure: None,
        follow_up: None,
        created_at: Timestamp::from_millis(1),
        updated_at: Timestamp::from_millis(2),
    }
}

#[async_trait]
impl PromoteApi for FakeApi {
    async fn promote(
        &self,
        request: PromoteRequest,
        _wait: Option<Duration>,
    ) -> Result<Promoted, ApiError> {
        let id = request.dispatch_id;
        self.calls.lock().unwrap().push(Call::Promote(request.clone()));
        let mut promotion = promotion(id);
        if request.branch.as_deref() == Some("taken") {
            promotion.status = PromotionStatus::Failed;
            promotion.pull_request = None;
            let failure = PromotionFailure::new(ErrorCode::BranchExists, "It has other commits.")
                .with_hint("Choose another name.");
            promotion.failure = Some(failure);
        }
        Ok(Promoted { promotion, replayed: false })
    }

    async fn promotion(
        &self,
        dispatch: DispatchId,
        _wait: Option<Duration>,
    ) -> Result<PromotionView, ApiError> {
        Ok(promotion(dispatch))
    }
}
