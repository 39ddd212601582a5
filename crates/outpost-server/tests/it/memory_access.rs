//! Keys, tenants and the audit trail of the backend in memory: one that has the id of
//! a dispatch of the caller is there.

use async_trait::async_trait;
use bytes::Bytes;
use outpost_types::{Api as _, DrainRequest, FleetApi, FleetView, ResumeRequest};
use outpost_types::{
    ApiError, ApiKeyStatus, AuditActor, AuditApi, AuditCheck, AuditQuery, AuditView, ByteStream,
    CreateKey, CreateTenant, CreatedKey, ExportAudit, KeyId, KeyQuery, KeyView, KeysApi, Page,
    RotateKey, Scope, TenantId, TenantQuery, TenantQuotas, TenantStatus, TenantView, TenantsApi,
    Timestamp, UpdateTenant, VerifyAudit,
};

use crate::memory::Session;

fn key_view(id: KeyId) -> KeyView {
    KeyView {
        id,
        prefix: "otp_3f9c1a7be02".into(),
        name: "ci\u{1b}[2J".into(),
        tenant_id: TenantId::local(),
        scopes: vec![Scope::Dispatch, Scope::Status],
        status: ApiKeyStatus::Active,
        created_at: Timestamp::from_millis(1),
        expires_at: None,
        last_used_at: Some(Timestamp::from_millis(2)),
        usage_count: 3,
    }
}

fn tenant_view(id: TenantId) -> TenantView {
    TenantView {
        id,
        name: "Acme".into(),
        status: TenantStatus::Active,
        quotas: TenantQuotas { requests_per_minute: Some(60), concurrent_dispatches: None },
        created_at: Timestamp::from_millis(1),
    }
}

fn created(id: KeyId, name: Option<String>) -> CreatedKey {
    let mut api_key = key_view(id);
    api_key.name = name.unwrap_or(api_key.name);
    CreatedKey { api_key, key: format!("otp_{}", "ab".repeat(32)) }
}

impl Session {
    fn knows(&self, id: &str) -> Result<(), ApiError> {
        self.exists(id.parse().map_err(|_| ApiError::not_found())?)
    }
}

#[async_trait]
impl KeysApi for Session {
    async fn create_key(&self, request: CreateKey) -> Result<CreatedKey, ApiError> {
        Ok(created(KeyId::from_parts(1, 1), Some(request.name)))
    }
    async fn list_keys(&self, _: KeyQuery) -> Result<Page<KeyView>, ApiError> {
        Ok(Page { items: vec![key_view(KeyId::from_parts(1, 1))], next_cursor: None })
    }
    async fn get_key(&self, id: KeyId) -> Result<KeyView, ApiError> {
        self.knows(&id.to_string())?;
        Ok(key_view(id))
    }
    async fn rotate_key(&self, id: KeyId, _: RotateKey) -> Result<CreatedKey, ApiError> {
        self.knows(&id.to_string())?;
        Ok(created(id, None))
    }
    async fn revoke_key(&self, id: KeyId) -> Result<KeyView, ApiError> {
        self.knows(&id.to_string())?;
        Ok(KeyView { status: ApiKeyStatus::Revoked, ..key_view(id) })
    }
}

#[async_trait]
impl TenantsApi for Session {
    async fn create_tenant(&self, request: CreateTenant) -> Result<TenantView, ApiError> {
        Ok(tenant_view(request.id))
    }
    async fn list_tenants(&self, _: TenantQuery) -> Result<Page<TenantView>, ApiError> {
        Ok(Page { items: vec![tenant_view(TenantId::local())], next_cursor: None })
    }
    async fn get_tenant(&self, id: TenantId) -> Result<TenantView, ApiError> {
        self.knows(id.as_str())?;
        Ok(tenant_view(id))
    }
    async fn update_tenant(
        &self,
        id: TenantId,
        request: UpdateTenant,
    ) -> Result<TenantView, ApiError> {
        self.knows(id.as_str())?;
        let status = match request.suspended {
            Some(true) => TenantStatus::Suspended,
            _ => TenantStatus::Active,
        };
        let quotas = request.quotas.unwrap_or_else(|| tenant_view(id.clone()).quotas);
        Ok(TenantView { status, quotas, ..tenant_view(id) })
    }
}

#[async_trait]
impl FleetApi for Session {
    async fn drain_fleet(&self, _: DrainRequest) -> Result<FleetView, ApiError> {
        self.fleet().await
    }
    async fn resume_fleet(&self, _: ResumeRequest) -> Result<FleetView, ApiError> {
        self.fleet().await
    }
}

#[async_trait]
impl AuditApi for Session {
    async fn list_audit(&self, query: AuditQuery) -> Result<Page<AuditView>, ApiError> {
        let entry = AuditView {
            seq: Some(7),
            at: Timestamp::from_millis(1),
            tenant_id: TenantId::local(),
            actor: AuditActor::Key,
            key_id: Some(KeyId::from_parts(1, 1)),
            action: query.action.unwrap_or_else(|| "key.created".into()),
            subject: "subject".into(),
            detail: serde_json::json!({ "prefix": "otp_3f9c1a7be02" }),
            hash: Some("00".repeat(32)),
        };
        Ok(Page { items: vec![entry], next_cursor: None })
    }
    async fn verify_audit(&self, query: VerifyAudit) -> Result<AuditCheck, ApiError> {
        let after = query.after.unwrap_or(0);
        let more = (after == 0).then_some(7);
        let (checked, hash) = (7, "00".repeat(32));
        Ok(AuditCheck { intact: true, checked, seq: after + 7, hash, broken_at: None, next: more })
    }
    async fn export_audit(&self, _: ExportAudit) -> Result<ByteStream, ApiError> {
        let line = Bytes::from_static(b"{\"seq\":1}\n");
        Ok(Box::pin(futures_util::stream::iter([Ok(line)])))
    }
}
