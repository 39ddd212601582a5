//! Values that are known: the exposed secrets of a run and its gateway handle, in every form they are likely
//! to be printed in.
//!
//! Bounded: by the bounds of secrets themselves. Absent: a value that was cut, reversed or encrypted.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shortest form that is looked for, bytes: a shorter one would be found in everything.
pub(super) const FORM_BYTES_MIN: usize = 6;
/// Longest value, or line of one, whose encoded forms are looked for too, bytes: they fill memory many times over.
const ENCODED_BYTES_MAX: usize = 8 * 1024;

/// The automaton of all forms, and whose each is.
pub(super) struct Exact {
    pub(super) forms: AhoCorasick,
    /// Name for each form.
    pub(super) labels: Vec<String>,
    pub(super) longest: usize,
}

impl Exact {
    /// Of named values; `None` when there is nothing to look for.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let (mut forms, mut labels) = (Vec::new(), Vec::new());
        for (name, value) in values {
            for form in forms_of(value) {
                forms.push(form);
                labels.push(name.to_owned());
            }
        }
        let longest = forms.iter().map(Vec::len).max()?;
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms);
        // Fails only for more states than a 32-bit number counts, which bounds of secrets exclude.
        let forms = built.ok()?;
        Some(Self { forms, labels, longest })
    }
}

/// All forms of a value, without line ends in any.
fn forms_of(value: &str) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    for whole in [value, value.trim()] {
        // What is printed is found line by line, so a value of several lines is, too.
        forms.extend(whole.split(['\n', '\r']).map(|line| line.trim().as_bytes().to_vec()));
        for plain in whole.split(['\n', '\r']).chain([whole]) {
            if plain.len() > ENCODED_BYTES_MAX {
                continue;
            }
            forms.extend(json(plain));
            forms.extend(percent(plain.as_bytes()));
            forms.extend(base64(plain.as_bytes()));
            forms.insert(hex(plain.as_bytes(), b"0123456789abcdef"));
            forms.insert(hex(plain.as_bytes(), b"0123456789ABCDEF"));
        }
    }
    forms.retain(|form| {
        form.len() >= FORM_BYTES_MIN && !form.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
    });
    forms
}

/// As in a JSON string, with and without what only some writers escape; and that once more inside of JSON.
fn json(value: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for strict in [false, true] {
        let once = escape(value, strict);
        forms.push(escape(&once, false).into_bytes());
        forms.push(once.into_bytes());
    }
    forms
}

fn escape(value: &str, strict: bool) -> String {
    let mut escaped = String::with_capacity(value.len());
    for char in value.chars() {
        match char {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '<' | '>' | '&' | '\'' if strict => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            char if u32::from(char) < 0x20 || strict && !char.is_ascii() => {
                let mut units = [0; 2];
                for unit in char.encode_utf16(&mut units) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
            char => escaped.push(char),
        }
    }
    escaped
}

/// As in an address: with digits in both cases, and a space as `+`.
fn percent(value: &[u8]) -> [Vec<u8>; 3] {
    let encode = |digits: &[u8; 16], plus: bool| {
        let mut encoded = Vec::with_capacity(value.len());
        for byte in value {
            match byte {
                b'-' | b'_' | b'.' | b'~' => encoded.push(*byte),
                byte if byte.is_ascii_alphanumeric() => encoded.push(*byte),
                b' ' if plus => encoded.push(b'+'),
                byte => {
                    encoded.push(b'%');
                    encoded.extend(hex(&[*byte], digits));
                }
            }
        }
        encoded
    };
    [
        encode(b"0123456789ABCDEF", false),
        encode(b"0123456789abcdef", false),
        encode(b"0123456789ABCDEF", true),
    ]
}

/// As it stands in base64 of a text that holds it, wherever in there it begins: without the digits that also
/// hold bits of its neighbours.
fn base64(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for before in 0..3_usize {
        let mut text = vec![0; before];
        text.extend_from_slice(value);
        let whole = text.len() * 8 / 6;
        let first = (before * 8).div_ceil(6);
        for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            if let Some(form) = encoded.as_bytes().get(first..whole).filter(|form| form.len() >= 8)
            {
                forms.push(form.to_vec());
            }
        }
    }
    forms
}

fn hex(value: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    value
        .iter()
        .flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]])
        .collect()
}
