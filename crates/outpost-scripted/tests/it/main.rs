//! The scripted provider, with real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests a panic is the right answer")]

mod golden;
mod scripted_faults;
mod scripted_work;
#[expect(dead_code, reason = "routes are of the gateway's tests, which share this")]
mod shapes;
mod support;
