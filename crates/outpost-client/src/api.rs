//! The operations, each as one request (a long wait as several).

use std::time::{Duration, Instant};

use async_trait::async_trait;
use outpost_types::limits::WAIT_SECONDS_MAX;
use outpost_types::{
    Api, ApiError, ArtifactView, ByteStream, CancelRequest, ContextView, Created, DispatchId,
    DispatchRequest, DispatchView, EventStream, FleetView, ListQuery, LogQuery, LogStream,
    NetworkRequest, Page, PutSecret, RekeyView, SecretName, SecretScope, SecretView, UsageQuery,
    UsageReport, WorkspaceView, is_workspace_id,
};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use crate::http::UNARY_SECONDS_MAX;
use crate::{HttpApi, events, logs, secrets};

const UNARY: Duration = Duration::from_secs(UNARY_SECONDS_MAX);
const WAIT_MAX: Duration = Duration::from_secs(WAIT_SECONDS_MAX);

impl HttpApi {
    /// What is kept of a dispatch, with previews if they are wanted.
    async fn kept(
        &self,
        id: DispatchId,
        url_ttl: Duration,
        with_previews: bool,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        let id = id.to_string();
        let get = self.request(Method::GET, ["artifacts", &id]);
        let mut get = get.query(&[("expiresIn", url_ttl.as_secs())]);
        if with_previews {
            get = get.query(&[("preview", true)]);
        }
        let (page, _): (Page<ArtifactView>, _) = self.unary(get, UNARY).await?;
        Ok(page.items)
    }

    async fn poll(
        &self,
        id: DispatchId,
        wait: Duration,
        generation: Option<u64>,
    ) -> Result<DispatchView, ApiError> {
        let id = id.to_string();
        let mut request = self.request(Method::GET, ["dispatch", &id]);
        // Whole seconds on the wire; a part of one still waits.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        if seconds > 0 {
            request = request.query(&[("wait", seconds)]);
        }
        if let Some(generation) = generation {
            request = request.query(&[("generation", generation)]);
        }
        let limit = UNARY + Duration::from_secs(seconds);
        Ok(self.unary(request, limit).await?.0)
    }
}

#[async_trait]
impl Api for HttpApi {
    async fn create_dispatch(
        &self,
        request: DispatchRequest,
        idempotency_key: Option<String>,
    ) -> Result<Created, ApiError> {
        let mut post = self.request(Method::POST, ["dispatch"]).json(&request);
        if let Some(key) = idempotency_key {
            let value = reqwest::header::HeaderValue::from_str(&key).map_err(|_| {
                ApiError::field(
                    "Idempotency-Key",
                    "Idempotency-Key must be visible ASCII characters.",
                )
            })?;
            post = post.header("idempotency-key", value);
        }
        let (dispatch, headers) = self.unary(post, UNARY).await?;
        let replayed =
            headers.get("idempotency-replayed").is_some_and(|value| value.as_bytes() == b"true");
        Ok(Created { dispatch, replayed })
    }

    async fn get_dispatch(
        &self,
        id: DispatchId,
        wait: Option<Duration>,
        after_generation: Option<u64>,
    ) -> Result<DispatchView, ApiError> {
        let wait = wait.unwrap_or_default();
        if wait <= WAIT_MAX {
            return self.poll(id, wait, after_generation).await;
        }
        // Longer than one poll may be: first learn what counts as a change, then poll in turns.
        let begun = Instant::now();
        let base = match after_generation {
            Some(generation) => generation,
            None => self.poll(id, Duration::ZERO, None).await?.generation,
        };
        loop {
            let left = wait.saturating_sub(begun.elapsed());
            let view = self.poll(id, left.min(WAIT_MAX), Some(base)).await?;
            if view.generation > base || view.status.is_terminal() || left.is_zero() {
                return Ok(view);
            }
        }
    }

    async fn cancel_dispatch(
        &self,
        id: DispatchId,
        request: CancelRequest,
    ) -> Result<DispatchView, ApiError> {
        let id = id.to_string();
        let delete = self.request(Method::DELETE, ["dispatch", &id]);
        Ok(self.unary(delete.json(&request), UNARY).await?.0)
    }

    async fn change_network(
        &self,
        id: DispatchId,
        request: NetworkRequest,
    ) -> Result<DispatchView, ApiError> {
        let id = id.to_string();
        let patch = self.request(Method::PATCH, ["dispatch", &id]);
        Ok(self.unary(patch.json(&request), UNARY).await?.0)
    }

