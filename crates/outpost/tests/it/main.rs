//! The real binary: help, errors, exit codes, configuration. What needs a running agent is tested end to
//! end elsewhere.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test like the tests themselves")]

mod access;
mod cli;
mod secrets;
mod serve;
