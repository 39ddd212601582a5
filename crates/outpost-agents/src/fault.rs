//! What kind of failure an agent's error text or HTTP status tells of.
//!
//! Texts were captured from the pinned CLIs against a server answering 401, 403, 429, 500 and cut
//! streams; see `tests/fixtures`.

use outpost_types::FailureCode;

use crate::parse::{ERROR_BYTES_MAX, one_line};

/// Longest part of an error text that is searched, bytes.
const SEARCH_BYTES_MAX: usize = 8 * 1024;

/// The failure an HTTP status of the model's API stands for.
pub(crate) fn of_status(status: u64) -> Option<FailureCode> {
    match status {
        401 | 403 => Some(FailureCode::AgentAuth),
        402 => Some(FailureCode::BudgetExceeded),
        429 => Some(FailureCode::RateLimited),
        _ => None,
    }
}

/// The failure an error text tells of, and the text on one line, bounded.
pub(crate) fn of_text(status: Option<u64>, text: &str) -> (FailureCode, String) {
    let mut message = one_line(text, ERROR_BYTES_MAX);
    if message.is_empty() {
        "the agent gave no reason".clone_into(&mut message);
    }
    let code =
        status.and_then(of_status).or_else(|| from_words(text)).unwrap_or(FailureCode::AgentExit);
    (code, message)
}

fn from_words(text: &str) -> Option<FailureCode> {
    let text = text[..text.floor_char_boundary(SEARCH_BYTES_MAX)].to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // The gateway's own refusals come first: they arrive wrapped in the CLI's words for a status.
    if has(&["budget_exceeded", "insufficient credits", "credit balance is too low"]) {
        return Some(FailureCode::BudgetExceeded);
    }
    if has(&["policy_denied"]) {
        return Some(FailureCode::PolicyDenied);
    }
    if let Some(code) = status_in(&text).and_then(of_status) {
        return Some(code);
    }
    if has(&[
        "unauthorized",
        "unauthenticated",
        "permission_denied",
        "not able to authenticate",
        "authenticationerror",
        "authentication_error",
        "authentication_failed",
        "invalid api key",
        "invalid x-api-key",
        "invalid_api_key",
        "not logged in",
    ]) {
        return Some(FailureCode::AgentAuth);
    }
    if has(&[
        "rate limit",
        "rate_limit",
        "ratelimiterror",
        "rate limited",
        "resource_exhausted",
        "too many requests",
        "quota exceeded",
        "exceeded your current quota",
    ]) {
        return Some(FailureCode::RateLimited);
    }
    None
}

/// An HTTP status named in a lower-case error text, in the ways the CLIs name one.
fn status_in(text: &str) -> Option<u64> {
    const BEFORE: [&str; 7] =
        ["status ", "status: ", "status code ", "status code: ", "error code: ", "\"code\":", "("];
    BEFORE.iter().find_map(|before| {
        text.match_indices(before).take(16).find_map(|(at, _)| {
            let rest = text[at + before.len()..].trim_start();
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let status = rest.get(..digits).filter(|_| digits == 3)?;
            if *before == "(" && rest.as_bytes().get(digits) != Some(&b')') {
                return None;
            }
            status.parse().ok().filter(|status| of_status(*status).is_some())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureCode::{AgentAuth, AgentExit, BudgetExceeded, PolicyDenied, RateLimited};

    #[test]
    fn captured_texts() {
        for (text, wanted) in [
            (
                "unexpected status 401 Unauthorized: invalid x-api-key, url: http://127.0.0.1",
                AgentAuth,
            ),
            ("exceeded retry limit, last status: 429 Too Many Requests", RateLimited),
            ("[API Error: {\"error\":{\"code\":401,\"message\":\"no\"}}]", AgentAuth),
            ("[API Error: Rate limit reached]\nPlease wait", RateLimited),
            ("Internal error: \"Unauthorized (401) from http://127.0.0.1:1/v1", AgentAuth),
            ("API Error: Request rejected (429) · Rate limit reached", RateLimited),
            ("The API provider is not able to authenticate you.", AgentAuth),
            ("litellm.RateLimitError: RateLimitError: DeepseekException", RateLimited),
            ("status 402: {\"code\":\"budget_exceeded\"}", BudgetExceeded),
            ("unexpected status 403: policy_denied", PolicyDenied),
            ("[API Error: terminated]", AgentExit),
            ("wrote 429 files (401 lines changed)", AgentExit),
            ("", AgentExit),
        ] {
            assert_eq!(of_text(None, text).0, wanted, "{text}");
        }
        assert_eq!(of_text(Some(403), "no").0, AgentAuth);
        assert_eq!(of_text(None, "").1, "the agent gave no reason");
    }
}
