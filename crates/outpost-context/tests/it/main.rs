//! What is masked, what is not, and what an agent is told of a project.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod context;
mod patches;
mod secrets;
mod streams;
