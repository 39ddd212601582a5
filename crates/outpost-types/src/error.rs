//! Errors as clients see them: a stable code, a message, a hint. Internals never leave.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Stable name of an error; one page each in `docs/errors/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is no JSON (or no form).
    MalformedBody,
    /// A field is unknown, missing or out of bounds; `field` names it.
    InvalidField,
    /// No key, or one that does not work.
    Unauthorized,
    /// The key lacks the scope.
    Forbidden,
    /// The tenant of the key was suspended by the operator.
    TenantSuspended,
    /// No such object, or one of another tenant.
    NotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// It already reached a terminal state.
    AlreadyFinished,
    /// The `Idempotency-Key` was used with another body.
    IdempotencyConflict,
    /// There is one of this name.
    AlreadyExists,
    /// A run is in the workspace.
    WorkspaceInUse,
    /// The dispatch has not ended yet.
    NotFinished,
    /// There are no changes that could be pushed.
    NothingToPromote,
    /// The dispatch was promoted to another branch.
    AlreadyPromoted,
    /// There is no token for the code host, or it does not take it.
    ForgeCredentials,
    /// The token may not do at the code host what is needed.
    ForgeForbidden,
    /// The code host does not answer, or takes no more requests for now.
    ForgeUnavailable,
    /// The changes touch files that run in CI or instruct agents.
    ProtectedPaths,
    /// The changes add what looks like a secret.
    SecretsFound,
    /// The branch is there with other commits.
    BranchExists,
    /// The changes conflict with the target branch.
    MergeConflict,
    /// The code host has no such repository, target branch or base commit.
    TargetMissing,
    /// It had its time and is not kept any more.
    Expired,
    /// The body is over its bound.
    PayloadTooLarge,
    /// The body is of a type that is not read here.
    UnsupportedMediaType,
    /// The agent cannot run here.
    AgentUnavailable,
    /// The operator does not allow this repository.
    RepoNotAllowed,
    /// Not built yet in this version.
    NotSupported,
    /// Too many requests.
    RateLimited,
    /// The budget is spent.
    BudgetExceeded,
    /// Secrets cannot be read or written: their key is missing or is another one.
    SecretsUnavailable,
    /// The server cannot take it now; try again.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 33] = [
        Self::MalformedBody,
        Self::InvalidField,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TenantSuspended,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::AlreadyFinished,
        Self::IdempotencyConflict,
        Self::AlreadyExists,
        Self::WorkspaceInUse,
        Self::NotFinished,
        Self::NothingToPromote,
        Self::AlreadyPromoted,
        Self::ForgeCredentials,
        Self::ForgeForbidden,
        Self::ForgeUnavailable,
        Self::ProtectedPaths,
        Self::SecretsFound,
        Self::BranchExists,
        Self::MergeConflict,
        Self::TargetMissing,
        Self::Expired,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::AgentUnavailable,
        Self::RepoNotAllowed,
        Self::NotSupported,
        Self::RateLimited,
        Self::BudgetExceeded,
        Self::SecretsUnavailable,
        Self::Unavailable,
        Self::Internal,
    ];

    /// HTTP status of the code.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::MalformedBody | Self::InvalidField => 400,
            Self::Unauthorized => 401,
            Self::BudgetExceeded => 402,
            Self::Forbidden | Self::TenantSuspended => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyFinished | Self::IdempotencyConflict | Self::WorkspaceInUse => 409,
            Self::AlreadyExists
            | Self::NotFinished
            | Self::NothingToPromote
            | Self::AlreadyPromoted
            | Self::BranchExists
            | Self::MergeConflict
            | Self::TargetMissing => 409,
            Self::ForgeCredentials
            | Self::ForgeForbidden
            | Self::ProtectedPaths
            | Self::SecretsFound => 422,
            Self::ForgeUnavailable => 503,
            Self::Expired => 410,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::AgentUnavailable | Self::RepoNotAllowed | Self::NotSupported => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::SecretsUnavailable | Self::Unavailable => 503,
        }
    }

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedBody => "malformed_body",
            Self::InvalidField => "invalid_field",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TenantSuspended => "tenant_suspended",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::AlreadyFinished => "already_finished",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::AlreadyExists => "already_exists",
            Self::WorkspaceInUse => "workspace_in_use",
            Self::NotFinished => "not_finished",
            Self::NothingToPromote => "nothing_to_promote",
            Self::AlreadyPromoted => "already_promoted",
            Self::ForgeCredentials => "forge_credentials",
            Self::ForgeForbidden => "forge_forbidden",
            Self::ForgeUnavailable => "forge_unavailable",
            Self::ProtectedPaths => "protected_paths",
            Self::SecretsFound => "secrets_found",
            Self::BranchExists => "branch_exists",
            Self::MergeConflict => "merge_conflict",
            Self::TargetMissing => "target_missing",
            Self::Expired => "expired",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::AgentUnavailable => "agent_unavailable",
            Self::RepoNotAllowed => "repo_not_allowed",
            Self::NotSupported => "not_supported",
            Self::RateLimited => "rate_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::SecretsUnavailable => "secrets_unavailable",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// What went wrong, for a client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ApiError {
    /// What to branch on.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
    /// The field at fault.
    pub field: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// When to try again, seconds.
    pub retry_after_seconds: Option<u64>,
    /// Id of the request at the server, once known.
    pub request_id: Option<String>,
}

impl ApiError {
    /// An error of this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            hint: None,
            retry_after_seconds: None,
            request_id: None,
        }
    }

    /// A field is unknown, missing or out of bounds.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(ErrorCode::InvalidField, message) }
    }

    /// The one answer for unknown and foreign ids.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "There is no such object.")
    }

    /// The same error, saying what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error, saying when to try again.
    #[must_use]
    pub const fn with_retry_after_seconds(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

/// RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Address of the page about this code.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the HTTP status.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened.
    pub detail: String,
    /// What to branch on.
    pub code: ErrorCode,
    /// Id of the request, for the operator.
    pub request_id: String,
    /// The field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn text_of_a_code_is_its_wire_name() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
