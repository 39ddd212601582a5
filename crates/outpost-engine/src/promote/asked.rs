//! Who may ask for feedback on a pull request, and for what; also when the pull request is there already.

use outpost_core::{Dispatch, FeedbackPlan, Promotion, PromotionEvent, PromotionState};
use outpost_promote::{ForgeKind, Promoter, Target};
use outpost_store::StoreError;
use outpost_types::limits::FOLLOW_ROUNDS_MAX;
use outpost_types::{ApiError, Caller, ErrorCode, Feedback, PromoteRequest, Scope};

use super::refusal;
use crate::EngineApi;
use crate::api::store_error;

/// Refuses what cannot be followed.
pub(super) fn check(
    caller: &Caller,
    record: &Dispatch,
    target: &Target,
    feedback: &Feedback,
) -> Result<(), ApiError> {
    if feedback.rounds > FOLLOW_ROUNDS_MAX {
        let message = format!("`feedback.rounds` must be 0 to {FOLLOW_ROUNDS_MAX}.");
        return Err(ApiError::field("feedback.rounds", message));
    }
    if feedback.ci_failures == Some(false) && feedback.review_comments == Some(false) {
        let message = "It asks for neither failed checks nor comments: leave `feedback` out.";
        return Err(ApiError::field("feedback", message));
    }
    // Each round is a dispatch.
    if !caller.may(Scope::Dispatch) {
        let message = "Feedback becomes dispatches: the key needs the scope `dispatch` too.";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    if record.spec.workspace.is_some() {
        let message =
            "A persistent workspace goes on by itself: feedback cannot be dispatched there.";
        return Err(ApiError::field("feedback", message));
    }
    if target.forge.kind != ForgeKind::Github {
        let message =
            format!("Feedback of {} is not read, only that of GitHub.", target.forge.host);
        return Err(ApiError::new(ErrorCode::NotSupported, message));
    }
    Ok(())
}

impl EngineApi {
    /// Begins or ends to follow the pull request there is, if that is asked for; the promotion as it is then, `None`
    /// when somebody else changed it meanwhile.
    pub(super) async fn watch(
        &self,
        promoter: &Promoter,
        record: &Dispatch,
        found: &Promotion,
        request: &PromoteRequest,
    ) -> Result<Option<Promotion>, ApiError> {
        let Some(feedback) = &request.feedback else { return Ok(Some(found.clone())) };
        let target = promoter.target(&found.plan.repo).map_err(refusal)?;
        check(self.caller(), record, &target, feedback)?;
        let plan = FeedbackPlan::of(feedback);
        let is_done = matches!(found.state, PromotionState::Done);
        if !is_done || plan.is_some() == found.is_followed() {
            return Ok(Some(found.clone()));
        }
        let by = self.caller().key;
        let event = PromotionEvent::Watch { plan, by };
        match self.engine().change(found, event, None, Some(by)).await {
            Ok(changed) => {
                if changed.is_followed() {
                    self.engine().start_promotion(&changed);
                }
                Ok(Some(changed))
            }
            Err(StoreError::Stale { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }
}
