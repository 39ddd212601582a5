//! Turns what serde says about a value into an error for a person: it names the field, never repeats
//! the value (it may be a secret in the wrong place) and shows no Rust type.

use outpost_types::{ApiError, ErrorCode};
use serde::de::{DeserializeOwned, IgnoredAny};

/// Part of a client's own field name that is shown back, characters.
const NAME_CHARS_MAX: usize = 64;

/// Reads one JSON object into `T`.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        match serde_path_to_error::deserialize(&mut reader) {
            Ok(value) if reader.end().is_ok() => return Ok(value),
            Ok(_) => {}
            Err(error) if is_json(bytes) => {
                let path = error.path().to_string();
                let text = error.into_inner().to_string();
                let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
                return Err(of_data(&path, message));
            }
            Err(_) => {}
        }
    }
    // Whether it is JSON at all comes before what is in it, and is only asked once it failed.
    let Ok(text) = std::str::from_utf8(bytes) else {
        let message = "The body is not UTF-8 text.";
        return Err(ApiError::new(ErrorCode::MalformedBody, message));
    };
    Err(match serde_json::from_str::<IgnoredAny>(text) {
        // serde would read an array too, taking its entries as the fields in order.
        Ok(_) => ApiError::new(ErrorCode::MalformedBody, "The body must be a JSON object."),
        Err(error) => malformed(&error),
    })
}

fn is_json(bytes: &[u8]) -> bool {
    // Skipping a value does not look at its text, so that is asked apart.
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Reads an already parsed object into `T`.
pub(crate) fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        of_data(&path, &error.into_inner().to_string())
    })
}

/// A field name a client chose, safe to show: bounded and without control characters.
pub(crate) fn shown_name(name: &str) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    name.chars().take(NAME_CHARS_MAX).map(clean).collect()
}

fn malformed(error: &serde_json::Error) -> ApiError {
    let what = if error.is_eof() {
        "The body ends in the middle of a JSON document"
    } else {
        "The body is not valid JSON"
    };
    let (line, column) = (error.line(), error.column());
    ApiError::new(ErrorCode::MalformedBody, format!("{what}: line {line}, column {column}."))
}

fn of_data(path: &str, message: &str) -> ApiError {
    let known = message.rsplit_once(", expected ").map(|(_, list)| list.replace('`', ""));
    let field = shown_name(path);
    if message.starts_with("unknown field") {
        let error = ApiError::field(field.clone(), format!("There is no field `{field}` here."));
        return match known {
            Some(list) => {
                error.with_hint(format!("Fields: {}.", list.trim_start_matches("one of ")))
            }
            None => error,
        };
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        let name = name.trim_matches('`');
        let full = if path == "." { name.to_owned() } else { format!("{path}.{name}") };
        return ApiError::field(full.clone(), format!("The field `{full}` is missing."));
    }
    if let Some(name) = message.strip_prefix("duplicate field ") {
        let name = shown_name(name.trim_matches('`'));
        let message = format!("`{name}` was given more than once.");
        return ApiError::field(name, message);
    }
    let reason = match known {
        Some(expected) => format!("`{field}` must be {}.", in_words(&expected)),
        None => format!("`{field}` has a value that is not allowed."),
    };
    ApiError::field(field, reason)
}

/// What a Rust type is called by a person.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" | "string" | "a borrowed string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("one of ") => other.to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other if other.contains("enum") || other.contains("::") => {
            "one of its named values".to_owned()
        }
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use outpost_types::DispatchRequest;

    use super::*;

    fn of(json: &str) -> ApiError {
        from_json::<DispatchRequest>(json.as_bytes()).unwrap_err()
    }

    #[test]
    fn faults_name_the_field_and_never_the_value() {
        let secret = "sk-secret-1";
        for (json, field, message) in [
            (
                r#"{"agent":"a","task":"t","timeoutSeconds":"sk-secret-1"}"#,
                "timeoutSeconds",
                "a whole number",
            ),
            (r#"{"agent":"a","task":"t","timeoutSeconds":-5}"#, "timeoutSeconds", "a whole number"),
            (
                r#"{"agent":"a","task":"t","timeoutSeconds":1.5}"#,
                "timeoutSeconds",
                "a whole number",
            ),
            (
                r#"{"agent":"a","task":"t","tier":"sk-secret-1"}"#,
                "tier",
                "one of fast, balanced, flagship",
            ),
            (r#"{"agent":"a","task":"t","tier":7}"#, "tier", "tier"),
            (r#"{"agent":["sk-secret-1"],"task":"t"}"#, "agent", "a text"),
            (r#"{"agent":null,"task":"t"}"#, "agent", "a text"),
            (r#"{"agent":"a","task":"t","tags":"sk-secret-1"}"#, "tags", "a list"),
            (r#"{"agent":"a","task":"t","tags":["x",5]}"#, "tags[1]", "a text"),
            (r#"{"agent":"a"}"#, "task", "missing"),
            (r#"{"agent":"a","task":"t","task":"sk-secret-1"}"#, "task", "more than once"),
            (r#"{"agent":"a","task":"t","shell":"sk-secret-1"}"#, "shell", "no field `shell`"),
            (r#"{"agent":"a","task":"t","a\nb":1}"#, "a?b", "no field `a?b`"),
        ] {
            let error = of(json);
            assert_eq!(error.code, ErrorCode::InvalidField, "{json}");
            assert_eq!(error.field.as_deref(), Some(field), "{json}");
            assert!(error.message.contains(message), "{json}: {}", error.message);
            assert!(!format!("{error:?}").contains(secret), "{json}: {error:?}");
            for jargon in ["u64", "u32", "enum", "struct", "line 1"] {
                assert!(!error.message.contains(jargon), "{json}: {}", error.message);
            }
        }
        assert!(of(r#"{"shell":1}"#).hint.unwrap().contains("timeoutSeconds"));
    }

    #[test]
    fn a_value_with_our_own_words_in_it_is_not_repeated() {
        let text = "x, expected sk-secret-1 at line 1 column 2";
        let value = serde_json::json!({"agent": "a", "task": "t", "timeoutSeconds": text});
        let json = of(&value.to_string());
        let form = from_value::<DispatchRequest>(value).unwrap_err();
        for error in [json, form] {
            assert_eq!(error.message, "`timeoutSeconds` must be a whole number.");
        }
    }

    #[test]
    fn broken_json_says_where() {
        for json in ["", "{", "{\"a\":", "nul", "{}x", "\u{feff}{}", "{'a':1}"] {
            let error = of(json);
            assert_eq!(error.code, ErrorCode::MalformedBody, "{json}");
        }
        assert!(of("{\n  \"agent\" 1}").message.contains("line 2, column"));
        let after = from_json::<outpost_types::CancelRequest>(b"{} x").unwrap_err();
        assert_eq!(after.code, ErrorCode::MalformedBody);
        for json in ["[]", "[\"claude\",\"task\"]", "5", "\"x\"", "null"] {
            assert!(of(json).message.contains("JSON object"), "{json}");
        }
        let deep = format!("{{\"agent\":{}", "[".repeat(100_000));
        assert_eq!(of(&deep).code, ErrorCode::MalformedBody);
    }
}
