//! Keys, tenants and the audit trail of the fake: there are none.

use async_trait::async_trait;
use outpost_types::{
    ApiError, AuditApi, AuditCheck, AuditQuery, AuditView, ByteStream, CreateKey, CreateTenant,
    CreatedKey, ExportAudit, KeyId, KeyQuery, KeyView, KeysApi, Page, RotateKey, TenantId,
    TenantQuery, TenantView, TenantsApi, UpdateTenant, VerifyAudit,
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
