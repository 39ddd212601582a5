//! What a provider's "not now" says about when to come back.
//!
//! Sources: RFC 9110 (`Retry-After`), the public documents of Anthropic and OpenAI on rate limits, Google's
//! `google.rpc.RetryInfo`. Bounded: what is read of the answer. Absent: guesses about limits that were not
//! hit.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

/// What is read of the body of such an answer, bytes.
pub(crate) const LIMIT_BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest time that may take, seconds.
pub(crate) const LIMIT_BODY_SECONDS_MAX: u64 = 10;
/// Longest wait that is believed, seconds: a week.
const WAIT_SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;
/// Most details of Google's errors that are looked at.
const DETAILS_MAX: usize = 32;

/// What to make of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing about limits, or nothing that waiting helps against.
    PassOn,
    /// Come back after that time, if one was named.
    ComeBack(Option<Duration>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    #[serde(rename = "type")]
    kind: serde_json::Value,
    code: serde_json::Value,
    status: serde_json::Value,
    details: serde_json::Value,
}

/// Whether an answer may be about limits, by its status alone.
pub(crate) fn may_be_limit(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503 | 529)
}

/// Judges an answer of such a status.
pub(crate) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Verdict {
    // Gemini's streams that are lists have lists of errors, too.
    let parsed = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<[ErrorAnswer; 1]>(body).map(|[one]| one)
    } else {
        serde_json::from_slice::<ErrorAnswer>(body)
    };
    let error = parsed.unwrap_or_default().error;
    let says =
        |word: &str| [&error.kind, &error.code, &error.status].into_iter().any(|it| it == word);
    // OpenAI says so when the account has no money left.
    if says("insufficient_quota") || says("billing_hard_limit_reached") {
        return Verdict::PassOn;
    }
    let wait = from_headers(headers, now).or_else(|| retry_info(&error.details));
    let overloaded = status != StatusCode::SERVICE_UNAVAILABLE
        || wait.is_some()
        || says("overloaded_error")
        || says("UNAVAILABLE");
    if overloaded { Verdict::ComeBack(wait) } else { Verdict::PassOn }
}

fn from_headers(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return seconds(millis / 1000.0);
    }
    if let Some(after) = text("retry-after") {
        return match after.parse::<f64>() {
            Ok(after) => seconds(after),
            Err(_) => until(jiff::fmt::rfc2822::parse(after).ok()?.timestamp(), now),
        };
    }
    // The limits that are used up; where none says so, all of them.
    let mut resets = Vec::new();
    for kind in ["requests", "tokens", "input-tokens", "output-tokens"] {
        let reset = text(&format!("anthropic-ratelimit-{kind}-reset"))
            .and_then(|text| until(text.parse().ok()?, now))
            .or_else(|| duration(text(&format!("x-ratelimit-reset-{kind}"))?));
        let left = text(&format!("anthropic-ratelimit-{kind}-remaining"))
            .or_else(|| text(&format!("x-ratelimit-remaining-{kind}")));
        resets.extend(reset.map(|reset| (left == Some("0"), reset)));
    }
    let used_up = resets.iter().any(|(used_up, _)| *used_up);
    resets.iter().filter(|(this, _)| *this || !used_up).map(|(_, reset)| *reset).max()
}

fn retry_info(details: &serde_json::Value) -> Option<Duration> {
    let details = details.as_array()?.iter().take(DETAILS_MAX);
    let mut found = details.filter(|detail| {
        detail["@type"].as_str().is_some_and(|name| name.ends_with("google.rpc.RetryInfo"))
    });
    duration(found.next()?["retryDelay"].as_str()?)
}

/// From now to an instant; nothing when it has passed.
fn until(instant: jiff::Timestamp, now: SystemTime) -> Option<Duration> {
    let instant = SystemTime::from(instant);
    seconds(instant.duration_since(now).unwrap_or_default().as_secs_f64())
}

fn seconds(seconds: f64) -> Option<Duration> {
    (0.0..=WAIT_SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// Reads `1s`, `20ms`, `6m0s`, `1h2m3.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text.trim();
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        total += number
            * match &rest[digits..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[unit..];
        parts += 1;
        if parts > 5 {
            return None;
        }
    }
    if parts == 0 { None } else { seconds(total) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(status: u16, headers: &[(&'static str, &str)], body: &str) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        // 2026-01-01T00:00:00Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        judge(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes(), now)
    }

    fn after(millis: u64) -> Verdict {
        Verdict::ComeBack(Some(Duration::from_millis(millis)))
    }

    #[test]
    fn every_way_to_say_when_is_understood() {
        let cases: &[(&[(&'static str, &str)], u64)] = &[
            (&[("retry-after", "7")], 7000),
            (&[("retry-after-ms", "250"), ("retry-after", "7")], 250),
            (&[("retry-after", "Thu, 01 Jan 2026 00:01:30 GMT")], 90_000),
            (&[("retry-after", "Thu, 01 Jan 1970 00:01:30 GMT")], 0),
            (&[("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:20Z")], 20_000),
            (
                &[
                    ("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:20Z"),
                    ("anthropic-ratelimit-requests-remaining", "9"),
                    ("anthropic-ratelimit-input-tokens-reset", "2026-01-01T00:00:05Z"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                ],
                5000,
            ),
            (
                &[("x-ratelimit-reset-tokens", "6m0s"), ("x-ratelimit-reset-requests", "1s")],
                360_000,
            ),
            (
                &[
                    ("x-ratelimit-reset-tokens", "6m0s"),
                    ("x-ratelimit-reset-requests", "20ms"),
                    ("x-ratelimit-remaining-requests", "0"),
                ],
                20,
            ),
        ];
        for (headers, millis) in cases {
            assert_eq!(verdict(429, headers, ""), after(*millis), "{headers:?}");
        }
        let google = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.Help"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37.5s"}]}}"#;
        assert_eq!(verdict(429, &[], google), after(37_500));
        assert_eq!(verdict(429, &[], &format!("[{google}]")), after(37_500));
        assert_eq!(verdict(429, &[], "<html>"), Verdict::ComeBack(None));
        assert_eq!(verdict(529, &[], ""), Verdict::ComeBack(None));
    }

    #[test]
    fn what_waiting_does_not_help_against_is_passed_on() {
        let quota = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#;
        assert_eq!(verdict(429, &[("retry-after", "1")], quota), Verdict::PassOn);
        assert_eq!(verdict(503, &[], "{}"), Verdict::PassOn);
        assert_eq!(
            verdict(503, &[], r#"{"error":{"status":"UNAVAILABLE"}}"#),
            Verdict::ComeBack(None)
        );
        assert_eq!(verdict(503, &[("retry-after", "1")], ""), after(1000));
        for odd in ["", "-1", "1e99", "NaN", "soon", "9999999"] {
            assert_eq!(verdict(429, &[("retry-after", odd)], ""), Verdict::ComeBack(None), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9hms.d]{0,20}|.{0,20}") {
            let _ = duration(&text);
            let _ = verdict(429, &[], &text);
        }
    }
}
