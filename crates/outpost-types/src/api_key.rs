//! API keys as their owners see them: made, listed, replaced and taken back.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{ApiError, ApiKeyStatus, KeyId, Page, Scope, TenantId, Timestamp};

/// Body of `POST /keys`. Unknown fields are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateKey {
    /// What it is for, so that it is recognised later.
    #[schema(min_length = 1, max_length = 128, example = "nightly builds")]
    pub name: String,
    /// What it allows; never more than the key that makes it.
    #[schema(min_items = 1, max_items = 7)]
    pub scopes: Vec<Scope>,
    /// Whose it is; the caller's own tenant when absent. Only the operator makes keys of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 64)]
    pub tenant_id: Option<TenantId>,
    /// From when on it does not work any more, RFC 3339; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, max_length = 40)]
    pub expires_at: Option<Timestamp>,
}

/// Body of `POST /keys/{id}/rotate`; it may be left out. Unknown fields are refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateKey {
    /// How long the old key goes on working beside the new one, seconds; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800)]
    pub overlap_seconds: Option<u64>,
}

/// Filters and page of `GET /keys`.
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
pub struct KeyQuery {
    /// Only keys of this tenant. The operator sees those of all when it is absent, others only their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Page size, 1 to 100; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A key as a client sees it; never the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// The characters it begins with, to recognise it by.
    #[schema(example = "otp_3f9c1a7be02")]
    pub prefix: String,
    /// What it is for; empty for one that was made by the install itself.
    pub name: String,
    /// Whose it is.
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// Whether it works.
    pub status: ApiKeyStatus,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// From when on it does not work any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used; what a crash took away is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// How often it was used; what a crash took away is missing.
    pub usage_count: u64,
}

/// A key that was just made: the only time it is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedKey {
    /// What is kept of it.
    pub api_key: KeyView,
    /// The key itself: `otp_` and 64 hexadecimal digits. It cannot be read again.
    pub key: String,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

/// The operations on keys, for one caller: an administrator of a tenant has those of his tenant, the operator
/// those of all.
#[async_trait]
pub trait KeysApi: Send + Sync {
    /// Makes a key. When this returns, its hash is on disk and the key works.
    async fn create_key(&self, request: CreateKey) -> Result<CreatedKey, ApiError>;

    /// Keys in every state, newest first.
    async fn list_keys(&self, query: KeyQuery) -> Result<Page<KeyView>, ApiError>;

    /// One key.
    async fn get_key(&self, id: KeyId) -> Result<KeyView, ApiError>;

    /// Makes a key that takes the place of this one: same name, scopes, tenant and end. The old one goes on
    /// working for the overlap and no longer.
    async fn rotate_key(&self, id: KeyId, request: RotateKey) -> Result<CreatedKey, ApiError>;

    /// Takes a key back: once this returns, no request with it is let in. Doing it twice changes nothing.
    async fn revoke_key(&self, id: KeyId) -> Result<KeyView, ApiError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let api_key = KeyView {
            id: KeyId::from_parts(1, 1),
            prefix: "otp_12345678901".into(),
            name: "ci".into(),
            tenant_id: TenantId::local(),
            scopes: vec![Scope::Status],
            status: ApiKeyStatus::Active,
            created_at: Timestamp::default(),
            expires_at: None,
            last_used_at: None,
            usage_count: 0,
        };
        let created = CreatedKey { api_key, key: "otp_canary".into() };
        assert!(!format!("{created:?}").contains("canary"));
    }

    #[test]
    fn what_a_request_does_not_know_is_named() {
        let body = r#"{"name":"ci","scopes":["status"],"admin":true}"#;
        let error = serde_json::from_str::<CreateKey>(body).unwrap_err();
        assert!(error.to_string().contains("admin"), "{error}");
        let error = serde_json::from_str::<CreateKey>(r#"{"name":"ci","scopes":["root"]}"#);
        assert!(error.is_err());
        let rotate: RotateKey = serde_json::from_str("{}").unwrap();
        assert_eq!(rotate, RotateKey::default());
    }
}
