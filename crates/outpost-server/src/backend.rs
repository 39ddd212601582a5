//! What the server needs from the engine beside the `Api` itself.

use std::sync::Arc;

use async_trait::async_trait;
use outpost_types::{Admission, Api, ApiError, ByteStream, Caller, DispatchId, TenantId};
use thiserror::Error;

/// Why a key does not work. The first three answer 401, the last 403; only the holder of the key learns which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthError {
    /// There is no such key.
    #[error("This key is not known here.")]
    Unknown,
    /// It was taken back.
    #[error("This key was revoked.")]
    Revoked,
    /// Its time is over.
    #[error("This key has expired.")]
    Expired,
    /// Its tenant is suspended.
    #[error("The tenant of this key is suspended.")]
    Suspended,
}

/// The engine as the server sees it. One value serves all requests.
///
/// Futures may be dropped at any await point when a client hangs up or a handler runs out of time;
/// what was made durable by then stays.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Who `key` belongs to, and how much it may ask for. Called for every request, so it must not block or do IO: the
    /// intended shape is a hash of the key looked up in a map in memory.
    fn authenticate(&self, key: &str) -> Result<Admission, AuthError>;

    /// The operations as `caller` sees them. Called once per request after the scope check.
    fn api(&self, caller: &Arc<Caller>) -> Arc<dyn Api>;

    /// Whether dispatches can be accepted now. The text of an error is shown to anyone who asks
    /// `GET /health/ready`, without a key: it must name no path and no secret.
    async fn ready(&self) -> Result<(), String>;

    /// A kept file whose signed address was already verified to be of `tenant`.
    async fn artifact_for_signed(
        &self,
        tenant: &TenantId,
        id: DispatchId,
        name: &str,
    ) -> Result<ByteStream, ApiError>;
}
