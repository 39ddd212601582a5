//! Which paths are calls of a model, and so may be forwarded.
//!
//! A list instead of "everything under the base URL": with the real key behind it, an agent could otherwise
//! read files, stored conversations or keys of the account. Sources: the providers' public API references
//! and what the pinned CLIs send. Absent: files, batches, fine-tuning, stored responses, administration.

use http::Method;

use super::event::DenialReason;
use super::usage::UsageDialect;

/// Longest model name in a path, bytes.
const MODEL_BYTES_MAX: usize = 128;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Passed on.
    Forward,
    /// A CLI's harmless look around, answered here: 200 or 404 without a body that matters.
    Local(u16),
    /// Refused.
    Deny(DenialReason),
}

/// Judges method and path; `path` begins after the route's prefix.
pub(crate) fn judge(method: &Method, path: &str) -> Verdict {
    let probe = matches!(*method, Method::GET | Method::HEAD);
    match path {
        // Claude Code and Grok look whether anyone is there.
        "" | "/" | "/api/hello" if *method == Method::HEAD => return Verdict::Local(200),
        // Grok asks about its key; 404 makes it go on without.
        "" | "/" | "/v1/api-key" if probe => return Verdict::Local(404),
        _ => {}
    }
    let path = ["/v1beta", "/v1alpha", "/v1", "/beta"]
        .iter()
        .find_map(|version| path.strip_prefix(version).filter(|rest| rest.starts_with('/')))
        .unwrap_or(path);
    let wanted = match path {
        "/messages"
        | "/messages/count_tokens"
        | "/responses"
        | "/responses/compact"
        | "/chat/completions" => Method::POST,
        "/models" => Method::GET,
        _ => match path.strip_prefix("/models/") {
            Some(rest) => match rest.split_once(':') {
                Some((model, "generateContent" | "streamGenerateContent" | "countTokens"))
                    if is_model(model) =>
                {
                    Method::POST
                }
                None if is_model(rest) => Method::GET,
                _ => return Verdict::Deny(DenialReason::PathNotAllowed),
            },
            None => return Verdict::Deny(DenialReason::PathNotAllowed),
        },
    };
    if *method == wanted { Verdict::Forward } else { Verdict::Deny(DenialReason::MethodNotAllowed) }
}

/// How a call that may pass is charged; `None` when it is free.
pub(crate) fn charged(method: &Method, path: &str) -> Option<UsageDialect> {
    let counts_only = path.ends_with("/count_tokens") || path.ends_with(":countTokens");
    spoken(method, path).filter(|_| !counts_only)
}

/// The language of a call with a body; `None` for one without.
pub(crate) fn spoken(method: &Method, path: &str) -> Option<UsageDialect> {
    let last = path.rsplit('/').next().unwrap_or_default();
    match last {
        _ if *method != Method::POST => None,
        "messages" | "count_tokens" => Some(UsageDialect::Messages),
        "responses" | "compact" => Some(UsageDialect::Responses),
        "completions" => Some(UsageDialect::Chat),
        _ => Some(UsageDialect::Gemini),
    }
}

/// The model named in a path of Gemini.
pub(crate) fn model_in(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("/models/")?;
    rest.split_once(':').map(|(model, _)| model)
}

/// A single plain path segment.
fn is_model(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    (1..=MODEL_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_model_calls_pass() {
        let post = [
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/responses",
            "/v1/chat/completions",
            "/chat/completions",
            "/beta/chat/completions",
            "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
            "/models/gemini-2.5-pro:generateContent",
        ];
        for path in post {
            assert_eq!(judge(&Method::POST, path), Verdict::Forward, "{path}");
            assert_ne!(judge(&Method::GET, path), Verdict::Forward, "{path}");
        }
        assert_eq!(judge(&Method::GET, "/v1/models"), Verdict::Forward);
        assert_eq!(judge(&Method::GET, "/v1/models/gpt-5"), Verdict::Forward);
        assert_eq!(judge(&Method::HEAD, "/api/hello"), Verdict::Local(200));
        assert_eq!(judge(&Method::GET, "/"), Verdict::Local(404));
        let denied = [
            "/v1/files",
            "/v1/responses/resp_1",
            "/v1/messages/batches",
            "/v1/organizations/keys",
            "/v1/../v1/messages",
            "/v1/models/../files",
            "/v1/models/%2e%2e:generateContent",
            "/v1/models/a/b:generateContent",
            "/v1//messages",
            "/v1/messages/",
            "/v1/api-key",
            "",
        ];
        for path in denied {
            assert!(matches!(judge(&Method::POST, path), Verdict::Deny(_)), "{path}");
        }
        assert_eq!(
            judge(&Method::DELETE, "/v1/messages"),
            Verdict::Deny(DenialReason::MethodNotAllowed)
        );
    }

    #[test]
    fn what_makes_a_model_write_is_charged() {
        let of = |path| charged(&Method::POST, path);
        assert_eq!(of("/v1/messages"), Some(UsageDialect::Messages));
        assert_eq!(of("/v1/messages/count_tokens"), None);
        assert_eq!(of("/v1/responses"), Some(UsageDialect::Responses));
        assert_eq!(of("/v1/responses/compact"), Some(UsageDialect::Responses));
        assert_eq!(of("/beta/chat/completions"), Some(UsageDialect::Chat));
        assert_eq!(of("/v1beta/models/g-1:generateContent"), Some(UsageDialect::Gemini));
        assert_eq!(of("/v1beta/models/g-1:streamGenerateContent"), Some(UsageDialect::Gemini));
        assert_eq!(of("/v1beta/models/g-1:countTokens"), None);
        assert_eq!(charged(&Method::GET, "/v1/models/gpt-5"), None);
    }

    #[test]
    fn gemini_names_its_model_in_the_path() {
        assert_eq!(model_in("/google/v1beta/models/g-1:countTokens"), Some("g-1"));
        assert_eq!(model_in("/v1/messages"), None);
    }
}
