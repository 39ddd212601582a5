//! What an agent was told before its task, as it was written down.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use outpost_types::{ApiError, ContextView};

use crate::artifacts;
use crate::streams::unreadable;

/// Name among the kept files.
const CONTEXT_FILE: &str = "context.json";
/// Largest document that is read, bytes: its text is bounded, and so are the parts of it.
const CONTEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Reads it.
pub(crate) fn read(kept_dir: &Path) -> Result<ContextView, ApiError> {
    let path = artifacts::find(kept_dir, CONTEXT_FILE).map_err(|error| {
        error.with_hint("A dispatch has a context once its workspace is being prepared.")
    })?;
    let mut document = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    file.take(CONTEXT_BYTES_MAX).read_to_end(&mut document).map_err(|error| unreadable(&error))?;
    serde_json::from_slice(&document).map_err(|error| unreadable(&error.into()))
}

#[cfg(test)]
mod tests {
    use outpost_types::ErrorCode;

    use super::*;

    #[test]
    fn it_is_read_back_and_what_is_none_is_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let code = || read(dir.path()).unwrap_err().code;
        assert_eq!(code(), ErrorCode::NotFound);
        let path = dir.path().join(CONTEXT_FILE);
        std::fs::write(&path, "{\"version\":1,\"sections\":[").unwrap();
        assert_eq!(code(), ErrorCode::Internal);
        let document = r#"{"version":1,"level":"full","budgetTokens":1800,"tokens":1,"sections":[],"redactions":{},"text":"a"}"#;
        std::fs::write(&path, document).unwrap();
        assert_eq!(read(dir.path()).unwrap().text, "a");
    }
}
