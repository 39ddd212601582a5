//! Whether a value looks as if drawn by lot: what tells `token = 8fK2…` from `token = parser.next`.

/// Bits per byte that such a value has at least.
const BITS_MIN: f64 = 3.2;

/// Whether it looks like a secret. With `digits` it needs some: its name alone makes it none.
pub(super) fn looks_random(value: &[u8], digits: bool) -> bool {
    let count = |test: fn(&u8) -> bool| value.iter().filter(|byte| test(byte)).count();
    let (letters, numbers) = (count(u8::is_ascii_alphabetic), count(u8::is_ascii_digit));
    let mixed = count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0;
    if letters == 0 || digits && numbers < 2 || !digits && numbers == 0 && !mixed {
        return false;
    }
    !is_reference(value) && !is_identifier(value) && bits(value) >= BITS_MIN
}

/// Whether it names where a value is, or shows where one goes.
fn is_reference(value: &[u8]) -> bool {
    const FIRST: &[u8] = b"$%*/.~@#-";
    const WORDS: [&str; 9] =
        ["example", "changeme", "your", "placeholder", "xxxx", "[masked", "env.", "environ", "://"];
    let lower = value.to_ascii_lowercase();
    let has = |word: &str| lower.windows(word.len()).any(|part| part == word.as_bytes());
    value.first().is_some_and(|byte| FIRST.contains(byte)) || WORDS.into_iter().any(has)
}

/// Whether it is a UUID, a ULID, a hash with its name, or words joined as in code.
fn is_identifier(value: &[u8]) -> bool {
    let uuid = value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let ulid = value.len() == 26
        && value.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let hash = [&b"sha1-"[..], b"sha256", b"sha384", b"sha512", b"md5"];
    uuid || ulid || hash.into_iter().any(|name| value.starts_with(name)) || is_words(value)
}

/// Parts of only letters, or of only digits, or of letters that end in a few digits: `get_token_2`, `v1.parse`.
fn is_words(value: &[u8]) -> bool {
    let mut parts = value.split(|byte| matches!(byte, b'_' | b'.' | b'-' | b'/' | b':')).peekable();
    let of_letters = |part: &[u8]| {
        let digits = part.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let letters = &part[..part.len() - digits];
        let one_case = letters.iter().skip(1).all(u8::is_ascii_lowercase)
            || letters.iter().all(u8::is_ascii_uppercase);
        digits <= 4 && letters.len() <= 24 && one_case
    };
    parts.all(of_letters)
}

/// Entropy of its bytes.
fn bits(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    let total = value.len() as f64;
    let share = |count: &u32| f64::from(*count) / total;
    counts.iter().filter(|count| **count > 0).map(share).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_told_from_words() {
        for secret in ["8fK2mQ9zLr4Xw7Tp", "p4ssW0rd!xy9Qk", "0a9f8b7c6d5e4f3a2b1c0d9e8f7a6b5c"] {
            assert!(looks_random(secret.as_bytes(), true), "{secret}");
        }
        for word in [
            "parser.next_token2",
            "get_token_from_env",
            "$SECRET_TOKEN_1",
            "01J9Z3NDEKTSV4RRFFQ69G5FAV",
            "123e4567-e89b-12d3-a456-426614174000",
            "1234567890",
            "aaaaaaaa11",
            "your-token-123abcXYZ",
            "TokenKind2",
        ] {
            assert!(!looks_random(word.as_bytes(), true), "{word}");
        }
    }
}
