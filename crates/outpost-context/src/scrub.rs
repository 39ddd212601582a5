//! Taking secrets out of text: those of well-known shapes, and those that are known by value.
//!
//! Text is taken line by line, so what comes out does not depend on the pieces it came in: a line is given out when it
//! ends, or when it is [`WINDOW_BYTES_MAX`] long, and then all but its end, which may be the beginning of a secret.
//! A carriage return ends a line, too. Each rule looks a bounded way ahead, so the time is linear in the text.
//!
//! A mask stands for each secret: `[masked:<rule>]`, or the name of the value. It has no character that JSON escapes, so
//! a line of JSON stays one. Absent: a secret of no known shape that is split over two lines.

mod exact;
mod patch;
mod random;
mod rules;
mod stream;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use exact::Exact;

pub use patch::{FINDINGS_COUNT_MAX, Finding, PatchScrubber};
pub use stream::StreamScrubber;

/// Longest piece of a line that is looked at in one, bytes.
pub const WINDOW_BYTES_MAX: usize = 256 * 1024;
/// What is masked of a line whose values to mask cannot be known.
pub const WITHHELD: &str = "withheld";

/// What is to be masked. Cheap to clone; the values in it are shown by nothing.
#[derive(Clone, Default)]
pub struct Scrubber {
    exact: Option<Arc<Exact>>,
    withheld: bool,
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let forms = self.exact.as_ref().map_or(0, |exact| exact.labels.len());
        formatter.debug_struct("Scrubber").field("forms", &forms).finish_non_exhaustive()
    }
}

/// How often each rule masked something.
pub type Redactions = BTreeMap<String, u64>;

/// A text without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// What was masked in it.
    pub redactions: Redactions,
}

impl Scrubber {
    /// Masks secrets of known shape, and these values: (name, value), where the name is what a reader may see. Values
    /// of fewer than 6 bytes are not looked for.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { exact: Exact::of(values).map(Arc::new), withheld: false }
    }

    /// Masks every line: for text whose values to mask are not to be had.
    #[must_use]
    pub const fn withholding() -> Self {
        Self { exact: None, withheld: true }
    }

    /// One for a stream of bytes.
    #[must_use]
    pub fn stream(&self) -> StreamScrubber {
        StreamScrubber::new(self.clone())
    }

    /// One for a patch.
    #[must_use]
    pub fn patch(&self) -> PatchScrubber {
        PatchScrubber::new(self.clone())
    }

    /// A whole text.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Scrubbed<'a> {
        let mut stream = self.stream();
        let mut bytes = Vec::new();
        stream.push(text.as_bytes(), &mut bytes);
        stream.finish(&mut bytes);
        let redactions = stream.redactions().clone();
        let text = if redactions.is_empty() {
            Cow::Borrowed(text)
        } else {
            // A value may end within a character of the text; then that character is replaced.
            Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
        };
        Scrubbed { text, redactions }
    }

    /// The same in place; whether anything was masked.
    pub fn mask(&self, text: &mut String) -> bool {
        let masked = match self.text(text).text {
            Cow::Borrowed(_) => return false,
            Cow::Owned(masked) => masked,
        };
        *text = masked;
        true
    }
}

/// What stands for a secret of this rule or name.
#[must_use]
pub fn mask_of(label: &str) -> String {
    format!("[masked:{label}]")
}
