//! Feedback on a pull request that goes back to the agent.

use serde::{Deserialize, Serialize};

use crate::{DispatchId, Timestamp};

/// Which feedback on the pull request goes back to the agent, as new dispatches that go on from the last one.
/// Unknown fields are refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Feedback {
    /// Most dispatches; 0 ends what goes on.
    #[schema(minimum = 0, maximum = 5)]
    pub rounds: u32,
    /// Whether checks that fail count; `true` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci_failures: Option<bool>,
    /// Whether comments count of those who may write to the repository; `true` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_comments: Option<bool>,
}

/// How far following a pull request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum FollowUpStatus {
    /// The code host is asked for feedback from time to time.
    Watching,
    /// A dispatch deals with feedback.
    Working,
    /// Its commits are being pushed.
    Pushing,
    /// Over: `ended` says why.
    Ended,
}

/// Why a pull request is not followed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum FollowUpEnd {
    /// It was merged.
    Merged,
    /// It was closed.
    Closed,
    /// All rounds were used.
    RoundsUsed,
    /// It was open for too long.
    Expired,
    /// Somebody asked for the end.
    Stopped,
    /// Somebody else pushed to its branch.
    Moved,
    /// The newest changes touch protected files or add what looks like a secret: promote that dispatch yourself.
    NeedsConsent,
    /// It cannot go on: `message` says why.
    Failed,
}

/// How a pull request is followed, as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FollowUpView {
    /// How far it is.
    pub status: FollowUpStatus,
    /// Most rounds.
    pub rounds: u32,
    /// Rounds that were begun.
    pub rounds_used: u32,
    /// The commit that the branch holds.
    pub commit: String,
    /// The dispatch of the newest round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub dispatch_id: Option<DispatchId>,
    /// When it ends by itself.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Why it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<FollowUpEnd>,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
