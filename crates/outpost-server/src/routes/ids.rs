//! Ids and names in paths. A malformed one, an unknown one and one of another tenant look alike.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use outpost_types::limits::SECRET_NAME_BYTES_MAX;
use outpost_types::{
    ApiError, DispatchId, KeyId, SecretName, TenantId, WebhookId, is_workspace_id,
};

use crate::files::is_artifact_name;
use crate::problem::Refusal;

/// The dispatch a path names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdPath(pub(crate) DispatchId);

/// The file of a dispatch a path names.
#[derive(Debug, Clone)]
pub(crate) struct FilePath {
    pub(crate) id: DispatchId,
    pub(crate) name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        id(&params).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        let name = params
            .iter()
            .find(|(name, _)| *name == "name")
            .map(|(_, value)| value.to_owned())
            .filter(|name| is_artifact_name(name))
            .ok_or_else(ApiError::not_found)?;
        let id = id(&params)?;
        Ok(Self { id, name })
    }
}

/// The persistent workspace a path names.
#[derive(Debug, Clone)]
pub(crate) struct WorkspacePath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for WorkspacePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        let id = params.iter().find(|(name, _)| *name == "id").map(|(_, value)| value.to_owned());
        Ok(Self(id.filter(|id| is_workspace_id(id)).ok_or_else(ApiError::not_found)?))
    }
}

/// The webhook a path names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WebhookPath(pub(crate) WebhookId);

/// The delivery of a webhook a path names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeliveryPath {
    pub(crate) webhook: WebhookId,
    pub(crate) delivery: u64,
}

impl<S: Send + Sync> FromRequestParts<S> for WebhookPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        Ok(Self(parsed(&params, "id")?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DeliveryPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        Ok(Self { webhook: parsed(&params, "id")?, delivery: parsed(&params, "delivery")? })
    }
}

/// The API key a path names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPath(pub(crate) KeyId);

/// The tenant a path names.
#[derive(Debug, Clone)]
pub(crate) struct TenantPath(pub(crate) TenantId);

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        Ok(Self(parsed(&params, "id")?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TenantPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        Ok(Self(parsed(&params, "id")?))
    }
}

/// A part of the path that is of this type.
fn parsed<T: std::str::FromStr>(params: &RawPathParams, wanted: &str) -> Result<T, Refusal> {
    let found = params.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    Ok(found.and_then(|text| text.parse().ok()).ok_or_else(ApiError::not_found)?)
}

/// The secret a path names.
#[derive(Debug, Clone)]
pub(crate) struct SecretPath(pub(crate) SecretName);

/// The same for one that may be made: a name that none can have is said to be wrong. It is not
/// repeated, since it may be the value in the wrong place.
#[derive(Debug, Clone)]
pub(crate) struct WantedSecretPath(pub(crate) SecretName);

impl<S: Send + Sync> FromRequestParts<S> for SecretPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        Ok(Self(secret_name(&params).ok_or_else(ApiError::not_found)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WantedSecretPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = params(parts, state).await?;
        let wrong = || {
            ApiError::field(
                "name",
                format!(
                    "`name` must be 1 to {SECRET_NAME_BYTES_MAX} characters of A-Z, 0-9 and _, the first a letter."
                ),
            )
        };
        Ok(Self(secret_name(&params).ok_or_else(wrong)?))
    }
}

fn secret_name(params: &RawPathParams) -> Option<SecretName> {
    let (_, name) = params.iter().find(|(name, _)| *name == "name")?;
    name.parse().ok()
}

async fn params<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, Refusal> {
    RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Refusal(ApiError::not_found()))
}

fn id(params: &RawPathParams) -> Result<DispatchId, Refusal> {
    let id: DispatchId = params
        .iter()
        .find(|(name, _)| *name == "id")
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(ApiError::not_found)?;
    tracing::Span::current().record("dispatch_id", tracing::field::display(id));
    Ok(id)
}
