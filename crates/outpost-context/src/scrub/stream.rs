//! Scrubbing a stream of bytes that arrives in pieces.

use memchr::{memchr2, memrchr2};

use super::rules::{LOOK_BYTES_MAX, NAMED, PRIVATE_KEY, RULES};
use super::{Redactions, Scrubber, WINDOW_BYTES_MAX, WITHHELD, mask_of};

/// Most lines of a private key, and longest such line, bytes; real ones have 64 to 76.
const KEY_LINES_MAX: u32 = 500;
const KEY_LINE_BYTES_MAX: usize = 256;

/// Something to be masked, or the end of such: offsets are bytes of the block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'a> {
    label: &'a str,
    /// Where the text begins that tells it.
    from: usize,
    start: usize,
    end: usize,
}

/// Scrubs one stream. What it holds is bounded by [`WINDOW_BYTES_MAX`].
#[derive(Debug)]
pub struct StreamScrubber {
    pub(super) scrubber: Scrubber,
    /// The line that has not ended.
    pending: Vec<u8>,
    /// Lines that a private key may still have; zero outside of one.
    pub(super) key_lines: u32,
    redactions: Redactions,
}

impl StreamScrubber {
    pub(super) fn new(scrubber: Scrubber) -> Self {
        Self { scrubber, pending: Vec::new(), key_lines: 0, redactions: Redactions::new() }
    }

    /// How often each rule masked something so far.
    #[must_use]
    pub const fn redactions(&self) -> &Redactions {
        &self.redactions
    }

    /// Takes the next bytes and appends to `out` what can be given out by now.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = (WINDOW_BYTES_MAX - self.pending.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            match memrchr2(b'\n', b'\r', now) {
                Some(last) => {
                    let (ended, begun) = now.split_at(last + 1);
                    if self.pending.is_empty() {
                        self.lines(ended, out);
                    } else {
                        let mut block = std::mem::take(&mut self.pending);
                        block.extend_from_slice(ended);
                        self.lines(&block, out);
                        block.clear();
                        self.pending = block;
                    }
                    self.pending.extend_from_slice(begun);
                }
                None => self.pending.extend_from_slice(now),
            }
            if self.pending.len() >= WINDOW_BYTES_MAX {
                self.cut(out);
            }
            bytes = later;
        }
    }

    /// Appends the rest: a last line without an end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let rest = std::mem::take(&mut self.pending);
        self.lines(&rest, out);
        self.key_lines = 0;
    }

    /// Gives out the beginning of a line that is too long to wait for its end.
    fn cut(&mut self, out: &mut Vec<u8>) {
        let block = std::mem::take(&mut self.pending);
        let (spans, key_lines) = spans(&self.scrubber, &block, self.key_lines, |_| true);
        let longest = self.scrubber.exact.as_ref().map_or(0, |exact| exact.longest);
        let keep = LOOK_BYTES_MAX.max(longest).min(WINDOW_BYTES_MAX / 4 * 3);
        let mut end = block.len() - keep;
        // What begins before it and ends behind it goes out whole.
        for span in &spans {
            if span.from < end && span.end > end {
                end = span.end;
            }
        }
        write(&block[..end], &spans, out, &mut self.redactions);
        self.key_lines = key_lines;
        self.pending = block[end..].to_vec();
    }

    fn lines(&mut self, block: &[u8], out: &mut Vec<u8>) {
        if self.scrubber.withheld {
            withhold(block, out, &mut self.redactions);
            return;
        }
        let (spans, key_lines) = spans(&self.scrubber, block, self.key_lines, |_| true);
        write(block, &spans, out, &mut self.redactions);
        self.key_lines = key_lines;
    }

    /// One line of a patch, for which not every rule holds.
    pub(super) fn patch_line(&mut self, line: &[u8], rules: bool, out: &mut Vec<u8>) {
        if let ([b'+', added @ ..], true, true) = (line, rules, self.scrubber.withheld) {
            out.push(b'+');
            return withhold(added, out, &mut self.redactions);
        }
        let wanted = |rule: &'static str| rules && rule != NAMED;
        if !rules {
            self.key_lines = 0;
        }
        let (spans, key_lines) = spans(&self.scrubber, line, self.key_lines, wanted);
        write(line, &spans, out, &mut self.redactions);
        self.key_lines = if rules { key_lines } else { 0 };
    }
}

/// Whether a line has a value whose name says that it is secret.
pub(super) fn has_named(line: &[u8]) -> bool {
    RULES.next(line, 0, |rule| rule == NAMED).is_some()
}

fn withhold(block: &[u8], out: &mut Vec<u8>, redactions: &mut Redactions) {
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        let end = line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len);
        if end > 0 {
            out.extend_from_slice(mask_of(WITHHELD).as_bytes());
            *redactions.entry(WITHHELD.to_owned()).or_default() += 1;
        }
        out.extend_from_slice(&line[end..]);
    }
}

