//! What an init may send, read from bytes, for the fuzzers; nothing of the product uses it. Bounded: by the caller.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{self, Frame, FromInit, GoAnswer, Peer};

/// A message to the launcher: what was understood of it, as it is sent.
#[must_use]
pub fn from_init(message: &[u8]) -> Option<Vec<u8>> {
    again::<FromInit>(message)
}

/// The answer to a server's Go: what was understood of it, as it is sent.
#[must_use]
pub fn go_answer(message: &[u8]) -> Option<Vec<u8>> {
    again::<GoAnswer>(message)
}

fn again<T: Serialize + DeserializeOwned>(message: &[u8]) -> Option<Vec<u8>> {
    let read: T = wire::decode(message, &mut Vec::new(), Peer::Init).ok()?;
    Some(Frame::new(&read, Vec::new()).ok()?.bytes().to_vec())
}
