//! The one list of operations. The router, the guard and the OpenAPI document are all built from it,
//! so none of them can know a route the others do not.

use http::Method;
use outpost_types::{ErrorCode, Scope};

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone.
    Open,
    /// Holders of a key with this scope.
    Key(Scope),
    /// The same, or whoever has a signed address.
    KeyOrSignature(Scope),
}

/// One operation of the HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    CreateDispatch,
    GetDispatch,
    CancelDispatch,
    ChangeNetwork,
    Events,
    Logs,
    Diff,
    Context,
    Runs,
    Artifacts,
    Artifact,
    PutSecret,
    Secrets,
    DeleteSecret,
    RekeySecrets,
    Usage,
    Workspaces,
    Workspace,
    DeleteWorkspace,
    Promote,
    Promotion,
    Mcp,
    McpResource,
    CreateWebhook,
    Webhooks,
    DeleteWebhook,
    TestWebhook,
    Deliveries,
    ReplayDelivery,
    CreateKey,
    Keys,
    Key,
    RotateKey,
    RevokeKey,
    CreateTenant,
    Tenants,
    Tenant,
    UpdateTenant,
    Audit,
    VerifyAudit,
    ExportAudit,
    Fleet,
    DrainFleet,
    ResumeFleet,
    HealthFleet,
    Health,
    Live,
    Ready,
    OpenApi,
    Docs,
}

/// Codes of promoting.
const PROMOTE_ERRORS: &[ErrorCode] = &[
    ErrorCode::MalformedBody,
    ErrorCode::InvalidField,
    ErrorCode::NotFound,
    ErrorCode::NotFinished,
    ErrorCode::NothingToPromote,
    ErrorCode::AlreadyPromoted,
    ErrorCode::TargetMissing,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UnsupportedMediaType,
    ErrorCode::ForgeCredentials,
    ErrorCode::NotSupported,
    ErrorCode::SecretsUnavailable,
];

/// Codes that are about the body alone.
const OF_A_BODY: [ErrorCode; 4] = [
    ErrorCode::MalformedBody,
    ErrorCode::InvalidField,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UnsupportedMediaType,
];

/// What making a key and changing a tenant may answer.
const CHANGE_ERRORS: &[ErrorCode] = &[
    ErrorCode::MalformedBody,
    ErrorCode::InvalidField,
    ErrorCode::NotFound,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UnsupportedMediaType,
];

/// What replacing a key may answer.
const ROTATE_ERRORS: &[ErrorCode] = &[
    ErrorCode::MalformedBody,
    ErrorCode::InvalidField,
    ErrorCode::NotFound,
    ErrorCode::AlreadyFinished,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UnsupportedMediaType,
];

/// What making a tenant may answer.
const CREATE_TENANT_ERRORS: &[ErrorCode] = &[
    ErrorCode::MalformedBody,
    ErrorCode::InvalidField,
    ErrorCode::AlreadyExists,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UnsupportedMediaType,
];

impl Op {
    /// All of them.
    pub(crate) const ALL: [Self; 50] = [
        Self::CreateDispatch,
        Self::GetDispatch,
        Self::CancelDispatch,
        Self::ChangeNetwork,
        Self::Events,
        Self::Logs,
        Self::Diff,
        Self::Context,
        Self::Runs,
        Self::Artifacts,
        Self::Artifact,
        Self::PutSecret,
        Self::Secrets,
        Self::DeleteSecret,
        Self::RekeySecrets,
        Self::Usage,
        Self::Workspaces,
        Self::Workspace,
        Self::DeleteWorkspace,
        Self::Promote,
        Self::Promotion,
        Self::Mcp,
        Self::McpResource,
        Self::CreateWebhook,
        Self::Webhooks,
        Self::DeleteWebhook,
        Self::TestWebhook,
        Self::Deliveries,
        Self::ReplayDelivery,
        Self::CreateKey,
        Self::Keys,
        Self::Key,
        Self::RotateKey,
        Self::RevokeKey,
        Self::CreateTenant,
        Self::Tenants,
        Self::Tenant,
        Self::UpdateTenant,
        Self::Audit,
        Self::VerifyAudit,
        Self::ExportAudit,
        Self::Fleet,
        Self::DrainFleet,
        Self::ResumeFleet,
        Self::HealthFleet,
        Self::Health,
        Self::Live,
        Self::Ready,
        Self::OpenApi,
        Self::Docs,
    ];

