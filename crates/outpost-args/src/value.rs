//! Readers of single flag values. Each error says what is expected; clap puts the flag's name before it.

use outpost_types::UsageGroup;
use outpost_types::limits::{
    DEADLINE_SECONDS_MAX, DEADLINE_SECONDS_MIN, LIST_LIMIT_MAX, TIMEOUT_SECONDS_MAX,
    TIMEOUT_SECONDS_MIN,
};

/// Longest text of a duration, bytes.
const DURATION_BYTES_MAX: usize = 16;
/// Longest address of a server, bytes.
const SERVER_URL_BYTES_MAX: usize = 2_048;

/// Seconds from `90`, `90s`, `10m`, `2h` or `1h30m`.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a duration such as 90s, 10m, 2h or 1h30m";
    if text.is_empty() || text.len() > DURATION_BYTES_MAX {
        return Err(EXPECTED.to_owned());
    }
    let (mut total, mut number, mut largest_unit) = (0_u64, None, u64::MAX);
    for character in text.chars() {
        if let Some(digit) = character.to_digit(10) {
            let grown = number
                .unwrap_or(0_u64)
                .checked_mul(10)
                .and_then(|n| n.checked_add(u64::from(digit)));
            number = Some(grown.ok_or(EXPECTED)?);
            continue;
        }
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => return Err(EXPECTED.to_owned()),
        };
        if unit >= largest_unit {
            return Err(EXPECTED.to_owned());
        }
        largest_unit = unit;
        let part = number.take().and_then(|n| n.checked_mul(unit));
        total = part.and_then(|part| total.checked_add(part)).ok_or(EXPECTED)?;
    }
    // A number without a unit is seconds, but only on its own: `1h30` is more likely a slip.
    match (number, largest_unit) {
        (Some(bare), u64::MAX) => Ok(bare),
        (Some(_), _) => Err(EXPECTED.to_owned()),
        (None, _) => Ok(total),
    }
}

/// A timeout within the bounds of the API.
pub(crate) fn timeout(text: &str) -> Result<u64, String> {
    let value = seconds(text)?;
    if (TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX).contains(&value) {
        Ok(value)
    } else {
        Err(format!("expected {TIMEOUT_SECONDS_MIN}s to {TIMEOUT_SECONDS_MAX}s (24h)"))
    }
}

/// A deadline within the bounds of the API.
pub(crate) fn deadline(text: &str) -> Result<u64, String> {
    let value = seconds(text)?;
    if (DEADLINE_SECONDS_MIN..=DEADLINE_SECONDS_MAX).contains(&value) {
        Ok(value)
    } else {
        Err(format!("expected {DEADLINE_SECONDS_MIN}s to {DEADLINE_SECONDS_MAX}s (168h)"))
    }
}

/// A page size within the bounds of the API.
pub(crate) fn limit(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(value) if (1..=LIST_LIMIT_MAX).contains(&value) => Ok(value),
        _ => Err(format!("expected 1 to {LIST_LIMIT_MAX}")),
    }
}

/// By what sums are told apart.
pub(crate) fn group(text: &str) -> Result<UsageGroup, String> {
    text.parse().map_err(|()| "expected tenant, day, agent or model".to_owned())
}

/// An http or https address, without a slash at the end.
pub(crate) fn server_url(text: &str) -> Result<String, String> {
    if text.len() > SERVER_URL_BYTES_MAX {
        return Err(format!("expected at most {SERVER_URL_BYTES_MAX} bytes"));
    }
    let url = url::Url::parse(text)
        .map_err(|error| format!("{error}; expected an address such as http://127.0.0.1:7711"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("expected an http:// or https:// address".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address holds no credentials: set OUTPOST_API_KEY".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected an address without ? and #".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("2h", 7_200),
            ("1h30m", 5_400),
            ("1h0m5s", 3_605),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "m10",
            "10x",
            "-5",
            "1.5h",
            "1h30",
            "5s5s",
            "5s1h",
            "99999999999999999999",
            "９0",
            "10 m",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn timeouts_have_the_bounds_of_the_api() {
        assert!(timeout("29").is_err());
        assert_eq!(timeout("30"), Ok(30));
        assert_eq!(timeout("24h"), Ok(86_400));
        assert!(timeout("24h1s").is_err());
    }

    #[test]
    fn addresses() {
        assert_eq!(server_url("http://127.0.0.1:7711/"), Ok("http://127.0.0.1:7711".to_owned()));
        assert_eq!(server_url("https://x.test/outpost/"), Ok("https://x.test/outpost".to_owned()));
        for text in ["", "127.0.0.1:80", "ftp://x", "http://a:b@x", "http://x/?q", "http://"] {
            assert!(server_url(text).is_err(), "{text}");
        }
    }
}
