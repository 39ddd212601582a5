//! Kept files of a dispatch.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// One kept file and where to fetch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactView {
    /// Path below the dispatch's artifacts, with `/`.
    pub name: String,
    /// Size, bytes.
    pub size_bytes: u64,
    /// Media type by its name.
    pub content_type: String,
    /// Signed address that needs no key; absolute or relative to the server.
    pub url: String,
    /// When the address stops working.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}
