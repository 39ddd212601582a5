//! Time and randomness, handed in so that a test can hold both.

use std::time::SystemTime;

use outpost_types::Timestamp;

/// Where the engine gets time and randomness from.
pub trait World: Send + Sync + std::fmt::Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` from a cryptographic source.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's own clock and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl World for Machine {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel hands out randomness once it has booted");
    }
}