    async fn list_runs(&self, query: ListQuery) -> Result<Page<DispatchView>, ApiError> {
        let get = self.request(Method::GET, ["runs"]).query(&query);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn events(&self, id: DispatchId, after: u64) -> Result<EventStream, ApiError> {
        events::follow(self.clone(), id, after).await
    }

    async fn logs(&self, id: DispatchId, query: LogQuery) -> Result<LogStream, ApiError> {
        logs::read(self.clone(), id, query).await
    }

    async fn diff(&self, id: DispatchId) -> Result<ByteStream, ApiError> {
        let id = id.to_string();
        let get = self.request(Method::GET, ["dispatch", &id, "diff"]);
        let response = self.open(get).await?;
        Ok(logs::file(self.clone(), response))
    }

    async fn context(&self, id: DispatchId) -> Result<ContextView, ApiError> {
        let id = id.to_string();
        let get = self.request(Method::GET, ["dispatch", &id, "context"]);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn artifacts(
        &self,
        id: DispatchId,
        url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        self.kept(id, url_ttl, false).await
    }

    async fn artifacts_with_previews(
        &self,
        id: DispatchId,
        url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        self.kept(id, url_ttl, true).await
    }

    async fn artifact(&self, id: DispatchId, name: &str) -> Result<ByteStream, ApiError> {
        let parts: Vec<&str> = name.split('/').collect();
        if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            // Such a part would name another address instead of a file.
            return Err(ApiError::not_found());
        }
        let id = id.to_string();
        let segments = ["artifacts", &id].into_iter().chain(parts);
        let response = self.open(self.request(Method::GET, segments)).await?;
        Ok(logs::file(self.clone(), response))
    }

    async fn fleet(&self) -> Result<FleetView, ApiError> {
        let get = self.request(Method::GET, ["fleet"]);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn put_secret(
        &self,
        name: SecretName,
        request: PutSecret,
    ) -> Result<SecretView, ApiError> {
        let put = self.request(Method::PUT, ["secrets", name.as_str()]);
        let body = secrets::body(&request)?;
        let put = put.header(CONTENT_TYPE, "application/json").body(body);
        Ok(self.unary(put, UNARY).await?.0)
    }

    async fn list_secrets(&self) -> Result<Vec<SecretView>, ApiError> {
        let get = self.request(Method::GET, ["secrets"]);
        let (page, _): (Page<SecretView>, _) = self.unary(get, UNARY).await?;
        Ok(page.items)
    }

    async fn delete_secret(
        &self,
        name: SecretName,
        scope: SecretScope,
    ) -> Result<SecretView, ApiError> {
        let delete = self.request(Method::DELETE, ["secrets", name.as_str()]);
        Ok(self.unary(delete.query(&[("scope", scope.as_str())]), UNARY).await?.0)
    }

    async fn usage(&self, query: UsageQuery) -> Result<UsageReport, ApiError> {
        let get = self.request(Method::GET, ["usage"]).query(&query);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn list_workspaces(&self) -> Result<Vec<WorkspaceView>, ApiError> {
        let get = self.request(Method::GET, ["workspaces"]);
        let (page, _): (Page<WorkspaceView>, _) = self.unary(get, UNARY).await?;
        Ok(page.items)
    }

    async fn get_workspace(&self, id: &str) -> Result<WorkspaceView, ApiError> {
        let get = self.request(Method::GET, ["workspaces", workspace_id(id)?]);
        Ok(self.unary(get, UNARY).await?.0)
    }

    async fn delete_workspace(&self, id: &str) -> Result<(), ApiError> {
        let delete = self.request(Method::DELETE, ["workspaces", workspace_id(id)?]);
        self.open(delete.timeout(UNARY)).await?;
        Ok(())
    }

    async fn rekey_secrets(&self) -> Result<RekeyView, ApiError> {
        let post = self.request(Method::POST, ["secrets", "rekey"]);
        Ok(self.unary(post, UNARY).await?.0)
    }
}

/// Other texts may name another address instead of a workspace.
fn workspace_id(id: &str) -> Result<&str, ApiError> {
    Some(id).filter(|id| is_workspace_id(id)).ok_or_else(ApiError::not_found)
}
