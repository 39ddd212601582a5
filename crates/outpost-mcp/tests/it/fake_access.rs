//! Keys, tenants and the audit trail of the fake: there are none.

use async_trait::async_trait;
use outpost_types::{Api as _, DrainRequest, DrainView, FleetApi, FleetView, ResumeRequest};
use outpost_types::{
    ApiError, AuditApi, AuditCheck, AuditQuery, AuditView, ByteStream, CreateKey, CreateTenant,
    CreatedKey, ExportAudit, KeyId, KeyQuery, KeyView, KeysApi, Page, RotateKey, TenantId,
    TenantQuery, TenantView, TenantsApi, Timestamp, UpdateTenant, VerifyAudit,
};

use crate::fake::Fake;

#[async_trait]
impl KeysApi for Fake {
    async fn create_key(&self, _: CreateKey) -> Result<CreatedKey, ApiError> {
        Err(ApiError::not_found())
    }
    async fn list_keys(&self, _: KeyQuery) -> Result<Page<KeyView>, ApiError> {
        Err(ApiError::not_found())
    }
    async fn get_key(&self, _: KeyId) -> Result<KeyView, ApiError> {
        Err(ApiError::not_found())
    }
    async fn rotate_key(&self, _: KeyId, _: RotateKey) -> Result<CreatedKey, ApiError> {
        Err(ApiError::not_found())
    }
    async fn revoke_key(&self, _: KeyId) -> Result<KeyView, ApiError> {
        Err(ApiError::not_found())
    }
}

#[async_trait]
impl TenantsApi for Fake {
    async fn create_tenant(&self, _: CreateTenant) -> Result<TenantView, ApiError> {
        Err(ApiError::not_found())
    }
    async fn list_tenants(&self, _: TenantQuery) -> Result<Page<TenantView>, ApiError> {
        Err(ApiError::not_found())
    }
    async fn get_tenant(&self, _: TenantId) -> Result<TenantView, ApiError> {
        Err(ApiError::not_found())
    }
    async fn update_tenant(&self, _: TenantId, _: UpdateTenant) -> Result<TenantView, ApiError> {
        Err(ApiError::not_found())
    }
}

#[async_trait]
impl FleetApi for Fake {
    async fn drain_fleet(&self, request: DrainRequest) -> Result<FleetView, ApiError> {
        let mut fleet = self.fleet().await?;
        let drain = DrainView { since: Timestamp::from_millis(1), reason: request.reason };
        match fleet.agents.iter_mut().find(|agent| Some(&agent.agent) == request.agent.as_ref()) {
            Some(agent) => agent.draining = Some(drain),
            None => fleet.draining = Some(drain),
        }
        Ok(fleet)
    }
    async fn resume_fleet(&self, _: ResumeRequest) -> Result<FleetView, ApiError> {
        self.fleet().await
    }
}

#[async_trait]
impl AuditApi for Fake {
    async fn list_audit(&self, _: AuditQuery) -> Result<Page<AuditView>, ApiError> {
        Err(ApiError::not_found())
    }
    async fn verify_audit(&self, _: VerifyAudit) -> Result<AuditCheck, ApiError> {
        Err(ApiError::not_found())
    }
    async fn export_audit(&self, _: ExportAudit) -> Result<ByteStream, ApiError> {
        Err(ApiError::not_found())
    }
}
