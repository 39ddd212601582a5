//! The gateway, with real sockets on loopback and the scripted provider behind it.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests a panic is the right answer")]

mod budgets;
mod egress;
mod forwarding;
mod metering;
mod policy;
mod ratelimits;
mod redaction;
#[path = "../../../outpost-scripted/tests/it/shapes.rs"]
#[expect(dead_code, reason = "the gateway looks at no tool calls")]
mod shapes;
mod support;
mod tools;
