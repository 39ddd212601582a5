//! Promotions against a real git server over HTTP and a stand-in of the code hosts' APIs, both on this machine.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

mod answers;
mod feedback;
mod standin;
