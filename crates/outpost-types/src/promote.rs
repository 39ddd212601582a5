//! Promoting a dispatch: its changes become a branch and a pull request at the code host.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{ApiError, DispatchId, ErrorCode, Feedback, FollowUpView, Timestamp};

/// Body of `POST /promote`. Unknown fields are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromoteRequest {
    /// The dispatch; it must have ended.
    #[schema(value_type = String, min_length = 26, max_length = 26, example = "01K3B5Q7XJ6S8T9V0W1X2Y3Z4A")]
    pub dispatch_id: DispatchId,
    /// Branch to push; `outpost/<words of the task>-<end of the id>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 240)]
    pub branch: Option<String>,
    /// Title of the pull request, one line; the beginning of the task when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub title: Option<String>,
    /// Text that the pull request's body begins with; what is known of the run follows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16384)]
    pub body: Option<String>,
    /// Whether the pull request is a draft; `true` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<bool>,
    /// Whether the changes may touch what runs in CI or instructs agents; `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_protected: Option<bool>,
    /// Whether they may be pushed although what they add looks like a secret; `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_secrets: Option<bool>,
    /// Feedback on the pull request that goes back to the agent; none when absent. Needs the scope `dispatch`
    /// too. Also for a pull request that is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<Feedback>,
}

impl PromoteRequest {
    /// A request with nothing chosen.
    #[must_use]
    pub const fn of(dispatch_id: DispatchId) -> Self {
        Self {
            dispatch_id,
            branch: None,
            title: None,
            body: None,
            draft: None,
            allow_protected: None,
            allow_secrets: None,
            feedback: None,
        }
    }
}

/// How far a promotion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PromotionStatus {
    /// It is on record; the repository is being fetched and the changes are checked.
    Requested,
    /// Everything was checked; nothing was sent to the code host.
    Prepared,
    /// The branch is being pushed.
    Pushing,
    /// The branch is there.
    Pushed,
    /// The pull request is being opened.
    Opening,
    /// Over: branch and, where the code host has them, pull request are there.
    Done,
    /// Over: `failure` says why. It may be asked for again.
    Failed,
}

impl PromotionStatus {
    /// All of them, in the order in which they are reached.
    pub const ALL: [Self; 7] = [
        Self::Requested,
        Self::Prepared,
        Self::Pushing,
        Self::Pushed,
        Self::Opening,
        Self::Done,
        Self::Failed,
    ];

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::Prepared => "PREPARED",
            Self::Pushing => "PUSHING",
            Self::Pushed => "PUSHED",
            Self::Opening => "OPENING",
            Self::Done => "DONE",
            Self::Failed => "FAILED",
        }
    }

    /// Whether it changes only when it is asked for again.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// A pull request, or what the code host calls so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullRequestView {
    /// Its number in the repository.
    pub number: u64,
    /// Its address, for a browser.
    pub url: String,
}

/// Why a promotion failed. `code` has a page in `docs/errors/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionFailure {
    /// What to branch on.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl PromotionFailure {
    /// A failure without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same failure, saying what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<PromotionFailure> for ApiError {
    fn from(failure: PromotionFailure) -> Self {
        Self { hint: failure.hint, ..Self::new(failure.code, failure.message) }
    }
}

/// The promotion of a dispatch as a client sees it. A dispatch has at most one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionView {
    /// Its dispatch, which is its id too.
    #[schema(value_type = String)]
    pub dispatch_id: DispatchId,
    /// How far it is.
    pub status: PromotionStatus,
    /// Grows with every change of it.
    pub generation: u64,
    /// Address of the repository at the code host.
    pub repo: String,
    /// The branch that is pushed.
    pub branch: String,
    /// The branch it is to be merged into, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_branch: Option<String>,
    /// Full id of the commit that is pushed, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Commits of the target branch that the changes do not build on, once known. They merge without a
    /// conflict all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_by: Option<u64>,
    /// Changed files that run in CI or instruct agents, at most 100; look at them closely.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths: Vec<String>,
    /// Title of the pull request.
    pub title: String,
    /// Whether it is to be a draft.
    pub draft: bool,
    /// The pull request, once it is there. A code host without them has only the branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestView>,
    /// What is worth knowing about how it was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<PromotionFailure>,
    /// How the pull request is followed, if it is or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUpView>,
    /// When it was first asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Answer to [`PromoteApi::promote`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// The promotion as it is now.
    pub promotion: PromotionView,
    /// It was there before: nothing new was begun.
    pub replayed: bool,
}

/// Making branches and pull requests of dispatches.
#[async_trait]
pub trait PromoteApi: Send + Sync {
    /// Begins to promote, or answers the promotion that was begun before. When this returns, it is on
    /// disk and goes on by itself, also after a restart. With `wait`, answers once it is over or the time
    /// is. One that failed is tried again with what this request says.
    async fn promote(
        &self,
        request: PromoteRequest,
        wait: Option<Duration>,
    ) -> Result<Promoted, ApiError>;

    /// The promotion of a dispatch. With `wait`, answers once it is over or the time is.
    async fn promotion(
        &self,
        dispatch: DispatchId,
        wait: Option<Duration>,
    ) -> Result<PromotionView, ApiError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_status_is_its_wire_name() {
        for status in PromotionStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        let over = PromotionStatus::ALL.into_iter().filter(|status| status.is_over());
        assert_eq!(over.collect::<Vec<_>>(), [PromotionStatus::Done, PromotionStatus::Failed]);
    }

    #[test]
    fn a_request_names_what_it_does_not_know() {
        let id = DispatchId::from_parts(1, 1);
        let text = format!("{{\"dispatchId\":\"{id}\",\"force\":true}}");
        let error = serde_json::from_str::<PromoteRequest>(&text).unwrap_err();
        assert!(error.to_string().contains("force"), "{error}");
        let whole = serde_json::to_string(&PromoteRequest::of(id)).unwrap();
        assert_eq!(whole, format!("{{\"dispatchId\":\"{id}\"}}"));
    }
}
