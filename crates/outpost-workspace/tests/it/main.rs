//! The crate against real git: sources on this disk, agents played by plain git commands, the collect job run directly.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

mod apply;
mod caching;
mod collecting;
mod hostile;
mod layers;
mod persistent;
mod preparing;
mod process;
mod setup;
mod world;
