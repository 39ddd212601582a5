//! Power cuts at the size of a test run.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod damage;
mod faults;
mod power;
