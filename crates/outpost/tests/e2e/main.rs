//! The product from outside: the real binary, real agent CLIs in real sandboxes, the real client. The
//! model is the scripted provider, the only part that is not the real thing.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod agents;
mod canary;
mod context;
mod continues;
mod egress;
mod failures;
mod harness;
mod hostile;
mod input;
mod lifecycle;
mod mcp;
mod money;
mod pool;
mod redirect;
mod restart;
mod scrubbing;
mod versions;
mod workspaces;
