//! Headers and addresses of files an agent made. They are hostile: a browser must never run them on
//! our origin, whatever their name claims.

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use outpost_types::{ArtifactView, ByteStream, DispatchId, TenantId, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::ServerConfig;

/// Longest name of an artifact, bytes.
pub(crate) const ARTIFACT_NAME_BYTES_MAX: usize = 1_024;
/// Nothing loads, nothing runs, no form, no frame, an origin of its own.
const CSP: HeaderValue =
    HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");
/// Text as text, whatever it contains.
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// What RFC 5987 and a path segment both allow unescaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text an agent or the platform wrote: a log or a diff.
pub(crate) fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PLAIN);
    headers.insert(header::CONTENT_SECURITY_POLICY, CSP);
    response
}

/// A kept file, as a download.
pub(crate) fn download(name: &str, bytes: ByteStream) -> Response {
    let mut response = Response::new(body(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type(name));
    headers.insert(header::CONTENT_SECURITY_POLICY, CSP);
    headers.insert(header::CONTENT_DISPOSITION, disposition(name));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// A stream as a body. A fault in the middle breaks the connection, so that the reader knows the
/// file is not whole.
pub(crate) fn body(bytes: ByteStream) -> Body {
    Body::from_stream(bytes.map(|piece| {
        piece.map_err(|error| {
            tracing::warn!(code = error.code.as_str(), "a stream broke in the middle");
            std::io::Error::other(error)
        })
    }))
}

/// Media type by name, from a list of types no browser executes.
pub(crate) fn content_type(name: &str) -> HeaderValue {
    let extension = name
        .rsplit('/')
        .next()
        .and_then(|file| file.rsplit_once('.'))
        .map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("txt" | "log" | "md" | "patch" | "diff" | "csv" | "jsonl") => PLAIN,
        Some("json") => HeaderValue::from_static("application/json"),
        Some("png") => HeaderValue::from_static("image/png"),
        Some("jpg" | "jpeg") => HeaderValue::from_static("image/jpeg"),
        _ => HeaderValue::from_static("application/octet-stream"),
    }
}

pub(crate) fn disposition(name: &str) -> HeaderValue {
    let file = name.rsplit('/').next().unwrap_or(name);
    let ascii: String = file
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._ ".contains(c) { c } else { '_' })
        .collect();
    let escaped = utf8_percent_encode(file, ESCAPED);
    let text = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{escaped}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

/// Whether a name can be one of an artifact: relative, no empty, `.` or `..` part, no control
/// characters. Everything else is unknown before any store is asked.
pub(crate) fn is_artifact_name(name: &str) -> bool {
    (1..=ARTIFACT_NAME_BYTES_MAX).contains(&name.len())
        && !name.contains(|c: char| c.is_control() || c == '\\')
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Gives `view` a signed address, unless the store behind the backend made an absolute one of its own.
pub(crate) fn sign(
    config: &ServerConfig,
    tenant: &TenantId,
    id: DispatchId,
    expires_at: Timestamp,
    view: &mut ArtifactView,
) {
    if view.url.contains("://") {
        return;
    }
    // Whole seconds on the wire: the view must not promise more than the address holds.
    let expires = expires_at.as_millis() / 1000;
    let signature = config.signing_key.sign(tenant, id, &view.name, expires);
    let base = config.public_url.as_deref().unwrap_or_default();
    let name = view
        .name
        .split('/')
        .map(|part| utf8_percent_encode(part, ESCAPED).to_string())
        .collect::<Vec<_>>()
        .join("/");
    view.url =
        format!("{base}/artifacts/{id}/{name}?tenant={tenant}&expires={expires}&sig={signature}");
    view.expires_at = Timestamp::from_millis(expires * 1000);
}

/// Marks where in the whole log the body begins.
pub(crate) fn log_offset(headers: &mut HeaderMap, offset: u64) {
    headers.insert("x-outpost-log-offset", HeaderValue::from(offset));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_browser_runs() {
        for name in ["x.html", "x.svg", "a/x.xml", "x.js", "x", "x.HTM", "png", "x.pdf", "x.css"] {
            assert_eq!(content_type(name), "application/octet-stream", "{name}");
        }
        assert_eq!(content_type("a.b/diff.PATCH"), PLAIN);
    }

    #[test]
    fn a_file_name_cannot_leave_its_header() {
        let value = disposition("a/\"é\r\nX: y.txt");
        let text = value.to_str().unwrap();
        assert!(text.starts_with("attachment; filename=\"____X_ y.txt\""), "{text}");
        assert!(text.ends_with("filename*=UTF-8''%22%C3%A9%0D%0AX%3A%20y.txt"), "{text}");
    }

    #[test]
    fn names_that_leave_the_directory_are_unknown() {
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\nb", "a\0b"] {
            assert!(!is_artifact_name(bad), "{bad:?}");
        }
        assert!(is_artifact_name("a/..b/é .txt"));
        assert!(!is_artifact_name(&"x".repeat(ARTIFACT_NAME_BYTES_MAX + 1)));
    }
}
