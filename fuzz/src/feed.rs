//! Reading an input as a list of decisions, and letting a short input stand for a long one.

/// Longest output that one input stands for, bytes: some lines over their bound, and several pieces.
pub const GROWN_BYTES_MAX: usize = 640 * 1024;
/// After this byte the next one says how many bytes of one letter follow.
const GROW: u8 = 0xff;
/// Bytes for each step of that next byte; 255 of them are just under a line's bound of 256 KiB.
const GROW_BYTES: usize = 1_028;

/// What is left of an input. At its end it yields zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feed<'a>(pub(crate) &'a [u8]);

impl<'a> Feed<'a> {
    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// The next `count` bytes, or fewer at the end.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let head = self.bytes(8);
        bytes[..head.len()].copy_from_slice(head);
        u64::from_le_bytes(bytes)
    }

    /// Whether nothing is left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The bytes an input stands for, at most [`GROWN_BYTES_MAX`].
pub(crate) fn grown(input: &[u8]) -> Vec<u8> {
    let mut feed = Feed(input);
    let mut out = Vec::new();
    while !feed.is_empty() && out.len() < GROWN_BYTES_MAX {
        match feed.byte() {
            GROW => {
                let count = usize::from(feed.byte()) * GROW_BYTES;
                out.resize((out.len() + count).min(GROWN_BYTES_MAX), b'x');
            }
            byte => out.push(byte),
        }
    }
    out
}

/// Cuts `bytes` into pieces whose lengths follow from `seed`; short ones only where there are few.
pub(crate) fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let longest = if seed.is_multiple_of(2) && bytes.len() < 8 * 1024 { 7 } else { 70_000 };
    let mut state = u64::from(seed) + 1;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = usize::try_from(state >> 40).unwrap_or(0) % longest + 1;
        let (piece, left) = rest.split_at(length.min(rest.len()));
        rest = left;
        Some(piece)
    })
}
