//! The audit trail as it is read, checked and exported.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{ApiError, ByteStream, KeyId, Page, TenantId, Timestamp};

/// Filters and page of `GET /audit`. Texts, because they arrive as query parameters; the engine parses them and
/// names the one that is wrong.
#[derive(
    Debug,
    Clone,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    utoipa::IntoParams,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only of this tenant. The operator sees all when it is absent, others only their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only this action, such as `key.created`; with a dot at its end, all that begin with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only at or after this instant, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only before this instant, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Page size, 1 to 100; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditActor {
    /// The holder of a key of the same tenant.
    Key,
    /// The operator of the server.
    Operator,
    /// Outpost by itself.
    System,
}

impl AuditActor {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Operator => "operator",
            Self::System => "system",
        }
    }
}

/// One entry of the trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditView {
    /// Its number in the whole trail; only for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// In whose realm.
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
    /// Who did it.
    pub actor: AuditActor,
    /// The key that asked for it, if it is one of the tenant's or the caller is the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_id: Option<KeyId>,
    /// What was done, such as `dispatch.accepted`.
    pub action: String,
    /// Id of what it was done to.
    pub subject: String,
    /// More about it.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
    /// Hash of this entry, which holds the one before, hexadecimal; only for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Which part of the trail to check.
#[derive(
    Debug,
    Clone,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    utoipa::IntoParams,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VerifyAudit {
    /// Number of the entry after which to begin; 0 when absent, the whole trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Hash that this entry must have, as it was noted outside the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Most entries to check, 1 to 100,000; all of these when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 100_000)]
    pub limit: Option<u32>,
}

/// What came of a check of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditCheck {
    /// Whether every entry that was looked at is as it was written, in its place.
    pub intact: bool,
    /// How many were looked at and are sound.
    pub checked: u64,
    /// Number of the last of them; with `hash`, what to keep outside the server.
    pub seq: u64,
    /// Hash of the last of them, hexadecimal.
    pub hash: String,
    /// The first entry that is missing or not as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<u64>,
    /// There are more: pass it as `after`, and `hash` with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Which part of the trail to export, as texts.
#[derive(
    Debug,
    Clone,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    utoipa::IntoParams,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportAudit {
    /// Number of the entry after which to begin; 0 when absent, the whole trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Reading the audit trail. An administrator of a tenant sees what was done in his tenant; the chain as a whole
/// is the operator's.
#[async_trait]
pub trait AuditApi: Send + Sync {
    /// Entries, newest first.
    async fn list_audit(&self, query: AuditQuery) -> Result<Page<AuditView>, ApiError>;

    /// Checks a part of the chain. Only for the operator.
    async fn verify_audit(&self, query: VerifyAudit) -> Result<AuditCheck, ApiError>;

    /// The trail, oldest first, one JSON object a line, with all that its hashes are made of. Only for the
    /// operator.
    async fn export_audit(&self, query: ExportAudit) -> Result<ByteStream, ApiError>;
}
