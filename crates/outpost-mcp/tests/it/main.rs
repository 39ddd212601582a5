//! The server as clients see it, over a pipe and with operations that are made up.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod client;
mod fake;
mod fake_access;
mod http;
mod refusals;
mod resources;
mod tools;
mod waiting;
