//! The client against the real server over a backend in memory, through connections that break, and
//! against servers that are none of ours.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on should stop the test"
)]

mod harness;
#[path = "../../../outpost-server/tests/it/memory.rs"]
#[expect(dead_code, reason = "the tests of the server use the rest of it")]
mod memory;
#[path = "../../../outpost-server/tests/it/memory_access.rs"]
mod memory_access;
#[path = "../../../outpost-server/tests/it/memory_promote.rs"]
mod memory_promote;
#[path = "../../../outpost-server/tests/it/memory_webhooks.rs"]
mod memory_webhooks;
mod promote;
mod resume;
mod strangers;
mod webhooks;
mod whole;
