//! What an agent is told of a project before its task, and what is taken out of everything that is kept and shown.
//!
//! Pure: bytes in, text out. No file is opened here and no clock is read; the caller hands in both. Bounded: what is read
//! of each file, the length of the result in tokens, and the time per byte, which is constant.

mod build;
pub mod preview;
pub mod scrub;

pub use build::{
    CONTEXT_FILE_BYTES_MAX, Day, PROFILES_COUNT_MAX, Profiles, Read, TOKEN_CHARS, Wanted,
    budget_tokens, build, tokens, wanted,
};
pub use scrub::{Finding, PatchScrubber, Redactions, Scrubbed, Scrubber, StreamScrubber};
