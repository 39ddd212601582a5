//! Keys and tenants, for one caller.
//!
//! The operator is whoever holds an admin key of the install's own tenant. An administrator of another tenant
//! manages the keys of that one; what belongs to others looks to him as if it were not there. Every change is
//! audited in the realm of the tenant it is about, and is on disk before it is in force.

use async_trait::async_trait;
use outpost_store::{
    ApiKey, ApiKeyRecord, AuditEntry, KEYS_ROWS_MAX, ReplaceKey, StoreError, TenantRecord,
};
use outpost_types::limits::{
    CURSOR_BYTES_MAX, KEY_LIFE_SECONDS_MAX, KEY_OVERLAP_SECONDS_MAX, KEYS_COUNT_MAX,
    LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, NAME_BYTES_MAX, QUOTA_DISPATCHES_MAX, QUOTA_REQUESTS_MAX,
    TENANTS_COUNT_MAX,
};
use outpost_types::{
    ApiError, ApiKeyStatus, CreateKey, CreateTenant, CreatedKey, ErrorCode, KeyId, KeyQuery,
    KeyView, KeysApi, Page, RotateKey, TenantId, TenantQuery, TenantQuotas, TenantStatus,
    TenantView, TenantsApi, Timestamp, UpdateTenant,
};
use serde_json::json;

use crate::api::{EngineApi, panicked, store_error};
use crate::secrets::is_operator;

/// Says which version of cursors this is, so that a later one can be told apart.
const CURSOR_PREFIX: &str = "c1_";

