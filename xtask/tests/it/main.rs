//! Tests of what development relies on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fuzzers;
