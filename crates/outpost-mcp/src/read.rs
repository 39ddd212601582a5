//! Pieces of streams, by bytes: the beginning, or the end, and where they lie.

use std::collections::VecDeque;

use futures_util::StreamExt as _;
use outpost_terminal::sanitize;
use outpost_types::{ApiError, ByteStream};

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its bytes; whole characters, as far as the stream is text.
    pub(crate) bytes: Vec<u8>,
    /// Where it begins in the stream.
    pub(crate) from: u64,
    /// Whether something follows it.
    pub(crate) more: bool,
}

impl Piece {
    /// Where it ends in the stream.
    pub(crate) const fn end(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }

    /// Its text without what a terminal would obey.
    pub(crate) fn text(&self) -> String {
        sanitize::with_tabs(&String::from_utf8_lossy(&self.bytes))
    }
}

/// The first `bytes_max` bytes of a stream that begins at `from`. The rest is not asked for.
pub(crate) async fn head(
    mut stream: ByteStream,
    from: u64,
    bytes_max: usize,
) -> Result<Piece, ApiError> {
    let mut bytes = Vec::new();
    let mut more = false;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let room = bytes_max - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            more = true;
            break;
        }
    }
    if more {
        bytes.truncate(whole_characters(&bytes));
    }
    Ok(Piece { bytes, from, more })
}

/// The last `bytes_max` bytes of a stream that begins at `from`, from the beginning of a line where there is one.
/// The stream is read to its end, so it must begin near that; no more than the piece is kept.
pub(crate) async fn tail(
    mut stream: ByteStream,
    from: u64,
    bytes_max: usize,
) -> Result<Piece, ApiError> {
    let mut kept: VecDeque<u8> = VecDeque::new();
    let mut total = from;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        total += chunk.len() as u64;
        let useful = &chunk[chunk.len().saturating_sub(bytes_max)..];
        let excess = (kept.len() + useful.len()).saturating_sub(bytes_max);
        kept.drain(..excess.min(kept.len()));
        kept.extend(useful);
    }
    let mut bytes = Vec::from(kept);
    if total > bytes.len() as u64 {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let start = if line < bytes.len() { line } else { 0 };
        // Without a line in it, at least not within a character.
        let start =
            start + bytes[start..].iter().take_while(|byte| is_continuation(**byte)).count();
        bytes.drain(..start);
    }
    let from = total - bytes.len() as u64;
    Ok(Piece { bytes, from, more: false })
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Length of `bytes` without a character that is cut at their end.
pub(crate) fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// The beginning of a text, and whether something is missing.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    let text = sanitize::with_tabs(text);
    if text.len() <= bytes_max {
        return text;
    }
    let end = whole_characters(&text.as_bytes()[..bytes_max]);
    format!("{}… ({} more bytes)", &text[..end], text.len() - end)
}

/// The end of a text, and whether something is missing.
pub(crate) fn end_of(text: &str, bytes_max: usize) -> String {
    let text = sanitize::with_tabs(text);
    let Some(excess) = text.len().checked_sub(bytes_max).filter(|excess| *excess > 0) else {
        return text;
    };
    let start = (excess..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("({start} bytes before) …{}", &text[start..])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    fn stream_of(chunks: &[&str]) -> ByteStream {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok(Bytes::copy_from_slice(chunk.as_bytes()))).collect();
        Box::pin(stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_head_ends_with_a_whole_character_and_says_that_more_follows() {
        let piece = head(stream_of(&["abc", "dé", "f"]), 10, 5).await.unwrap();
        assert_eq!((piece.text().as_str(), piece.more, piece.end()), ("abcd", true, 14));
        let whole = head(stream_of(&["abc", "dé"]), 0, 6).await.unwrap();
        assert_eq!((whole.text().as_str(), whole.more), ("abcdé", false));
    }

    #[tokio::test]
    async fn a_tail_begins_with_a_line_and_knows_where() {
        let chunks = ["first\nsec", "ond\nthi", "rd\n"];
        let piece = tail(stream_of(&chunks), 0, 12).await.unwrap();
        assert_eq!((piece.text().as_str(), piece.from), ("third\n", 13));
        let whole = tail(stream_of(&chunks), 0, 100).await.unwrap();
        assert_eq!((whole.text().as_str(), whole.from), ("first\nsecond\nthird\n", 0));
        let without_lines = tail(stream_of(&["ééé", "éé"]), 0, 3).await.unwrap();
        assert_eq!((without_lines.text().as_str(), without_lines.from), ("é", 8));
    }

    #[test]
    fn what_is_cut_says_so_and_escapes_are_gone() {
        assert_eq!(shortened("a\u{1b}[31mb", 10), "ab");
        assert_eq!(shortened("abcé", 4), "abc… (2 more bytes)");
        assert_eq!(end_of("éabc", 4), "(2 bytes before) …abc");
        assert_eq!(end_of("abc", 3), "abc");
    }
}
