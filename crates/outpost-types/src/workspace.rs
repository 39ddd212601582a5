//! Persistent workspaces as clients see them.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A workspace that outlives its runs: one per user and repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceView {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// Whose it is: the `userId` of its dispatches, or `default` where they named none.
    pub user_id: String,
    /// Its repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The branch it began with, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit its work is on.
    pub base_commit: String,
    /// What its runs left, bytes, as of the last one that ended.
    pub size_bytes: u64,
    /// It is larger than the operator allows: no run starts in it any more.
    pub too_large: bool,
    /// A run is in it now.
    pub in_use: bool,
    /// Runs it has had.
    pub runs: u64,
    /// When its first run began.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used.
    #[schema(value_type = String, format = DateTime)]
    pub used_at: Timestamp,
}

/// Whether a text can be the id of a persistent workspace: 32 hexadecimal digits, lower case.
#[must_use]
pub fn is_workspace_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
