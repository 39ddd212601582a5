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
    /// How it begins; only where it was asked for, and only of text and of pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<ArtifactPreview>,
}

/// What can be shown of a kept file without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum ArtifactPreview {
    /// The beginning of a text.
    Text {
        /// At most 4,096 bytes, without control characters but line ends and tabs, and without secrets of known
        /// shapes. An agent wrote it: it is text and nothing else.
        text: String,
        /// Whether there is more.
        truncated: bool,
        /// Whether a secret was masked.
        masked: bool,
    },
    /// The size of a picture, as its header says.
    Image {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
}
