//! Who calls, and what they may do.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use outpost_types::{
    Api, ApiError, Caller, CancelRequest, DispatchRequest, ErrorCode, KeyId, PromoteRequest, Scope,
};

/// Checks of the bounds of requests, as the HTTP routes make them before the engine sees one.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// Of a request for a dispatch.
    pub dispatch: fn(&DispatchRequest) -> Result<(), ApiError>,
    /// Of a request to cancel.
    pub cancel: fn(&CancelRequest) -> Result<(), ApiError>,
    /// Of a request to promote.
    pub promote: fn(&PromoteRequest) -> Result<(), ApiError>,
}

/// What one call may do: the operations as its caller sees them.
#[derive(Clone)]
pub struct Grant {
    pub(crate) api: Arc<dyn Api>,
    caller: Option<Arc<Caller>>,
    checks: Option<Checks>,
    /// The repository a task is about when the call names none.
    pub(crate) repo: Option<String>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("caller", &self.caller).field("repo", &self.repo).finish()
    }
}

impl Grant {
    /// Operations behind which somebody else checks key, scopes and bounds: those of an HTTP client.
    #[must_use]
    pub fn checked_elsewhere(api: Arc<dyn Api>) -> Self {
        Self { api, caller: None, checks: None, repo: None }
    }

    /// Operations of the engine itself for `caller`; scopes and bounds are checked here.
    #[must_use]
    pub fn of_caller(api: Arc<dyn Api>, caller: Arc<Caller>, checks: Checks) -> Self {
        Self { api, caller: Some(caller), checks: Some(checks), repo: None }
    }

    /// The same, with a repository for tasks that name none.
    #[must_use]
    pub fn with_repo(mut self, repo: Option<String>) -> Self {
        self.repo = repo;
        self
    }

    /// The caller's key, as far as it is known here.
    pub(crate) fn key(&self) -> Option<KeyId> {
        self.caller.as_ref().map(|caller| caller.key)
    }

    /// Whether the caller has the scope, as far as it is known here.
    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.caller.as_ref().is_none_or(|caller| caller.may(scope))
    }

    /// Refuses a caller without the scope.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.may(scope) {
            return Ok(());
        }
        let message = format!("This key does not have the scope `{scope}`.");
        let hint = "Tell the user: it takes another key, which the operator of the server makes.";
        Err(ApiError::new(ErrorCode::Forbidden, message).with_hint(hint))
    }

    pub(crate) fn check_dispatch(&self, request: &DispatchRequest) -> Result<(), ApiError> {
        self.checks.map_or(Ok(()), |checks| (checks.dispatch)(request))
    }

    pub(crate) fn check_cancel(&self, request: &CancelRequest) -> Result<(), ApiError> {
        self.checks.map_or(Ok(()), |checks| (checks.cancel)(request))
    }

    pub(crate) fn check_promote(&self, request: &PromoteRequest) -> Result<(), ApiError> {
        self.checks.map_or(Ok(()), |checks| (checks.promote)(request))
    }
}

/// Where grants come from. Asked at every call, so that a server that ended meanwhile can be started again.
#[async_trait]
pub trait Grants: Send + Sync {
    /// What a call may do now.
    async fn grant(&self) -> Result<Grant, ApiError>;
}

#[async_trait]
impl Grants for Grant {
    async fn grant(&self) -> Result<Grant, ApiError> {
        Ok(self.clone())
    }
}
