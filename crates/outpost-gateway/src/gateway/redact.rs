//! Replaces a secret in a stream of bytes, also when it is split over several pieces.
//!
//! Each byte of the secret becomes `*`, so lengths stay true and JSON stays JSON. Only the end of a piece that
//! could be the beginning of the secret is held back, so ordinary pieces pass at once and uncopied.
//! Absent: encoded forms of the secret (base64, percent).

use bytes::Bytes;
use memchr::memmem::Finder;

/// What stands in for a byte of a secret.
const MASK: u8 = b'*';

/// Holds the secret and the bytes that may be its beginning. Not `Debug` on purpose: see the fields.
pub(crate) struct Redactor {
    finder: Finder<'static>,
    held: Vec<u8>,
}

impl Redactor {
    /// A secret must not be empty; [`super::Credential`] takes care of that.
    pub(crate) fn new(secret: &str) -> Self {
        Self { finder: Finder::new(secret.as_bytes()).into_owned(), held: Vec::new() }
    }

    /// What can be passed on after this piece has arrived; may be empty.
    pub(crate) fn push(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() && self.finder.find(&piece).is_none() {
            let keep = self.beginning_at_end(&piece);
            self.held.extend_from_slice(&piece[piece.len() - keep..]);
            return piece.slice(..piece.len() - keep);
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(&piece);
        self.mask(&mut bytes);
        let keep = self.beginning_at_end(&bytes);
        self.held = bytes.split_off(bytes.len() - keep);
        Bytes::from(bytes)
    }

    /// What was held back, at the end of the stream: it did not become the secret.
    pub(crate) fn finish(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.held))
    }

    /// The text with the secret masked; `None` when the secret is not in it.
    pub(crate) fn text(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.finder.find(bytes)?;
        let mut bytes = bytes.to_vec();
        self.mask(&mut bytes);
        Some(bytes)
    }

    fn mask(&self, bytes: &mut [u8]) {
        let length = self.finder.needle().len();
        let mut from = 0;
        while let Some(at) = self.finder.find(&bytes[from..]) {
            bytes[from + at..from + at + length].fill(MASK);
            from += at + length;
        }
    }

    /// Length of the longest end of `bytes` with which the secret begins.
    fn beginning_at_end(&self, bytes: &[u8]) -> usize {
        let secret = self.finder.needle();
        let longest = bytes.len().min(secret.len() - 1);
        let end = &bytes[bytes.len() - longest..];
        let starts = memchr::memchr_iter(secret[0], end);
        starts
            .map(|start| &end[start..])
            .find(|tail| secret.starts_with(tail))
            .map_or(0, <[u8]>::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk-sk-secret-1";

    fn run(pieces: &[&[u8]]) -> String {
        let mut redactor = Redactor::new(SECRET);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&redactor.push(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&redactor.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_split_is_caught_and_nothing_else_changes() {
        let text = format!("a sk-sk-s {SECRET}{SECRET} sk-{SECRET} sk-sk-secret- end sk-");
        let expected = text.replace(SECRET, &"*".repeat(SECRET.len()));
        let bytes = text.as_bytes();
        assert_eq!(run(&[bytes]), expected);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(run(&pieces), expected, "{first} {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(run(&single), expected);
    }

    #[test]
    fn ordinary_pieces_pass_at_once() {
        let mut redactor = Redactor::new(SECRET);
        let piece = Bytes::from_static(b"data: {\"text\":\"ask\"}\n\n");
        let out = redactor.push(piece.clone());
        assert_eq!(out, piece);
        assert_eq!(out.as_ptr(), piece.as_ptr());
        assert!(redactor.finish().is_empty());
    }

    #[test]
    fn texts_are_masked() {
        let redactor = Redactor::new(SECRET);
        assert_eq!(redactor.text(b"plain"), None);
        assert_eq!(redactor.text(b"x sk-sk-secret-1").unwrap(), b"x **************");
    }
}
