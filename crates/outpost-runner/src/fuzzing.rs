//! Doors for the fuzzers in `fuzz/`: how an agent's output becomes lines, live and again after a
//! restart. No part of the interface; nothing else may call it.

use std::ops::Range;

use outpost_types::LogStreamName;

pub use crate::lines::LineCutter;

/// Most bytes that are read of the log at once.
pub const PIECE_BYTES_MAX: usize = crate::output::MOVE_BYTES_MAX;

/// The index of a log whose streams change at these offsets, as it is written beside the log.
#[must_use]
pub fn index_of(changes: &[(u64, LogStreamName)]) -> Vec<u8> {
    crate::output::index_of(changes)
}

/// The pieces in which a next server reads a log of `end` bytes again.
#[must_use]
pub fn pieces_of(index: &[u8], end: u64) -> Vec<(LogStreamName, Range<u64>)> {
    crate::output::pieces_of(index, end)
}