    /// Its path, in the router's notation.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::CreateDispatch => "/dispatch",
            Self::GetDispatch | Self::CancelDispatch | Self::ChangeNetwork => "/dispatch/{id}",
            Self::Events => "/dispatch/{id}/events",
            Self::Logs => "/dispatch/{id}/logs",
            Self::Diff => "/dispatch/{id}/diff",
            Self::Context => "/dispatch/{id}/context",
            Self::Runs => "/runs",
            Self::Artifacts => "/artifacts/{id}",
            Self::Artifact => "/artifacts/{id}/{*name}",
            Self::PutSecret | Self::DeleteSecret => "/secrets/{name}",
            Self::Secrets => "/secrets",
            Self::RekeySecrets => "/secrets/rekey",
            Self::Usage => "/usage",
            Self::Workspaces => "/workspaces",
            Self::Workspace | Self::DeleteWorkspace => "/workspaces/{id}",
            Self::Promote => "/promote",
            Self::Promotion => "/promote/{id}",
            Self::Mcp => "/mcp",
            Self::McpResource => "/.well-known/oauth-protected-resource/mcp",
            Self::CreateWebhook | Self::Webhooks => "/webhooks",
            Self::DeleteWebhook => "/webhooks/{id}",
            Self::TestWebhook => "/webhooks/{id}/test",
            Self::Deliveries => "/webhooks/{id}/deliveries",
            Self::ReplayDelivery => "/webhooks/{id}/deliveries/{delivery}/replay",
            Self::CreateKey | Self::Keys => "/keys",
            Self::Key | Self::RevokeKey => "/keys/{id}",
            Self::RotateKey => "/keys/{id}/rotate",
            Self::CreateTenant | Self::Tenants => "/tenants",
            Self::Tenant | Self::UpdateTenant => "/tenants/{id}",
            Self::Audit => "/audit",
            Self::VerifyAudit => "/audit/verify",
            Self::ExportAudit => "/audit/export",
            Self::Fleet => "/fleet",
            Self::DrainFleet => "/fleet/drain",
            Self::ResumeFleet => "/fleet/resume",
            Self::HealthFleet => "/health/fleet",
            Self::Health => "/health",
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
        }
    }

    /// Its method; GET answers HEAD too.
    pub(crate) const fn method(self) -> Method {
        match self {
            Self::CreateDispatch | Self::RekeySecrets | Self::Promote | Self::Mcp => Method::POST,
            Self::CreateWebhook | Self::TestWebhook | Self::ReplayDelivery => Method::POST,
            Self::DrainFleet | Self::ResumeFleet => Method::POST,
            Self::DeleteWebhook => Method::DELETE,
            Self::CreateKey | Self::RotateKey | Self::CreateTenant => Method::POST,
            Self::PutSecret => Method::PUT,
            Self::ChangeNetwork | Self::UpdateTenant => Method::PATCH,
            Self::RevokeKey => Method::DELETE,
            Self::CancelDispatch | Self::DeleteSecret | Self::DeleteWorkspace => Method::DELETE,
            _ => Method::GET,
        }
    }

    /// Who may call it.
    pub(crate) const fn access(self) -> Access {
        match self {
            Self::CreateDispatch | Self::ChangeNetwork => Access::Key(Scope::Dispatch),
            Self::CancelDispatch => Access::Key(Scope::Cancel),
            Self::Runs | Self::Workspaces => Access::Key(Scope::List),
            Self::DeleteWorkspace => Access::Key(Scope::Delete),
            Self::Promote => Access::Key(Scope::Promote),
            Self::GetDispatch
            | Self::Events
            | Self::Logs
            | Self::Diff
            | Self::Context
            | Self::Artifacts
            | Self::Workspace
            | Self::Promotion
            | Self::Mcp
            | Self::Fleet
            | Self::HealthFleet => Access::Key(Scope::Status),
            Self::PutSecret
            | Self::Secrets
            | Self::DeleteSecret
            | Self::RekeySecrets
            | Self::Usage
            | Self::CreateKey
            | Self::Keys
            | Self::Key
            | Self::RotateKey
            | Self::RevokeKey
            | Self::CreateTenant
            | Self::Tenants
            | Self::Tenant
            | Self::UpdateTenant
            | Self::Audit
            | Self::VerifyAudit
            | Self::ExportAudit
            | Self::CreateWebhook
            | Self::Webhooks
            | Self::DeleteWebhook
            | Self::TestWebhook
            | Self::Deliveries
            | Self::DrainFleet
            | Self::ResumeFleet
            | Self::ReplayDelivery => Access::Key(Scope::Admin),
            Self::Artifact => Access::KeyOrSignature(Scope::Status),
            Self::Health
            | Self::Live
            | Self::Ready
            | Self::OpenApi
            | Self::Docs
            | Self::McpResource => Access::Open,
        }
    }

    /// Codes it may answer beside those every guarded operation may.
    pub(crate) const fn errors(self) -> &'static [ErrorCode] {
        match self {
            Self::CreateDispatch => &[
                ErrorCode::MalformedBody,
                ErrorCode::InvalidField,
                ErrorCode::BudgetExceeded,
                ErrorCode::IdempotencyConflict,
                ErrorCode::PayloadTooLarge,
                ErrorCode::UnsupportedMediaType,
                ErrorCode::AgentUnavailable,
                ErrorCode::RepoNotAllowed,
                ErrorCode::NotSupported,
            ],
            Self::CancelDispatch | Self::ChangeNetwork => &[
                ErrorCode::MalformedBody,
                ErrorCode::InvalidField,
                ErrorCode::NotFound,
                ErrorCode::AlreadyFinished,
                ErrorCode::PayloadTooLarge,
                ErrorCode::UnsupportedMediaType,
            ],
            Self::PutSecret | Self::CreateWebhook => &[
                ErrorCode::MalformedBody,
                ErrorCode::InvalidField,
                ErrorCode::PayloadTooLarge,
                ErrorCode::UnsupportedMediaType,
                ErrorCode::SecretsUnavailable,
            ],
            Self::DeleteWorkspace => {
                &[ErrorCode::InvalidField, ErrorCode::NotFound, ErrorCode::WorkspaceInUse]
            }
            Self::Promote => PROMOTE_ERRORS,
            Self::Mcp | Self::DrainFleet | Self::ResumeFleet => &OF_A_BODY,
            Self::Events
            | Self::Logs
            | Self::Diff
            | Self::Context
            | Self::Artifacts
            | Self::Artifact => &[ErrorCode::InvalidField, ErrorCode::NotFound, ErrorCode::Expired],
            Self::CreateKey | Self::UpdateTenant => CHANGE_ERRORS,
            Self::RotateKey => ROTATE_ERRORS,
            Self::CreateTenant => CREATE_TENANT_ERRORS,
            Self::RekeySecrets => &[ErrorCode::InvalidField, ErrorCode::SecretsUnavailable],
            Self::GetDispatch
            | Self::Workspace
            | Self::Promotion
            | Self::Keys
            | Self::Key
            | Self::RevokeKey
            | Self::Tenant
            | Self::Audit
            | Self::DeleteWebhook
            | Self::TestWebhook
            | Self::Deliveries
            | Self::ReplayDelivery
            | Self::DeleteSecret => &[ErrorCode::InvalidField, ErrorCode::NotFound],
            _ => &[ErrorCode::InvalidField],
        }
    }
}
