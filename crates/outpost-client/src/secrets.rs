//! The body that carries a secret: written once, into memory that is overwritten when it was sent.

use bytes::Bytes;
use outpost_types::{ApiError, ErrorCode, PutSecret, SecretKind, SecretScope};
use serde::Serialize;
use zeroize::Zeroizing;

/// A byte of text needs no more in JSON, bytes: a control character as `\\u0000`.
const ESCAPED_BYTES_MAX: usize = 6;
/// Everything of a body but its value, bytes.
const FRAME_BYTES_MAX: usize = 128;

#[derive(Serialize)]
struct Wire<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<SecretKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<SecretScope>,
}

/// The JSON of a request.
pub(crate) fn body(request: &PutSecret) -> Result<Bytes, ApiError> {
    let value = request.value.expose();
    let wire = Wire { value, kind: request.kind, scope: request.scope };
    // Large enough from the start: growing would leave a copy behind.
    let capacity = value.len() * ESCAPED_BYTES_MAX + FRAME_BYTES_MAX;
    let mut json = Zeroizing::new(Vec::with_capacity(capacity));
    serde_json::to_writer(&mut *json, &wire)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "The secret could not be written."))?;
    debug_assert!(json.len() <= capacity);
    Ok(Bytes::from_owner(json))
}

#[cfg(test)]
mod tests {
    use outpost_types::SecretValue;

    use super::*;

    #[test]
    fn the_server_reads_what_was_written() {
        for text in
            ["canary-1".to_owned(), "\u{1}\"\\é\u{1F600}".repeat(1_000), "\u{1}".repeat(65_536)]
        {
            let value = SecretValue::new(text);
            for (kind, scope) in
                [(None, None), (Some(SecretKind::Exposed), Some(SecretScope::Platform))]
            {
                let request = PutSecret { value: value.clone(), kind, scope };
                let read: PutSecret = serde_json::from_slice(&body(&request).unwrap()).unwrap();
                assert_eq!(read, request);
            }
        }
    }
}
