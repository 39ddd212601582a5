//! Keys, tenants and the audit trail over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use outpost_types::{
    ApiError, AuditApi, AuditCheck, AuditQuery, AuditView, ByteStream, CreateKey, CreateTenant,
    CreatedKey, DrainRequest, ExportAudit, FleetApi, FleetView, KeyId, KeyQuery, KeyView, KeysApi,
    Page, ResumeRequest, RotateKey, TenantId, TenantQuery, TenantView, TenantsApi, UpdateTenant,
    VerifyAudit,
};
use reqwest::Method;

use crate::http::UNARY_SECONDS_MAX;
use crate::{HttpApi, logs};

const UNARY: Duration = Duration::from_secs(UNARY_SECONDS_MAX);

#[async_trait]
impl KeysApi for HttpApi {
    async fn create_key(&self, request: CreateKey) -> Result<CreatedKey, ApiError> {
        let post = self.request(Method::POST, ["keys"]).json(&request);
        Ok(self.unary(post, UNARY).await?.0)
    }

    async fn list_keys(&self, query: KeyQuery) -> Result<Page<KeyView>, ApiError> {
        let get = self.request(Method::GET, ["keys"]).query(&query);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn get_key(&self, id: KeyId) -> Result<KeyView, ApiError> {
        let get = self.request(Method::GET, ["keys", &id.to_string()]);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn rotate_key(&self, id: KeyId, request: RotateKey) -> Result<CreatedKey, ApiError> {
        let post = self.request(Method::POST, ["keys", &id.to_string(), "rotate"]);
        Ok(self.unary(post.json(&request), UNARY).await?.0)
    }

    async fn revoke_key(&self, id: KeyId) -> Result<KeyView, ApiError> {
        let delete = self.request(Method::DELETE, ["keys", &id.to_string()]);
        Ok(self.unary(delete, UNARY).await?.0)
    }
}

#[async_trait]
impl TenantsApi for HttpApi {
    async fn create_tenant(&self, request: CreateTenant) -> Result<TenantView, ApiError> {
        let post = self.request(Method::POST, ["tenants"]).json(&request);
        Ok(self.unary(post, UNARY).await?.0)
    }

    async fn list_tenants(&self, query: TenantQuery) -> Result<Page<TenantView>, ApiError> {
        let get = self.request(Method::GET, ["tenants"]).query(&query);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn get_tenant(&self, id: TenantId) -> Result<TenantView, ApiError> {
        let get = self.request(Method::GET, ["tenants", tenant_id(&id)?]);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn update_tenant(
        &self,
        id: TenantId,
        request: UpdateTenant,
    ) -> Result<TenantView, ApiError> {
        let patch = self.request(Method::PATCH, ["tenants", tenant_id(&id)?]);
        Ok(self.unary(patch.json(&request), UNARY).await?.0)
    }
}

#[async_trait]
impl FleetApi for HttpApi {
    async fn drain_fleet(&self, request: DrainRequest) -> Result<FleetView, ApiError> {
        let post = self.request(Method::POST, ["fleet", "drain"]).json(&request);
        Ok(self.unary(post, UNARY).await?.0)
    }

    async fn resume_fleet(&self, request: ResumeRequest) -> Result<FleetView, ApiError> {
        let post = self.request(Method::POST, ["fleet", "resume"]).json(&request);
        Ok(self.unary(post, UNARY).await?.0)
    }
}

#[async_trait]
impl AuditApi for HttpApi {
    async fn list_audit(&self, query: AuditQuery) -> Result<Page<AuditView>, ApiError> {
        let get = self.request(Method::GET, ["audit"]).query(&query);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn verify_audit(&self, query: VerifyAudit) -> Result<AuditCheck, ApiError> {
        let get = self.request(Method::GET, ["audit", "verify"]).query(&query);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn export_audit(&self, query: ExportAudit) -> Result<ByteStream, ApiError> {
        let get = self.request(Method::GET, ["audit", "export"]).query(&query);
        let response = self.open(get).await?;
        Ok(logs::file(self.clone(), response))
    }
}

/// These two would name another address instead of a tenant.
fn tenant_id(id: &TenantId) -> Result<&str, ApiError> {
    let text = id.as_str();
    if matches!(text, "." | "..") { Err(ApiError::not_found()) } else { Ok(text) }
}