#[async_trait]
impl KeysApi for EngineApi {
    async fn create_key(&self, request: CreateKey) -> Result<CreatedKey, ApiError> {
        let api = self.clone();
        let work = async move { api.new_key(request).await };
        self.engine().inner.tasks.finish("keys", work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn list_keys(&self, query: KeyQuery) -> Result<Page<KeyView>, ApiError> {
        let limit = page_limit(query.limit)?;
        let tenant = match query.tenant.as_deref() {
            None if is_operator(self.caller()) => None,
            None => Some(self.caller().tenant.clone()),
            Some(text) => Some(self.tenant_of(text)?),
        };
        let before = query.cursor.as_deref().map(read_cursor::<KeyId>).transpose()?;
        let store = &self.engine().inner.store;
        let rows = (limit + 1).min(KEYS_ROWS_MAX);
        let mut found = store.keys(tenant.as_ref(), before, rows).await.map_err(store_error)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more);
        let next_cursor = next.map(|last| format!("{CURSOR_PREFIX}{}", last.id));
        Ok(Page { items: found.iter().map(|key| self.key_view(key)).collect(), next_cursor })
    }

    async fn get_key(&self, id: KeyId) -> Result<KeyView, ApiError> {
        Ok(self.key_view(&self.find_key(id).await?))
    }

    async fn rotate_key(&self, id: KeyId, request: RotateKey) -> Result<CreatedKey, ApiError> {
        let api = self.clone();
        let work = async move { api.new_key_for(id, request).await };
        self.engine().inner.tasks.finish("keys", work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn revoke_key(&self, id: KeyId) -> Result<KeyView, ApiError> {
        let api = self.clone();
        let work = async move { api.take_back(id).await };
        self.engine().inner.tasks.finish("keys", work).await.unwrap_or_else(|| Err(panicked()))
    }
}

#[async_trait]
impl TenantsApi for EngineApi {
    async fn create_tenant(&self, request: CreateTenant) -> Result<TenantView, ApiError> {
        let api = self.clone();
        let work = async move { api.new_tenant(request).await };
        self.engine().inner.tasks.finish("tenants", work).await.unwrap_or_else(|| Err(panicked()))
    }

    async fn list_tenants(&self, query: TenantQuery) -> Result<Page<TenantView>, ApiError> {
        let limit = page_limit(query.limit)? as usize;
        let after = query.cursor.as_deref().map(read_cursor::<TenantId>).transpose()?;
        let access = &self.engine().inner.access;
        let mut found = if is_operator(self.caller()) {
            access.tenants(after.as_ref(), limit + 1)
        } else {
            let own = access.tenant(&self.caller().tenant);
            own.filter(|own| after.is_none_or(|after| own.id > after)).into_iter().collect()
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more);
        let next_cursor = next.map(|last| format!("{CURSOR_PREFIX}{}", last.id));
        Ok(Page { items: found.into_iter().map(tenant_view).collect(), next_cursor })
    }

    async fn get_tenant(&self, id: TenantId) -> Result<TenantView, ApiError> {
        Ok(tenant_view(self.find_tenant(&id)?))
    }

    async fn update_tenant(
        &self,
        id: TenantId,
        request: UpdateTenant,
    ) -> Result<TenantView, ApiError> {
        let api = self.clone();
        let work = async move { api.change_tenant(id, request).await };
        self.engine().inner.tasks.finish("tenants", work).await.unwrap_or_else(|| Err(panicked()))
    }
}

impl EngineApi {
    async fn new_key(&self, request: CreateKey) -> Result<CreatedKey, ApiError> {
        let now = self.engine().now();
        check_name(&request.name)?;
        self.check_scopes(&request)?;
        check_end(request.expires_at, now)?;
        let tenant = match request.tenant_id {
            None => self.caller().tenant.clone(),
            Some(tenant) => self.find_tenant(&tenant)?.id,
        };
        let access = &self.engine().inner.access;
        let _writing = access.writing.lock().await;
        if access.working_keys(&tenant, now) >= KEYS_COUNT_MAX {
            let message = format!("This tenant has {KEYS_COUNT_MAX} keys that work.");
            return Err(ApiError::field("tenantId", message)
                .with_hint("Take back those that nobody uses any more."));
        }
        let (key, id) = self.draw_key(now);
        let scopes = request.scopes.into_iter().collect();
        let record = ApiKeyRecord::new(id, tenant, &key, scopes, now, request.expires_at)
            .named(request.name);
        let detail = json!({
            "prefix": record.prefix, "name": record.name, "scopes": record.scopes,
            "expiresAt": record.expires_at,
        });
        let audit = self.entry("key.created", &record.tenant, id, detail);
        self.engine().inner.store.insert_key(record.clone(), audit).await.map_err(store_error)?;
        access.know_key(record.clone(), now);
        Ok(CreatedKey { api_key: self.key_view(&record), key: key.expose().to_owned() })
    }

    async fn new_key_for(&self, id: KeyId, request: RotateKey) -> Result<CreatedKey, ApiError> {
        let overlap_seconds = request.overlap_seconds.unwrap_or(0);
        if overlap_seconds > KEY_OVERLAP_SECONDS_MAX {
            let message = format!("It must be 0 to {KEY_OVERLAP_SECONDS_MAX}.");
            return Err(ApiError::field("overlapSeconds", message));
        }
        let access = &self.engine().inner.access;
        let _writing = access.writing.lock().await;
        let old = self.find_key(id).await?;
        let now = self.engine().now();
        let until = (overlap_seconds > 0).then(|| now.plus_millis(overlap_seconds * 1000));
        let (key, next_id) = self.draw_key(now);
        let (tenant, scopes) = (old.tenant.clone(), old.scopes.clone());
        let next = ApiKeyRecord::new(next_id, tenant, &key, scopes, now, old.expires_at)
            .named(old.name.clone());
        let detail = json!({ "next": next.id, "prefix": next.prefix, "until": until });
        let audit = self.entry("key.rotated", &old.tenant, id, detail);
        let replace = ReplaceKey { old: id, until, next: next.clone(), audit };
        self.engine().inner.store.replace_key(replace).await.map_err(|error| match error {
            StoreError::Final { status } => {
                let message = format!("This key is {status}.");
                ApiError::new(ErrorCode::AlreadyFinished, message).with_hint("Make a new one.")
            }
            StoreError::NotFound => ApiError::not_found(),
            error => store_error(error),
        })?;
        access.know_key(next.clone(), now);
        access.end_key(id, until, now);
        Ok(CreatedKey { api_key: self.key_view(&next), key: key.expose().to_owned() })
    }

    async fn take_back(&self, id: KeyId) -> Result<KeyView, ApiError> {
        let access = &self.engine().inner.access;
        let _writing = access.writing.lock().await;
        let mut record = self.find_key(id).await?;
        let detail = json!({ "prefix": record.prefix });
        let audit = self.entry("key.revoked", &record.tenant, id, detail);
        let store = &self.engine().inner.store;
        store.set_key_status(id, ApiKeyStatus::Revoked, audit).await.map_err(|error| {
            if matches!(error, StoreError::NotFound) {
                return ApiError::not_found();
            }
            store_error(error)
        })?;
        access.end_key(id, None, self.engine().now());
        record.status = ApiKeyStatus::Revoked;
        Ok(self.key_view(&record))
    }

    async fn new_tenant(&self, request: CreateTenant) -> Result<TenantView, ApiError> {
        self.only_operator("make tenants")?;
        let name = request.name.unwrap_or_else(|| request.id.to_string());
        check_name(&name)?;
        let quotas = request.quotas.unwrap_or_default();
        check_quotas(quotas)?;
        let access = &self.engine().inner.access;
        let _writing = access.writing.lock().await;
        if access.tenant(&request.id).is_some() {
            let message = format!("There is a tenant `{}`.", request.id);
            let error = ApiError::new(ErrorCode::AlreadyExists, message);
            return Err(ApiError { field: Some("id".to_owned()), ..error });
        }
        if access.tenants_count() >= TENANTS_COUNT_MAX {
            let message = format!("There are {TENANTS_COUNT_MAX} tenants, which is the most.");
            return Err(ApiError::field("id", message));
        }
        let created_at = self.engine().now();
        let record = TenantRecord {
            id: request.id,
            name,
            status: TenantStatus::Active,
            quotas,
            generation: 1,
            created_at,
        };
        let detail = json!({ "name": record.name, "quotas": record.quotas });
        let audit = self.entry("tenant.created", &record.id, &record.id, detail);
        self.put_tenant(record, audit).await
    }

    async fn change_tenant(
        &self,
        id: TenantId,
        request: UpdateTenant,
    ) -> Result<TenantView, ApiError> {
        if !is_operator(self.caller()) {
            // Whoever may read it hears that he may not change it; for others it is not there.
            self.find_tenant(&id)?;
        }
        self.only_operator("change tenants")?;
        request.name.as_deref().map(check_name).transpose()?;
        request.quotas.map(check_quotas).transpose()?;
        if request.suspended == Some(true) && id == TenantId::local() {
            let message = "The operator's own tenant cannot be suspended: nobody could undo it.";
            return Err(ApiError::field("suspended", message));
        }
        let access = &self.engine().inner.access;
        let _writing = access.writing.lock().await;
        let before = self.find_tenant(&id)?;
        let status = match request.suspended {
            None => before.status,
            Some(true) => TenantStatus::Suspended,
            Some(false) => TenantStatus::Active,
        };
        let after = TenantRecord {
            name: request.name.unwrap_or_else(|| before.name.clone()),
            status,
            quotas: request.quotas.unwrap_or(before.quotas),
            generation: before.generation + 1,
            ..before.clone()
        };
        let same = TenantRecord { generation: after.generation, ..before.clone() } == after;
        if same {
            return Ok(tenant_view(before));
        }
        let action = match (before.status, status) {
            (TenantStatus::Active, TenantStatus::Suspended) => "tenant.suspended",
            (TenantStatus::Suspended, TenantStatus::Active) => "tenant.resumed",
            _ => "tenant.changed",
        };
        let told = |it: &TenantRecord| json!({ "name": it.name, "quotas": it.quotas });
        let detail = json!({ "from": told(&before), "to": told(&after) });
        let audit = self.entry(action, &id, &id, detail);
        self.put_tenant(after, audit).await
    }

    /// Writes a tenant down and puts it in force; the caller holds the lock of writers.
    async fn put_tenant(
        &self,
        record: TenantRecord,
        audit: AuditEntry,
    ) -> Result<TenantView, ApiError> {
        let inner = &self.engine().inner;
        let written = inner.store.put_tenant(record.clone(), record.generation - 1, audit).await;
        written.map_err(store_error)?;
        inner.access.know_tenant(record.clone());
        // It may have more slots than before.
        inner.placer.notify_one();
        Ok(tenant_view(record))
    }

    /// A key that the caller may see.
    async fn find_key(&self, id: KeyId) -> Result<ApiKeyRecord, ApiError> {
        let found = self.engine().inner.store.key(id).await.map_err(store_error)?;
        let own =
            |key: &ApiKeyRecord| key.tenant == self.caller().tenant || is_operator(self.caller());
        found.filter(own).ok_or_else(ApiError::not_found)
    }

    /// A tenant that the caller may see.
    fn find_tenant(&self, id: &TenantId) -> Result<TenantRecord, ApiError> {
        if *id != self.caller().tenant && !is_operator(self.caller()) {
            return Err(ApiError::not_found());
        }
        self.engine().inner.access.tenant(id).ok_or_else(ApiError::not_found)
    }

    /// A tenant of a query.
    pub(crate) fn tenant_of(&self, text: &str) -> Result<TenantId, ApiError> {
        let id = text.parse().map_err(|error: outpost_types::IdError| {
            ApiError::field("tenant", format!("It is {error}."))
        })?;
        Ok(self.find_tenant(&id)?.id)
    }

    pub(crate) fn only_operator(&self, what: &str) -> Result<(), ApiError> {
        if is_operator(self.caller()) {
            return Ok(());
        }
        let message = format!("Only the operator of this server may {what}.");
        Err(ApiError::new(ErrorCode::Forbidden, message)
            .with_hint("Use an admin key of the operator's own tenant."))
    }

    fn check_scopes(&self, request: &CreateKey) -> Result<(), ApiError> {
        if request.scopes.is_empty() {
            return Err(ApiError::field("scopes", "A key needs at least one scope."));
        }
        match request.scopes.iter().find(|scope| !self.caller().may(**scope)) {
            None => Ok(()),
            Some(scope) => {
                let message = format!("A key without the scope `{scope}` cannot give it away.");
                let error = ApiError::new(ErrorCode::Forbidden, message);
                Err(ApiError { field: Some("scopes".to_owned()), ..error })
            }
        }
    }

    fn draw_key(&self, now: Timestamp) -> (ApiKey, KeyId) {
        let mut random = [0; 32];
        self.engine().inner.world.fill(&mut random);
        let id = KeyId::from_parts(now.as_millis(), self.engine().random_u128());
        (ApiKey::generate(random), id)
    }

    fn entry(
        &self,
        action: &'static str,
        tenant: &TenantId,
        subject: impl ToString,
        detail: serde_json::Value,
    ) -> AuditEntry {
        AuditEntry {
            at: self.engine().now(),
            tenant: tenant.clone(),
            actor: Some(self.caller().key),
            action,
            subject: subject.to_string(),
            detail,
        }
    }

    fn key_view(&self, key: &ApiKeyRecord) -> KeyView {
        let (uses, used_at) = self.engine().inner.access.unwritten(key.id);
        let status = match key.status {
            ApiKeyStatus::Active if !key.works_at(self.engine().now()) => ApiKeyStatus::Expired,
            status => status,
        };
        KeyView {
            id: key.id,
            prefix: key.prefix.clone(),
            name: key.name.clone(),
            tenant_id: key.tenant.clone(),
            scopes: key.scopes.iter().copied().collect(),
            status,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at.max(used_at),
            usage_count: key.usage_count.saturating_add(uses),
        }
    }
}

fn tenant_view(tenant: TenantRecord) -> TenantView {
    let TenantRecord { id, name, status, quotas, created_at, .. } = tenant;
    TenantView { id, name, status, quotas, created_at }
}

pub(crate) fn page_limit(limit: Option<u32>) -> Result<u32, ApiError> {
    let limit = limit.unwrap_or(LIST_LIMIT_DEFAULT);
    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
        return Err(ApiError::field("limit", format!("It must be 1 to {LIST_LIMIT_MAX}.")));
    }
    Ok(limit)
}

fn read_cursor<T: std::str::FromStr>(text: &str) -> Result<T, ApiError> {
    Some(text)
        .filter(|text| text.len() <= CURSOR_BYTES_MAX)
        .and_then(|text| text.strip_prefix(CURSOR_PREFIX))
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| ApiError::field("cursor", "It is not a cursor that a list gave out."))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    let message = format!("`name` must be 1 to {NAME_BYTES_MAX} bytes without control characters.");
    Err(ApiError::field("name", message))
}

fn check_quotas(quotas: TenantQuotas) -> Result<(), ApiError> {
    for (field, quota, most) in [
        ("quotas.requestsPerMinute", quotas.requests_per_minute, QUOTA_REQUESTS_MAX),
        ("quotas.concurrentDispatches", quotas.concurrent_dispatches, QUOTA_DISPATCHES_MAX),
    ] {
        if quota.is_some_and(|quota| !(1..=most).contains(&quota)) {
            return Err(ApiError::field(field, format!("It must be 1 to {most}.")));
        }
    }
    Ok(())
}

fn check_end(expires_at: Option<Timestamp>, now: Timestamp) -> Result<(), ApiError> {
    let last = now.plus_millis(KEY_LIFE_SECONDS_MAX * 1000);
    match expires_at {
        Some(at) if at <= now => Err(ApiError::field("expiresAt", "It must be in the future.")),
        Some(at) if at > last => {
            let days = KEY_LIFE_SECONDS_MAX / 86_400;
            let message = format!("It must be within {days} days, or be left out.");
            Err(ApiError::field("expiresAt", message))
        }
        _ => Ok(()),
    }
}
