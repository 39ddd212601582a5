//! What a client sends, and the names of artifacts, which an agent chose and a client asks for.

use std::ffi::CString;
use std::path::{Component, Path};

use outpost_server::fuzzing as server;
use outpost_types::{ApiError, DispatchRequest, ErrorCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::text::assert_line;

/// Longest message or hint of an error, bytes; a hint may list all fields of a request.
const ERROR_BYTES_MAX: usize = 2_000;
/// Longest name of a field in an error: 64 characters, bytes.
const FIELD_BYTES_MAX: usize = 64 * 4;
/// Stands for a secret that somebody put into the wrong field.
const CANARY: &str = "sk-canary";
/// Media types that no browser executes.
const HARMLESS: [&str; 5] = [
    "text/plain; charset=utf-8",
    "application/json",
    "image/png",
    "image/jpeg",
    "application/octet-stream",
];

fn check_error(error: &ApiError) {
    assert!(
        matches!(
            error.code,
            ErrorCode::MalformedBody | ErrorCode::InvalidField | ErrorCode::UnsupportedMediaType
        ),
        "{error:?}"
    );
    assert!(!error.message.is_empty());
    assert_line(&error.message, ERROR_BYTES_MAX);
    assert_line(error.hint.as_deref().unwrap_or_default(), ERROR_BYTES_MAX);
    assert_line(error.field.as_deref().unwrap_or_default(), FIELD_BYTES_MAX);
    assert_eq!(error.field.is_some(), error.code == ErrorCode::InvalidField, "{error:?}");
}

/// A form, and a query string: what was read reads the same when it is written again.
pub fn request_form(data: &[u8]) {
    if let Some(fields) = server::form(data) {
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let written: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        assert_eq!(server::form(written.join("&").as_bytes()), Some(fields));
    }
    let Ok(query) = std::str::from_utf8(data) else { return };
    match server::query(query) {
        Ok((_, _, cursor)) => {
            assert!(cursor.is_none_or(|cursor| (1..=512).contains(&cursor.len())));
        }
        Err(error) => {
            check_error(&error);
            assert_eq!(error.code, ErrorCode::InvalidField);
        }
    }
}

/// Values of headers: `Last-Event-ID` and `Idempotency-Key`.
pub fn request_headers(data: &[u8]) {
    if let Some(read) = server::last_event_id(data) {
        match read {
            Ok(number) => {
                let number = number.expect("the header is there").to_string();
                assert_eq!(server::last_event_id(number.as_bytes()), Some(Ok(number.parse().ok())));
            }
            Err(error) => check_error(&error),
        }
    }
    if let Some(read) = server::idempotency_key(data) {
        match read {
            Ok(key) => assert_eq!(key.as_deref().map(str::as_bytes), Some(data)),
            Err(error) => check_error(&error),
        }
    }
}

/// The body of a request to dispatch something; as a form when it begins with `!`.
pub fn dispatch_body(data: &[u8]) {
    let (body, is_form) = match data.strip_prefix(b"!") {
        Some(body) => (body, true),
        None => (data, false),
    };
    match server::dispatch(body, is_form) {
        Ok(request) => {
            let json = serde_json::to_vec(&request).expect("a request has a JSON form");
            let again = server::dispatch(&json, false).map(without_budget);
            assert_eq!(again, Ok(without_budget(request)));
        }
        Err(error) => {
            check_error(&error);
            let told = format!("{error:?}").contains(CANARY);
            assert!(!told || names_hold_canary(body, is_form), "a value is repeated: {error:?}");
        }
    }
}

/// The last digit of a float may be lost.
fn without_budget(mut request: DispatchRequest) -> DispatchRequest {
    request.budget_usd = None;
    request
}

/// Whether the canary may stand in the name of a field, which an error does repeat.
fn names_hold_canary(body: &[u8], is_form: bool) -> bool {
    if is_form {
        let fields = server::form(body).unwrap_or_default();
        return fields.iter().any(|(name, _)| name.contains(CANARY));
    }
    let text = String::from_utf8_lossy(body);
    let mut rest = text.as_ref();
    while let Some(at) = rest.find(CANARY) {
        rest = &rest[at + CANARY.len()..];
        // The rest of that string, and what follows it.
        let after = rest.split_once('"').map_or("", |(_, after)| after);
        if rest.split('"').next().is_some_and(|own| own.ends_with('\\'))
            || after.trim_start().starts_with(':')
        {
            return true;
        }
    }
    false
}

/// The name of a file in the agent's `artifacts/`, and a name that a client asks for.
pub fn artifact_names(data: &[u8]) {
    let asked = String::from_utf8_lossy(data);
    if server::is_artifact_name(&asked) {
        check_place(&asked);
        check_sent(&asked);
    }
    // A directory entry: no slash, no NUL, at most 255 bytes.
    let entry = &data[..data.len().min(255)];
    let Ok(entry) = CString::new(entry) else { return };
    let special = matches!(entry.as_bytes(), b"" | b"." | b"..");
    if special || entry.as_bytes().contains(&b'/') {
        return;
    }
    if let Some(name) = outpost_workspace::fuzzing::artifact_name(&entry) {
        let full = format!("artifacts/{name}");
        assert_line(&full, 512);
        assert!(server::is_artifact_name(&full), "{full:?} is kept and cannot be fetched");
        check_place(&full);
        check_sent(&full);
    }
}

/// The name stays in the directory it is joined to.
fn check_place(name: &str) {
    let path = Path::new("/kept").join(name);
    assert!(path.starts_with("/kept"), "{path:?}");
    let parts = Path::new(name).components();
    assert!(parts.clone().all(|part| matches!(part, Component::Normal(_))), "{name:?}");
    assert_eq!(parts.count(), name.split('/').count(), "{name:?}");
}

/// Its headers and its address hold nothing but it.
fn check_sent(name: &str) {
    let [media_type, disposition, url] = server::artifact(name);
    assert!(HARMLESS.contains(&media_type.as_str()), "{media_type}");
    assert!(disposition.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{disposition}");
    let inner = disposition.strip_prefix("attachment; filename=\"").expect("it is a download");
    let (plain, extended) = inner.split_once("\"; filename*=UTF-8''").expect("it has both names");
    assert!(!plain.contains(['"', '\\']) && !extended.contains(['"', ';', ' ']), "{disposition}");
    let file = name.rsplit('/').next().unwrap_or_default();
    assert_eq!(percent_decode_str(extended).decode_utf8_lossy(), file);
    let (path, _) = url.split_once('?').expect("an address is signed");
    assert!(
        path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>#\\".contains(&byte)),
        "{url}"
    );
    let shown = path.splitn(4, '/').nth(3).unwrap_or_default();
    assert_eq!(percent_decode_str(shown).decode_utf8_lossy(), name);
}
