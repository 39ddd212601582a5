//! `application/x-www-form-urlencoded`, for query strings and bodies. Strict where common parsers
//! guess: bytes that are no UTF-8 and broken `%` escapes are refused instead of replaced.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Most fields of a query or form.
pub(crate) const FORM_FIELDS_COUNT_MAX: usize = 128;

/// Why a text is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormError {
    /// More than [`FORM_FIELDS_COUNT_MAX`] fields.
    TooMany,
    /// An escape or a byte that is no UTF-8 text.
    NotText,
}

/// Fields in the order they were sent.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, FormError> {
    let mut fields = Vec::new();
    for part in bytes.split(|byte| *byte == b'&') {
        if part.is_empty() {
            continue;
        }
        if fields.len() == FORM_FIELDS_COUNT_MAX {
            return Err(FormError::TooMany);
        }
        let equals = part.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &[][..]),
        };
        fields.push((decode(name)?, decode(value)?));
    }
    Ok(fields)
}

fn decode(bytes: &[u8]) -> Result<String, FormError> {
    let spaced: Cow<'_, [u8]> = if bytes.contains(&b'+') {
        let replace = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        Cow::Owned(bytes.iter().map(replace).collect())
    } else {
        Cow::Borrowed(bytes)
    };
    if !escapes_are_whole(&spaced) {
        return Err(FormError::NotText);
    }
    match percent_decode(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(FormError::NotText),
    }
}

fn escapes_are_whole(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_browsers_send() {
        let fields = parse("a=1+2&b=%C3%A9%0A&&c&d==".as_bytes()).unwrap();
        let expected = [("a", "1 2"), ("b", "é\n"), ("c", ""), ("d", "=")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn refuses_what_is_no_text() {
        for bad in ["a=%FF", "a=%", "a=%4", "a=%zz", "%C3=1"] {
            assert_eq!(parse(bad.as_bytes()), Err(FormError::NotText), "{bad}");
        }
        assert_eq!(parse(b"a=\xff"), Err(FormError::NotText));
        let many = "a=1&".repeat(FORM_FIELDS_COUNT_MAX + 1);
        assert_eq!(parse(many.as_bytes()), Err(FormError::TooMany));
    }
}
