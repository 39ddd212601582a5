//! What Outpost can do, as one trait: the engine's handle and the HTTP client both implement it, so
//! that CLI, MCP server and pages do not know which of the two they talk to.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::{
    ApiError, ArtifactView, AuditApi, CancelRequest, ContextView, Created, DispatchId,
    DispatchRequest, DispatchView, EventEnvelope, FleetApi, FleetView, KeysApi, ListQuery,
    NetworkRequest, Page, PromoteApi, PutSecret, RekeyView, SecretName, SecretScope, SecretView,
    TenantsApi, UsageQuery, UsageReport, WebhookApi, WorkspaceView,
};

/// Events in order, from where the reader asked; ends after the terminal one.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<EventEnvelope, ApiError>> + Send>>;
/// Pieces of a file or log, in order.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;
/// See [`ByteStream`].
pub type LogStream = ByteStream;

/// Which part of an output log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Byte offset to start at.
    pub after: u64,
    /// Go on until the dispatch ends.
    pub follow: bool,
}

/// The operations of Outpost, for one caller (the implementation knows who it is).
///
/// Every method may fail with [`ApiError`]; ids of other tenants answer `not_found`.
#[async_trait]
pub trait Api:
    PromoteApi + WebhookApi + KeysApi + TenantsApi + AuditApi + FleetApi + Send + Sync
{
    /// Accepts a task. When this returns, the dispatch is on disk.
    async fn create_dispatch(
        &self,
        request: DispatchRequest,
        idempotency_key: Option<String>,
    ) -> Result<Created, ApiError>;

    /// Reads one dispatch. With `wait`, answers as soon as its generation passes the one it had when
    /// asked (or `after_generation`), or it is terminal, or the time is over.
    async fn get_dispatch(
        &self,
        id: DispatchId,
        wait: Option<Duration>,
        after_generation: Option<u64>,
    ) -> Result<DispatchView, ApiError>;

    /// Cancels. When this returns, the wish is on disk; the processes end within the grace period.
    async fn cancel_dispatch(
        &self,
        id: DispatchId,
        request: CancelRequest,
    ) -> Result<DispatchView, ApiError>;

    /// Changes what the sandbox may reach, running or not. When this returns, the change is on disk; it is in
    /// force for the next connection, and open ones that it does not allow are being cut.
    async fn change_network(
        &self,
        id: DispatchId,
        request: NetworkRequest,
    ) -> Result<DispatchView, ApiError>;

    /// Lists dispatches, newest first.
    async fn list_runs(&self, query: ListQuery) -> Result<Page<DispatchView>, ApiError>;

    /// Events with `seq > after`, then live ones, until the terminal event.
    async fn events(&self, id: DispatchId, after: u64) -> Result<EventStream, ApiError>;

    /// The agent's output as it was printed.
    async fn logs(&self, id: DispatchId, query: LogQuery) -> Result<LogStream, ApiError>;

    /// `diff.patch`; empty while there is none.
    async fn diff(&self, id: DispatchId) -> Result<ByteStream, ApiError>;

    /// What the agent was told before its task.
    async fn context(&self, id: DispatchId) -> Result<ContextView, ApiError>;

    /// Kept files with signed addresses that live `url_ttl`.
    async fn artifacts(
        &self,
        id: DispatchId,
        url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError>;

    /// The same with previews of the first 100 of them. Where nobody makes any, there are none.
    async fn artifacts_with_previews(
        &self,
        id: DispatchId,
        url_ttl: Duration,
    ) -> Result<Vec<ArtifactView>, ApiError> {
        self.artifacts(id, url_ttl).await
    }

    /// One kept file.
    async fn artifact(&self, id: DispatchId, name: &str) -> Result<ByteStream, ApiError>;

    /// What can run here, and what runs now.
    async fn fleet(&self) -> Result<FleetView, ApiError>;

    /// Stores a value under this name, as the next version of what is there. When this returns, it
    /// is on disk, encrypted.
    async fn put_secret(
        &self,
        name: SecretName,
        request: PutSecret,
    ) -> Result<SecretView, ApiError>;

    /// The caller's secrets by name, without their values; for the operator those of the platform
    /// too, after their own. At most [`crate::limits::SECRETS_COUNT_MAX`] of each.
    async fn list_secrets(&self) -> Result<Vec<SecretView>, ApiError>;

    /// Removes a secret with all its versions; answers what it was.
    async fn delete_secret(
        &self,
        name: SecretName,
        scope: SecretScope,
    ) -> Result<SecretView, ApiError>;

    /// What was used, summed up by the gateway's count; for the operator of every tenant, for others their own.
    async fn usage(&self, query: UsageQuery) -> Result<UsageReport, ApiError>;

    /// The caller's persistent workspaces, the last used first; at most
    /// [`crate::limits::WORKSPACES_COUNT_MAX`].
    async fn list_workspaces(&self) -> Result<Vec<WorkspaceView>, ApiError>;

    /// One persistent workspace.
    async fn get_workspace(&self, id: &str) -> Result<WorkspaceView, ApiError>;

    /// Deletes a persistent workspace with all its files; refused while a run is in it.
    async fn delete_workspace(&self, id: &str) -> Result<(), ApiError>;

    /// Makes a new key and encrypts every secret of every tenant with it. Only for the operator.
    async fn rekey_secrets(&self) -> Result<RekeyView, ApiError>;
}
