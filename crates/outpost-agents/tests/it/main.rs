//! Tests of the agents through their public interface: golden readings of real output, what each is
//! started with, declared agents, installations, verdicts, and hostile output.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod custom;
mod golden;
mod hostile;
mod installed;
mod invocation;
mod verdict;
