//! The gateway and the scripted provider, with real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests a panic is the right answer")]

mod budgets;
mod egress;
mod forwarding;
mod golden;
mod metering;
mod policy;
mod ratelimits;
mod redaction;
mod scripted_faults;
mod scripted_work;
mod shapes;
mod support;
