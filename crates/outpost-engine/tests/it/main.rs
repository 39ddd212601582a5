//! The engine over a store that fails when it is told to, a runner that does what it is told, and a
//! clock that stands still until it is moved.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod faults;
mod follow;
mod network;
mod pass;
mod placing;
mod promote;
mod puppet;
mod retention;
#[path = "../../../outpost-promote/tests/it/standin.rs"]
#[expect(dead_code, reason = "the tests of promotions themselves use the rest of it")]
mod standin;
mod told;
mod usage;
mod vault;
mod waiting;
mod webhooks;
mod workspaces;
mod world;
