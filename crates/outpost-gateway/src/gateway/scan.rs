//! Finds a few fields at the top of a JSON request while it passes.
//!
//! A budget must not be dodged by the way a request is written, so the scan is strict: field names are compared
//! as a parser would after decoding escapes, and without regard to case, as some parsers do; a field that
//! comes twice, or bytes that are no JSON, are a problem, and the caller does not pass such a request on
//! while a limit is in force.
//!
//! Bounded: what is kept of a name and of a value. Absent: everything below the top, and full validation;
//! what is not valid JSON in other ways is the provider's to refuse.

use serde::Deserialize;

/// Longest field name that is looked at, bytes: the longest wanted one, with every character escaped.
const NAME_BYTES_MAX: usize = 14 * 6;
/// Longest value that is kept, bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Longest model name, bytes.
const MODEL_BYTES_MAX: usize = 128;
/// Deepest nesting; no parser of a provider goes as far.
const DEPTH_MAX: u32 = 10_000;

const FIELDS: [&str; 5] = ["model", "stream", "stream_options", "background", "deferred"];
const MODEL: usize = 0;
const STREAM: usize = 1;
const STREAM_OPTIONS: usize = 2;
const BACKGROUND: usize = 3;
/// What xAI calls it.
const DEFERRED: usize = 4;

/// Why a request cannot be understood for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanProblem {
    /// Not one JSON object in UTF-8.
    NotJson,
    /// A field comes twice.
    Twice,
    /// A field is longer than it can be.
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Before,
    /// In the top object, where a name may come.
    Name,
    /// After a name, before its value.
    Colon,
    Value,
    After,
}

/// What is known of a request so far.
#[derive(Debug, Default)]
pub(crate) struct RequestScan {
    place: Place,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Name of the current field, as written.
    name: Vec<u8>,
    /// The wanted field whose value passes.
    wanted: Option<usize>,
    value: Vec<u8>,
    found: [Option<Vec<u8>>; FIELDS.len()],
    problem: Option<ScanProblem>,
}

