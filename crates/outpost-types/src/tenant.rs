//! Tenants: owners of keys, secrets and dispatches, and what each may use.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ApiError, Page, TenantId, Timestamp};

/// Whether a tenant's keys are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TenantStatus {
    /// They are.
    Active,
    /// They are not, and what waits for a slot goes on waiting. What runs is not stopped.
    Suspended,
}

impl TenantStatus {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for TenantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TenantStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Active, Self::Suspended].into_iter().find(|it| it.as_str() == text).ok_or(())
    }
}

/// What a tenant may use. An absent one is as the operator set it for everybody.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantQuotas {
    /// Requests that each of its keys may make in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub requests_per_minute: Option<u32>,
    /// Dispatches that may run at once; further ones wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub concurrent_dispatches: Option<u32>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantView {
    /// Its id.
    #[schema(value_type = String, example = "acme")]
    pub id: TenantId,
    /// What people call it.
    pub name: String,
    /// Whether its keys are let in.
    pub status: TenantStatus,
    /// What it may use.
    pub quotas: TenantQuotas,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Body of `POST /tenants`. Unknown fields are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTenant {
    /// Its id, for ever: letters, digits, `.`, `_` and `-`.
    #[schema(value_type = String, min_length = 1, max_length = 64, example = "acme")]
    pub id: TenantId,
    /// What people call it; its id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "quotas")]
    pub quotas: Option<TenantQuotas>,
}

/// Body of `PATCH /tenants/{id}`: what is absent stays. Unknown fields are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateTenant {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// All of what it may use: a quota that is absent in it is the usual one again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "quotas")]
    pub quotas: Option<TenantQuotas>,
    /// Whether its keys are turned away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
}

/// Page of `GET /tenants`.
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
pub struct TenantQuery {
    /// Page size, 1 to 100; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The operations on tenants. The operator has all of them; for everybody else only the own tenant exists, and
/// only to be read.
#[async_trait]
pub trait TenantsApi: Send + Sync {
    /// Makes a tenant; `already_exists` when the id is taken.
    async fn create_tenant(&self, request: CreateTenant) -> Result<TenantView, ApiError>;

    /// Tenants by id.
    async fn list_tenants(&self, query: TenantQuery) -> Result<Page<TenantView>, ApiError>;

    /// One tenant.
    async fn get_tenant(&self, id: TenantId) -> Result<TenantView, ApiError>;

    /// Changes a tenant. When this returns, the change is on disk and in force for the next request.
    async fn update_tenant(
        &self,
        id: TenantId,
        request: UpdateTenant,
    ) -> Result<TenantView, ApiError>;
}

/// Quotas of a request: an object. What is derived would take a list of their values as well.
fn quotas<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TenantQuotas>, D::Error> {
    let Some(fields) = Option::<Map<String, Value>>::deserialize(from)? else { return Ok(None) };
    TenantQuotas::deserialize(Value::Object(fields)).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_status_is_its_wire_name() {
        for status in [TenantStatus::Active, TenantStatus::Suspended] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
            assert_eq!(status.as_str().parse(), Ok(status));
        }
    }

    #[test]
    fn what_a_request_does_not_know_is_named() {
        let error = serde_json::from_str::<UpdateTenant>(r#"{"quotas":{"cpus":2}}"#).unwrap_err();
        assert!(error.to_string().contains("cpus"), "{error}");
        let list = serde_json::from_str::<UpdateTenant>(r#"{"quotas":[2,null]}"#);
        assert!(list.is_err(), "{list:?}");
    }
}
