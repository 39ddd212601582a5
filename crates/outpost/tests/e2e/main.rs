//! The product from outside: the real binary, real agent CLIs in real sandboxes, the real client. The
//! model is the scripted provider, the only part that is not the real thing.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod agents;
mod backup;
mod canary;
mod context;
mod continues;
mod egress;
mod examples;
mod failures;
mod harness;
mod hostile;
mod input;
mod lifecycle;
mod mcp;
mod mcp_assistants;
mod money;
mod pool;
mod promote;
mod redirect;
mod restart;
#[path = "../../../outpost-server/tests/it/schemas.rs"]
mod schemas;
mod scrubbing;
#[path = "../../../outpost-promote/tests/it/standin.rs"]
#[expect(
    dead_code,
    clippy::expect_used,
    reason = "the tests of promotions themselves use the rest of it"
)]
mod standin;
mod versions;
mod webhooks;
mod workspaces;