impl RequestScan {
    /// Looks at the next bytes. Says where in them the top object ends, if it does.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Option<usize> {
        let mut end = None;
        let mut at = 0;
        while at < piece.len() {
            if self.in_string {
                at += self.string(&piece[at..]);
                continue;
            }
            let before = self.place;
            self.plain(piece[at]);
            if before != Place::After && self.place == Place::After {
                end = Some(at);
            }
            at += 1;
        }
        end
    }

    /// Looks at bytes inside a string; says how many.
    fn string(&mut self, bytes: &[u8]) -> usize {
        let taken = if self.escaped {
            self.escaped = false;
            1
        } else {
            match memchr::memchr2(b'"', b'\\', bytes) {
                Some(at) if bytes[at] == b'"' => {
                    self.in_string = false;
                    at + 1
                }
                Some(at) => {
                    self.escaped = true;
                    at + 1
                }
                None => bytes.len(),
            }
        };
        match self.place {
            Place::Name => {
                let text = if self.in_string { &bytes[..taken] } else { &bytes[..taken - 1] };
                let room = (NAME_BYTES_MAX + 1).saturating_sub(self.name.len());
                self.name.extend_from_slice(&text[..text.len().min(room)]);
                if !self.in_string {
                    self.place = Place::Colon;
                }
            }
            _ => self.keep(&bytes[..taken]),
        }
        taken
    }

    fn plain(&mut self, byte: u8) {
        if byte.is_ascii_whitespace() {
            return;
        }
        match (self.place, byte) {
            (Place::Before, b'{') => (self.place, self.depth) = (Place::Name, 1),
            (Place::Name, b'"') => {
                self.in_string = true;
                self.name.clear();
            }
            (Place::Name, b'}') => self.place = Place::After,
            (Place::Name, b',') => {}
            (Place::Colon, b':') => {
                self.place = Place::Value;
                self.wanted = self.wanted_name();
                self.value.clear();
            }
            (Place::Value, b',') if self.depth == 1 => {
                self.value_end();
                self.place = Place::Name;
            }
            (Place::Value, b'}') if self.depth == 1 => {
                self.value_end();
                self.place = Place::After;
            }
            (Place::Value, _) => self.value_byte(byte),
            _ => self.found_problem(ScanProblem::NotJson),
        }
    }

    fn value_byte(&mut self, byte: u8) {
        self.keep(&[byte]);
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' if self.depth < DEPTH_MAX => self.depth += 1,
            b'}' | b']' if self.depth > 1 => self.depth -= 1,
            b',' | b':' | b'+' | b'-' | b'.' => {}
            _ if byte.is_ascii_alphanumeric() => {}
            _ => self.found_problem(ScanProblem::NotJson),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.wanted.is_some() {
            if self.value.len() + bytes.len() > VALUE_BYTES_MAX {
                self.found_problem(ScanProblem::TooLong);
                self.wanted = None;
            } else {
                self.value.extend_from_slice(bytes);
            }
        }
    }

    fn wanted_name(&mut self) -> Option<usize> {
        if self.name.len() > NAME_BYTES_MAX {
            return None;
        }
        let name = if self.name.contains(&b'\\') {
            let quoted = [b"\"", self.name.as_slice(), b"\""].concat();
            serde_json::from_slice::<String>(&quoted).ok()?
        } else {
            std::str::from_utf8(&self.name).ok()?.to_owned()
        };
        FIELDS.iter().position(|field| name.eq_ignore_ascii_case(field))
    }

    fn value_end(&mut self) {
        let Some(field) = self.wanted.take() else { return };
        if self.found[field].is_some() {
            self.found_problem(ScanProblem::Twice);
        }
        self.found[field] = Some(std::mem::take(&mut self.value));
    }

    fn found_problem(&mut self, problem: ScanProblem) {
        self.problem.get_or_insert(problem);
    }

    fn field<'a, T: Deserialize<'a>>(&'a self, field: usize) -> Option<T> {
        serde_json::from_slice(self.found[field].as_deref()?).ok()
    }

    /// What makes the request doubtful so far.
    pub(crate) fn problem(&self) -> Option<ScanProblem> {
        self.problem
    }

    /// Whether the top object has ended.
    pub(crate) fn is_whole(&self) -> bool {
        self.place == Place::After
    }

    /// The model it names, if that is a plain name.
    pub(crate) fn model(&self) -> Option<String> {
        let model: String = self.field(MODEL)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/+-".contains(&byte);
        let fits = (1..=MODEL_BYTES_MAX).contains(&model.len()) && model.bytes().all(plain);
        fits.then_some(model)
    }

    /// Whether it asks for a stream.
    pub(crate) fn streams(&self) -> bool {
        self.field(STREAM) == Some(true)
    }

    /// Whether it says anything about the stream, and whether that is that tokens are counted.
    pub(crate) fn counts_stream(&self) -> Option<bool> {
        #[derive(Deserialize)]
        struct Options {
            #[serde(default)]
            include_usage: bool,
        }
        self.found[STREAM_OPTIONS].as_ref()?;
        let options = self.field::<Option<Options>>(STREAM_OPTIONS).flatten();
        Some(options.is_some_and(|options| options.include_usage))
    }

    /// Whether the answer is to be made after the call has ended.
    pub(crate) fn is_background(&self) -> bool {
        let is_set = |value: &Vec<u8>| !matches!(value.as_slice(), b"false" | b"null");
        [BACKGROUND, DEFERRED].iter().any(|field| self.found[*field].as_ref().is_some_and(is_set))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &[u8]) -> RequestScan {
        let mut scan = RequestScan::default();
        scan.push(text);
        scan
    }

    #[test]
    fn the_top_fields_are_found_however_they_are_written() {
        let text = br#" {"messages":[{"model":"no","stream":true,"t":"\"model\":\"no\""}], "mod\u0065l" : "gpt-5.2" ,"stream":true,"stream_options":{"include_usage": true}}  "#;
        for at in 0..text.len() {
            let mut scan = RequestScan::default();
            let ends = [scan.push(&text[..at]), scan.push(&text[at..]).map(|end| end + at)];
            assert_eq!(ends.into_iter().flatten().collect::<Vec<_>>(), [text.len() - 3], "{at}");
            assert_eq!(scan.model().as_deref(), Some("gpt-5.2"));
            assert!(scan.streams() && scan.is_whole() && !scan.is_background());
            assert_eq!((scan.counts_stream(), scan.problem()), (Some(true), None));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_a_problem() {
        let problem = |text: &[u8]| scan(text).problem();
        assert_eq!(problem(br#"{"model":"a","Model":"b"}"#), Some(ScanProblem::Twice));
        assert_eq!(problem(br#"{"stream":true,"stre\u0061m":false}"#), Some(ScanProblem::Twice));
        for text in [
            &b"[]"[..],
            b"\xef\xbb\xbf{}",
            b"{\0\"\0}",
            b"{} {}",
            b"{'model':'a'}",
            b"model=a",
            b"{\"a\":1}x",
        ] {
            assert_eq!(problem(text), Some(ScanProblem::NotJson), "{text:?}");
        }
        let long = format!("{{\"model\":\"{}\"}}", "x".repeat(2000));
        assert_eq!(problem(long.as_bytes()), Some(ScanProblem::TooLong));
        assert_eq!(problem(br#"{"a":{"b":[1,-2.5e+3,null,"\\"]},"c":"}"}"#), None);
    }

    #[test]
    fn a_background_call_and_a_stream_that_is_not_counted_are_seen() {
        assert!(scan(br#"{"background":true}"#).is_background());
        assert!(scan(br#"{"BACKGROUND": 1 }"#).is_background());
        assert!(scan(br#"{"deferred":true}"#).is_background());
        assert!(!scan(br#"{"background":false}"#).is_background());
        for text in [
            r#"{"stream_options":{"include_usage":false}}"#,
            r#"{"stream_options":null}"#,
            r#"{"stream_options":1}"#,
        ] {
            assert_eq!(scan(text.as_bytes()).counts_stream(), Some(false), "{text}");
        }
        assert_eq!(scan(b"{}").counts_stream(), None);
        assert_eq!(scan(br#"{"model":"<script>"}"#).model(), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_parser(
            fields in proptest::collection::btree_map("[a-z\"\\\\é]{0,6}", ".{0,8}", 0..6),
            model in proptest::option::of("[a-z0-9.-]{1,20}"),
            size in 1..9_usize,
        ) {
            let mut object = serde_json::Map::new();
            for (name, value) in fields {
                object.insert(name, serde_json::json!({"model": value, "x": [value]}));
            }
            if let Some(model) = &model {
                object.insert("model".into(), serde_json::json!(model));
            }
            let named = object.get("model").and_then(|model| model.as_str().map(str::to_owned));
            let text = serde_json::Value::Object(object).to_string();
            let mut scan = RequestScan::default();
            for piece in text.as_bytes().chunks(size) {
                scan.push(piece);
            }
            prop_assert_eq!(scan.problem(), None, "{}", text);
            prop_assert!(scan.is_whole());
            prop_assert_eq!(scan.model(), named);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let scan = scan(&bytes);
            let _ = (scan.model(), scan.counts_stream(), scan.is_background());
        }
    }
}
