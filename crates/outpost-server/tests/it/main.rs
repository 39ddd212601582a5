//! The HTTP surface against a backend in memory, over real sockets on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on should stop the test"
)]

mod artifacts;
mod contract;
mod edge;
mod examples;
mod harness;
mod logs;
mod mcp;
mod memory;
mod memory_access;
mod memory_promote;
mod memory_webhooks;
mod promote;
mod requests;
mod schemas;
mod secrets;
mod stop;
mod streams;