/// Everything to be masked in whole lines, in order and without overlaps, and how many lines a private key may still
/// have at their end.
fn spans<'a>(
    scrubber: &'a Scrubber,
    block: &[u8],
    mut key_lines: u32,
    wanted: impl Fn(&'static str) -> bool,
) -> (Vec<Span<'a>>, u32) {
    let mut found = Vec::new();
    let mut at = 0;
    while at < block.len() {
        if key_lines > 0 {
            let end = line_end(block, at);
            let (span, open) = key_line(&block[at..end], at);
            key_lines = if open { key_lines - 1 } else { 0 };
            // What is no line of a key is looked at like any other.
            at = if open { end } else { span.map_or(at, |span| span.end) };
            found.extend(span);
            continue;
        }
        let Some(next) = RULES.next(block, at, &wanted) else { break };
        let mut span = Span { label: next.rule, from: next.from, start: next.start, end: next.end };
        at = next.end;
        if next.rule == PRIVATE_KEY {
            let line_end = line_end(block, next.end);
            let (length, open) = key_rest(&block[next.end..line_end]);
            span.end += length;
            at = if open { line_end } else { span.end };
            key_lines = if open { KEY_LINES_MAX } else { 0 };
        }
        found.push(span);
    }
    if let Some(exact) = &scrubber.exact {
        let known = exact.forms.find_iter(block).map(|form| Span {
            label: &exact.labels[form.pattern().as_usize()],
            from: form.start(),
            start: form.start(),
            end: form.end(),
        });
        let mut known = known.collect::<Vec<_>>();
        if !known.is_empty() {
            // Of two that are the same, the known value gives the name.
            known.append(&mut found);
            found = merged(known);
        }
    }
    (found, key_lines)
}

/// Joins what overlaps, under the name of what begins first.
fn merged(mut spans: Vec<Span<'_>>) -> Vec<Span<'_>> {
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut joined: Vec<Span<'_>> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start < last.end => {
                last.end = last.end.max(span.end);
                last.from = last.from.min(span.from);
            }
            _ => joined.push(span),
        }
    }
    joined
}

fn write(block: &[u8], spans: &[Span<'_>], out: &mut Vec<u8>, redactions: &mut Redactions) {
    let mut at = 0;
    for span in spans.iter().filter(|span| span.end <= block.len()) {
        out.extend_from_slice(&block[at..span.start]);
        out.extend_from_slice(mask_of(span.label).as_bytes());
        match redactions.get_mut(span.label) {
            Some(count) => *count += 1,
            None => drop(redactions.insert(span.label.to_owned(), 1)),
        }
        at = span.end;
    }
    out.extend_from_slice(&block[at..]);
}

/// Where the line that `from` is in ends, behind its end.
fn line_end(block: &[u8], from: usize) -> usize {
    memchr2(b'\n', b'\r', &block[from..]).map_or(block.len(), |at| from + at + 1)
}

/// How much of the line behind the head of a private key is of the key, and whether it goes on in the next line.
fn key_rest(rest: &[u8]) -> (usize, bool) {
    let text = rest.strip_suffix(b"\n").or_else(|| rest.strip_suffix(b"\r")).unwrap_or(rest);
    // Inside of JSON and the like the whole key is in one line.
    let of_key = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'+' | b'/' | b'=' | b'\\' | b' ' | b'-' | b':' | b',' | b'_')
    };
    let length = text.iter().take_while(|byte| of_key(byte)).count();
    match key_end(&text[..length]) {
        Some(end) => (end, false),
        None => (length, length == text.len()),
    }
}

/// Behind the foot of a private key.
fn key_end(text: &[u8]) -> Option<usize> {
    let foot = memchr::memmem::find(text, b"-----END ")?;
    let dashes = memchr::memmem::find(&text[foot + 9..], b"-----")?;
    Some(foot + 9 + dashes + 5)
}

/// A line inside of a private key, which begins at `at`: what of it is masked, and whether the key goes on.
fn key_line<'a>(line: &[u8], at: usize) -> (Option<Span<'a>>, bool) {
    let text = line.strip_suffix(b"\n").or_else(|| line.strip_suffix(b"\r")).unwrap_or(line);
    // Before it may stand what tools put there: an indent, the number of the line, the sign of a patch.
    let sign = match text {
        [b'-', b'-', ..] => 0,
        [b'+' | b'-' | b'>' | b'|', ..] => 1,
        _ => 0,
    };
    let margin = text[sign..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count() + sign;
    let number = text[margin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let start = match text[margin + number..].first() {
        Some(b'\t' | b':' | b'|') => margin + number + 1,
        _ => margin,
    };
    let body = &text[start..];
    let span = |end| Span { label: PRIVATE_KEY, from: at, start: at + start, end: at + end };
    if let Some(end) = key_end(body) {
        return (Some(span(start + end)), false);
    }
    let is_body = body.len() <= KEY_LINE_BYTES_MAX
        && body
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\'));
    let is_header = body.starts_with(b"Proc-Type:")
        || body.starts_with(b"DEK-Info:")
        || body.starts_with(b"Version:")
        || body.starts_with(b"Comment:");
    let masked = (!body.is_empty()).then(|| span(text.len()));
    if is_body || is_header { (masked, true) } else { (None, false) }
}
